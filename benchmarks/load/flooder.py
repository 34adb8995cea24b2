"""`python -m benchmarks.load.flooder PORT KEY KIND SECONDS`: hostile clients, in a process of their own.

Each of them connects, sends what its kind has as fast as the socket takes it, reads and forgets what comes back, and
connects again when it is closed. It ends by itself after so many seconds, and when its stdin closes.

It has the lowest priority: as one on another machine would, it takes time from others only by what it sends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load.frames import frame

_QUEUE: Final = "/queue/flood"
_CHUNK: Final = 256  # small frames of one write
_PIECE: Final = 200_000  # bytes of a long message that is never finished
_READ: Final = 2**18
_JOBS: Final = 20_000  # of the queue that is read
_HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {key}\r\n\r\n"
)


def _call(fn: str, args: str) -> bytes:
    return frame(f'{{"id":1,"data":{{"fn":"{fn}","args":[{args}]}}}}'.encode())


def _say(data: str, id: int = 0) -> bytes:
    return frame(f'{{"id":{id},"data":{data}}}'.encode())


def _request(line: str, body: str = "", key: str = "{key}") -> bytes:
    head = f"{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


@dataclass(frozen=True, slots=True)
class Flood:
    """One kind of flood: what its clients connect to, and what they send over and over.

    Attributes:
        about: for the list of scenarios.
        payload: sent again and again; empty for clients that only connect. In HTTP `{key}` stands for the key.
        path: of the WebSocket that they open; empty for those that speak HTTP.
        clients: how many there are.
        reads: whether they read what comes back.
        jobs: that the queue must hold.
        once: whether each connection sends it once.
    """

    about: str
    payload: bytes
    path: str = _QUEUE
    clients: int = 8
    reads: bool = True
    jobs: int = 0
    once: bool = False


_BIG: Final = f'"{"x" * 900_000}"'
_ONE: Final = '{"name":"a"}'
_WAITING: Final = '"waiting"'
_WORKER: Final = f"{_QUEUE}/process/1"
_BULK: Final = f"[{','.join([_ONE] * 1000)}]"
_TYPES: Final = f"[{','.join([_WAITING] * 200)}]"

_ADD: Final = f"POST {_QUEUE}/add"
_HEALTH: Final = _request("GET /health")
_WRONG: Final = _request(_ADD, key="wrong")

FLOODS: Final[dict[str, Flood]] = {
    "unknown": Flood("calls of unknown functions", _call("gteJob", '"1"') * _CHUNK),
    "broken": Flood("messages that are no JSON", frame(b'{"id":1,"data":') * _CHUNK),
    "empty": Flood("messages of no bytes", frame(b"") * _CHUNK),
    "refused": Flood("calls with wrong arguments", _call("add", "7") * _CHUNK),
    "pings": Flood("pings", b"\x89\x80\0\0\0\0" * 4 * _CHUNK),
    "fragments": Flood("messages in empty fragments", (b"\x01\x80\0\0\0\0" + b"\x80\x80\0\0\0\0") * _CHUNK),
    "unfinished": Flood("long messages that are never finished", frame(b"x" * 999_000)[:_PIECE], clients=200),
    "adds": Flood("adds, without waiting for replies", _call("add", '"a",{}') * _CHUNK),
    "big-adds": Flood("adds of 900 kB", _call("add", f'"a",{_BIG},{{"removeOnComplete":true}}'), clients=32),
    "bulks": Flood("addBulk of 1,000 jobs", _call("addBulk", _BULK), clients=4),
    "reads": Flood("reading 20,000 jobs again and again", _call("getJobs", '["waiting"],0,-1') * 4, jobs=_JOBS),
    "unread": Flood(
        "reading 20,000 jobs, and the replies not at all",
        _call("getJobs", '["waiting"],0,-1') * 4,
        reads=False,
        jobs=_JOBS,
    ),
    "ranges": Flood("getRanges of one type 200 times", _call("getRanges", f"{_TYPES},0,-1"), jobs=_JOBS),
    "progress": Flood(
        "progress of 50 bytes on a job in hand",
        _say(f'{{"type":"progress","progress":"{"x" * 50}"}}') * _CHUNK,
        path=_WORKER,
        jobs=_JOBS,
    ),
    "logs": Flood("log rows of a job in hand", _say('{"type":"log","row":"row"}') * _CHUNK, path=_WORKER, jobs=_JOBS),
    "acks": Flood("the same ack again and again", _say('{"type":"ack"}') * _CHUNK, path=_WORKER, jobs=8),
    "pauses": Flood("pause and resume", _say('{"type":"pause"}') * _CHUNK, path=_WORKER),
    "subscriptions": Flood(
        "on and off", (_call("on", '"failed"') + _call("off", '"failed"')) * _CHUNK, path=f"{_QUEUE}/events"
    ),
    "handshakes": Flood("connecting, and closing again", b""),
    "requests": Flood("HTTP requests, each on a connection of its own", _HEALTH, path="", once=True),
    "pages": Flood("HTTP requests for a page", _HEALTH * _CHUNK, path=""),
    "posts": Flood("adds by HTTP", _request(_ADD, '["a",{}]') * _CHUNK, path=""),
    "keys": Flood("HTTP requests with a wrong key", _WRONG * _CHUNK, path=""),
    "heads": Flood("bytes that are no request", bytes(_READ), path=""),
}


class Flooder:
    """The clients of one flood."""

    def __init__(self, flood: Flood, port: int, key: str) -> None:
        self._flood = flood
        self._port = port
        self._key = key
        self._payload = flood.payload.replace(b"{key}", key.encode())

    async def run(self) -> None:
        """Fill the queue, then let all clients go until they are cancelled."""
        if self._flood.jobs:
            await self._fill(self._flood.jobs)
        print("ready", flush=True)
        await asyncio.gather(*(self._again_and_again() for _ in range(self._flood.clients)))

    async def _fill(self, jobs: int) -> None:
        reader, writer = await self._connect(_QUEUE)
        for _ in range(0, jobs, 1000):
            writer.write(_call("addBulk", _BULK))
            await writer.drain()
        writer.write(frame(b'{"id":"last","data":{"fn":"count"}}'))
        seen = b""
        while b'"last"' not in seen:
            seen = seen[-20:] + await reader.read(_READ)
        writer.close()

    async def _connect(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        if not path:
            return reader, writer
        writer.write(_HANDSHAKE.format(path=path, port=self._port, key=self._key).encode())
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    async def _again_and_again(self) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await self._connect(self._flood.path)
                if self._flood.once:
                    writer.write(self._payload)
                    await reader.read(_READ)
                    writer.transport.abort()
                    continue
                reading = asyncio.create_task(_forget(reader)) if self._flood.reads else None
                try:
                    await self._send(writer)
                finally:
                    if reading is not None:
                        reading.cancel()
                    writer.transport.abort()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        if len(self._payload) == _PIECE:
            writer.write(self._payload)
            await asyncio.sleep(1)
        elif self._payload:
            while not writer.transport.is_closing():
                writer.write(self._payload)
                await writer.drain()
                await asyncio.sleep(0)


async def _forget(reader: asyncio.StreamReader) -> None:
    while await reader.read(_READ):
        pass


async def _until_nobody_wants_it(run: Callable[[], Awaitable[None]], seconds: float) -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    running = asyncio.ensure_future(run())
    ended = asyncio.ensure_future(stdin.read())
    await asyncio.wait((running, ended), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()


def _be_the_last() -> None:
    """Run only while nobody else wants to, also where the kernel gives each session a share (`sched_autogroup`)."""
    os.setsid()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


if __name__ == "__main__":
    import uvloop

    if sys.platform == "linux":
        _be_the_last()
    port, key, kind, seconds = sys.argv[1:]
    uvloop.run(_until_nobody_wants_it(Flooder(FLOODS[kind], int(port), key).run, float(seconds)))
