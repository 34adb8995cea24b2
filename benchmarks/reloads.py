"""`python -m benchmarks.reloads [RELOADS] [KILLS] [PER_SECOND] [SUCCESSORS]`: shards are replaced beside many clients.

So many clients a second connect, add a job and close again; one worker on each shard does the jobs, and connects again
when it is told to. Reloads come first, then kills, then successors of the supervisor. A client that is refused, or
whose connection breaks before its job was confirmed, is a trouble: after a kill that is right for those whom the dead
shard had accepted already.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.faults.clients import Worker, counts
from tests.support.service import Service, command_of
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

_SHARDS: Final = 2
_HEALTHY: Final = 2.5  # s between two kills
_LONGEST: Final = 60.0  # s for a shard to be back, and for the last jobs
_PATH: Final = "/queue/load"


@dataclass
class Ledger:
    """Observations of the clients.

    Attributes:
        added: ids of the jobs that were confirmed.
        waited: seconds of each client, from its first packet until its job was confirmed.
        troubles: how often what went wrong.
        late: how many clients could not begin when they should, since the clients' own loop was late.
    """

    added: set[str] = field(default_factory=set)
    waited: list[float] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    late: int = 0


async def _come_and_go(url: str, id: str, ledger: Ledger) -> None:
    began = time.monotonic()
    try:
        async with connect(url, open_timeout=_LONGEST, ping_interval=None, compression=None) as socket:
            await socket.send(json.dumps({"id": id, "data": {"fn": "add", "args": ["n", {}, {"jobId": id}]}}))
            reply = json.loads(await socket.recv())
    except (OSError, WebSocketException) as error:
        ledger.troubles[type(error).__name__] += 1
        return
    if "ok" in reply["data"]:
        ledger.added.add(id)
        ledger.waited.append(time.monotonic() - began)
    else:
        ledger.troubles[reply["data"]["err"]["code"]] += 1


async def _crowd(url: str, name: str, per_second: int, ledger: Ledger, stop: asyncio.Event) -> None:
    """Let clients come at a steady pace until `stop`, and wait for the last one."""
    clients: set[asyncio.Task[None]] = set()
    began, number = time.monotonic(), 0
    while not stop.is_set():
        due = began + number / per_second
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        ledger.late += time.monotonic() > due + 0.1
        task = asyncio.create_task(_come_and_go(url, f"{name}-{number}", ledger))
        clients.add(task)
        task.add_done_callback(clients.discard)
        number += 1
    await asyncio.gather(*clients)


async def _part(
    service: Service, name: str, count: int, per_second: int, strike: Callable[[Service], Awaitable[None]]
) -> Ledger:
    """Strike so often beside the crowd; prints what that has seen."""
    ledger, stop, began = Ledger(), asyncio.Event(), time.monotonic()
    crowd = asyncio.create_task(_crowd(service.address(_PATH), name, per_second, ledger, stop))
    for _ in range(count):
        await strike(service)
    stop.set()
    await crowd
    waits = sorted(ledger.waited) or [0.0]
    print(
        f"{count} {name}s in {time.monotonic() - began:.0f} s: {len(ledger.added)} jobs of as many clients added after"
        f" {statistics.median(waits) * 1000:.1f} ms (median), {waits[int(len(waits) * 0.99)] * 1000:.0f} ms (p99),"
        f" {waits[-1] * 1000:.0f} ms (worst); {ledger.late} came late; troubles: {dict(ledger.troubles) or 'none'}",
        flush=True,
    )
    return ledger


async def _reload(service: Service) -> None:
    before = set(service.shards())
    service.signal(signal.SIGHUP)

    def all_are_others() -> bool:
        now = set(service.shards())
        return len(now) == _SHARDS and not now & before

    await eventually(all_are_others, "every shard is another one", _LONGEST)


async def _kill(service: Service) -> None:
    ready = service.errors.count(" is ready")
    os.kill(random.choice(service.shards()), signal.SIGKILL)
    await eventually(lambda: service.errors.count(" is ready") > ready, "the shard is back", _LONGEST)
    await asyncio.sleep(_HEALTHY)  # what dies more often than that is started ever more rarely


def _successors(service: Service) -> list[int]:
    """Return the process ids of all that were started."""
    return [int(pid) for pid in re.findall(r"of the installed code starts with pid (\d+)", service.errors)]


async def _succeed(service: Service) -> None:
    last = [service.pid, *_successors(service)][-1]
    os.kill(last, signal.SIGUSR2)
    await eventually(lambda: "serve" not in command_of(last), "the supervisor has left", _LONGEST)


def _left(found: dict[str, int]) -> int:
    return found["waiting"] + found["active"] + found["delayed"]


async def run(reloads: int, kills: int, per_second: int, successors: int, home: Path) -> bool:
    """Run all parts; returns whether nothing was lost, and nobody was refused but by a kill."""
    with ExitStack() as stack:
        valkey = stack.enter_context(closing(ValkeyProcess(home / "valkey").start()))
        service = stack.enter_context(Service(home, "--procs", str(_SHARDS), "--redis-url", valkey.url))
        stack.callback(_end_successors, service)
        workers = [Worker(service.address(f"{_PATH}/process/50")) for _ in range(2 * _SHARDS)]
        working = [asyncio.create_task(worker.run()) for worker in workers]
        first = await _part(service, "reload", reloads, per_second, _reload)
        second = await _part(service, "kill", kills, per_second, _kill)
        third = await _part(service, "successor", successors, per_second, _succeed)
        added = first.added | second.added | third.added
        address = service.address(_PATH)
        async with asyncio.timeout(_LONGEST):
            while _left(found := await counts(address)):
                pass
        for task in working:
            task.cancel()
        await asyncio.wait(working)
        seen = {id for worker in workers for id in worker.seen}
        twice = sum(sum(worker.seen[id] for worker in workers) > 1 for id in seen)
        lost = len(added) - found["completed"]
        print(f"{len(added)} jobs confirmed: {max(0, lost)} lost, {twice} run twice; counts: {found}")
        return lost <= 0 and not first.troubles and not third.troubles


def _end_successors(service: Service) -> None:
    for pid in _successors(service):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def main() -> int:
    """Read the arguments, and run; the exit code is 1 when a promise was broken."""
    given = [min(int(text), most) for text, most in zip(sys.argv[1:], (1000, 1000, 5000, 100), strict=False)]
    reloads, kills, per_second, successors = (*given, *(40, 40, 500, 5)[len(given) :])
    with tempfile.TemporaryDirectory() as home:
        return 0 if asyncio.run(run(reloads, kills, per_second, successors, Path(home))) else 1


if __name__ == "__main__":
    sys.exit(main())
