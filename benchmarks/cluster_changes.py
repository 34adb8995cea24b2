"""`python -m benchmarks.cluster_changes [SLOTS] [QUEUES] [MIN_REPLICAS]`: a cluster changes while jobs run.

Three masters with a replica each, and a gateway of two shards in processes of its own. Each queue has a client that
adds jobs at a steady pace, and one that does them. Each master is killed in turn and comes back as a replica; a node
joins, so many slots move to it and back, and it is removed. The queues are on all masters, a third of them in the slots
that move. At the end every job is looked for by its id, in Redis itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from websockets.asyncio.client import connect

from bullmq_proxy.gateway.values.slots import SLOTS, slot_of
from tests.faults.soak.auditor import places
from tests.support.cluster import Cluster, ClusterNode
from tests.support.service import Service
from tests.support.waiting import eventually

_PAUSE: Final = 0.05  # s between two jobs of a queue
_MASTERS: Final = 3
_GOING_ON: Final = 20  # jobs of each queue after each change
_LONGEST: Final = 90.0  # s for what is under way at the end: BullMQ's own check finds jobs within 60


@dataclass
class Ledger:
    """Jobs of one queue as its clients know them.

    Attributes:
        tried: when each id was sent.
        waited: seconds until the reply to each `add`.
        added: ids that were confirmed.
        runs: how often each id came to the worker.
        ended: ids whose end was confirmed to the worker.
        again: ids that came to the worker after that.
        errors: codes of the calls that failed, and of answers that were not stored.
        latest: when the worker got its last job.
        pause: seconds, the longest between two jobs in this change.
    """

    tried: dict[str, float] = field(default_factory=dict)
    waited: list[float] = field(default_factory=list)
    added: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    ended: set[str] = field(default_factory=set)
    again: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    latest: float = 0.0
    pause: float = 0.0

    def run(self, id: str) -> None:
        """Take note of a job that came to the worker."""
        self.runs[id] += 1
        if id in self.ended:
            self.again.append(id)
        now = time.monotonic()
        self.pause = max(self.pause, now - self.latest)
        self.latest = now


async def _produce(url: str, ledger: Ledger, stop: asyncio.Event) -> None:
    """Add jobs at a steady pace, whatever becomes of those before, until `stop`; then wait for the replies."""
    async with connect(url, ping_interval=None) as socket:

        async def hear() -> None:
            async for text in socket:
                message = json.loads(text)
                id = str(message["id"])
                ledger.waited.append(time.monotonic() - ledger.tried[id])
                if "ok" in message["data"]:
                    ledger.added.add(id)
                else:
                    ledger.errors["add: " + message["data"]["err"]["code"]] += 1

        hearing = asyncio.create_task(hear())
        while not stop.is_set():
            number = len(ledger.tried) + 1
            ledger.tried[str(number)] = time.monotonic()
            args = ["n", {"text": "x" * 100}, {"jobId": f"j{number}"}]
            await socket.send(json.dumps({"id": number, "data": {"fn": "add", "args": args}}))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _PAUSE)
        await eventually(lambda: len(ledger.waited) == len(ledger.tried), "all calls are answered", _LONGEST)
        hearing.cancel()


async def _work(url: str, ledger: Ledger) -> None:
    async with connect(url, ping_interval=None) as socket:
        async for text in socket:
            message: dict[str, Any] = json.loads(text)
            match message["data"]:
                case {"type": "process", "job": {"id": id}}:
                    ledger.run(id.removeprefix("j"))
                    await socket.send(json.dumps({"id": message["id"], "data": {"result": None}}))
                case {"type": "finished", "jobId": id}:
                    ledger.ended.add(id.removeprefix("j"))
                case {"type": "lost", "err": error}:
                    ledger.errors["answer: " + error["code"]] += 1
                case {"type": type}:
                    ledger.errors[type] += 1


def _names(ranges: list[range], count: int) -> list[str]:
    """Return names of queues whose keys are in these slots, in turns."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"{{q{number}}}"
        if slot_of(f"bull:{name}:") in ranges[len(found) % len(ranges)]:
            found.append(name)
        number += 1
    return found


def _errors(ledgers: list[Ledger]) -> Counter[str]:
    return sum((each.errors for each in ledgers), Counter())


@asynccontextmanager
async def _change(what: str, ledgers: list[Ledger]) -> AsyncIterator[None]:
    """Wait until all queues go on after a change, and say what it has cost."""
    begun, before = time.monotonic(), _errors(ledgers)
    for each in ledgers:
        each.pause = 0.0
    yield
    await _go_on(ledgers)
    pause, errors = max(each.pause for each in ledgers), dict(_errors(ledgers) - before)
    print(
        f"{what}: {time.monotonic() - begun:.1f} s, longest pause of a queue {pause:.2f} s, errors {errors}", flush=True
    )


async def _go_on(ledgers: list[Ledger]) -> None:
    """Wait until each queue has done some more jobs."""
    wanted = [(each, len(each.runs) + _GOING_ON) for each in ledgers]
    await eventually(lambda: all(len(each.runs) >= runs for each, runs in wanted), "all go on", _LONGEST)


async def _come_back(node: ClusterNode) -> None:
    """Start a node that was killed, and wait until it is a replica that has all."""
    node.process.start()

    def follows() -> bool:
        role: list[Any] = node("ROLE")
        return bool(role[0] == "slave" and role[3] == "connected")

    await eventually(follows, "it follows", _LONGEST)


async def _strike(cluster: Cluster, slots: range, ledgers: list[Ledger]) -> None:
    """Let all happen, one after the other."""
    for master in cluster.nodes[:_MASTERS]:
        async with _change("a master is killed", ledgers):
            master.process.kill()
        async with _change("it comes back as a replica", ledgers):
            await _come_back(master)
            await asyncio.to_thread(cluster.settle)
    home, joined = cluster.owner(slots[0]), cluster.add_node()
    async with _change("a node joins, with a replica", ledgers):
        await asyncio.to_thread(cluster.join, joined)
        replica = cluster.add_replica(joined)
    for what, to in {f"{len(slots)} slots move to it": joined, "and back": home}.items():
        async with _change(what, ledgers):
            await asyncio.to_thread(cluster.move, slots, to)
    async with _change("they are removed", ledgers):
        for node in (replica, joined):
            await asyncio.to_thread(cluster.remove, node)


async def _measure(cluster: Cluster, gateway: Service, slots: range, queues: int) -> None:
    thirds = [range(SLOTS * n // _MASTERS, SLOTS * (n + 1) // _MASTERS) for n in range(_MASTERS)]
    ledgers = {name: Ledger() for name in _names([slots, *thirds[1:]], queues)}
    all_ledgers = list(ledgers.values())
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        workers = [
            tasks.create_task(_work(gateway.address(f"/queue/{name}/process/5", confirm="1"), ledger))
            for name, ledger in ledgers.items()
        ]
        producers = [
            tasks.create_task(_produce(gateway.address(f"/queue/{name}"), ledger, stop))
            for name, ledger in ledgers.items()
        ]
        await _go_on(all_ledgers)
        await _strike(cluster, slots, all_ledgers)
        stop.set()
        await asyncio.gather(*producers)
        with suppress(AssertionError):  # what is missing is counted
            await eventually(lambda: all(each.ended >= each.added for each in all_ledgers), "done", _LONGEST)
        states, lost = await _audit(cluster, ledgers)
        for worker in workers:
            worker.cancel()
    _tell(all_ledgers, states, lost)


async def _audit(cluster: Cluster, ledgers: dict[str, Ledger]) -> tuple[Counter[str], list[str]]:
    """Return how many jobs are in which states in Redis, and those that were confirmed and are in none."""
    states, lost = Counter[str](), list[str]()
    for name, ledger in ledgers.items():
        async with Redis(port=cluster.owner(slot_of(f"bull:{name}:")).port, decode_responses=True) as redis:
            found = await places(redis, name)
        states.update("+".join(each) for each in found.values())
        lost += [f"{name} {id}" for id in ledger.added if f"j{id}" not in found]
    return states, lost


def _tell(ledgers: list[Ledger], states: Counter[str], lost: list[str]) -> None:
    waited = sorted(seconds * 1000 for each in ledgers for seconds in each.waited)
    percentile = waited[int(len(waited) * 0.99)]
    print(f"confirmed {sum(len(each.added) for each in ledgers):,} of {len(waited):,} jobs")
    print(f"lost {len(lost)} {lost[:5]}; states at the end {dict(states)}")
    print(f"run twice {sum(count > 1 for each in ledgers for count in each.runs.values())}")
    print(f"again after their end was confirmed {sum(len(each.again) for each in ledgers)}")
    print(f"errors {dict(_errors(ledgers))}")
    print(f"add: median {statistics.median(waited):.1f} ms, 99 % {percentile:.0f} ms, worst {waited[-1]:.0f} ms")
    print(f"load {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Move as many slots as the first argument says, with as many queues, and as many replicas as writes wait for."""
    slots, queues, min_replicas = map(int, [*sys.argv[1:], *("1000", "21", "0")[len(sys.argv) - 1 :]])
    print(f"{slots} slots, {queues} queues, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as path, Cluster(Path(path), masters=_MASTERS, replicas=1) as cluster:
        words = ("--redis-url", cluster.url, "--procs", "2", "--min-replicas", str(min_replicas))
        with Service(Path(path) / "gateway", "--no-auth", *words) as gateway:
            asyncio.run(_measure(cluster, gateway, range(slots), queues))


if __name__ == "__main__":
    main()
