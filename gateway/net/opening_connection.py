"""A connection until its handshake is answered: the request's head, and refusals that every client can read."""

from __future__ import annotations

from typing import Any, Final, cast

from websockets.asyncio.messages import Assembler
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Response
from websockets.protocol import Protocol

from bullmq_proxy.gateway.net import opening


class _NoQueue:
    """Stands for the library's queue of messages, which an open connection does not use."""

    def close(self) -> None:
        """Do nothing: nothing waits in it."""


_NO_QUEUE: Final = cast("Assembler", _NoQueue())


class OpeningConnection(ServerConnection):
    """The library's connection, with an opening part of our own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Make a connection; `args` and `options` are those of the library."""
        super().__init__(*args, **options)
        self.head: bytearray | None = bytearray()  # the request's head, then what comes before the handshake has ended
        self._refused = False
        self.drain_waiters = []  # type: ignore[assignment] # a deque of the library's, empty: 600 bytes

    def receive_head(self, head: bytearray, data: bytes) -> None:
        """Collect the request's head. Only when it is whole, and nothing else, is it the library's."""
        if self._refused or self.protocol.eof_sent:
            return  # what a refused client goes on sending; closing at once would take the answer from it
        head += data
        if self.request is not None:
            if len(head) > opening.HEAD_LIMIT:  # frames before the handshake is answered
                self.pause_socket()
            return
        if refusal := opening.judge(head):
            self._refuse(refusal)
        elif end := opening.end_of_head(head):
            request = bytes(head[:end])
            del head[:end]
            self._receive_request(request)

    def _receive_request(self, request: bytes) -> None:
        self.protocol.receive_data(request)
        events = self.protocol.events_received()
        if events:
            super().process_event(events[0])
        else:
            self.protocol.data_to_send()  # the library's own answer, if any
            self._refuse(opening.refusal_of(self.protocol.handshake_exc))

    def _refuse(self, response: Response) -> None:
        """Answer instead of the library. The client closes, or the time for the handshake is up."""
        self._refused = True
        self.transport.write(response.serialize())
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def forget_handshake(self) -> None:
        """Drop what an open connection needs no more: half of its memory, the client's key, and cycles of references.

        The library reads none of it once it has handed the connection over; `request` and `response` are for
        applications, `recv_messages` for those that read messages from its queue.
        """
        self.request = self.response = None
        self.recv_messages = _NO_QUEUE
        self.protocol.__dict__.pop("select_subprotocol", None)
        self.protocol.logger = self.logger = self.server.logger
        # The parser's frame holds the request. It has seen the head and not a byte behind it: a new one can go on.
        self.protocol.parser = Protocol.parse(self.protocol)
        next(self.protocol.parser)

    def pause_socket(self) -> None:
        """Read no more from the socket."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_socket(self) -> None:
        """Read from the socket again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()
