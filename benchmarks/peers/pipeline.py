"""The raw peer's Redis connection and BullMQ's scripts as packed commands; all that can be left out is."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
import msgspec
from bullmq.redis_connection import SCRIPT_DEFINITIONS, loadScript

Sink = Callable[[Any], None]

_pack = msgspec.msgpack.Encoder().encode


def command(*words: Any) -> bytes:
    """A command in Redis protocol."""
    return cast("bytes", hiredis.pack_command(words))


class Pipeline(asyncio.Protocol):
    """One connection: commands of one turn of the loop leave in one write, replies go to their sinks in order."""

    def __init__(self) -> None:
        self.failures = 0
        self._reader = hiredis.Reader()
        self._sinks: deque[Sink] = deque()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        gets, sinks = self._reader.gets, self._sinks
        self._reader.feed(data)
        while sinks and (reply := gets()) is not False:
            if isinstance(reply, hiredis.ReplyError):
                self.failures += 1
            sinks.popleft()(reply)

    def send(self, packed: bytes, sink: Sink) -> None:
        """Send one packed command."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._sinks.append(sink)

    def ask(self, *words: Any) -> asyncio.Future[Any]:
        """Send one command and get a future of its reply; an error reply is a value, too."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command(*words), lambda reply: None if future.done() else future.set_result(reply))
        return future

    def close(self) -> None:
        """Disconnect."""
        self._transport.abort()

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._transport.write(b"".join(out))


async def connect(port: int) -> Pipeline:
    """Connect to Redis on the loopback address."""
    _, pipeline = await asyncio.get_running_loop().create_connection(Pipeline, "127.0.0.1", port)
    return pipeline


class Scripts:
    """BullMQ's own scripts for one queue, as commands ready to be sent; Redis must be given the `texts` first."""

    def __init__(self, prefix: str, queue: str, token: str = "raw") -> None:
        self.base = f"{prefix}:{queue}:"
        names = ("addStandardJob", "moveToActive", "moveToFinished")
        self.texts = {name: loadScript(SCRIPT_DEFINITIONS[name]) for name in names}
        self._sha = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self.texts.items()
        }
        self._fetch = _pack({"token": token, "lockDuration": 30_000})
        self._finish = _pack(
            {
                "token": token,
                "keepJobs": {"count": -1},
                "lockDuration": 30_000,
                "attempts": 0,
                "maxMetricsSize": "",
                "fpof": False,
                "cpof": False,
                "idof": False,
                "rdof": False,
            }
        )
        self._active_keys = self._keys("wait active prioritized events stalled limiter delayed paused meta pc marker")
        self._finish_keys = self._keys(
            "wait active prioritized events stalled limiter delayed paused meta pc completed"
        )
        self._add_keys = self._keys("wait paused meta id completed delayed active events marker")

    def add(self, data: bytes) -> bytes:
        """Add a job with default options."""
        now = int(time.time() * 1000)
        fields = _pack((self.base, "", "job", now, None, None, None, None, None))
        return self._command("addStandardJob", self._add_keys, [fields, data, _pack({"attempts": 0})])

    def fetch(self) -> bytes:
        """Move a job to active."""
        return self._command("moveToActive", self._active_keys, [self.base, int(time.time() * 1000), self._fetch])

    def complete(self, job: str, result: bytes) -> bytes:
        """Finish a job and fetch the next one."""
        keys = [*self._finish_keys, self.base + job, f"{self.base}metrics:completed", f"{self.base}marker"]
        now = int(time.time() * 1000)
        args = [job, now, "returnvalue", result, "completed", "1", self.base, self._finish]
        return self._command("moveToFinished", keys, args)

    def _keys(self, names: str) -> list[str]:
        return [self.base + name for name in names.split()]

    def _command(self, script: str, keys: list[str], args: list[Any]) -> bytes:
        return command("EVALSHA", self._sha[script], len(keys), *keys, *args)


def next_job(reply: Any) -> tuple[str, list[bytes]] | None:
    """The job in a reply of moveToActive or moveToFinished: its id and its flat hash."""
    if isinstance(reply, list) and isinstance(reply[0], list):
        return reply[1].decode(), reply[0]
    return None
