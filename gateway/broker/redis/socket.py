"""One socket to Redis: commands out as bytes, replies matched to them in order. It does not connect by itself."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import hiredis
from msgspec import Raw

from bullmq_proxy.gateway.broker.redis.errors import reply_error, unavailable
from bullmq_proxy.gateway.errors import GatewayError

log = logging.getLogger(__name__)

_LOST: Final = "closed during the handshake"

Sink = Callable[[Any], None]
"""Takes a reply, or the exception that stands for it. Called from the loop, never from within `send`."""

Chunk = bytes | Raw
"""Of a command in Redis protocol. A payload is one of its own, so that it is not copied."""

Entry = tuple[Sink, bool, bool, int]
"""A command on its way: sink, writes?, decode?, how many replies Redis gives (the last one counts)."""


def pack_command(*args: Any) -> bytes:
    """A command in Redis protocol; str, bytes, memoryviews and numbers are written as text."""
    return cast("bytes", hiredis.pack_command(args))


def packable(pieces: Iterable[Chunk]) -> list[bytes | memoryview]:
    """For `pack_command`, which does not know payloads as they are."""
    return [piece if isinstance(piece, bytes) else memoryview(piece) for piece in pieces]


_HEADS: Final = [b"$%d\r\n" % length for length in range(1024)]


def bulk_head(length: int) -> bytes:
    """What stands before a text of `length` bytes in Redis protocol."""
    return _HEADS[length] if length < len(_HEADS) else b"$%d\r\n" % length


class RedisSocket(asyncio.Protocol):
    """One socket: matches replies to the commands that wait for them."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending: deque[Entry] = deque()
        self.replies = 0  # counts up: how the deadline sees progress
        self.on_lost: Callable[[RedisSocket], None] | None = None
        self.transport: asyncio.Transport
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace")
        self._swallowed = 0  # replies before the one that counts, of the command in front
        self._first_error: Exception | None = None  # among those

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        if self.on_lost is not None:
            self.on_lost(self)
        else:  # in the middle of the handshake
            self.fail(lambda writes: unavailable(_LOST))

    def fail(self, error: Callable[[bool], GatewayError]) -> None:
        """Tell everybody who waits for a reply that there will be none; `error` takes: was it a write?"""
        pending, self.pending = self.pending, deque()
        for sink, writes, *_ in pending:
            _give(sink, error(writes))

    def data_received(self, data: bytes) -> None:
        gets, pending = self._reader.gets, self.pending
        self._reader.feed(data)
        while pending:
            sink, _, decode, replies = pending[0]
            try:
                reply = gets(decode)
            except hiredis.ProtocolError:
                log.error("redis link: the reply is no Redis protocol, closing the connection")
                self.transport.abort()
                return
            if reply is False:  # incomplete; RESP2 has no booleans of its own
                return
            self.replies += 1
            if replies > 1:
                if self._swallowed < replies - 1:
                    self._swallowed += 1
                    if self._first_error is None and isinstance(reply, Exception):
                        self._first_error = reply
                    continue
                # What EXEC says of a transaction that was refused on the way is not why.
                reply, self._first_error = self._first_error or reply, None
                self._swallowed = 0
            pending.popleft()
            _give(sink, reply)
        if self.on_lost is not None and self._reader.has_data():
            log.error("redis link: a reply that nobody asked for, closing the connection")
            self.transport.abort()

    def ask(self, *args: Any) -> asyncio.Future[Any]:
        """Send a command past the queue, for the handshake; error replies raise."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.lost.done():
            future.set_exception(unavailable(_LOST))
            return future
        self.pending.append((future_sink(future), False, True, 1))
        self.transport.write(pack_command(*args))
        return future


def _give(sink: Sink, reply: Any) -> None:
    """One sink that fails must not keep the others from their replies."""
    try:
        sink(reply)
    except Exception:
        log.exception("redis link: a sink failed")


def future_sink(future: asyncio.Future[Any]) -> Sink:
    """A sink that ends a future: an error reply as GatewayError."""

    def sink(reply: Any) -> None:
        if future.done():
            return
        if isinstance(reply, Exception):
            future.set_exception(reply_error(reply))
        else:
            future.set_result(reply)

    return sink
