"""One socket to Redis: sends packed commands and matches the replies to them in order. `link.py` connects it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import hiredis
from hiredis import ReplyError
from msgspec import Raw

from bullmq_proxy.gateway.broker.redis.errors import refusal, reply_error, unavailable
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.values.text import ERRORS, bytes_of

log = logging.getLogger(__name__)

_NOTHING_MORE: Final = struct.pack("ii", 1, 0)  # struct linger: a close is a reset (socket(7))
_TLS_ALERT: Final = b"\x15\x03"

_LOST: Final = "closed during the handshake"

Sink = Callable[[Any], None]
"""Takes a reply, or the exception that stands for it. Called from the loop, never from within `send`."""

Chunk = bytes | Raw
"""A part of a command in Redis protocol. A payload is a chunk of its own, so that it is not copied."""

Entry = tuple[Sink, bool, int, bytes | list[Chunk], Any]
"""A command under way: its sink, whether texts are decoded, how many replies Redis gives (the last one counts), the
command itself, should the server refuse to execute it, and the `Route` that sent it there, if one did."""


Setup = Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]]
"""Prepares each new connection before its first command; takes a function that sends one command."""

OnPush = Callable[[list[Any]], None]
"""Takes a message that is no reply to a command: its kind, and what belongs to it."""


class TwoStepSink:
    """Takes a reply, and before it the news that Redis has executed what it is for: it may wait for replicas then."""

    __slots__ = ("_executed", "_sink")

    def __init__(self, sink: Callable[[Any], None], executed: Callable[[], None]) -> None:
        """Make one of both; `executed` is called once, with the reply at the latest."""
        self._sink = sink
        self._executed: Callable[[], None] | None = executed

    def executed(self) -> None:
        """Tell that Redis has done its part."""
        executed, self._executed = self._executed, None
        if executed is not None:
            executed()

    def __call__(self, result: Any) -> None:
        self.executed()
        self._sink(result)


def pack_command(*args: Any) -> bytes:
    """Write a command in Redis protocol; its words are str, bytes, memoryviews or numbers."""
    try:
        return cast("bytes", hiredis.pack_command(args))
    except UnicodeEncodeError:
        return pack_command(*(bytes_of(arg) if isinstance(arg, str) else arg for arg in args))


def pack_words(*words: Any) -> bytes:
    """Write words of a command as `pack_command` does, without the head that says how many there are."""
    return pack_command(*words).partition(b"\r\n")[2]


def packable(words: Iterable[Chunk]) -> list[bytes | memoryview]:
    """Make payloads fit for `pack_command`, which does not know `Raw`."""
    return [word if isinstance(word, bytes) else memoryview(word) for word in words]


def chunks_of(entries: Iterable[Entry]) -> list[Chunk]:
    """Return what is to be written for some commands, in their order."""
    chunks: list[Chunk] = []
    for _, _, _, command, _ in entries:
        if isinstance(command, list):
            chunks += command
        else:
            chunks.append(command)
    return chunks


def entry_size(entry: Entry) -> int:
    """Return the bytes of a command."""
    command = entry[3]
    return sum(map(len, command)) if isinstance(command, list) else len(command)


PING: Final = pack_command("PING")

_HEADS: Final = [b"$%d\r\n" % length for length in range(1024)]


def bulk_head(length: int) -> bytes:
    """Return the head of a text of `length` bytes in Redis protocol."""
    return _HEADS[length] if length < len(_HEADS) else b"$%d\r\n" % length


class RedisSocket(asyncio.Protocol):
    """One socket: matches replies to the commands that wait for them.

    Attributes:
        lost: done once the socket is closed.
        pending: commands that were written and have no reply yet.
        replies: how many have come; a link's deadline sees progress by it.
        on_lost: called when the socket closes; None during the handshake.
        on_refused: takes, of this socket, a command that was not executed, the word that says why, and the whole reply;
            returns whether it takes over. None once the socket is closed.
    """

    def __init__(self, on_push: OnPush | None = None) -> None:
        """Make one that is not connected; `on_push` takes what the server says unasked, where it may do so (RESP3)."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending: deque[Entry] = deque()
        self.replies = 0
        self.fault = ""  # why what came is no Redis protocol
        self.alert: ssl.SSLError | None = None  # of TLS, which ended it
        self.on_lost: Callable[[RedisSocket], None] | None = None
        self.on_refused: Callable[[RedisSocket, Entry, str, Any], bool] | None = None
        self.transport: asyncio.Transport
        reader = hiredis.Reader(encoding="utf-8", errors=ERRORS)
        self._reader: Any = reader if on_push is None else _PushReader(reader, on_push)
        self._swallowed = 0  # replies before the one that counts, of the command in front
        self._first_error: Exception | None = None  # among those
        self._descriptor: int | None = None  # None where what is written must be encrypted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if transport.get_extra_info("sslcontext") is None:
            self._descriptor = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, ssl.SSLError):
            self.alert = exc
        if not self.lost.done():
            self.lost.set_result(None)
        if self.on_lost is not None:
            self.on_lost(self)
        else:
            self.fail(partial(unavailable, _LOST))
        self.on_refused = None  # which holds the link, and the link may hold us

    def fail(self, error: Callable[[], GatewayError]) -> None:
        """Give each sink that waits for a reply an error of its own."""
        pending, self.pending = self.pending, deque()
        for sink, *_ in pending:
            _give(sink, error())

    def data_received(self, data: bytes) -> None:
        gets, pending = self._reader.gets, self.pending
        self._reader.feed(data)
        while pending:
            entry = pending[0]
            sink, decode, replies, _, _ = entry
            try:
                reply = gets(decode)
            except hiredis.ProtocolError:
                is_tls = data.startswith(_TLS_ALERT)
                self.fault = "it wants TLS: write rediss:// for redis://" if is_tls else "it is no Redis server"
                if self.on_lost is not None:
                    log.error("redis link: closing the connection: a reply is not in Redis protocol")
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
                # EXEC does not say why a transaction was refused; the first error does.
                reply, self._first_error = self._first_error or reply, None
                self._swallowed = 0
            pending.popleft()
            if (reply.__class__ is ReplyError or replies > 1) and self._is_refused(entry, reply):
                continue
            _give(sink, reply)
        if self.on_lost is not None and self._reader.has_data():
            log.error("redis link: closing the connection: a reply without a command")
            self.transport.abort()

    def _is_refused(self, entry: Entry, reply: Any) -> bool:
        """Return whether a command was not executed, and somebody sends it again."""
        word = refusal(reply)
        return bool(word) and self.on_refused is not None and self.on_refused(self, entry, word, reply)

    def write(self, data: bytes) -> None:
        """Write at once, while uvloop's transport would write at the end of the loop's turn."""
        sent, transport = 0, self.transport
        if self._descriptor is not None and not transport.get_write_buffer_size() and not transport.is_closing():
            with suppress(OSError):  # the transport has it, too
                sent = os.write(self._descriptor, data)
        if sent < len(data):
            transport.write(data[sent:])

    def take_back_unsent(self) -> None:
        """Let the system not go on to send what has not arrived when this is closed.

        A fetch that arrived when the next connection is up already would leave its job to nobody.
        """
        with suppress(OSError):  # it is closed already
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOTHING_MORE)

    def beat(self) -> asyncio.Future[None]:
        """Ask for a sign of life behind all that was written; the future ends with it, whatever it says."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(reply: Any) -> None:
            if not done.done():
                done.set_result(None)

        self.pending.append((answered, False, 1, PING, None))
        self.transport.write(PING)
        return done

    def ask(self, *args: Any) -> asyncio.Future[Any]:
        """Send a command at once, for the handshake; error replies raise GatewayError."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.lost.done():
            future.set_exception(unavailable(_LOST))
            return future
        command = pack_command(*args)
        self.pending.append((partial(resolve, future), True, 1, command, None))
        self.transport.write(command)
        return future


# The replies to these commands, whether texts are decoded or not: they are no others.
_ANSWERS: Final = (b"subscribe", b"unsubscribe", b"ssubscribe", "subscribe", "unsubscribe")


class _PushReader:
    """A reader of replies that hands on what is none as it comes by."""

    def __init__(self, reader: hiredis.Reader, on_push: OnPush) -> None:
        self.feed = reader.feed
        self._gets = reader.gets
        self._on_push = on_push

    def gets(self, decode: bool) -> Any:
        while isinstance(reply := self._gets(decode), hiredis.PushNotification) and reply[0] not in _ANSWERS:
            _give(self._on_push, _raw(reply) if decode else reply)
        return reply

    def has_data(self) -> bool:
        return self.gets(False) is not False


def _raw(push: Any) -> Any:
    """Return what the server has said unasked in bytes: it was decoded as the reply that is waited for."""
    return bytes_of(push) if isinstance(push, str) else [*map(_raw, push)] if isinstance(push, list) else push


def _give(sink: Sink, reply: Any) -> None:
    """Call a sink, and log if it fails: the others need their replies."""
    try:
        sink(reply)
    except Exception:
        log.exception("redis link: a sink failed")


def future_of(send: Callable[[Sink], None]) -> asyncio.Future[Any]:
    """Return a future of what `send` gives its sink."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    send(partial(resolve, future))
    return future


def resolve(future: asyncio.Future[Any], reply: Any) -> None:
    """End a future, if nobody has, with a reply or an error; an error reply becomes a GatewayError."""
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply_error(reply))
    else:
        future.set_result(reply)
