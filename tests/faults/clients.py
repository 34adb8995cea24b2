"""Clients that do what a careful user's client does: reconnect, and ask again what was not answered."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from tests.support.service import Service
from tests.support.waiting import eventually

_PAUSE = 0.05  # s before another try to connect


OPENED: list[ClientConnection] = []
RUNNING: list[asyncio.Task[None]] = []
"""All connections and clients of the running test: the fixture `hang_up` ends what is left."""


async def dial(url: str) -> ClientConnection:
    """Connect, however often it takes; the test's own deadline ends it."""
    while True:
        try:
            OPENED.append(await connect(url, open_timeout=5, ping_interval=None, proxy=None))
            return OPENED[-1]
        except (OSError, WebSocketException, TimeoutError):
            await asyncio.sleep(_PAUSE)


async def ask(socket: ClientConnection, fn: str, *args: Any) -> Any:
    """One Queue API call and its result; an error reply fails the test."""
    await socket.send(json.dumps({"id": 1, "data": {"fn": fn, "args": args}}))
    reply = json.loads(await socket.recv())
    assert "ok" in reply["data"], reply
    return reply["data"]["ok"]


def launch(*clients: Producer | Worker) -> list[asyncio.Task[None]]:
    """Let clients run beside the test."""
    tasks = [asyncio.create_task(client.run()) for client in clients]
    RUNNING.extend(tasks)
    return tasks


class Producer:
    """Adds jobs with ids of its own, so that a second try adds nothing twice. `closes` collects close codes."""

    def __init__(self, url: str, name: str, count: int) -> None:
        self._url = url
        self._todo = [f"{name}-{number}" for number in range(count)]
        self.confirmed: set[str] = set()
        self.closes: list[int] = []

    async def run(self) -> None:
        """Add all, one after the other, until each is confirmed."""
        while self._todo:
            async with await dial(self._url) as socket:
                try:
                    await self._add_all(socket)
                except ConnectionClosed as closed:
                    self.closes.append(closed.rcvd.code if closed.rcvd else 1006)

    async def _add_all(self, socket: ClientConnection) -> None:
        while self._todo:
            id = self._todo[-1]
            await socket.send(json.dumps({"id": id, "data": {"fn": "add", "args": ["job", {"id": id}, {"jobId": id}]}}))
            reply = json.loads(await socket.recv())
            assert reply["id"] == id
            if "ok" in reply["data"]:
                self.confirmed.add(self._todo.pop())
            else:
                assert reply["data"]["err"]["code"] in ("REDIS_UNAVAILABLE", "OUTCOME_UNKNOWN"), reply
                await asyncio.sleep(_PAUSE)


class Worker:
    """Answers jobs for as long as it lives. `seen` counts the pushes of each job id, `stored` the confirmed answers."""

    def __init__(self, url: str, *, hold: float = 0.0) -> None:
        self._url = url
        self._hold = hold
        self.seen: Counter[str] = Counter()
        self.stored: set[str] = set()
        self.closes: list[int] = []
        self.socket: ClientConnection | None = None

    async def run(self) -> None:
        """Process jobs until cancelled."""
        while True:
            self.socket = await dial(self._url)
            try:
                async for text in self.socket:
                    await self._take(json.loads(text))
            except ConnectionClosed:
                pass
            self.closes.append(self.socket.close_code or 1006)

    async def _take(self, message: dict[str, Any]) -> None:
        data = message["data"]
        match data.get("type"):
            case "process":
                self.seen[data["job"]["id"]] += 1
                if self._hold:
                    await asyncio.sleep(self._hold)  # the job's work
                assert self.socket is not None
                await self.socket.send(json.dumps({"id": message["id"], "data": {"result": data["payload"]}}))
            case "finished":
                self.stored.add(data["jobId"])


async def counts(url: str) -> dict[str, int]:
    """The job counts of a queue."""
    async with await dial(url) as socket:
        result: dict[str, int] = await ask(socket, "getJobCounts")
        return result


async def until_counts(url: str, wanted: dict[str, int], timeout: float) -> None:
    """Ask for the job counts until they are as wanted."""
    found: dict[str, int] = {}
    try:
        async with asyncio.timeout(timeout):
            while True:
                with suppress(ConnectionClosed, AssertionError, InvalidStatus):
                    found = await counts(url)
                if all(found.get(state) == count for state, count in wanted.items()):
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {wanted}, at last {found}") from None


async def check_no_job_is_lost(running: Service, strike: Callable[[], None], jobs: int = 400) -> None:
    """Let producers and workers that reconnect get all jobs done, whatever `strike` does in the middle of it."""
    producers = [Producer(running.address("/queue/load"), f"p{n}", jobs // 4) for n in range(4)]
    workers = [Worker(running.address("/queue/load/process/5", confirm="1"), hold=0.001) for _ in range(6)]
    launch(*workers)
    producing = launch(*producers)
    await eventually(lambda: sum(len(worker.stored) for worker in workers) > jobs // 5, "the load runs", 20)

    strike()

    await asyncio.wait_for(asyncio.gather(*producing), 30)
    await until_counts(running.address("/queue/load"), {"completed": jobs, "active": 0, "waiting": 0}, 15)
    assert set().union(*(producer.confirmed for producer in producers)) == {
        f"p{n}-{m}" for n in range(4) for m in range(jobs // 4)
    }
    assert len(set().union(*(worker.seen.keys() for worker in workers))) == jobs
