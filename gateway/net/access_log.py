"""Connections that tell the log of their beginning and end, and requests that do: only where `access_log` is on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from msgspec import Raw
from websockets.http11 import Request, Response

from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.net.connection import Connection
from bullmq_proxy.gateway.net.exchange import Exchange
from bullmq_proxy.gateway.net.http_connection import HttpConnection
from bullmq_proxy.gateway.net.request_reader import Arrived
from bullmq_proxy.gateway.net.shared import Shared
from bullmq_proxy.gateway.net.site import Admitted


class LoggedConnection(Connection):
    """A connection that counts its messages, and logs its beginning and end."""

    def __init__(self, shared: Shared) -> None:
        """Make a connection."""
        super().__init__(shared)
        self._opened_at: float | None = None
        self._received = self._sent = 0
        self._fields: dict[str, object] = {}

    def opened(self) -> None:
        """Log who has connected to what."""
        self._opened_at = time.perf_counter()
        self._fields = self.described()
        LogEvent.OPENED.log(**self._fields)
        super().opened()

    def _message(self, message: bytes) -> None:
        self._received += 1
        super()._message(message)

    def send(self, *parts: bytes | Raw) -> None:
        """Send one text message, and count it."""
        self._sent += 1
        super().send(*parts)

    def connection_lost(self, exc: Exception | None) -> None:
        """Log how it has ended."""
        if self._opened_at is not None:
            LogEvent.CLOSED.log(
                **self._fields,
                code=self.end_code,
                seconds=time.perf_counter() - self._opened_at,
                received=self._received,
                sent=self._sent,
            )
        super().connection_lost(exc)


class LoggedHttpConnection(HttpConnection):
    """An HTTP connection that logs each request when its response is known."""

    def __init__(self, shared: Shared, site: Any, transport: asyncio.Transport, address: str, request: Request) -> None:
        """Take a socket over."""
        super().__init__(shared, site, transport, address, request)
        self._begun: dict[Exchange, tuple[float, str, str, str]] = {}

    def _start(self, exchange: Exchange, what: Admitted | Response, arrived: Arrived[Admitted | Request]) -> None:
        path, key = (what.path, what.account.rights.grant.key) if isinstance(what, Admitted) else ("?", "")
        self._begun[exchange] = time.perf_counter(), arrived.method, path, key
        super()._start(exchange, what, arrived)

    def finished(self, exchange: Exchange) -> None:
        """Log the response, and send it when it is its turn."""
        since, method, path, key = self._begun.pop(exchange)
        assert exchange.response is not None
        LogEvent.REQUESTED.log(
            address=self.address or "unix",
            method=method,
            path=path,
            key=key or "?",
            status=int(bytes(exchange.response[0][9:12])),
            seconds=time.perf_counter() - since,
        )
        super().finished(exchange)
