"""A client under random accidents: `python -m tests.faults.client_load --client python --accidents cut,stop`.

`cut` cuts all of its connections, `stop` ends a shard with SIGTERM, `kill` with SIGKILL. Every job has to end, and
each one runs once while only connections are cut.
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
from pathlib import Path

from tests.support.node import find_node
from tests.support.relay import Port, Relay
from tests.support.service import ROOT, Service
from tests.support.valkey import ValkeyProcess

KEY = "key-1"
LONGEST = 600.0  # s for the whole run
SHARDS = 2
PAUSES = {"cut": (1.1, 1.6), "stop": (2.0, 4.0), "kill": (2.0, 4.0)}  # s between two accidents of a kind
CLIENTS = ROOT / "tests" / "clients"


def command(client: str, ports: str, jobs: int) -> list[str]:
    """Return the command that runs a client's load."""
    if client == "python":
        return [sys.executable, "-m", "tests.clients.load", ports, KEY, str(jobs)]
    module = str(ROOT / "gateway" / "pages" / "client.js")
    flags = ["--experimental-websocket", "--no-warnings"]
    return [find_node() or "node", *flags, str(CLIENTS / "load.mjs"), module, ports, KEY, str(jobs)]


async def strike(kind: str, kinds: int, relay: Relay, service: Service, done: Counter[str]) -> None:
    """Let accidents of one kind happen until cancelled; where there are more kinds, each of them is rarer."""
    while True:
        await asyncio.sleep(kinds * random.uniform(*PAUSES[kind]))
        if kind == "cut":
            relay.hang_up()
        elif len(shards := service.shards()) == SHARDS:  # an accident befalls one of them: the other one serves
            os.kill(random.choice(shards), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
        else:
            continue
        done[kind] += 1


async def run(client: str, jobs: int, accidents: list[str], home: Path) -> bool:
    """Run one load and print its figures; return whether all is as promised."""
    with ValkeyProcess(home / "valkey") as valkey:
        service = Service(home / "service", "--procs", str(SHARDS), "--redis-url", valkey.url, env={"AUTH_KEYS": KEY})
        with service:
            async with Relay(Port(service.port)) as relay:
                began, done = time.monotonic(), Counter[str]()
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                process = await asyncio.create_subprocess_exec(
                    *command(client, str(relay.port), jobs), stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment
                )
                striking = [
                    asyncio.create_task(strike(kind, len(accidents), relay, service, done)) for kind in accidents
                ]
                try:
                    async with asyncio.timeout(LONGEST):
                        output, _ = await process.communicate()
                finally:
                    for task in striking:
                        task.cancel()
                    if process.returncode is None:
                        process.kill()
                    await asyncio.wait(striking) if striking else None
    if process.returncode != 0:
        print(f"the client's load ended with {process.returncode}, after {done}: see its error above", file=sys.stderr)
        return False
    seen = json.loads(output.decode().splitlines()[-1])
    print(json.dumps({"client": client, "seconds": round(time.monotonic() - began, 1), "accidents": done, **seen}))
    whole = seen["ended"] == seen["handled"] == jobs and not seen["error"]
    return whole and (seen["twice"] == 0 or set(accidents) != {"cut"})


def main() -> int:
    """Read the arguments, and run; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.client_load", description=__doc__)
    parser.add_argument("--client", choices=("python", "javascript"), default="python")
    parser.add_argument("--jobs", type=int, default=20_000, help="at most 1000000")
    parser.add_argument("--accidents", default="cut", help="with commas between them: cut, stop, kill; or none")
    parser.add_argument("--seed", default="a")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    accidents = [kind for kind in arguments.accidents.split(",") if kind in PAUSES]
    with tempfile.TemporaryDirectory() as home:
        return 0 if asyncio.run(run(arguments.client, min(arguments.jobs, 10**6), accidents, Path(home))) else 1


if __name__ == "__main__":
    sys.exit(main())
