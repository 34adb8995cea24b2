"""`python -m benchmarks.peers.raw TASK`: a bare pipelined client of Redis, the limit of what a proxy can reach.

One connection with the window of all clients together, as a proxy's shard has it. It packs BullMQ's arguments, looks
at the replies as far as it must, and does nothing else: no validation, no JSON, no locks to renew.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

from benchmarks.load import stage
from benchmarks.load.meter import Meter, clock
from benchmarks.load.stage import Driver
from benchmarks.load.task import Task, job_data
from benchmarks.peers.pipeline import Pipeline, Scripts, command, connect, next_job

_RESULT: Final = b'{"ok":true}'


class _Base:
    def __init__(self, task: Task, meter: Meter) -> None:
        self.finished = asyncio.Event()
        self._task = task
        self._load = task.load
        self._meter = meter
        self._scripts = Scripts(task.prefix, task.queue)
        self._pipelines: list[Pipeline] = []
        self._closing = False

    async def start(self) -> None:
        """Connect, load the scripts, begin."""
        self._main = await self._open()
        for text in self._scripts.texts.values():
            await self._main.ask("SCRIPT", "LOAD", text)
        await self._begin()

    async def close(self) -> None:
        """Disconnect."""
        self._closing = True
        for pipeline in self._pipelines:
            pipeline.close()
        await asyncio.sleep(0)

    async def _begin(self) -> None:
        raise NotImplementedError

    async def _open(self) -> Pipeline:
        pipeline = await connect(self._task.redis_port)
        self._pipelines.append(pipeline)
        return pipeline

    def _check(self, reply: Any) -> None:
        if isinstance(reply, Exception):
            self._meter.error(str(reply))


class Adds(_Base):
    """`add` and `addBulk`: the latter as one burst of adds, which is what BullMQ's MULTI comes to."""

    async def _begin(self) -> None:
        self._command = self._scripts.add(job_data(self._load.payload))
        for _ in range(self._load.connections * self._load.window):
            self._burst()

    def _burst(self) -> None:
        size = self._load.bulk or 1
        sent, left = clock(), size

        def replied(reply: Any) -> None:
            nonlocal left
            self._check(reply)
            left -= 1
            if not left:
                self._meter.done(size, clock() - sent)
                if not self._closing:
                    self._burst()

        for _ in range(size):
            self._main.send(self._command, replied)


class _Working(_Base):
    """Workers: as many slots as all workers together have; idle ones wait at the marker on one more connection."""

    async def _work(self) -> None:
        self._blocking = await self._open()
        self._idle = self._load.workers * self._load.concurrency
        self._waiting = False
        self._fetch()

    def _fetch(self) -> None:
        self._idle -= 1
        self._main.send(self._scripts.fetch(), self._got)

    def _got(self, reply: Any) -> None:
        self._check(reply)
        job = next_job(reply)
        if job is None:
            self._idle += 1
            self._wait()
            return
        id, fields = job
        self._main.send(self._scripts.complete(id, self._result(fields)), self._finished)
        if self._idle:
            self._fetch()

    def _finished(self, reply: Any) -> None:
        self._job_done()
        self._got(reply)

    def _wait(self) -> None:
        if not self._waiting and not self._closing:
            self._waiting = True
            self._blocking.send(command("BZPOPMIN", f"{self._scripts.base}marker", 5), self._woken)

    def _woken(self, reply: Any) -> None:
        self._waiting = False
        if self._idle and not self._closing:
            self._fetch()

    def _result(self, fields: list[bytes]) -> bytes:
        return _RESULT

    def _job_done(self) -> None:
        """A job has been finished."""


class Processing(_Working):
    """`process`."""

    async def _begin(self) -> None:
        self._left = self._task.jobs
        await self._work()

    def _job_done(self) -> None:
        self._meter.done(1)
        self._left -= 1
        if self._left <= 0:
            self.finished.set()


class RoundTrips(_Working):
    """`roundtrip`: the events come by one blocking read of the stream; more watchers would read it again each."""

    async def _begin(self) -> None:
        self._sent: dict[int, float] = {}
        self._next = 0
        for number in range(self._load.watchers):
            self._watch(await self._open(), counts=number == 0)
        await self._work()
        for _ in range(self._load.connections * self._load.window):
            self._add()

    def _watch(self, stream: Pipeline, *, counts: bool) -> None:
        def read(last: bytes) -> None:
            words = ("XREAD", "COUNT", 200, "BLOCK", 5000, "STREAMS", f"{self._scripts.base}events", last)
            stream.send(command(*words), lambda reply: events(last, reply))

        def events(last: bytes, reply: Any) -> None:
            for id, fields in reply[0][1] if reply else ():
                last = id
                if counts and fields[1] == b"completed":
                    self._completed(fields)
            if not self._closing:
                read(last)

        read(b"0-0")

    def _add(self) -> None:
        number, self._next = self._next, self._next + 1
        self._sent[number] = clock()
        self._main.send(self._scripts.add(job_data(self._load.payload, number)), self._check)

    def _result(self, fields: list[bytes]) -> bytes:
        data = fields[fields.index(b"data") + 1]
        return data[: data.index(b",")] + b"}"  # {"n":5

    def _completed(self, fields: list[bytes]) -> None:
        result = fields[fields.index(b"returnvalue") + 1]
        self._meter.done(1, clock() - self._sent.pop(int(result[5:-1])))
        if not self._closing:
            self._add()


_KINDS: Final = {"add": Adds, "process": Processing, "roundtrip": RoundTrips}


def make_driver(task: Task, meter: Meter) -> Driver:
    """The driver of a task."""
    return _KINDS[task.load.kind](task, meter)


if __name__ == "__main__":
    stage.main(make_driver, sys.argv[1:])
