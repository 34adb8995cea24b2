"""A stream of server-sent events: the client of an Events session, for those who ask by HTTP (HTML standard §9.2)."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Raw
from websockets.datastructures import Headers
from websockets.http11 import Request

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.flushing import flush_soon
from bullmq_proxy.gateway.net.dates import date
from bullmq_proxy.gateway.net.exchange import SERVER, refusal, with_lines
from bullmq_proxy.gateway.net.places import Place
from bullmq_proxy.gateway.net.responding_connection import LINGER, RespondingConnection
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.sessions.interfaces import Session

HEARTBEAT: Final = 15.0
"""Seconds without an event after which a comment is sent: so a client that is gone is noticed, by proxies too."""

TYPE: Final = "text/event-stream"
_HEAD: Final = (
    "HTTP/1.1 200 OK\r\nDate: {}\r\nServer: {}\r\nContent-Type: {}\r\nCache-Control: no-store\r\n"
    "X-Accel-Buffering: no\r\nConnection: close\r\n{}\r\n"
)


def accepts_stream(headers: Headers) -> bool:
    """Return whether a request asks for a stream of events."""
    wanted = ",".join(headers.get_all("Accept")).lower().split(",")
    return any(part.partition(";")[0].strip() == TYPE for part in wanted)


class EventStream(RespondingConnection):
    """The server's end of a connection that has become a stream; it ends with the connection."""

    def __init__(
        self, shared: Shared, transport: asyncio.Transport, address: str, request: Request, more: bytes
    ) -> None:
        """Take a socket over; `more` are header lines of the response."""
        super().__init__(shared, transport)
        self.address = address
        self.place: Place | None = None
        self.request = request
        self.session: Session | None = None
        self.account: Account | None = None
        self._more = more
        self._opening: asyncio.Task[None] | None = None

    def begin(self, session: Session, account: Account, queue: str) -> None:
        """Open the stream of a queue once the session is prepared."""
        self.session, self.account, self.place = session, account, self._shared.places.of("events", queue)
        self.transport.set_protocol(self)
        self.transport.resume_reading()  # to learn of its end
        self._shared.unopened.enter(self)
        self._shared.unopened.opened(self)
        self._shared.http.add(self)
        self._opening = asyncio.create_task(self._open(session), name="event stream")

    async def _open(self, session: Session) -> None:
        try:
            await session.prepare()
        except GatewayError as error:
            self._out.append(with_lines(refusal(error), self._more).serialize())
            self._ending = True
            self._flush()
        else:
            head = _HEAD.format(date(), SERVER, TYPE, self._more.decode("latin-1"))
            self.transport.write(head.encode("latin-1"))
            session.start()

    # The client of the session

    def send_event(self, number: int, data: bytes, id: str) -> None:
        """Send an event; stored JSON in it may have more than one line."""
        name = b"id: %b\n" % id.encode() if id else b""
        self.send(name, b"data: ", data.replace(b"\r", b" ").replace(b"\n", b"\ndata: "), b"\n\n")

    def send(self, *parts: bytes | Raw) -> None:
        """Send text; all that is sent in one turn of the loop leaves in one write."""
        if not self.is_open:
            return
        if not self._out:
            flush_soon(self.loop, self._flush)
        self._out.extend(parts)
        self._out_size += sum(map(len, parts))
        self._since = self.loop.time()
        if self._out_size > self._shared.max_write_buffer:
            self._flush()

    def penalize(self, size: int = 0) -> None:
        """Do nothing: nothing is heard of the client."""

    @property
    def is_idle(self) -> bool:
        """Always: what is not delivered is resumed by id."""
        return True

    # The end

    def data_received(self, data: bytes) -> None:
        """Forget what the client sends: nothing is heard of it."""
        self._pause_for_a_while()

    def look(self, now: float) -> None:
        """Send a comment in a silence; `now` in loop time."""
        if self._ending and now - self._since > LINGER:
            self.transport.abort()
        elif now - self._since > HEARTBEAT and not self.write_buffer_size:
            self.send(b":\n\n")

    def close_unauthorized(self, reason: str, code: int = 0) -> None:
        """Close the stream: the key may not watch any more."""
        self.close_with(code, reason)

    def tell_expiry(self, left: float) -> None:
        """Tell the client by an event of another name than those of the queue that its token expires."""
        if self._opening is not None and self._opening.done():  # the head of the response has been sent
            self.send(b"event: expires\n", b'data: {"in":%d}\n\n' % (left * 1000))

    def send_away(self) -> None:
        """Close the stream."""
        self.close_with(0)

    def expire(self, reason: str, *, is_overdue: bool) -> None:
        """Close the stream: who watches goes on behind the last event on another one."""
        self.send_away()

    def retire(self) -> None:
        """Close the stream: who watches has no jobs to finish."""
        self.send_away()

    def eof_received(self) -> None:
        """Close the stream: who listens does not close its half."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything: the socket is gone."""
        super().connection_lost(exc)
        self._shared.unopened.leave(self)
        self._shared.http.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        if self.account is not None:
            self.account.leave(self)
        session, self.session = self.session, None
        if session is not None:
            session.connection_lost()
