"""Sends requests to one endpoint, each on a connection of its own, which is kept for the next one.

A request is sent a second time in one case: it went out on a kept connection, which has ended before a byte of an
answer. Endpoints close connections that wait, and the request was most probably on its way then. Both have the same
`webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final
from urllib.parse import quote, urlsplit

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.webhooks.answers import Answer, NoAnswer
from bullmq_proxy.gateway.webhooks.connection import Connection
from bullmq_proxy.gateway.webhooks.guard import ForbiddenAddressError, Guard
from bullmq_proxy.gateway.webhooks.names import Names, Place
from bullmq_proxy.gateway.webhooks.registration import Endpoint

log = logging.getLogger(__name__)

_KEPT: Final = 4.0  # s without a request; Node's servers close after 5
_OLDEST: Final = 60.0  # s for which a connection is used: an endpoint may have moved to another address
_PATIENCE: Final = 2.0  # s for one of several addresses
_PORTS: Final = {"http": 80, "https": 443}
_ASIS: Final = "/%:?@!$&'()*+,;=-._~[]"  # of a URL's path and query

Outcome = Answer | NoAnswer | None
"""The answer to a request, or why there is none; None for one that was not sent, since it must not be any more."""

Done = Callable[[Outcome], None]
"""Takes the outcome of a request."""


class Request:
    """A request on its way."""

    __slots__ = ("connecting", "connection", "deadline", "done", "is_again", "message")

    def __init__(self, message: bytes, deadline: float, done: Done) -> None:
        self.message = message
        self.deadline = deadline
        self.done = done
        self.connection: Connection | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.is_again = False


class Sender:
    """The connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, guard: Guard, may_send: Callable[[], bool]) -> None:
        """Make it.

        Args:
            endpoint: where the requests go.
            guard: says where it may connect to.
            may_send: says, once a connection stands, whether a request may still be sent.
        """
        self._endpoint = endpoint
        self._may_send = may_send
        url = urlsplit(endpoint.url)
        host, port = url.hostname or "", url.port or _PORTS[url.scheme]
        self._host = host.rstrip(".") if url.scheme == "https" else None  # whose certificate is checked
        self._names = Names(host, port, guard)
        target = quote(url.path or "/", safe=_ASIS) + (f"?{quote(url.query, safe=_ASIS)}" if url.query else "")
        shown = f"[{host}]" if ":" in host else host
        where = shown if port == _PORTS[url.scheme] else f"{shown}:{port}"
        self._first = f"{endpoint.method} {target} HTTP/1.1\r\nhost: {where}\r\n"
        own = {
            "accept": "*/*",
            "content-type": "application/json",
            "user-agent": f"bullmq-proxy/{__version__}",
            "accept-encoding": "identity",  # a small body that is unpacked can be a large one
        }
        self._headers = own | {name.lower(): value for name, value in endpoint.headers.items()}
        self._head = self._first + _lines(self._headers)
        self._loop = asyncio.get_running_loop()
        self._requests: dict[Request, None] = {}  # the first one is the first to be late: all have the same time
        self._idle: list[Connection] = []  # the last one is asked next
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def send(self, headers: dict[str, str], body: bytes, done: Done) -> Request:
        """Send a request.

        Args:
            headers: beside those of every request.
            body: JSON text.
            done: takes the outcome; not before this has returned.
        """
        is_plain = self._headers.keys().isdisjoint(headers)
        head = self._head if is_plain else self._first + _lines(self._headers, headers)
        message = b"".join((f"{head}{_lines(headers)}content-length: {len(body)}\r\n\r\n".encode("latin-1"), body))
        request = Request(message, self._loop.time() + self._endpoint.timeout / 1000, done)
        self._requests[request] = None
        self._wake_at(request.deadline)
        self._assign(request)
        return request

    def _assign(self, request: Request) -> None:
        """Send a request on a kept connection, or on a new one."""
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if now < min(connection.idle_since + _KEPT, connection.opened_at + _OLDEST) and connection.is_quiet():
                self._ask(connection, request)
                return
            connection.close()
        request.connecting = self._loop.create_task(self._connect(request), name="webhook connects")

    def _ask(self, connection: Connection, request: Request) -> None:
        request.connection = connection
        connection.ask(request, request.message)

    # Connections

    async def _connect(self, request: Request) -> None:
        try:
            connection = await self._open()
            request.connecting = None
            if not self._may_send():
                connection.close()
                self._end(request, None)
            # Behind a handshake of TLS 1.3 come tickets, which nobody has asked for either (RFC 8446 §4.6.1).
            elif connection.is_quiet() if self._host is None else connection.is_open:
                self._ask(connection, request)
            else:
                connection.close()
                self._end(request, _unreachable("it speaks before it is asked, or not at all"))
        except (OSError, ValueError) as error:
            self._end(request, _unreachable(_words(error), error))
        except Exception:
            log.exception("a webhook's request cannot be sent")
            self._end(request, NoAnswer("The request could not be sent; the gateway's log has the details"))

    async def _open(self) -> Connection:
        *others, last = await self._names.places()
        for place in others:
            try:
                async with asyncio.timeout(_PATIENCE):
                    return await self._open_to(place)
            except OSError:
                self._names.forget(place)
        return await self._open_to(last)

    async def _open_to(self, place: Place) -> Connection:
        family, kind, protocol, _, address = place
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # for the end of a long request
            await self._loop.sock_connect(made, address)
            context = None if self._host is None else _tls()
            _, connection = await self._loop.create_connection(
                lambda: Connection(self, made, self._loop.time()), sock=made, ssl=context, server_hostname=self._host
            )
        except BaseException:
            made.close()
            raise
        return connection

    # What comes of requests

    def answered(self, connection: Connection, answer: Answer | NoAnswer) -> None:
        """Take the answer to a request, and keep its connection if it can be asked again."""
        request, connection.request = connection.request, None
        assert isinstance(request, Request)
        request.connection = None
        if connection.is_open:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            self._wake_at(self._idle[0].idle_since + _KEPT)
        else:
            connection.close()
        self._end(request, answer)

    def broken(self, connection: Connection, error: Exception | None) -> None:
        """Send the request of a kept connection again that has ended without an answer; give others up."""
        request, connection.request = connection.request, None
        if request is None:
            if connection in self._idle:
                self._idle.remove(connection)
            return
        assert isinstance(request, Request)
        request.connection = None
        if connection.answers and not connection.received and not request.is_again:
            request.is_again = True
            request.connecting = self._loop.create_task(self._connect(request), name="webhook connects again")
        elif error is not None:
            self._end(request, _unreachable(_words(error), error))
        else:
            place = "within" if connection.received else "before"
            self._end(request, _unreachable(f"it has closed the connection {place} its answer"))

    def cancel(self, request: Request) -> None:
        """Forget a request: nobody waits for its answer."""
        self._requests.pop(request, None)
        if request.connecting is not None:
            request.connecting.cancel()
        if request.connection is not None:
            request.connection.close()

    def _end(self, request: Request, outcome: Outcome) -> None:
        if request in self._requests:
            request.done(outcome)
            self._requests.pop(request, None)  # afterwards: one whose answer could not be taken is late some day

    # Time

    def _wake_at(self, when: float) -> None:
        if self._timer is None or when < self._due:
            timer = self._loop.call_at(when, self._tick)
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._due = timer, when

    def _tick(self) -> None:
        """End the requests that are late, and close connections that were not needed."""
        self._timer = None
        try:
            now = self._loop.time()
            while self._idle and self._idle[0].idle_since + _KEPT <= now:
                self._idle.pop(0).close()
            while (first := next(iter(self._requests), None)) is not None and first.deadline <= now:
                self._end_late(first, now)
        finally:  # whatever one of them raises, the others are looked at
            if self._idle:
                self._wake_at(self._idle[0].idle_since + _KEPT)
            if self._requests:
                self._wake_at(next(iter(self._requests)).deadline)

    def _end_late(self, request: Request, now: float) -> None:
        """End a request; one whose end cannot be taken is late once more, after those that are there."""
        self.cancel(request)
        request.connection = request.connecting = None
        request.deadline = now + self._endpoint.timeout / 1000
        self._requests[request] = None
        self._end(request, NoAnswer(f"The endpoint has not answered within {self._endpoint.timeout} ms"))

    async def close(self) -> None:
        """Close the connections, and forget the requests."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connecting = [each.connecting for each in self._requests if each.connecting is not None]
        for request in list(self._requests):
            self.cancel(request)
        while self._idle:
            self._idle.pop().close()
        await asyncio.gather(*connecting, return_exceptions=True)


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _lines(headers: Mapping[str, str], without: Mapping[str, str] = {}) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items() if name not in without)


def _unreachable(words: str, error: Exception | None = None) -> NoAnswer:
    said = f"The endpoint cannot be reached: {words}"
    return NoAnswer(said, said if error is None else f"{said}: {error}")


def _words(error: Exception) -> str:
    """Return what is wrong, without an address."""
    match error:
        case ssl.SSLCertVerificationError():
            return "its certificate is not valid"
        case ssl.SSLError():
            return f"TLS fails ({error.reason or 'no reason'})"
        case ForbiddenAddressError():
            return "webhook_allow does not name its address"
        case socket.gaierror():
            return error.strerror or "its name is not known"
        case TimeoutError():
            return "it does not answer"
        case OSError() if error.errno:
            return os.strerror(error.errno)
    return type(error).__name__
