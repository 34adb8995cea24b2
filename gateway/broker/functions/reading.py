"""Reading a queue: its jobs, how many there are, its state."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from gateway.broker.functions.base import OBSERVE, TABLE, Index, JobType, stored_type
from gateway.broker.queue import Queue
from gateway.wire.jobs import loaded_job, to_hash
from gateway.wire.shapes import Job, JobLogs

_ALL_TYPES: Final[tuple[JobType, ...]] = (
    "active",
    "completed",
    "delayed",
    "failed",
    "prioritized",
    "waiting",
    "waiting-children",
)
_BACKFILL: Final = 5  # getJobs-1.lua: rounds in which it replaces ids whose hash is gone


@TABLE.function(OBSERVE, writes=False)
async def get_job(queue: Queue, job_id: str | int) -> Job | None:
    """The job, or null."""
    if not job_id:
        return None
    flat = await queue.link.call("HGETALL", queue.key(str(job_id)), writes=False, decode=False)
    if not flat:
        return None
    job = loaded_job(str(job_id), to_hash(flat), queue.qualified)
    job["id"] = job_id  # as it was asked for
    return job


@TABLE.function(OBSERVE, writes=False)
async def get_jobs(
    queue: Queue,
    types: JobType | list[JobType] | None = None,
    start: Index = 0,
    end: Index = -1,
    asc: bool = False,
) -> list[Job]:
    """The jobs of some types, in the order of the types; `start` and `end` count within each type."""
    wanted = _distinct([types] if isinstance(types, str) else types or _ALL_TYPES)
    args = [start, end, "1" if asc else "0", _BACKFILL, *map(stored_type, wanted)]
    seen: dict[bytes, list[bytes]] = {}
    for jobs in await queue.eval("getJobs", queue.keys(""), args):
        for id, flat in jobs or ():
            if flat:
                seen.setdefault(id, flat)
    return [loaded_job(id.decode(errors="replace"), to_hash(flat), queue.qualified) for id, flat in seen.items()]


def _getter(name: str, type: JobType, *, asc: bool) -> None:
    async def get(queue: Queue, start: Index = 0, end: Index = -1) -> list[Job]:
        return await get_jobs(queue, type, start, end, asc)

    get.__doc__ = f"The {type} jobs, {'oldest' if asc else 'newest'} first."
    TABLE.function(OBSERVE, writes=False, name=name)(get)


for _name, _type, _asc in (
    ("getWaiting", "waiting", True),
    ("getActive", "active", True),
    ("getDelayed", "delayed", True),
    ("getPrioritized", "prioritized", True),
    ("getCompleted", "completed", False),
    ("getFailed", "failed", False),
):
    _getter(_name, _type, asc=_asc)  # type: ignore[arg-type]


@TABLE.function(OBSERVE, writes=False)
async def get_job_counts(queue: Queue, *types: JobType) -> dict[str, int]:
    """How many jobs there are of each type; of all types when none is named."""
    wanted = _distinct(types or _ALL_TYPES)
    counts = await queue.scripts.getCounts(wanted)
    return dict(zip(wanted, (count or 0 for count in counts), strict=True))


@TABLE.function(OBSERVE, writes=False)
async def get_job_count_by_types(queue: Queue, *types: JobType) -> int:
    """How many jobs there are of these types together."""
    return sum((await get_job_counts(queue, *types)).values())


@TABLE.function(OBSERVE, writes=False)
async def count(queue: Queue) -> int:
    """How many jobs wait to be processed: waiting, delayed, prioritized, waiting for children."""
    total: int = await get_job_count_by_types(queue, "waiting", "delayed", "prioritized", "waiting-children")
    return total


@TABLE.function(OBSERVE, writes=False)
async def get_job_state(queue: Queue, job_id: str) -> str:
    """The job's state, or `unknown`."""
    state: str = await queue.scripts.getState(job_id)
    return state


@TABLE.function(OBSERVE, writes=False)
async def get_job_logs(queue: Queue, job_id: str, start: Index = 0, end: Index = -1, asc: bool = True) -> JobLogs:
    """The rows that were logged for a job, and how many there are."""
    key = queue.key(f"{job_id}:logs")
    first, last = (start, end) if asc else (-(end + 1), -(start + 1))
    rows, total = await asyncio.gather(
        queue.link.call("LRANGE", key, first, last, writes=False), queue.link.call("LLEN", key, writes=False)
    )
    return {"logs": rows if asc else rows[::-1], "count": total}


@TABLE.function(OBSERVE, writes=False)
async def is_paused(queue: Queue) -> bool:
    """Whether the queue is paused."""
    return bool(await queue.client.hexists(queue.key("meta"), "paused"))


@TABLE.function(OBSERVE, writes=False)
async def get_workers(queue: Queue) -> list[dict[str, str]]:
    """The Redis connections of the queue's workers; a gateway shard is one worker, however many clients it serves."""
    name = queue.client_name
    text: str = await queue.link.call("CLIENT", "LIST", writes=False)
    clients = [dict(pair.partition("=")[::2] for pair in line.split(" ")) for line in text.splitlines()]
    return [
        {**client, "name": queue.name, "rawname": client["name"]}
        for client in clients
        if client.get("name") == name or client.get("name", "").startswith(f"{name}:w:")
    ]


@TABLE.function(OBSERVE, writes=False)
async def get_workers_count(queue: Queue) -> int:
    """How many rows `getWorkers` has."""
    return len(await get_workers(queue))


def _distinct(types: Iterable[JobType]) -> list[JobType]:
    return list(dict.fromkeys(types))
