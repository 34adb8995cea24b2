"""Reading the jobs of a queue, and counting them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, cast

from msgspec import Meta

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, TABLE, Index, JobType, stored_type
from bullmq_proxy.gateway.broker.jobs.pages import BY_RANGE, LISTS, read_ids, read_jobs, window
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.jobs.replies import Reply
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.ids import AnyJobId
from bullmq_proxy.gateway.rules.jobs import loaded_job, to_hash
from bullmq_proxy.gateway.rules.shapes import Job, JobLogs
from bullmq_proxy.gateway.values.lists import OneTime, taken
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER
from bullmq_proxy.gateway.values.text import text_of

_SLICE: Final = 250  # ids that are read in one turn of the loop


@TABLE.function(OBSERVE, writes=False, example=["waiting-1"])
async def get_job(queue: Queue, job_id: str | int) -> Job | None:
    """Return a job, or null."""
    if not job_id:
        return None
    async with Reply(queue, "this job cannot be shown") as reply:
        [flat] = [flat async for _, flat in reply.read("readJobs", queue.base, [str(job_id)])]
    if not flat:
        return None
    job = loaded_job(str(job_id), to_hash(flat), queue.qualified)
    if job["id"] == str(job_id):
        job["id"] = job_id  # as it was asked for
    return job


@TABLE.function(OBSERVE, writes=False, heavy=True, example=[["waiting", "delayed"], 0, 9])
async def get_jobs(
    queue: Queue,
    types: JobType | list[JobType] | None = None,
    start: Index = 0,
    end: Index = -1,
    asc: bool = False,
) -> list[Job]:
    """Return the jobs of some types, in the order of the types; `start` and `end` count within each type.

    Those that are larger than 16 MiB together are refused: ask for them in pages.
    """
    wanted = dict.fromkeys(map(stored_type, [types] if isinstance(types, str) else types or ALL_TYPES))
    return cast("list[Job]", await read_jobs(queue, list(wanted), start, end, asc=asc))


def _getter(name: str, type: JobType, *, asc: bool) -> None:
    async def get(queue: Queue, start: Index = 0, end: Index = -1) -> list[Job]:
        return await get_jobs(queue, type, start, end, asc)

    get.__doc__ = f"Return the {type} jobs, the {'oldest' if asc else 'newest'} first."
    TABLE.function(OBSERVE, writes=False, name=name, heavy=True, example=[0, 9])(get)


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


@TABLE.function(OBSERVE, writes=False, heavy=True, example=[["waiting", "delayed"], 0, 9])
async def get_ranges(
    queue: Queue, types: list[JobType], start: Index = 0, end: Index = 1, asc: bool = False
) -> list[str]:
    """Return the ids of the jobs of some types, each once; `start` and `end` count within each type.

    Some hundred thousand ids are more than 16 MiB and refused: ask for them in pages.
    """
    stored = [stored_type(type) for type in types]
    # Node passes over `paused`, a list of older versions, where it notes which types are lists: the next ones move up.
    are_lists = [type in LISTS for type in stored if type != "paused"] + [False] * stored.count("paused")
    wanted = dict(zip(reversed(stored), reversed(are_lists), strict=True))  # of each type the first one counts
    ranges = await read_ids(queue, list(dict.fromkeys(stored)), start, end, asc=asc)
    found, seen = OneTime[str](), set[str]()
    for type, ids in ranges.items():
        if asc and (type in LISTS) != wanted[type]:
            ids.reverse()
        for some in taken(ids, _SLICE):
            new = [id for id in dict.fromkeys(map(text_of, some)) if id not in seen]
            seen.update(new)
            found += new
            await queue.turns.wait_for_slice()
    return found


@TABLE.function(OBSERVE, writes=False, example=["waiting-1"])
async def get_job_state(queue: Queue, job_id: AnyJobId) -> str:
    """Return a job's state, or `unknown` (Node's `job.getState`)."""
    keys = queue.keys("completed", "failed", "delayed", "active", "wait", "paused", "waiting-children", "prioritized")
    state: bytes = await queue.scripts["getStateV2"].run(keys, [job_id, queue.key(job_id)])
    return state.decode()


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["active-1", 0, 9])
async def get_job_logs(queue: Queue, job_id: AnyJobId, start: Index = 0, end: Index = -1, asc: bool = True) -> JobLogs:
    """Return the rows of a job's log, and how many there are. Rows of more than 16 MiB are refused: ask for less."""
    key = queue.key(f"{job_id}:logs")
    total: int = await queue.link.call("LLEN", key)
    shown = window(start, end, total)
    places = range(shown.first, shown.stop) if asc else range(-1 - shown.first, -1 - shown.stop, -1)
    async with Reply(queue, BY_RANGE) as reply:
        rows = [row async for _, row in reply.read("readEntries", key, places)]
    return {"logs": [text_of(row) for row in rows if row is not None], "count": total}


# Counts

ALL_TYPES: Final[tuple[JobType, ...]] = (
    "active",
    "completed",
    "delayed",
    "failed",
    "prioritized",
    "waiting",
    "waiting-children",
)
"""The types that are meant where none is named, in Node's order."""

_SCORE_SHIFT: Final = 0x1000  # a delayed job's score is its time in ms times this, plus a counter
_NO_INDEX: Final = 2**32 - 1

MOST_PRIORITIES: Final = 1000
"""Of one call; each is counted by itself."""

Counts = dict[str, int]
"""How many jobs there are, by type."""


@TABLE.function(OBSERVE, writes=False, example=["waiting", "failed"])
async def get_job_counts(queue: Queue, *types: JobType) -> Counts:
    """Return the number of jobs of each type; of all types when none is named."""
    wanted = _distinct(types or ALL_TYPES)
    counts = await queue.scripts["getCounts"].run(queue.keys(""), [stored_type(type) for type in wanted])
    return dict(zip(wanted, (count or 0 for count in counts), strict=True))


@TABLE.function(OBSERVE, writes=False, example=["waiting", "failed"])
async def record_job_counts_metric(queue: Queue, *types: JobType) -> Counts:
    """Return the same as `getJobCounts`; what Node also records for a tracer has no meaning here."""
    return await get_job_counts(queue, *types)


@TABLE.function(OBSERVE, writes=False, example=["waiting", "delayed"])
async def get_job_count_by_types(queue: Queue, *types: JobType) -> int:
    """Return the number of jobs of these types together."""
    return sum((await get_job_counts(queue, *types)).values())


@TABLE.function(OBSERVE, writes=False)
async def count(queue: Queue) -> int:
    """Return the number of jobs to be processed: waiting, delayed, prioritized and waiting for children."""
    return await get_job_count_by_types(queue, "waiting", "delayed", "prioritized", "waiting-children")


def _counter(name: str, type: JobType) -> None:
    async def get(queue: Queue) -> int:
        return await get_job_count_by_types(queue, type)

    get.__doc__ = f"Return the number of {type} jobs."
    TABLE.function(OBSERVE, writes=False, name=name)(get)


for _name, _type in (
    ("getActiveCount", "active"),
    ("getCompletedCount", "completed"),
    ("getFailedCount", "failed"),
    ("getPrioritizedCount", "prioritized"),
    ("getWaitingCount", "waiting"),
    ("getWaitingChildrenCount", "waiting-children"),
):
    _counter(_name, _type)  # type: ignore[arg-type]


@TABLE.function(OBSERVE, writes=False, example=[1893456000000])
async def get_delayed_count(queue: Queue, timestamp: float | None = None) -> int:
    """Return the number of delayed jobs; with `timestamp`, in ms since 1970, of those that are due before it."""
    if timestamp is None:
        return await get_job_count_by_types(queue, "delayed")
    if not timestamp.is_integer() or abs(timestamp) > MAX_SAFE_INTEGER:
        raise invalid_arguments("timestamp must be a safe integer in milliseconds")
    before = timestamp * _SCORE_SHIFT - 1
    due: int = await queue.link.call("ZCOUNT", queue.key("delayed"), "-inf", repr(before))
    return due


@TABLE.function(OBSERVE, writes=False, example=[[0, 10]])
async def get_counts_per_priority(
    queue: Queue, priorities: Annotated[list[Index], Meta(max_length=MOST_PRIORITIES)]
) -> Counts:
    """Return the number of waiting jobs of each priority; 0 stands for jobs without one."""
    wanted = sorted(dict.fromkeys(priorities), key=_as_javascript_orders)
    if not wanted:
        return {}
    counts = await queue.scripts["getCountsPerPriority"].run(queue.keys("wait", "prioritized"), wanted)
    return dict(zip(map(str, wanted), (count or 0 for count in counts), strict=True))


def _as_javascript_orders(key: int) -> int:
    """Return the place of an object's member: numbers in their order, and what is no index last, as it came."""
    return key if 0 <= key < _NO_INDEX else _NO_INDEX


def _distinct(types: Iterable[JobType]) -> list[JobType]:
    return list(dict.fromkeys(types))
