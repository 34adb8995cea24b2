"""One WebSocket connection of the load generator: handshake, messages in, frames out, pings answered."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from benchmarks.load.frames import Splitter, pong

_HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {key}\r\n\r\n"
)
_TOGETHER: Final = 50  # handshakes at a time
_SMALL: Final = 65536  # bytes that the kernel keeps for a connection that reads nothing

OnMessages = Callable[["Socket", list[bytes]], None]


class Socket(asyncio.Protocol):
    """A client connection; `on_messages` gets what each read brought."""

    def __init__(self, on_messages: OnMessages) -> None:
        self.on_messages = on_messages
        self.on_ping: Callable[[int], None] | None = None
        self.on_lost: Callable[[str], None] | None = None  # is told what the close frame said
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self._splitter = Splitter()
        self._head = b""
        self._up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self._up:
            data = self._shake(data)
            if not data:
                return
        messages = self._splitter.feed(data)
        if self._splitter.pings:
            self._answer_pings()
        if messages:
            self.on_messages(self, messages)
        if self._splitter.closed is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(f"no WebSocket: {self._head[:200]!r}"))
        elif self.on_lost is not None:
            self.on_lost(self._reason())

    def write(self, data: bytes) -> None:
        """Send frames."""
        self.transport.write(data)

    def _shake(self, data: bytes) -> bytes:
        """Take the answer to the handshake; what came right behind it is returned."""
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        if b" 101 " not in head[:20]:
            self.transport.abort()
            return b""
        self._up = True
        self.opened.set_result(None)
        return rest

    def _reason(self) -> str:
        closed = self._splitter.closed
        if not closed:
            return "lost without a word"
        return f"closed with {int.from_bytes(closed[:2], 'big')} {closed[2:].decode(errors='replace')}"

    def _answer_pings(self) -> None:
        pings, self._splitter.pings = self._splitter.pings, []
        self.transport.write(b"".join(map(pong, pings)))
        if self.on_ping is not None:
            self.on_ping(len(pings))


async def connect(port: int, path: str, key: str, on_messages: OnMessages, *, small: bool = False) -> Socket:
    """Open one connection.

    Args:
        port: on the loopback address.
        path: of the request.
        key: that lets us in.
        on_messages: gets all messages of one read.
        small: let the kernel keep little of what is not read.

    Raises:
        ConnectionError: the answer was no 101.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    if small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport, client = await loop.create_connection(lambda: Socket(on_messages), sock=sock)
    except BaseException:
        sock.close()
        raise
    transport.write(_HANDSHAKE.format(path=path, port=port, key=key).encode())
    await client.opened
    return client


async def connect_many(count: int, port: int, path: str, key: str, on_messages: OnMessages) -> list[Socket]:
    """Open many connections, some at a time: a listening socket's queue is finite."""
    opened: list[Socket] = []
    while len(opened) < count:
        step = min(_TOGETHER, count - len(opened))
        opened += await asyncio.gather(*(connect(port, path, key, on_messages) for _ in range(step)))
    return opened
