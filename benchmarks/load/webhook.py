"""`webhook`: the jobs are there, and come as HTTP requests to an endpoint here, which answers at once."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

from benchmarks.load.drivers import Base

_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_ANSWER: Final = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"ok":true}'


class Webhooks(Base):
    """An operation is a job."""

    async def start(self) -> None:
        """Listen, and register the endpoint in the form that all peers know."""
        self._left = self._task.jobs
        self._server = await asyncio.get_running_loop().create_server(lambda: _Endpoint(self), "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        worker = {
            "queue": self._task.queue,
            "endpoint": {"url": f"http://127.0.0.1:{port}/jobs", "method": "POST"},
            "opts": {"concurrency": self._load.concurrency},
        }
        body = json.dumps(worker)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._task.port)
        writer.write(
            f"POST /workers HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._task.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        answer = await reader.readline()
        writer.close()
        if b" 200 " not in answer:
            self._meter.error(answer.decode().strip())

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await super().close()

    def asked(self, count: int) -> None:
        """Count requests that are answered now."""
        self._meter.done(count)
        self._left -= count
        if self._left <= 0:
            self.finished.set()


class _Endpoint(asyncio.Protocol):
    """One connection to the endpoint."""

    def __init__(self, driver: Webhooks) -> None:
        self._driver = driver
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.WriteTransport = transport

    def data_received(self, data: bytes) -> None:
        data, at, count = self._rest + data, 0, 0
        while (end := data.find(b"\r\n\r\n", at)) >= 0:
            length = _LENGTH.search(data, at, end + 2)
            assert length is not None, data[at:end]
            stop = end + 4 + int(length[1])
            if stop > len(data):
                break
            at = stop
            count += 1
        self._rest = data[at:]
        if count:
            self._transport.write(_ANSWER * count)
            self._driver.asked(count)
