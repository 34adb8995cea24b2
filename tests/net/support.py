"""A WebSocket client that can do everything wrong: raw bytes out, frames in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from bullmq_proxy.gateway import Proxy, configured
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.net.admission import Admission
from bullmq_proxy.gateway.net.connection import Connection
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.shared_memory import SharedMemory

TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
TIMEOUT: Final = 10.0  # s that a test waits for an answer
KEY: Final = "key-1"


def frame(
    payload: bytes | str = b"", opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, mask: bool = True
) -> bytes:
    """One frame as a client sends it (RFC 6455 §5.2)."""
    data = payload.encode() if isinstance(payload, str) else payload
    head = bytearray([(0x80 if fin else 0) | rsv << 4 | opcode])
    masked = 0x80 if mask else 0
    if len(data) < 126:
        head.append(masked | len(data))
    elif len(data) < 65536:
        head += bytes([masked | 126]) + len(data).to_bytes(2, "big")
    else:
        head += bytes([masked | 127]) + len(data).to_bytes(8, "big")
    if not mask:
        return bytes(head) + data
    key = os.urandom(4)
    # One big number XORed with another: fast enough for megabytes.
    pattern = (key * (len(data) // 4 + 1))[: len(data)]
    body = (int.from_bytes(data, "big") ^ int.from_bytes(pattern, "big")).to_bytes(len(data), "big")
    return bytes(head) + key + body


def call(id: Any, fn: str, *args: Any) -> str:
    """A Queue API request."""
    return json.dumps({"id": id, "data": {"fn": fn, "args": args}}, ensure_ascii=False)


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, str]:
        """`err` of the body that all refusals have."""
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        whole = json.loads(self.body)
        assert whole.keys() == {"err"}
        assert whole["err"].keys() == {"message", "code"}
        error: dict[str, str] = whole["err"]
        return error


def _number(digits: str) -> int | str:
    """Python refuses to read very long numbers, which are JSON all the same."""
    return int(digits) if len(digits) < 4000 else digits


class RawClient:
    """One TCP connection to the gateway; every wait has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None) -> RawClient:
        """Connect; nothing is sent. With `tls` the certificate is to be that of localhost."""
        name = None if tls is None else "localhost"
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**26, ssl=tls, server_hostname=name))

    @classmethod
    async def open(cls, port: int, target: str, *headers: str, tls: ssl.SSLContext | None = None) -> RawClient:
        """Connect and shake hands, with the right key unless `headers` has an Authorization."""
        client = await cls.connect(port, tls)
        answer = await client.upgrade(target, *headers)
        assert answer.status == 101, answer
        return client

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the socket without a word."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        """Drop the connection as a crash does."""
        self.writer.transport.abort()

    def stop_reading(self) -> None:
        """Leave what the gateway sends in the socket."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def read_again(self) -> None:
        """Go on reading."""
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def write_in_pieces(self, data: bytes) -> None:
        """Send byte by byte, each in a segment of its own."""
        for index in range(len(data)):
            self.writer.write(data[index : index + 1])
            await self.writer.drain()
            await asyncio.sleep(0)

    def send(self, payload: bytes | str, opcode: int = TEXT, **options: Any) -> None:
        """Send one frame."""
        self.write(frame(payload, opcode, **options))

    # HTTP

    async def upgrade(self, target: str, *headers: str) -> Answer:
        """Ask for a WebSocket."""
        self.write(handshake(target, *headers))
        return await self.answer()

    def request(self, method: str, target: str, *headers: str, body: bytes | str = b"") -> None:
        """Ask for something, with the right key unless `headers` has an Authorization."""
        self.write(request(method, target, *headers, body=body))

    async def fetch(self, method: str, target: str, *headers: str, body: bytes | str = b"") -> Answer:
        """Ask for something; the response."""
        self.request(method, target, *headers, body=body)
        return await self.answer(to_head=method == "HEAD")

    async def status(self) -> int:
        """The status of the response that begins; the rest of it stays to be read."""
        async with asyncio.timeout(TIMEOUT):
            return int((await self._reader.readline()).split()[1])

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The response to a request; that to HEAD has no body."""
        async with asyncio.timeout(TIMEOUT):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", "0"))
            code = int(status.split(" ")[1])
            ends = headers.get("connection", "").startswith("close")
            body = await (self._reader.read(-1) if ends else self._reader.readexactly(0 if to_head else length))
        assert len(body) in (length, 0)
        return Answer(code, headers, body)

    # Frames

    async def read(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload."""
        async with asyncio.timeout(TIMEOUT):
            first, second = await self._reader.readexactly(2)
            assert first & 0xF0 == 0x80, "the gateway sends whole frames without extensions"
            length = second
            assert length < 128, "the gateway does not mask"
            if length > 125:
                length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
            return first & 0x0F, await self._reader.readexactly(length)

    async def message(self) -> Any:
        """The next text frame as JSON; pings and pongs in between do not count."""
        while True:
            opcode, payload = await self.read()
            if opcode in (PING, PONG):
                continue
            assert opcode == TEXT, (opcode, payload)
            return json.loads(payload.decode(), parse_int=_number)

    async def messages(self, count: int) -> list[Any]:
        """The next text frames."""
        return [await self.message() for _ in range(count)]

    async def ask(self, fn: str, *args: Any, id: Any = 1) -> Any:
        """Call a function; the `data` of the reply."""
        self.send(call(id, fn, *args))
        reply = await self.message()
        assert reply["id"] == id
        return reply["data"]

    async def closed(self) -> tuple[int, str]:
        """Wait for a close frame, answer it, and see the socket close; its code and reason."""
        while True:
            opcode, payload = await self.read()
            if opcode == CLOSE:
                break
        self.send(payload, CLOSE)
        await self.gone()
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def gone(self) -> None:
        """Wait until the gateway has closed its end; what still comes is dropped."""
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(2**16):
                    pass


def handshake(target: str, *headers: str) -> bytes:
    """A WebSocket handshake. A header of the same name replaces a usual one; one without a value leaves it out."""
    usual = {
        "Host": "gateway",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Authorization": f"Bearer {KEY}",
    }
    own = {header.partition(":")[0].lower() for header in headers}
    lines = [f"{name}: {value}" for name, value in usual.items() if name.lower() not in own]
    lines += [header for header in headers if header.partition(":")[2].strip()]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode()


def request(method: str, target: str, *headers: str, body: bytes | str = b"") -> bytes:
    """A request, with the right key unless `headers` has an Authorization."""
    content = body.encode() if isinstance(body, str) else body
    own = {header.partition(":")[0].lower() for header in headers}
    usual = {"Host": "gateway", "Authorization": f"Bearer {KEY}", "Content-Length": len(content)}
    skipped = own | ({"content-length"} if not content or "transfer-encoding" in own else set())
    lines = [f"{name}: {value}" for name, value in usual.items() if name.lower() not in skipped]
    lines += [header for header in headers if header.partition(":")[2].strip()]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + content


async def fetch(port: int, request: str | bytes) -> Answer:
    """Send a whole request on a connection of its own."""
    async with await RawClient.connect(port) as client:
        whole = request.encode() if isinstance(request, str) else request
        client.write(whole)
        return await client.answer(to_head=whole.startswith(b"HEAD "))


async def get(port: int, target: str, *headers: str) -> Answer:
    """A plain GET."""
    lines = [f"GET {target} HTTP/1.1", "Host: gateway", *headers, "", ""]
    return await fetch(port, "\r\n".join(lines))


async def becomes(port: int, target: str, status: int) -> Answer:
    """Ask for a page until it has this status."""
    async with asyncio.timeout(TIMEOUT):
        async for answer in _answers(port, target):
            if answer.status == status:
                return answer
    raise AssertionError("never comes here")


async def _answers(port: int, target: str) -> AsyncIterator[Answer]:
    while True:
        yield await get(port, target)
        await asyncio.sleep(0.02)


async def upgrade(port: int, target: str, *headers: str) -> Answer:
    """Ask for a WebSocket on a connection of its own and see what comes back."""
    async with await RawClient.connect(port) as client:
        return await client.upgrade(target, *headers)


def admission(keys: Iterable[Key] = (), **settings: Any) -> Admission:
    """What a listener of its own needs, for these settings."""
    return configured.admission(Settings(**settings), keys, SharedMemory(1).row(0))


def open_connections(proxy: Proxy) -> Collection[Connection]:
    """The connections that a gateway in this process serves, those that are closing aside."""
    assert proxy._app is not None
    return proxy._app.listener.connections
