"""`python -m benchmarks.peers.package TASK`: the `bullmq` package straight to Redis, as its users write it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from bullmq import Queue, QueueEvents, Worker

from benchmarks.load import stage
from benchmarks.load.meter import Meter, clock
from benchmarks.load.stage import Driver
from benchmarks.load.task import Task, job_data


class _Base:
    def __init__(self, task: Task, meter: Meter) -> None:
        self.finished = asyncio.Event()
        self._task = task
        self._load = task.load
        self._meter = meter
        # redis-py 8 puts a socket timeout under blocking reads unless told otherwise.
        connection = {"host": "127.0.0.1", "port": task.redis_port, "socket_timeout": None}
        self._options = {"connection": connection, "prefix": task.prefix}
        self._closing = False
        self._queues: list[Any] = []
        self._others: list[Any] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; each kind in its own way."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop; jobs under way are dropped."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._others:
            await each.close(force=True) if isinstance(each, Worker) else await each.close()
        for queue in self._queues:
            await queue.close()

    def _open_queues(self) -> None:
        self._queues = [Queue(self._task.queue, self._options) for _ in range(self._load.connections)]

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._closing and not task.cancelled() and (error := task.exception()) is not None:
            self._meter.error(f"{type(error).__name__}: {error}")

    def _open_workers(self, processor: Any) -> None:
        options = {**self._options, "concurrency": self._load.concurrency}
        self._others += [Worker(self._task.queue, processor, options) for _ in range(self._load.workers)]


class Adds(_Base):
    """`add` and `addBulk`: a Queue for each connection, a task for each place in its window."""

    async def start(self) -> None:
        """Begin to add."""
        self._open_queues()
        for queue in self._queues:
            for _ in range(self._load.window):
                self._spawn(self._add(queue))

    async def _add(self, queue: Any) -> None:
        data, bulk = json.loads(job_data(self._load.payload)), self._load.bulk
        jobs = [{"name": "job", "data": data, "opts": {}} for _ in range(bulk)]
        while not self._closing:
            sent = clock()
            if bulk:
                await queue.addBulk(jobs)
            else:
                await queue.add("job", data)
            self._meter.done(bulk or 1, clock() - sent)


class Processing(_Base):
    """`process`."""

    async def start(self) -> None:
        """Begin to process."""
        self._left = self._task.jobs
        self._open_workers(self._process)

    async def _process(self, job: Any, token: str) -> dict[str, bool]:
        self._meter.done(1)
        self._left -= 1
        if self._left <= 0:
            self.finished.set()
        return {"ok": True}


class RoundTrips(_Base):
    """`roundtrip`."""

    async def start(self) -> None:
        """Watch, work, then add."""
        self._sent: dict[int, tuple[float, asyncio.Future[None]]] = {}
        self._next = 0
        options = {**self._options, "lastEventId": "0-0"}
        self._others += [QueueEvents(self._task.queue, options) for _ in range(self._load.watchers)]
        self._others[0].on("completed", self._completed)
        self._open_workers(self._process)
        self._open_queues()
        for queue in self._queues:
            for _ in range(self._load.window):
                self._spawn(self._add(queue))

    async def _add(self, queue: Any) -> None:
        while not self._closing:
            number, self._next = self._next, self._next + 1
            data = json.loads(job_data(self._load.payload, number))
            back: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._sent[number] = (clock(), back)
            await queue.add("job", data)
            await back

    async def _process(self, job: Any, token: str) -> dict[str, int]:
        return {"n": job.data["n"]}

    def _completed(self, event: dict[str, Any], *_: Any) -> None:
        sent, back = self._sent.pop(event["returnvalue"]["n"])
        self._meter.done(1, clock() - sent)
        if not back.done():
            back.set_result(None)


_KINDS: Final = {"add": Adds, "process": Processing, "roundtrip": RoundTrips}


def make_driver(task: Task, meter: Meter) -> Driver:
    """The driver of a task."""
    return _KINDS[task.load.kind](task, meter)


if __name__ == "__main__":
    stage.main(make_driver, sys.argv[1:])
