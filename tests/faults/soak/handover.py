"""How long it takes from a death to its job in other hands: `python -m tests.faults.soak.handover`, some five minutes.

Each death is one from outside: the clock starts with the signal, or when the socket is closed, and stops when another
worker, on another gateway where there is one, has read the push of the job.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from websockets.asyncio.client import ClientConnection

from benchmarks.lab.npm import modules, node
from tests.faults.clients import ask, dial
from tests.faults.soak.site import Site
from tests.support.service import Service

Death = Callable[[Service, ClientConnection, int], None]
"""Takes the gateway, the connection of the worker that dies, and the process id of its shard."""

_LONGEST = 150.0  # s
_TICK = 0.01  # s
_WORKER = """
const { Worker } = require("bullmq");
const [queue, port] = process.argv.slice(1);
const connection = { port: +port };
new Worker(queue, async (job) => { console.log(job.id); await new Promise(() => {}); }, { connection });
"""


def _closed(gateway: Service, holder: ClientConnection, shard: int) -> None:
    holder.transport.abort()


def _shard_killed(gateway: Service, holder: ClientConnection, shard: int) -> None:
    os.kill(shard, signal.SIGKILL)


def _shard_stopped(gateway: Service, holder: ClientConnection, shard: int) -> None:
    os.kill(shard, signal.SIGSTOP)


def _gateway_killed(gateway: Service, holder: ClientConnection, shard: int) -> None:
    for pid in (gateway.pid, *gateway.shards()):
        os.kill(pid, signal.SIGKILL)


async def _hands(site: Site, queue: str) -> tuple[ClientConnection, str, int]:
    """Return a worker of the first gateway, the id of the one job of the queue, which it holds, and its shard's pid."""
    holder = await dial(site.address(0, f"/queue/{queue}/process/1"))
    async with await dial(site.address(0, f"/queue/{queue}")) as socket:
        id = (await ask(socket, "add", "job"))["id"]
    push = str(await holder.recv())
    assert json.loads(push)["data"]["job"]["id"] == id
    token = re.search(r"[0-9a-f]{16}:(\d+):\d+:", push)
    assert token is not None
    return holder, id, int(re.findall(rf"shard {token[1]} is ready, pid (\d+)", site.gateways[0].errors)[-1])


async def _waits(site: Site, queue: str) -> None:
    """Wait until somebody waits for a job of a queue in Redis."""
    waiter = f"bull:{base64.b64encode(queue.encode()).decode()}", "bzpopmin"
    async with site.redis() as redis, asyncio.timeout(_LONGEST):
        while True:
            if waiter in {(client["name"], client["cmd"]) for client in await redis.client_list()}:
                return
            await asyncio.sleep(_TICK)


async def _handover(site: Site, queue: str, death: Death, *, waits: bool) -> float:
    """Return the seconds from a death on the first gateway to the push elsewhere; without `waits` that dials then."""
    holder, id, shard = await _hands(site, queue)
    where = site.address(1, f"/queue/{queue}/process/1")
    heir = await dial(where) if waits else None
    if heir is not None:
        await _waits(site, queue)
    began = time.monotonic()
    death(site.gateways[0], holder, shard)
    async with asyncio.timeout(_LONGEST):
        heir = heir or await dial(where)
        pushed = json.loads(await heir.recv())
    took = time.monotonic() - began
    assert pushed["data"]["job"]["id"] == id
    await heir.send(json.dumps({"id": pushed["id"], "data": {"result": 1}}))
    heir.transport.abort()
    holder.transport.abort()
    return took


async def _of_node(site: Site, queue: str) -> float:
    """Return the seconds from the death of a worker of Node's to its job in the hands of another one."""
    command = [str(node()), "-e", _WORKER, queue, str(site.server.port)]
    workers = [
        await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, "NODE_PATH": str(modules())}
        )
        for _ in range(2)
    ]
    try:
        async with await dial(site.address(0, f"/queue/{queue}")) as socket:
            await ask(socket, "add", "job")
        reads = [asyncio.create_task(worker.stdout.readline()) for worker in workers if worker.stdout]
        await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        holder = next(index for index, read in enumerate(reads) if read.done())
        began = time.monotonic()
        workers[holder].kill()
        await asyncio.wait_for(reads[1 - holder], _LONGEST)
        return time.monotonic() - began
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()


async def _measure(name: str, times: int, one: Callable[[int], Awaitable[float]]) -> None:
    found = [await one(number) for number in range(times)]
    middle, worst = statistics.median(found), max(found)
    print(f"{name:45} {times:4} times: median {middle * 1000:9.1f} ms, worst {worst * 1000:9.1f} ms", flush=True)


def main() -> None:
    """Measure each kind of death."""
    parser = argparse.ArgumentParser(prog="handover", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="of each death; of sockets 20 times as many")
    parser.add_argument("--node", type=int, default=3, help="times that a worker of Node's is killed")
    options = parser.parse_args()
    times = options.times

    def restarted(site: Site, death: Death) -> Callable[[int], Awaitable[float]]:
        async def one(number: int) -> float:
            took = await _handover(site, f"{death.__name__}{number}", death, waits=True)
            site.restart(0)  # so that the next death is a first one, too
            return took

        return one

    with tempfile.TemporaryDirectory() as path:
        with Site(Path(path) / "two", gateway_timeout=5, fsync="everysec") as site:

            async def two() -> None:
                await _measure(
                    "a socket is closed", 20 * times, lambda n: _handover(site, f"s{n}", _closed, waits=True)
                )
                await _measure("a shard is killed", times, restarted(site, _shard_killed))
                await _measure("a gateway is killed (gateway_timeout 5 s)", times, restarted(site, _gateway_killed))
                if options.node:
                    await _measure("Node's worker is killed", options.node, lambda n: _of_node(site, f"n{n}"))

            asyncio.run(two())
        with Site(Path(path) / "one", gateways=1, procs=1, fsync="everysec") as site:

            async def alone(number: int) -> float:
                took = await _handover(site, f"a{number}", _shard_stopped, waits=False)
                site.restart(0)
                return took

            asyncio.run(_measure("a shard stands still (shard_timeout 3 s)", max(1, times // 2), alone))


if __name__ == "__main__":
    main()
