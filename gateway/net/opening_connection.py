"""A connection until its handshake is answered."""

from __future__ import annotations

from typing import Any, Final, cast

from websockets.asyncio.messages import Assembler
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request
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
        self.early: bytearray | None = bytearray()  # what has come before the handshake is answered
        self.drain_waiters = []  # type: ignore[assignment] # a deque of the library's, empty: 600 bytes

    def begin(self, request: Request, early: bytes) -> None:
        """Take a request whose head was read; `early` is what has come behind it."""
        super().process_event(request)
        if early and self.early is not None:
            self.receive_early(self.early, early)

    def receive_early(self, early: bytearray, data: bytes) -> None:
        """Keep frames for the time when the handshake is answered."""
        if self.protocol.eof_sent:
            return  # what a refused client goes on sending
        early += data
        if len(early) > opening.HEAD_LIMIT:
            self.pause_socket()

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
