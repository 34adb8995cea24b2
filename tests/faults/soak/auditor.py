"""The auditor: counts every job by its id in Redis itself, and what the gateways' processes hold."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from redis.asyncio import Redis

from tests.faults.soak.ledger import Ledger
from tests.faults.soak.site import Site

_LISTS = ("wait", "paused", "active")
_SETS = ("prioritized", "delayed", "completed", "failed", "waiting-children")
_REPLICATED = 500  # ms in which replicas have what their master has
_STALLED = "job stalled more than allowable limit"


async def places(redis: Redis, queue: str) -> dict[str, list[str]]:
    """Return, for each job that is anywhere, in which states it is."""
    found: dict[str, list[str]] = {}
    for state in (*_LISTS, *_SETS):
        key = f"bull:{queue}:{state}"
        ids = await (redis.lrange(key, 0, -1) if state in _LISTS else redis.zrange(key, 0, -1))
        for id in ids:
            found.setdefault(str(id), []).append(state)
    return found


async def settled(site: Site, ledger: Ledger, timeout: float) -> None:
    """Wait until each job that is there, or was added, is finished, or fail with where the others are."""
    deadline = time.monotonic() + timeout
    while True:
        await note_missing(site, ledger)
        async with site.redis() as redis:
            found = await places(redis, ledger.queue)
        open_jobs = {id: found.get(id, ["nowhere"]) for id in (ledger.tried - ledger.unpromised) | found.keys()}
        open_jobs = {id: states for id, states in open_jobs.items() if states not in (["completed"], ["failed"])}
        if not open_jobs and (not unheard(found, ledger) or time.monotonic() > deadline):
            return  # who has not heard is told of by the audit
        if open_jobs and time.monotonic() > deadline:
            raise AssertionError(f"{len(open_jobs)} jobs are not finished, such as {list(open_jobs.items())[:5]}")
        await asyncio.sleep(0.1)


def unheard(found: dict[str, list[str]], ledger: Ledger) -> set[str]:
    """Return the completed jobs of which no watcher has heard, though it was not told that it has missed events."""
    completed = {id for id, states in found.items() if states == ["completed"]}
    return (completed & ledger.tried) - ledger.heard - ledger.missed


@dataclass
class Account:
    """What became of the jobs of one queue."""

    added: int
    unpromised: int
    voided: int
    completed: int
    failed: int
    runs: int
    repeated: int
    late: int
    faults: list[str]


async def note_missing(site: Site, ledger: Ledger) -> None:
    """Note which confirmed jobs are not there, such as before the server forgets all."""
    added = sorted(ledger.added)
    async with site.redis() as redis, redis.pipeline(transaction=False) as pipeline:
        for id in added:
            pipeline.exists(f"bull:{ledger.queue}:{id}")
        ledger.miss({id for id, exists in zip(added, await pipeline.execute(), strict=True) if not exists})


async def note_replicated(site: Site, ledger: Ledger) -> None:
    """Note which confirmed jobs and ends all servers have: the master has them, and its replicas what it had then."""
    added, ended = map(sorted, ledger.in_doubt)
    async with site.redis() as redis, redis.pipeline(transaction=False) as pipeline:
        for id in added:
            pipeline.exists(f"bull:{ledger.queue}:{id}")
        for id in ended:
            pipeline.zscore(f"bull:{ledger.queue}:completed", id)
        pipeline.set("auditor", "", px=1000)
        pipeline.wait(len(site.servers) - 1, _REPLICATED)
        *found, _, replicas = await pipeline.execute()
    if replicas == len(site.servers) - 1:
        kept = [bool(each) for each in found]
        ledger.replicated(set(compress(added, kept)), set(compress(ended, kept[len(added) :])))


async def audit(site: Site, ledger: Ledger) -> Account:
    """Count the jobs of a queue on which nobody works any more."""
    queue = ledger.queue
    faults: list[str] = []
    await note_missing(site, ledger)
    async with site.redis() as redis:
        found = await places(redis, queue)
        locks = [key async for key in redis.scan_iter(f"bull:{queue}:*:lock", count=1000)]
        failed = [id for id, states in found.items() if states == ["failed"]]
        reasons = Counter([await redis.hget(f"bull:{queue}:{id}", "failedReason") for id in failed])
    if missing := ledger.gone | (ledger.added - ledger.unpromised - found.keys()):
        faults.append(f"{len(missing)} jobs are lost, such as {[ledger.history(id) for id in sorted(missing)[:3]]}")
    if foreign := found.keys() - ledger.tried - ledger.voided:
        faults.append(f"{len(foreign)} jobs that nobody has added, such as {sorted(foreign)[:3]}")
    if double := [id for id, states in found.items() if len(states) > 1]:
        faults.append(f"{len(double)} jobs are in two states, such as {[(id, found[id]) for id in double[:3]]}")
    if active := [id for id, states in found.items() if "active" in states]:
        faults.append(f"{len(active)} jobs are left in active, such as {active[:3]}")
    if locks:
        faults.append(f"{len(locks)} locks are left, such as {locks[:3]}")
    if ledger.again:
        faults.append(f"{len(ledger.again)} jobs ran again after their end was confirmed: {ledger.again[:3]}")
    if silent := unheard(found, ledger):
        faults.append(f"{len(silent)} jobs were completed and no watcher was told, such as {sorted(silent)[:3]}")
    if others := {reason: count for reason, count in reasons.items() if reason != _STALLED}:
        faults.append(f"jobs failed: {others}")
    return Account(
        added=len(ledger.added),
        unpromised=len(ledger.unpromised),
        voided=len(ledger.voided),
        completed=sum(states == ["completed"] for states in found.values()),
        failed=len(failed),
        runs=sum(ledger.pushes.values()),
        repeated=sum(count - 1 for count in ledger.pushes.values()),
        late=ledger.late,
        faults=faults,
    )


@dataclass(frozen=True)
class Holdings:
    """What all shards hold, and how many clients Redis has."""

    descriptors: int
    memory: int
    clients: int


async def holdings(site: Site) -> Holdings:
    """Count what the shards that live now have open."""
    descriptors, pages = _counted(site.shards())
    async with site.redis() as redis:
        clients = int((await redis.info("clients"))["connected_clients"]) - 1
    return Holdings(descriptors, pages * os.sysconf("SC_PAGE_SIZE"), clients)


def _counted(pids: list[int]) -> tuple[int, int]:
    """Return how many descriptors and pages of memory processes have."""
    descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
    return descriptors, sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
