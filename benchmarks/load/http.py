"""Over HTTP: `http-add`, the adds of `add` on connections that are kept alive, and `sse`, streams of events."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Final

from benchmarks.load.drivers import Adds, Deliveries, Requests
from benchmarks.load.socket import OnMessages, Socket
from benchmarks.load.task import job_data

_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class _HttpSocket(Socket):
    """A client connection; a message is the body of a response."""

    _rest = b""

    def data_received(self, data: bytes) -> None:
        data, at, bodies = self._rest + data, 0, []
        while (end := data.find(b"\r\n\r\n", at)) >= 0:
            length = _LENGTH.search(data, at, end + 2)
            assert length is not None, data[at:end]
            stop = end + 4 + int(length[1])
            if stop > len(data):
                break
            bodies.append(data[end + 4 : stop])
            at = stop
        self._rest = data[at:]
        if bodies:
            self.on_messages(self, bodies)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.on_lost is not None:
            self.on_lost("closed")


class HttpAdds(Adds):
    """An operation is a job, its latency that of its request."""

    async def start(self) -> None:
        """Fill every connection's window."""
        body = b'["job",%b]' % job_data(self._load.payload)
        request = (
            f"POST {self._path}/add HTTP/1.1\r\nHost: 127.0.0.1:{self._task.port}\r\nAuthorization: Bearer"
            f" {self._task.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(self._load.connections):
            requests = Requests(request.encode() + body, 1)
            client = await self._connect(partial(self._answered, requests))
            requests.send(client, self._load.window)

    async def _connect(self, on_messages: OnMessages) -> Socket:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _HttpSocket(on_messages), "127.0.0.1", self._task.port)
        client.on_lost = self._lost_unasked
        self._sockets.append(client)
        return client


class _Stream(Socket):
    """A client connection; a message is an event. Comments are none."""

    _rest = b""
    _is_open = False

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._is_open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            if b" 200 " not in head[:20]:
                self.transport.abort()
                return
            self._is_open = True
            self.opened.set_result(None)
        *blocks, self._rest = data.split(b"\n\n")
        if events := [block for block in blocks if not block.startswith(b":")]:
            self.on_messages(self, events)


class StreamedDeliveries(Deliveries):
    """The deliveries of `events`, as server-sent events."""

    async def _watch(self, count: int, path: str) -> list[Socket]:
        return [await self._stream(path) for _ in range(count)]

    async def _stream(self, path: str) -> Socket:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(lambda: _Stream(_ignore), "127.0.0.1", self._task.port)
        client.on_lost = self._lost_unasked
        self._sockets.append(client)
        transport.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._task.port}\r\nAuthorization: Bearer {self._task.key}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        await client.opened
        return client


def _ignore(client: Socket, messages: list[bytes]) -> None:
    """Wait for the one who listens."""
