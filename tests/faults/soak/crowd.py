"""Producers, workers and watchers of one queue, which reconnect and go on, in this process and in others."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import suppress
from random import Random
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.faults.clients import dial
from tests.faults.soak.habits import HABITS, Watcher, Worker
from tests.faults.soak.ledger import Ledger
from tests.faults.soak.site import Site
from tests.support.processes import ending_with_us
from tests.support.service import ROOT

_UNANSWERED = 8.0  # s without a reply, after which a client connects again


def _options(count: int, gateway: int) -> dict[str, int]:
    """Return what is special about a job. The last gateway's clock may be wrong: no job is delayed by that."""
    if count % 5 == 0:
        return {"priority": 1 + count % 3}
    return {"delay": 50} if count % 5 == 1 and gateway == 0 else {}


class Crowd:
    """Producers, workers and a watcher of one queue, on all gateways of a site."""

    def __init__(
        self, site: Site, queue: str, random: Random, habits: tuple[str, ...] = HABITS, strangers: int = 0
    ) -> None:
        """Make a crowd: a worker of each habit, and so many more in processes of their own."""
        self.ledger = Ledger(queue, is_lossy=site.kind == "sentinel")
        site.ledgers.append(self.ledger)
        self._site = site
        self._path = f"/queue/{quote(queue)}"
        self._random = random
        self._producers: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []
        self._habits = habits
        self._strangers = strangers
        self._producing = True

    def start(self, producers: int = 2, pause: float = 0.02, most: int = 10**9) -> None:
        """Let all of them begin; each producer adds `most` jobs at most, with a pause in seconds after each."""
        self._producers = [asyncio.create_task(self._produce(n, pause, most)) for n in range(producers)]
        workers = [Worker(self._work_place, self.ledger, self._random, habit) for habit in self._habits]
        watcher = Watcher(self._watch_place, self.ledger.heard.add, self.ledger.gap)
        running = [*(worker.run() for worker in workers), watcher.run()]
        running += [self._keep_stranger(number) for number in range(self._strangers)]
        self._others = [asyncio.create_task(each) for each in running]

    def _work_place(self) -> str:
        return self._site.address(self._random.randrange(2), f"{self._path}/process/5?confirm=1")

    def _watch_place(self) -> str:
        return self._site.address(self._random.randrange(2), f"{self._path}/events?events=completed")

    async def stop_producing(self) -> None:
        """Begin with no further job, and wait until each one that was begun with is confirmed."""
        self._producing = False
        await self.all_added()

    async def all_added(self) -> None:
        """Wait until each producer has added all its jobs."""
        await asyncio.gather(*self._producers)

    async def close(self) -> None:
        """End all of them, and raise what has ended one before."""
        self._site.ledgers.remove(self.ledger)
        tasks = (*self._producers, *self._others)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _produce(self, number: int, pause: float, most: int) -> None:
        """Add jobs with ids of our own, each until it is confirmed."""
        count = 0
        while not self._is_done(number, count, most):
            gateway = (number + count) % len(self._site.gateways)
            async with await dial(self._site.address(gateway, self._path)) as socket:
                with suppress(ConnectionClosed, TimeoutError):
                    while not self._is_done(number, count, most):
                        if await self._add(socket, f"p{number}-{count}", _options(count, gateway)):
                            count += 1
                        await asyncio.sleep(pause)

    def _is_done(self, number: int, count: int, most: int) -> bool:
        """Return whether a producer is to begin with no further job; what was tried is to be confirmed."""
        return count >= most or not (self._producing or f"p{number}-{count}" in self.ledger.tried)

    async def _add(self, socket: ClientConnection, id: str, options: dict[str, int]) -> bool:
        self.ledger.tried.add(id)
        args = ["job", {"id": id}, {"jobId": id, "attempts": 50, **options}]
        await socket.send(json.dumps({"id": id, "data": {"fn": "add", "args": args}}))
        async with asyncio.timeout(_UNANSWERED):
            while (reply := json.loads(await socket.recv()))["id"] != id:
                pass  # of a try before
        if "ok" in reply["data"]:
            self.ledger.confirm(id)
        return "ok" in reply["data"]

    async def _keep_stranger(self, number: int) -> None:
        """Let a worker run in a process of its own, and another one when it was killed."""
        addresses = [self._site.address(n, f"{self._path}/process/5?confirm=1") for n in range(2)]
        while True:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.soak.stranger", str(number), *addresses),
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
                preexec_fn=ending_with_us(signal.SIGKILL),
            )
            self._site.clients.add(process.pid)
            try:
                assert process.stdout is not None
                async for line in process.stdout:
                    self._take(line.decode().split())
                await process.wait()
            finally:
                self._site.clients.discard(process.pid)
                with suppress(ProcessLookupError):
                    process.kill()

    def _take(self, words: list[str]) -> None:
        match words:
            case ["pushed", id, start]:
                self.ledger.pushed(id, int(start))
            case ["finished", id, start]:
                self.ledger.finished(id, int(start))
            case ["lost"]:
                self.ledger.lost()
            case _:
                raise AssertionError(words)
