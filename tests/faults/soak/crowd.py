"""Clients of all habits: those that reconnect and go on, and those that vanish, dawdle, answer twice or for others."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.faults.clients import dial
from tests.faults.soak.site import Site

HABITS = ("good", "good", "vanishing", "slow", "twice", "meddling", "failing")
_ODDS = 0.03  # of each job, that a client does what it does not do always
_UNANSWERED = 8.0  # s without a reply, after which a client connects again


class Ledger:
    """What the clients of one queue know.

    Attributes:
        tried: ids of jobs that somebody wanted to add.
        added: those that were confirmed.
        pushes: how often each one came to a worker.
        done: those whose completion was confirmed to their worker.
        again: those that came once more after that: there must be none.
        lost: answers that came too late, as the gateway said.
    """

    def __init__(self) -> None:
        self.tried: set[str] = set()
        self.added: set[str] = set()
        self.pushes: Counter[str] = Counter()
        self.done: set[str] = set()
        self.again: list[str] = []
        self.lost = 0


class Crowd:
    """Producers and workers of one queue, on all gateways of a site."""

    def __init__(self, site: Site, queue: str, random: Random, habits: tuple[str, ...] = HABITS) -> None:
        self.ledger = Ledger()
        self._site = site
        self._path = f"/queue/{quote(queue)}"
        self._random = random
        self._producers: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._habits = habits
        self._producing = True

    def start(self, producers: int = 2, pause: float = 0.02, most: int = 10**9) -> None:
        """Let all of them begin; each producer adds `most` jobs at most, with a pause in seconds after each."""
        self._producers = [asyncio.create_task(self._produce(n, pause, most)) for n in range(producers)]
        self._workers = [asyncio.create_task(self._work(n, habit)) for n, habit in enumerate(self._habits)]

    async def stop_producing(self) -> None:
        """Begin with no further job, and wait until each one that was begun with is confirmed."""
        self._producing = False
        await self.all_added()

    async def all_added(self) -> None:
        """Wait until each producer has added all its jobs."""
        await asyncio.gather(*self._producers)

    async def close(self) -> None:
        """End all of them."""
        for task in (*self._producers, *self._workers):
            task.cancel()
        await asyncio.gather(*self._producers, *self._workers, return_exceptions=True)

    async def _produce(self, number: int, pause: float, most: int) -> None:
        """Add jobs with ids of our own, each until it is confirmed."""
        count = 0
        while not self._is_done(number, count, most):
            async with await dial(self._site.address(number + count, self._path)) as socket:
                with suppress(ConnectionClosed, TimeoutError):
                    while not self._is_done(number, count, most):
                        if await self._add(socket, f"p{number}-{count}"):
                            count += 1
                        await asyncio.sleep(pause)

    def _is_done(self, number: int, count: int, most: int) -> bool:
        """Return whether a producer is to begin with no further job; what was tried is to be confirmed."""
        return count >= most or not (self._producing or f"p{number}-{count}" in self.ledger.tried)

    async def _add(self, socket: ClientConnection, id: str) -> bool:
        self.ledger.tried.add(id)
        args = ["job", {"id": id}, {"jobId": id, "attempts": 50}]
        await socket.send(json.dumps({"id": id, "data": {"fn": "add", "args": args}}))
        async with asyncio.timeout(_UNANSWERED):
            while (reply := json.loads(await socket.recv()))["id"] != id:
                pass  # of a try before
        if "ok" in reply["data"]:
            self.ledger.added.add(id)
        return "ok" in reply["data"]

    async def _work(self, number: int, habit: str) -> None:
        while True:
            where = self._site.address(number + self._random.randrange(2), f"{self._path}/process/5?confirm=1")
            async with await dial(where) as socket:
                with suppress(ConnectionClosed):
                    async for text in socket:
                        message = json.loads(text)
                        self._note(message["data"])
                        if message["data"].get("type") == "process":
                            await self._handle(socket, message, habit)

    def _note(self, data: dict[str, Any]) -> None:
        match data.get("type"):
            case "process":
                id = data["job"]["id"]
                self.ledger.pushes[id] += 1
                if id in self.ledger.done:
                    self.ledger.again.append(id)
            case "finished" if data["state"] == "completed":
                self.ledger.done.add(data["jobId"])
            case "lost":
                self.ledger.lost += 1

    async def _handle(self, socket: ClientConnection, message: dict[str, Any], habit: str) -> None:
        rarely = self._random.random() < _ODDS
        answer: dict[str, Any] = {"id": message["id"], "data": {"result": 1}}
        if habit == "vanishing" and rarely:
            socket.transport.abort()
            return
        if habit == "slow" and rarely:
            await asyncio.sleep(1)
        if habit == "failing" and rarely:
            answer["data"] = {"err": "no"}
        if habit == "meddling" and rarely:
            await socket.send(json.dumps({"id": message["id"] + 1000, "data": {"result": 2}}))
        for _ in range(2 if habit == "twice" and rarely else 1):
            await socket.send(json.dumps(answer))
