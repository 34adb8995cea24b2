"""A client under random accidents: `python -m tests.faults.client_load --client python --accidents cut,stop`.

`cut` cuts all of its connections, `stop` ends a shard with SIGTERM, `kill` with SIGKILL, `gateway` ends one of two
gateways with SIGTERM, and `redis` ends Redis, which comes back with its file; what was ended is started again. Every
job has to end, the memory of the client may not grow, and where nothing is killed its grace time holds: each job runs
once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.support.node import find_node
from tests.support.relay import Port, Relay
from tests.support.service import ROOT, Service
from tests.support.valkey import ValkeyProcess

KEY = "key-1"
LONGEST = 600.0  # s for the whole run
GATEWAYS = 2
SHARDS = 2  # of each
PAUSES = {"cut": (1.1, 1.6), "stop": (2.0, 4.0), "kill": (2.0, 4.0), "gateway": (3.0, 6.0), "redis": (3.0, 6.0)}
"""Seconds between two accidents of a kind."""
AWAY = (0.1, 1.5)
"""Seconds for which Redis is away."""
MOST_GROWTH = 1.2
"""Most memory of a client after the last fifth of the jobs, as a ratio to that after the first."""
CLIENTS = ROOT / "tests" / "clients"


def command(client: str, ports: str, jobs: int) -> list[str]:
    """Return the command that runs a client's load."""
    if client == "python":
        return [sys.executable, "-m", "tests.clients.load", ports, KEY, str(jobs)]
    module = str(ROOT / "gateway" / "pages" / "client.js")
    flags = ["--experimental-websocket", "--no-warnings", "--expose-gc"]
    return [find_node() or "node", *flags, str(CLIENTS / "load.mjs"), module, ports, KEY, str(jobs)]


class Gateways:
    """The gateways, one of which may be away: whoever connects gets to one that is there."""

    def __init__(self, home: Path, redis_url: str) -> None:
        arguments = ("--procs", str(SHARDS), "--redis-url", redis_url)
        self.services = [Service(home / f"gateway-{n}", *arguments, env={"AUTH_KEYS": KEY}) for n in range(GATEWAYS)]
        self.serving = list[Service]()
        self._turn = 0

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the next one that serves."""
        self._turn += 1
        return await Port(self.serving[self._turn % len(self.serving)].port).stream()

    async def start(self, service: Service) -> None:
        """Start one."""
        await asyncio.to_thread(service.start)
        self.serving.append(service)

    async def restart(self) -> None:
        """End one of them, when both are there, and start it again."""
        service = random.choice(self.serving)
        self.serving.remove(service)
        await asyncio.to_thread(service.stop)
        await self.start(service)

    def a_shard(self) -> int | None:
        """Return the pid of one; None where one is missing already, since an accident befalls one at a time."""
        shards = random.choice(self.serving).shards()
        return random.choice(shards) if len(shards) == SHARDS else None


async def befall(kind: str, relay: Relay, gateways: Gateways, valkey: ValkeyProcess) -> bool:
    """Let an accident happen, and end; return whether it has."""
    if kind == "cut":
        relay.hang_up()
    elif kind == "gateway":
        await gateways.restart()
    elif kind == "redis":
        await asyncio.to_thread(valkey.stop)
        await asyncio.sleep(random.uniform(*AWAY))
        valkey.start()
    elif (shard := gateways.a_shard()) is not None:
        os.kill(shard, signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    else:
        return False
    return True


async def strike(kind: str, kinds: int, one: asyncio.Lock, done: Counter[str], *parts: Any) -> None:
    """Let accidents of one kind happen until cancelled; where there are more kinds, each of them is rarer."""
    while True:
        await asyncio.sleep(kinds * random.uniform(*PAUSES[kind]))
        async with one:
            done[kind] += await befall(kind, *parts)


async def run(client: str, jobs: int, accidents: list[str], home: Path) -> bool:
    """Run one load and print its figures; return whether all is as promised."""
    began, done = time.monotonic(), Counter[str]()
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(ValkeyProcess(home / "valkey"))
        gateways = Gateways(home, valkey.url)
        for service in gateways.services:
            stack.callback(service.close)
            await gateways.start(service)
        relay = await stack.enter_async_context(Relay(gateways))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec(
            *command(client, str(relay.port), jobs), stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment
        )
        one = asyncio.Lock()
        striking = [
            asyncio.create_task(strike(kind, len(accidents), one, done, relay, gateways, valkey)) for kind in accidents
        ]
        try:
            async with asyncio.timeout(LONGEST):
                output, _ = await process.communicate()
        finally:
            async with one:  # what was ended is there again
                for task in striking:
                    task.cancel()
            if process.returncode is None:
                process.kill()
            await asyncio.gather(*striking, return_exceptions=True)
    if process.returncode != 0:
        print(f"the client's load ended with {process.returncode}, after {done}: see its error above", file=sys.stderr)
        return False
    seen = json.loads(output.decode().splitlines()[-1])
    print(json.dumps({"client": client, "seconds": round(time.monotonic() - began, 1), "accidents": done, **seen}))
    whole = seen["ended"] == seen["handled"] == jobs and not seen["error"]
    is_flat = seen["memory"][-1] <= MOST_GROWTH * seen["memory"][0]
    return whole and is_flat and (seen["twice"] == 0 or "kill" in accidents)


def main() -> int:
    """Read the arguments, and run; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.client_load", description=__doc__)
    parser.add_argument("--client", choices=("python", "javascript"), default="python")
    parser.add_argument("--jobs", type=int, default=20_000, help="at most 1000000")
    parser.add_argument(
        "--accidents", default="cut", help="with commas between them, some of cut, stop, kill, gateway, redis; or none"
    )
    parser.add_argument("--seed", default="a")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    accidents = [kind for kind in arguments.accidents.split(",") if kind in PAUSES]
    with tempfile.TemporaryDirectory() as home:
        return 0 if asyncio.run(run(arguments.client, min(arguments.jobs, 10**6), accidents, Path(home))) else 1


if __name__ == "__main__":
    sys.exit(main())
