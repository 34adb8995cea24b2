"""`python -m benchmarks.cluster [SECONDS] [SHARDS]`: adds per second on clusters of one, two and three masters.

Each shard, and each of six clients with a queue of its own, is a process. So it needs as many cores as there are of all
of them to show what the masters are good for: with fewer it shows what they cost.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from websockets.asyncio.client import connect

from bullmq_proxy.gateway import start_proxy
from bullmq_proxy.gateway.values.slots import SLOTS, slot_of
from tests.support.cluster import Cluster

_CLIENTS: Final = 6
_WINDOW: Final = 64  # adds under way for each client
_WARM: Final = 1.0  # s
_NEVER: Final = 3600.0  # s


def _serve(url: str, port: Connection) -> None:
    async def serve() -> None:
        async with start_proxy(url, "key", port=0) as proxy:
            port.send(proxy.port)
            await asyncio.sleep(_NEVER)

    asyncio.run(serve())


def _add(port: int, queue: str, seconds: float, result: Connection) -> None:
    async def add() -> int:
        url = f"ws://127.0.0.1:{port}/queue/{queue}?token=key"
        async with connect(url, compression=None, ping_interval=None) as socket:
            for id in range(_WINDOW):
                await socket.send(_call(id))
            begun, count = time.monotonic() + _WARM, 0
            while (now := time.monotonic()) < begun + seconds:
                message = json.loads(await socket.recv())
                assert "ok" in message["data"], message
                count += now > begun
                await socket.send(_call(message["id"]))
            return count

    result.send(asyncio.run(add()))


def _call(id: int) -> str:
    return json.dumps({"id": id, "data": {"fn": "add", "args": ["n", {"text": "x" * 100}]}})


def _queues(masters: int) -> list[str]:
    """Return names that are spread evenly over the masters."""
    found: list[str] = []
    number = 0
    while len(found) < _CLIENTS:
        name = f"{{q{number}}}"
        if slot_of(f"bull:{name}:") * masters // SLOTS == len(found) % masters:
            found.append(name)
        number += 1
    return found


def measure(masters: int, seconds: float, shards: int) -> float:
    """Return the adds per second of all clients together."""
    spawn = multiprocessing.get_context("spawn")
    processes = []
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), masters=masters) as cluster:
        try:
            ports = []
            for _ in range(shards):
                ours, theirs = spawn.Pipe()
                processes.append(spawn.Process(target=_serve, args=(cluster.url, theirs), daemon=True))
                processes[-1].start()
                ports.append(ours.recv())
            results = []
            for number, queue in enumerate(_queues(masters)):
                ours, theirs = spawn.Pipe()
                arguments = (ports[number % shards], queue, seconds, theirs)
                processes.append(spawn.Process(target=_add, args=arguments, daemon=True))
                processes[-1].start()
                results.append(ours)
            counts: list[int] = [result.recv() for result in results]
            return sum(counts) / seconds
        finally:
            for process in processes:
                process.kill()
                process.join()


def main() -> None:
    """Measure each size."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    shards = int(sys.argv[2]) if len(sys.argv) > 2 else max(1, (os.cpu_count() or 1) // 3)
    print(f"{shards} shards, {_CLIENTS} clients, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for masters in (1, 2, 3):
        print(f"{masters} masters: {measure(masters, seconds, shards):,.0f} adds per second", flush=True)


if __name__ == "__main__":
    main()
