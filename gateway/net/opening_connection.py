"""A connection until its handshake is answered: the request's head, and refusals that every client can read."""

from __future__ import annotations

from typing import Any, Final, cast

from websockets.asyncio.messages import Assembler
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response
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
        self._half_closed = False  # the client sends no more, and reads the answer
        self.drain_waiters = []  # type: ignore[assignment] # a deque of the library's, empty: 600 bytes

    def receive_head(self, head: bytearray, data: bytes) -> None:
        """Collect the request's head."""
        if self._refused or self.protocol.eof_sent:
            return  # what a refused client goes on sending; closing at once would take the answer from it
        head += data
        if self.request is not None:
            if len(head) > opening.HEAD_LIMIT:  # frames before the handshake is answered
                self.pause_socket()
            return
        match opening.judge(head, data):
            case Request() as request:
                super().process_event(request)
            case Response() as refusal:
                self._refuse(refusal)

    def _refuse(self, response: Response) -> None:
        """Answer instead of the library. The client closes, or the time for the handshake is up."""
        self._refused = True
        self.transport.write(response.serialize())
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def eof_received(self) -> bool | None:  # type: ignore[override] # the library never keeps the other half open
        """Note that the client will send no more; True keeps our half open for a page (RFC 9112 §9.6)."""
        is_page = self.head is not None and self.request is not None and "Upgrade" not in self.request.headers
        if is_page and not self.protocol.eof_sent:
            self._half_closed = True
            return True
        super().eof_received()
        return None

    def send_data(self) -> None:
        """Write what the library has to send."""
        super().send_data()
        if self._half_closed:
            self.transport.close()

    def forget_handshake(self) -> None:
        """Drop what an open connection needs no more: half of its memory, the client's key, and cycles of references.

        The library reads none of it once it has handed the connection over; `request` and `response` are for
        applications, `recv_messages` for those that read messages from its queue.
        """
        self.request = self.response = None
        self.recv_messages = _NO_QUEUE
        self.protocol.logger = self.logger = self.server.logger
        # The library's parser still waits for a head, which it never gets to see.
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
