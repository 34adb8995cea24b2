"""What a session may ask of the connection, and what the connection may ask of a session."""

from __future__ import annotations

from typing import Protocol

from msgspec import Raw

from bullmq_proxy.gateway.wire.closing import CloseCode


class Client(Protocol):
    """The way to the client."""

    def send(self, *parts: bytes | Raw) -> None:
        """Send one text message, in parts or whole; all messages of one turn of the loop leave in one write."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection."""

    def hold(self) -> None:
        """Read nothing more for now: TCP then slows the client down."""

    def proceed(self) -> None:
        """Read again."""

    @property
    def unread(self) -> int:
        """Bytes that were sent and that the client has not taken yet."""

    async def drained(self) -> None:
        """Wait until the client has read most of what was sent."""


class Session(Protocol):
    """The server's side of one WebSocket connection."""

    async def prepare(self) -> None:
        """Do what must be done before the handshake is answered; a GatewayError refuses the connection."""

    def start(self) -> None:
        """The connection is open."""

    def received(self, message: bytes) -> None:
        """A text message has come: valid UTF-8, within the size limit."""

    def received_late(self, message: bytes) -> None:
        """A text message has come after we began to close, of which the client cannot have known."""

    def closed(self) -> None:
        """The connection is gone, or was never opened."""

    def drain(self, deadline: float) -> None:
        """The shard goes away in `deadline` seconds: finish, take nothing new."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, so that the connection can be closed without loss."""
