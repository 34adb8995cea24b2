"""`python -m benchmarks.failover [TIMES]`: the master is killed; how long until the next job is done?

One master, two replicas and three sentinels, all real. The gateway's client and Node's BullMQ add and work jobs beside
each other, each on a queue of its own, through the same failovers. A killed server comes back as a replica before the
next one.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis import Redis
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.lab.npm import Missing, modules, node
from bullmq_proxy.gateway import start_proxy
from tests.support.sentinel import DOWN_AFTER, NAME, Sentinels
from tests.support.waiting import eventually

_EVERY: Final = 0.01  # s between two jobs
_LONGEST: Final = 60.0  # s for a failover


@dataclass
class Seen:
    """What one client has seen.

    Attributes:
        added: ids of jobs that were confirmed.
        done: ids of jobs that were handed to its worker.
        latest: when the job that was added last, of those that are done, was added.
        failed: calls that failed.
    """

    added: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    latest: float = 0.0
    failed: int = 0

    def did(self, id: str, at: float) -> None:
        """Take note of a job that is done."""
        self.done.add(id)
        self.latest = max(self.latest, at)


async def _produce(url: str, seen: Seen) -> None:
    """Add a job every 10 ms, whatever becomes of the one before."""
    async with connect(f"{url}/queue/gateway?token=key", ping_interval=None) as socket:

        async def hear() -> None:
            async for text in socket:
                data = json.loads(text)["data"]
                if "err" in data:
                    seen.failed += 1
                else:
                    seen.added.add(data["ok"]["id"])

        hearing = asyncio.create_task(hear())
        try:
            number = 0
            while True:
                number += 1
                args = ["n", {"at": time.time()}]
                await socket.send(json.dumps({"id": number, "data": {"fn": "add", "args": args}}))
                await asyncio.sleep(_EVERY)
        finally:
            hearing.cancel()


async def _work(url: str, seen: Seen) -> None:
    async with connect(f"{url}/queue/gateway/process/10?token=key", ping_interval=None) as socket:
        await _answer(socket, seen)


async def _answer(socket: ClientConnection, seen: Seen) -> None:
    async for text in socket:
        message: dict[str, Any] = json.loads(text)
        if message["data"].get("type") == "process":
            seen.did(message["data"]["job"]["id"], message["data"]["payload"]["at"])
            await socket.send(json.dumps({"id": message["id"], "data": {"result": None}}))


async def _watch_node(sentinels: Sentinels, seen: Seen) -> asyncio.subprocess.Process:
    places = [{"host": "127.0.0.1", "port": sentinel.port} for sentinel in sentinels.sentinels]
    process = await asyncio.create_subprocess_exec(
        node(),
        str(Path(__file__).parent / "peers" / "node-failover.cjs"),
        json.dumps({"sentinels": places, "name": NAME}),
        env={"NODE_PATH": str(modules()), "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            match json.loads(line):
                case {"added": id}:
                    seen.added.add(id)
                case {"done": id, "at": at}:
                    seen.did(id, at)
                case {"failed": _}:
                    seen.failed += 1
                case other:
                    raise AssertionError(other)

    process.reading = asyncio.create_task(read())  # type: ignore[attr-defined]
    return process


async def _fail(sentinels: Sentinels, clients: dict[str, Seen]) -> dict[str, float]:
    """Kill the master and return the seconds until each client has done a job that was added after that."""
    await eventually(lambda: sentinels.agree, "the sentinels agree on the master", _LONGEST)
    master = sentinels.master
    master.kill()
    killed, begun = time.time(), time.monotonic()  # not before: some jobs are still done while it is dying
    took: dict[str, float] = {}

    def all_went_on() -> bool:
        for name, seen in clients.items():
            if name not in took and seen.latest > killed:
                took[name] = time.monotonic() - begun
        return len(took) == len(clients)

    await eventually(all_went_on, "all go on", _LONGEST)
    master.start()
    with Redis(port=master.port) as redis:  # the sentinels tell it to, but may take minutes for it
        redis.replicaof("127.0.0.1", sentinels.master.port)
    await eventually(lambda: _is_replica(master.port), "it is a replica now", _LONGEST)
    await asyncio.sleep(1.0)  # what piled up is done, and the sentinels are ready for the next one
    return took


def _is_replica(port: int) -> bool:
    with Redis(port=port) as redis:
        info = redis.info("replication")
    return bool(info["role"] == "slave" and info["master_link_status"] == "up")


async def _measure(sentinels: Sentinels, times: int) -> None:
    clients = {"gateway": Seen()}
    tasks: list[asyncio.Task[None]] = []
    peer = None
    async with start_proxy(sentinels.url, "key", port=0) as proxy:
        tasks += [asyncio.create_task(run(proxy.url, clients["gateway"])) for run in (_work, _produce)]
        try:
            clients["node"] = Seen()
            peer = await _watch_node(sentinels, clients["node"])
        except Missing as missing:
            del clients["node"]
            print(f"without Node's client: {missing}")
        try:
            await eventually(lambda: all(len(seen.done) > 50 for seen in clients.values()), "all work", _LONGEST)
            took: dict[str, list[float]] = {name: [] for name in clients}
            for number in range(times):
                for name, seconds in (await _fail(sentinels, clients)).items():
                    took[name].append(seconds)
                print(f"{number + 1:3}", *(f"{name} {took[name][-1]:5.2f} s" for name in took), flush=True)
            tasks[-1].cancel()
            await _tell(clients, took)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if peer is not None:
                peer.kill()
                await peer.wait()


async def _tell(clients: dict[str, Seen], took: dict[str, list[float]]) -> None:
    seen = clients["gateway"]
    settled: Callable[[], bool] = lambda: seen.done >= seen.added  # noqa: E731
    with suppress(AssertionError):
        await eventually(settled, "all are done", 10.0)
    print(f"seconds from the master's death to the next job, down-after {DOWN_AFTER} ms")
    for name, seconds in took.items():
        client = clients[name]
        lost = len(client.added - client.done) if name == "gateway" else "-"
        print(
            f"{name:8} median {statistics.median(seconds):.2f}  worst {max(seconds):.2f}"
            f"  confirmed {len(client.added)}  confirmed and never done {lost}  calls that failed {client.failed}"
        )


def main() -> None:
    """Measure as many failovers as the first argument says."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as directory, Sentinels(Path(directory)) as sentinels:
        asyncio.run(_measure(sentinels, times))


if __name__ == "__main__":
    main()
