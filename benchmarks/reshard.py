"""`python -m benchmarks.reshard [SLOTS] [QUEUES]`: slots move to a node that joins, and back, while jobs run.

A cluster of three masters without replicas, one gateway, and for each queue a client that adds jobs at a steady pace
and one that does them. All queues are in the slots that move. Every job is counted by its id; the node is removed at
the end.
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
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from bullmq_proxy.gateway import start_proxy
from bullmq_proxy.gateway.values.slots import slot_of
from tests.support.cluster import Cluster
from tests.support.waiting import eventually

_PAUSE: Final = 0.05  # s between two jobs of a queue
_LONGEST: Final = 60.0  # s for what is under way at the end


@dataclass
class Ledger:
    """What the clients of one queue know of its jobs.

    Attributes:
        tried: when each id was sent.
        waited: seconds until the reply to each `add`.
        added: ids that were confirmed.
        runs: how often each id came to the worker.
        errors: codes of the calls that failed, and of answers that were not stored.
    """

    tried: dict[str, float] = field(default_factory=dict)
    waited: list[float] = field(default_factory=list)
    added: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


async def _produce(url: str, name: str, ledger: Ledger, stop: asyncio.Event) -> None:
    """Add jobs at a steady pace, whatever becomes of those before, until `stop`; then wait for the replies."""
    async with connect(f"{url}/queue/{name}?token=key", ping_interval=None) as socket:

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


async def _work(url: str, name: str, ledger: Ledger) -> None:
    async with connect(f"{url}/queue/{name}/process/5?token=key", ping_interval=None) as socket:
        async for text in socket:
            message: dict[str, Any] = json.loads(text)
            match message["data"]:
                case {"type": "process", "job": {"id": id}}:
                    ledger.runs[id.removeprefix("j")] += 1
                    await socket.send(json.dumps({"id": message["id"], "data": {"result": None}}))
                case {"type": "lost", "err": error}:
                    ledger.errors["answer: " + error["code"]] += 1


async def _ask(socket: ClientConnection, function: str) -> dict[str, Any]:
    await socket.send(json.dumps({"id": 1, "data": {"fn": function, "args": []}}))
    reply: dict[str, Any] = json.loads(await socket.recv())
    return dict(reply["data"]["ok"])


async def _states(url: str, names: list[str]) -> Counter[str]:
    """Return how many jobs are in which state."""
    states = Counter[str]()
    for name in names:
        async with connect(f"{url}/queue/{name}?token=key") as socket:
            states.update(await _ask(socket, "getJobCounts"))
    return +states


def _names(slots: range, count: int) -> list[str]:
    """Return names of queues whose keys are in these slots."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"{{q{number}}}"
        if slot_of(f"bull:{name}:") in slots:
            found.append(name)
        number += 1
    return found


async def _timed(what: str, done: Awaitable[None]) -> None:
    begun = time.monotonic()
    await done
    print(f"{what}: {time.monotonic() - begun:.1f} s", flush=True)


async def _measure(cluster: Cluster, slots: range, queues: int) -> None:
    home, joined = cluster.owner(slots[0]), cluster.add_node()
    ledgers = {name: Ledger() for name in _names(slots, queues)}
    stop = asyncio.Event()
    async with start_proxy(cluster.url, "key", port=0) as proxy, asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(_work(proxy.url, *each)) for each in ledgers.items()]
        producers = [tasks.create_task(_produce(proxy.url, *each, stop)) for each in ledgers.items()]
        await eventually(lambda: all(len(each.runs) > 20 for each in ledgers.values()), "all work", _LONGEST)
        await _timed("the node joins", asyncio.to_thread(cluster.join, joined))
        await _timed(f"{len(slots)} slots move to it", asyncio.to_thread(cluster.move, slots, joined))
        await _timed("and back", asyncio.to_thread(cluster.move, slots, home))
        await _timed("it is removed", asyncio.to_thread(cluster.remove, joined))
        before = {name: len(each.runs) for name, each in ledgers.items()}
        await eventually(lambda: all(len(each.runs) > before[name] + 20 for name, each in ledgers.items()), "all go on")
        stop.set()
        await asyncio.gather(*producers)
        with suppress(AssertionError):  # what is missing is counted
            await eventually(lambda: all(each.runs.keys() >= each.added for each in ledgers.values()), "done", _LONGEST)
        states = await _states(proxy.url, list(ledgers))
        for worker in workers:
            worker.cancel()
    _tell(list(ledgers.values()), states)


def _tell(ledgers: list[Ledger], states: Counter[str]) -> None:
    waited = sorted(seconds * 1000 for each in ledgers for seconds in each.waited)
    percentile = waited[int(len(waited) * 0.99)]
    print(f"confirmed {sum(len(each.added) for each in ledgers):,} of {len(waited):,} jobs")
    print(f"lost {sum(len(each.added - each.runs.keys()) for each in ledgers)}")
    print(f"run twice {sum(count > 1 for each in ledgers for count in each.runs.values())}")
    print(f"errors {dict(sum((each.errors for each in ledgers), Counter()))}; states at the end {dict(states)}")
    print(f"add: median {statistics.median(waited):.1f} ms, 99 % {percentile:.0f} ms, worst {waited[-1]:.0f} ms")


def main() -> None:
    """Move as many slots as the first argument says, with as many queues as the second one."""
    slots = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    queues = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    print(f"{slots} slots, {queues} queues, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory)) as cluster:
        asyncio.run(_measure(cluster, range(slots), queues))


if __name__ == "__main__":
    main()
