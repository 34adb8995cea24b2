"""A client that keeps adding jobs, and a worker that does them, while something happens to Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.sessions.peer import Gateway, Refused
from tests.support.waiting import eventually

_UNDER_WAY = 20  # calls at a time


class Load:
    """What became of the jobs of one queue.

    Attributes:
        added: the ids of those whose `add` was confirmed.
        done: how often each id was handed to the worker.
        refused: the codes of the calls that failed.
    """

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.name = name
        self._gateway = gateway
        self.added: list[str] = []
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    async def add(self) -> None:
        """Add jobs until cancelled."""
        queue = await self._gateway.queue(self.name)
        while True:
            ids = [await queue.request("add", "n", {}) for _ in range(_UNDER_WAY)]
            for id in ids:
                try:
                    self.added.append((await queue.reply(id, 30.0))["id"])
                except Refused as refused:
                    self.refused[refused.code] += 1

    async def work(self) -> None:
        """Do jobs until cancelled."""
        worker = await self._gateway.worker(self.name, 50)
        while True:
            message: dict[str, Any] = await worker.message(60.0)
            if message["data"].get("type") == "process":
                self.done[message["data"]["job"]["id"]] += 1
                await worker.send(message["id"], result=None)

    async def goes_on(self, jobs: int = 50) -> None:
        """Wait until so many more jobs were added, and done."""
        added, done = len(self.added), len(self.done)
        await eventually(lambda: len(self.added) > added + jobs, "jobs are added", 20.0)
        await eventually(lambda: len(self.done) > done + jobs, "jobs are done", 20.0)

    async def all_done(self) -> None:
        """Wait until each job that was confirmed has been handed out."""
        try:
            await eventually(lambda: self.done.keys() >= set(self.added), "all are done", 20.0)
        except AssertionError:
            missing = sorted(set(self.added) - self.done.keys())
            raise AssertionError(f"{len(missing)} of {len(self.added)} lost, such as {missing[:5]}") from None


@asynccontextmanager
async def load(gateway: Gateway, name: str = "q") -> AsyncIterator[Load]:
    """Add and do jobs while the context lasts; at its end all that were confirmed must have been done."""
    made = Load(gateway, name)
    worker, producer = asyncio.create_task(made.work()), asyncio.create_task(made.add())
    try:
        await made.goes_on()
        yield made
        producer.cancel()
        await made.all_done()
    finally:
        for task in (worker, producer):
            task.cancel()
        ended = await asyncio.gather(worker, producer, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each
