"""Counting the jobs of a queue."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, TABLE, Index, JobType, stored_type
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER

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

Counts = dict[str, int]
"""How many jobs there are, by type."""


@TABLE.function(OBSERVE, writes=False)
async def get_job_counts(queue: Queue, *types: JobType) -> Counts:
    """How many jobs there are of each type; of all types when none is named."""
    wanted = _distinct(types or ALL_TYPES)
    counts = await queue.scripts["getCounts"].run(queue.keys(""), [stored_type(type) for type in wanted])
    return dict(zip(wanted, (count or 0 for count in counts), strict=True))


@TABLE.function(OBSERVE, writes=False)
async def record_job_counts_metric(queue: Queue, *types: JobType) -> Counts:
    """The same as `getJobCounts`: what Node records for a tracer beside it has no meaning here."""
    return await get_job_counts(queue, *types)


@TABLE.function(OBSERVE, writes=False)
async def get_job_count_by_types(queue: Queue, *types: JobType) -> int:
    """How many jobs there are of these types together."""
    return sum((await get_job_counts(queue, *types)).values())


@TABLE.function(OBSERVE, writes=False)
async def count(queue: Queue) -> int:
    """How many jobs wait to be processed: waiting, delayed, prioritized, waiting for children."""
    return await get_job_count_by_types(queue, "waiting", "delayed", "prioritized", "waiting-children")


def _counter(name: str, type: JobType) -> None:
    async def get(queue: Queue) -> int:
        return await get_job_count_by_types(queue, type)

    get.__doc__ = f"How many jobs are {type}."
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


@TABLE.function(OBSERVE, writes=False)
async def get_delayed_count(queue: Queue, timestamp: float | None = None) -> int:
    """How many jobs are delayed; with a `timestamp`, in ms since 1970, those that are due before it."""
    if timestamp is None:
        return await get_job_count_by_types(queue, "delayed")
    if not timestamp.is_integer() or abs(timestamp) > MAX_SAFE_INTEGER:
        raise invalid_arguments("timestamp must be a safe integer in milliseconds")
    before = timestamp * _SCORE_SHIFT - 1
    due: int = await queue.link.call("ZCOUNT", queue.key("delayed"), "-inf", repr(before))
    return due


@TABLE.function(OBSERVE, writes=False)
async def get_counts_per_priority(queue: Queue, priorities: list[Index]) -> Counts:
    """How many waiting jobs there are of each priority; 0 stands for jobs without one."""
    wanted = sorted(dict.fromkeys(priorities), key=_as_javascript_orders)
    if not wanted:
        return {}
    counts = await queue.scripts["getCountsPerPriority"].run(queue.keys("wait", "prioritized"), wanted)
    return dict(zip(map(str, wanted), (count or 0 for count in counts), strict=True))


def _as_javascript_orders(key: int) -> int:
    """An object's members come in the order of their numbers, and those that are no index last, as they came."""
    return key if 0 <= key < _NO_INDEX else _NO_INDEX


def _distinct(types: Iterable[JobType]) -> list[JobType]:
    return list(dict.fromkeys(types))
