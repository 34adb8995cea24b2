"""One HTTP/1.1 connection: requests in, each with its body; responses out, in the order of the requests.

Calls run as on a Queue connection, in callbacks, by a session of one key and one queue at a time: a request for another
one waits until those before it have been answered. What limits a connection is what limits a WebSocket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, Final

from websockets.http11 import Request, Response

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import http
from bullmq_proxy.gateway.net.exchange import Exchange, refusal
from bullmq_proxy.gateway.net.penalties import Penalties
from bullmq_proxy.gateway.net.places import Place
from bullmq_proxy.gateway.net.request_reader import Arrived, RequestReader
from bullmq_proxy.gateway.net.responding_connection import LINGER, RespondingConnection
from bullmq_proxy.gateway.net.sending_connection import LARGE
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.net.site import Admitted, Scope, Site
from bullmq_proxy.gateway.sessions.interfaces import CallSession, Result
from bullmq_proxy.gateway.wire.endpoints import PageEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.routes import Target

log = logging.getLogger(__name__)

_METHODS: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"))
_SLICE: Final = 4096  # bytes that the parser gets at a time: what it finds in them is taken at once
_SHORT_SLICE: Final = 256  # bytes while others are to be heard: a few of the shortest requests
_WHOLE: Final = 1024  # bytes that are parsed at once even then: one request, mostly, of a client that sends little
_PIPELINED: Final = 128  # requests without a response
IDLE_TIMEOUT: Final = 60.0
"""Seconds for which a connection stays open without a request."""


class HttpConnection(RespondingConnection):
    """The server's end of one HTTP connection; the Client of its session."""

    def __init__(
        self, shared: Shared, site: Site, transport: asyncio.Transport, address: str, request: Request
    ) -> None:
        """Take a socket over; `request` is the first one, which `begin` then reads."""
        super().__init__(shared, transport)
        self.address = self.peer = address
        self.request = request
        self.session: CallSession | None = None
        self.account: Account | None = None
        self._site = site
        self._scope: Scope | None = None  # of the session
        self._is_stale = False  # the key may not do any more what it could when the session was opened
        self._penalties = Penalties()
        self._reader: RequestReader[Admitted | Request] = RequestReader(shared, self, self)
        self._rest = b""  # has been read, and waits
        self._reading_paused = False  # by the session
        self._arrived = self._reader.arrived
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, rest: bytes) -> None:
        """Read the first request, of which `rest` is what has come behind its head."""
        self._shared.unopened.enter(self)
        self._shared.http.add(self)
        request = self.request
        if request.method not in _METHODS:  # the parser does not know all that clients may invent
            self._reader.arrive(self.admit(request), is_last=True)
            self._start_arrived()
            return
        lines = [f"{request.method} {request.path} {request.protocol}"]
        bodiless = request.method in http.METHODS
        lines += [
            f"{name}: {value}"
            for name, value in request.headers.raw_items()
            if not (bodiless and name.lower() == "content-length")
        ]
        self._take("\r\n".join([*lines, "", ""]).encode("latin-1") + rest)

    # In

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket."""
        if self._reader.is_deaf:
            self._drop(len(data))
        elif self._rest:
            self._rest += data
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Parse what has come, as far as it may be taken now."""
        at, end, deadline = 0, len(data), 0.0
        step = _SHORT_SLICE if end > _WHOLE and self._shared.budget.turns.are_taken else _SLICE
        while at < end and not self._reader.is_deaf:
            if self._is_held_up:
                self._rest = data[at:]
                self.pause_socket()
                return
            stop = at + min(max(step, self._reader.body_left), LARGE)
            if at or stop < end:
                now = time.perf_counter()
                deadline = deadline or now + self._shared.turn
                if now >= deadline:
                    self._rest = data[at:]
                    self.pause_socket()
                    self._go_on_soon()
                    return
            self._reader.feed(data[at:stop] if at or stop < end else data)
            at = stop
            if self._reader.behind is not None:
                self._rest, at = self._reader.behind + data[at:], end
                self.pause_socket()
            self._start_arrived()

    def admit(self, request: Request) -> Admitted | Request | Response:
        """Return what a request asks for, itself for a WebSocket, or its refusal."""
        self.key_name = ""
        what: Admitted | Request | Response
        try:
            what = self._site.admit(self, request)
        except GatewayError as error:
            what = refusal(error)
        if isinstance(what, Response):
            self.refused(what, request.path, self.key_name)
        return what

    def go_ahead(self) -> None:
        """Tell the client to send the body, unless a response must come first: then it waits a little, and sends it."""
        if self.is_idle:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Requests

    @property
    def _is_held_up(self) -> bool:
        return self._reading_paused or bool(self._arrived) or self._reader.waits_for_room

    def _start_arrived(self) -> None:
        while self._arrived and self._may_start:
            arrived = self._arrived[0]
            what = arrived.what
            if isinstance(what, Request) or (isinstance(what, Admitted) and what.is_stream):
                if not (self._exchanges or self._out or self._writing_paused):  # the client has read what came before
                    self._hand_on(what)
                return
            if isinstance(what, Admitted) and self._is_elsewhere(what):
                if self._exchanges:
                    return
                try:
                    self._open(what)
                except GatewayError as error:
                    what = self.refuse(what.target.refused(error), what.path, what.account)
            del self._arrived[0]
            more = what.more if isinstance(what, Admitted) else b""
            exchange = Exchange(self, more, is_head=arrived.method == "HEAD", is_last=arrived.is_last)
            self._exchanges.append(exchange)
            self._start(exchange, what, arrived)

    @property
    def _may_start(self) -> bool:
        """Whether a further request may begin now."""
        exchanges = self._exchanges
        ends = self._ending or bool(exchanges and exchanges[-1].is_last)
        return not (ends or self._reading_paused or len(exchanges) >= _PIPELINED)

    def _hand_on(self, what: Request | Admitted) -> None:
        """Hand the socket on to a stream of events, or to a WebSocket, for which a connection was kept."""
        if isinstance(what, Admitted):
            self._leave()
            try:
                self._site.open_stream(what, self)
            except GatewayError as error:
                self._arrived[0].what = self.refuse(error, what.path, what.account)
                self._start_arrived()
            else:
                self.connection_lost(None)
        elif self._is_half_closed:
            self.transport.close()
        else:
            early, self._rest = self._rest, b""
            self.connection_lost(None)
            self._site.open_websocket(self.transport, self.peer, what, early)

    def _is_elsewhere(self, what: Admitted) -> bool:
        is_call = not isinstance(what.target.endpoint, PageEndpoint | SessionEndpoint)
        return is_call and (self._is_stale or self._scope != what.scope)

    def _start(self, exchange: Exchange, what: Admitted | Response, arrived: Arrived[Admitted | Request]) -> None:
        if isinstance(what, Response):
            if what.status_code >= HTTPStatus.BAD_REQUEST:
                self.penalize()
            exchange.respond(what)
            return
        target = what.target
        if isinstance(target.endpoint, PageEndpoint):
            self._read_page(exchange, target, what.known)
            return
        assert self.session is not None
        try:
            options, writes = what.parameters.options, arrived.method == "POST"
            self.session.requested(exchange, target, options, arrived.body, writes=writes)
        except Exception:
            log.exception("a request could not be taken")
            exchange.reply(GatewayError(ErrorCode.INTERNAL, "Internal error; the gateway's log has the details"))

    def _run(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read_page(self, exchange: Exchange, target: Target, known: str) -> None:
        try:
            page = self._site.read_page(target)
        except Exception:
            self._page_failed(exchange)
        else:
            if isinstance(page, bytes | Response):
                self._show(exchange, page, known)
            else:
                self._run(self._await_page(exchange, page, known))

    @staticmethod
    def _show(exchange: Exchange, page: http.Page, known: str) -> None:
        if isinstance(page, bytes):
            exchange.respond_json(page)
        else:
            exchange.respond(http.unless_known(page, known))

    async def _await_page(self, exchange: Exchange, page: Awaitable[http.Page], known: str) -> None:
        try:
            found = await page
        except Exception:
            self._page_failed(exchange)
        else:
            self._show(exchange, found, known)

    @staticmethod
    def _page_failed(exchange: Exchange) -> None:
        log.exception("a page could not be made")
        exchange.respond(http.refusal(GatewayError(ErrorCode.INTERNAL, "Internal error")))

    def _open(self, admitted: Admitted) -> None:
        """Leave the session, and open that of a request."""
        self._leave()
        account, parameters = admitted.account, admitted.parameters
        account.check(admitted.target.endpoint, parameters.queue, ())
        account.enter(self, admitted.target.endpoint, parameters.queue, ())
        self.account = account
        self.session = self._site.open_calls(admitted, self)
        self._scope = admitted.scope
        self._shared.unopened.opened(self)

    def _leave(self) -> None:
        self._scope, self._is_stale = None, False
        self._reader.forget_head()
        if self.account is not None:
            self.account.leave(self)
            self.account = None
        session, self.session = self.session, None
        if session is not None:
            session.connection_lost()

    def close_unauthorized(self, reason: str, code: int = 0) -> None:
        """Leave the session: the key's rights have changed. The next request is checked as the first one was."""
        self._reader.forget_head()
        if self._exchanges:
            self._is_stale = True
        else:
            self._leave()

    def tell_expiry(self, left: float) -> None:
        """Say nothing: each request shows a token."""

    def send_away(self) -> None:
        """Take no further request, let nobody wait any more, and end with the response to the last one."""
        if self.is_open:
            if self.session is not None:
                self.session.drain(0.0)
            self._end_soon()

    def retire(self) -> None:
        """Do the same: who makes requests is no worker."""
        self.send_away()

    @property
    def place(self) -> Place | None:
        """The place of the session; None for none."""
        return None if self._scope is None else self._shared.places.of("http", self._scope[1])

    # The Client of the session

    def reply(self, id: Any, result: Result) -> None:
        """Give the result of a call to its exchange."""
        id.reply(result)

    def penalize(self, size: int = 0) -> None:
        """Count a call that was not carried out because of the client; with too many the connection ends."""
        if self.is_lost:
            return
        if self._penalties.are_too_many(size, self.loop.time(), self._shared.bad_messages_per_second):
            self._end_soon()

    def _end_soon(self) -> None:
        """Take no further request, and end with the response to the last one."""
        self._reader.is_deaf = True
        if self._exchanges:
            self._exchanges[-1].is_last = True
        else:
            self._end()

    def pause_reading(self) -> None:
        """Take no further requests."""
        self._reading_paused = True
        self.pause_socket()

    def resume_reading(self) -> None:
        """Take requests again."""
        if self._reading_paused:
            self._reading_paused = False
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        self._shared.unfinished.add(self, self.take_rest)

    def take_rest(self) -> None:
        """Begin what has come, and go on with what has been read."""
        if self.is_lost:
            return
        self._start_arrived()
        self.read_on()

    def read_on(self) -> None:
        """Go on with what has been read, and then with reading, unless something forbids it."""
        if self._ending:
            self.resume_socket()  # to learn of its end
        if self.is_lost or self._ending or self._is_held_up:
            return
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest)
        if not self._rest and not self._is_held_up:
            self.resume_socket()

    @property
    def is_reading_paused(self) -> bool:
        """Whether the socket is not read."""
        return self._is_held_up or bool(self._rest)

    # The end

    @property
    def is_ending(self) -> bool:
        """Whether the next response is the last one."""
        return self._site.is_draining and len(self._exchanges) == 1 and not self._arrived and not self._rest

    @property
    def is_idle(self) -> bool:
        """Whether every request has been answered."""
        return not (self._exchanges or self._arrived or self._out)

    def look(self, now: float) -> None:
        """Give up a client that is too slow, or has nothing more to ask for; `now` in loop time."""
        waited = now - self._since
        if self._ending:
            if waited > LINGER:
                self.transport.abort()
        elif self._exchanges or self._arrived or self.is_reading_paused:
            return
        elif self._reader.is_late(now):
            self._reader.refuse("The request did not come in time", HTTPStatus.REQUEST_TIMEOUT)
            self._start_arrived()
        elif not self._reader.is_in_message and waited > IDLE_TIMEOUT:
            self.transport.close()

    def resume_writing(self) -> None:
        """Note that the client has read most of what was sent, and begin what waits for that."""
        super().resume_writing()
        if self._arrived:
            self._go_on_soon()

    def eof_received(self) -> bool:
        """Note that the client sends no more: it may still read, and it may be gone, so nobody waits for it."""
        self._is_half_closed = self._reader.is_deaf = True
        if self.session is not None:
            self.session.drain(0.0)
        return not self.is_idle or bool(self._rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything: the socket is gone."""
        super().connection_lost(exc)
        shared = self._shared
        shared.unopened.leave(self)
        shared.http.discard(self)
        shared.unfinished.pop(self, None)
        self._rest = b""
        self._reader.close()
        for task in self._tasks:
            task.cancel()
        self._leave()

    @property
    def _expects_more(self) -> bool:
        """Whether a request has come that is not begun yet."""
        return bool(self._arrived or self._rest)

    def _responded(self) -> None:
        """Begin the next request, which may have waited for the response."""
        if self._expects_more:
            self._go_on_soon()

    def _hear_no_more(self) -> None:
        self._reader.is_deaf = True

    def _flushed(self) -> None:
        if self._arrived:
            self._go_on_soon()
