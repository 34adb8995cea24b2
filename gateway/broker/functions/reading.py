"""Reading the jobs of a queue, and what one of them is at."""

from __future__ import annotations

import asyncio

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, TABLE, Index, JobType, stored_type
from bullmq_proxy.gateway.broker.functions.counting import ALL_TYPES
from bullmq_proxy.gateway.broker.jobs.pages import LISTS, read_range
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.ids import AnyJobId
from bullmq_proxy.gateway.rules.jobs import loaded_job, to_hash
from bullmq_proxy.gateway.rules.shapes import Job, JobLogs


@TABLE.function(OBSERVE, writes=False)
async def get_job(queue: Queue, job_id: str | int) -> Job | None:
    """The job, or null."""
    if not job_id:
        return None
    flat = await queue.link.call("HGETALL", queue.key(str(job_id)), decode=False)
    if not flat:
        return None
    job = loaded_job(str(job_id), to_hash(flat), queue.qualified)
    if job["id"] == str(job_id):
        job["id"] = job_id  # as it was asked for
    return job


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_jobs(
    queue: Queue,
    types: JobType | list[JobType] | None = None,
    start: Index = 0,
    end: Index = -1,
    asc: bool = False,
) -> list[Job]:
    """The jobs of some types, in the order of the types; `start` and `end` count within each type.

    Those that are larger than 64 MiB together are refused: ask for them in pages.
    """
    wanted = dict.fromkeys(map(stored_type, [types] if isinstance(types, str) else types or ALL_TYPES))
    return await read_range(queue, list(wanted), start, end, asc=asc)


def _getter(name: str, type: JobType, *, asc: bool) -> None:
    async def get(queue: Queue, start: Index = 0, end: Index = -1) -> list[Job]:
        return await get_jobs(queue, type, start, end, asc)

    get.__doc__ = f"The {type} jobs, {'oldest' if asc else 'newest'} first."
    TABLE.function(OBSERVE, writes=False, name=name, heavy=True)(get)


for _name, _type, _asc in (
    ("getWaiting", "waiting", True),
    ("getWaitingChildren", "waiting-children", True),
    ("getActive", "active", True),
    ("getDelayed", "delayed", True),
    ("getPrioritized", "prioritized", True),
    ("getCompleted", "completed", False),
    ("getFailed", "failed", False),
):
    _getter(_name, _type, asc=_asc)  # type: ignore[arg-type]


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_ranges(
    queue: Queue, types: list[JobType], start: Index = 0, end: Index = 1, asc: bool = False
) -> list[str]:
    """The ids of jobs of some types, each once; `start` and `end` count within each type."""
    if not types:
        return []
    stored = [stored_type(type) for type in types]
    args = [start, end, "1" if asc else "0", *stored]
    found: dict[bytes, None] = {}
    for type, ids in zip(stored, await queue.scripts["getRanges"].run(queue.keys(""), args), strict=True):
        found.update(dict.fromkeys(reversed(ids) if asc and type in LISTS else ids))
    return [id.decode(errors="replace") for id in found]


@TABLE.function(OBSERVE, writes=False)
async def get_job_state(queue: Queue, job_id: AnyJobId) -> str:
    """The job's state, or `unknown`."""
    keys = queue.keys("completed", "failed", "delayed", "active", "wait", "paused", "waiting-children", "prioritized")
    state: bytes = await queue.scripts["getStateV2"].run(keys, [job_id, queue.key(job_id)])
    return state.decode()


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_job_logs(queue: Queue, job_id: AnyJobId, start: Index = 0, end: Index = -1, asc: bool = True) -> JobLogs:
    """The rows that were logged for a job, and how many there are."""
    key = queue.key(f"{job_id}:logs")
    first, last = (start, end) if asc else (-(end + 1), -(start + 1))
    rows, total = await asyncio.gather(queue.link.call("LRANGE", key, first, last), queue.link.call("LLEN", key))
    return {"logs": rows if asc else rows[::-1], "count": total}
