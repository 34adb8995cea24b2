"""Managing a queue: pausing, cleaning, emptying, retrying in bulk, clearing keys and orphaned jobs away."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from bullmq_proxy.gateway.broker.functions.base import (
    MANAGE,
    TABLE,
    Arguments,
    BatchSize,
    CleanableState,
    Context,
    FinishedState,
    stored_type,
)
from bullmq_proxy.gateway.broker.functions.families import check_children
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.values.numbers import Count, Milliseconds
from bullmq_proxy.gateway.values.text import text_of


class RemoveOptions(Arguments, frozen=True):
    """Options of `remove`."""

    remove_children: bool = True


class ObliterateOptions(Arguments, frozen=True):
    """Options of `obliterate`."""

    force: bool = False
    count: BatchSize = 1000


class RetryJobsOptions(Arguments, frozen=True):
    """Options of `retryJobs`."""

    count: BatchSize = 1000
    state: FinishedState = "failed"
    timestamp: Milliseconds | None = None


class PromoteJobsOptions(Arguments, frozen=True):
    """Options of `promoteJobs`."""

    count: BatchSize = 1000


_AT_A_TIME: Final = 10_000  # jobs that one script moves or removes while everybody else waits
_ALL_TIMES: Final = 1.7976931348623157e308  # Number.MAX_VALUE
_NO_EVENT: Final = "0"  # pause-7.lua


@TABLE.function(MANAGE, writes=True)
async def pause(queue: Queue) -> None:
    """Pause the queue: no worker of any kind takes new jobs until `resume`."""
    await _pause(queue)


@TABLE.function(MANAGE, writes=True, heavy=True)
async def resume(queue: Queue, *, context: Context) -> None:
    """Resume a paused queue; jobs that versions before 6 have put aside for it come back."""
    left = await _move_waiting(queue, "paused", "wait", "resumed")
    while left:  # a script moves some thousand of those jobs
        context.check_still(MANAGE, "resume", queue)
        left = await _move_waiting(queue, "paused", "wait", "resumed", _NO_EVENT)


async def _pause(queue: Queue) -> None:
    await _move_waiting(queue, "wait", "paused", "paused")


async def _move_waiting(queue: Queue, source: str, target: str, *args: str) -> int:
    keys = queue.keys(source, target, "meta", "prioritized", "events", "delayed", "marker")
    left: int = await queue.scripts["pause"].run(keys, args)
    return left


@TABLE.function(MANAGE, writes=True, heavy=True, example=[True])
async def drain(queue: Queue, delayed: bool | None = False) -> None:
    """Remove all waiting jobs, and with `delayed` the delayed ones, too."""
    keys = queue.keys("wait", "paused", "delayed", "prioritized", "repeat")
    await queue.scripts["drain"].run(keys, [queue.base, "1" if delayed else "0"])


@TABLE.function(MANAGE, writes=True, heavy=True, example=[3600000, 1000, "completed"])
async def clean(
    queue: Queue, grace: Milliseconds, limit: Count, type: CleanableState = "completed", *, context: Context
) -> list[str]:
    """Remove at most `limit` jobs (0: all) of a type that are older than `grace` ms; return their ids."""
    before, state = now_ms() - grace, stored_type(type)
    removed: list[str] = []
    while True:
        batch = min(_AT_A_TIME, limit - len(removed)) if limit else _AT_A_TIME  # as Node
        ids = await queue.scripts["cleanJobsInSet"].run(
            queue.keys(state, "events", "repeat"), [queue.base, before, batch, state]
        )
        removed.extend(text_of(id) for id in ids)
        if len(ids) < batch or (limit and len(removed) >= limit):
            return removed
        context.check_still(MANAGE, "clean", queue)


@TABLE.function(MANAGE, writes=True, heavy=True, example=[{"force": True}])
async def obliterate(queue: Queue, opts: ObliterateOptions | None = None, *, context: Context) -> None:
    """Pause the queue and remove it completely; with `force` even while jobs are active."""
    options = opts or ObliterateOptions()
    await _pause(queue)
    keys, args = queue.keys("meta", ""), [min(options.count, _AT_A_TIME), "force" if options.force else ""]
    while cursor := await queue.scripts["obliterate"].run(keys, args):
        if cursor < 0:
            raise GatewayError(ErrorCode.CONFLICT, _OBLITERATE_ERRORS[cursor])
        context.check_still(MANAGE, "obliterate", queue)


_OBLITERATE_ERRORS: Final = {
    -1: "Cannot obliterate non-paused queue",
    -2: "Cannot obliterate queue with active jobs",
}


@TABLE.function(MANAGE, writes=True, heavy=True, example=[{"state": "failed", "count": 500}])
async def retry_jobs(queue: Queue, opts: RetryJobsOptions | None = None, *, context: Context) -> None:
    """Move all failed, or all completed, jobs back to wait."""
    options = opts or RetryJobsOptions()
    while await _retry(
        queue, options.state, options.count, now_ms() if options.timestamp is None else options.timestamp
    ):
        context.check_still(MANAGE, "retryJobs", queue)


@TABLE.function(MANAGE, writes=True, heavy=True, example=[{"count": 500}])
async def promote_jobs(queue: Queue, opts: PromoteJobsOptions | None = None, *, context: Context) -> None:
    """Move all delayed jobs to wait."""
    options = opts or PromoteJobsOptions()
    while await _retry(queue, "delayed", options.count, _ALL_TIMES):
        context.check_still(MANAGE, "promoteJobs", queue)


async def _retry(queue: Queue, state: str, count: int, until: float) -> bool:
    """Move some jobs of a state to wait: those that entered it before `until`; return whether there are more."""
    keys = queue.keys("", "events", state, "wait", "paused", "meta", "active", "marker")
    return bool(await queue.scripts["moveJobsToWait"].run(keys, [min(count, _AT_A_TIME), until, state]))


@TABLE.function(MANAGE, writes=True, example=["waiting-1", {"removeChildren": False}])
async def remove(queue: Queue, job_id: JobId, opts: RemoveOptions | None = None, *, context: Context) -> int:
    """Remove a job and its children, and theirs; return 1, or 0 when a worker holds one of them.

    With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
    """
    with_children = opts is None or opts.remove_children
    if with_children:
        await check_children(queue, job_id, context)
    args = [job_id, int(with_children), queue.base]
    code: int = await queue.scripts["removeJob"].run(queue.keys(job_id, "repeat"), args)
    if code < 0:
        raise finished_error(code, command="removeJob", job_id=job_id)
    return code


@TABLE.function(MANAGE, writes=True, example=["once"])
async def remove_deduplication_key(queue: Queue, id: str) -> int:
    """Free a deduplication id, so that another job can have it; return 1 when a job had it."""
    removed: int = await queue.link.call("DEL", queue.key(f"de:{id}"))
    return removed


@TABLE.function(MANAGE, writes=True)
async def remove_deprecated_priority_key(queue: Queue) -> int:
    """Remove a key that old versions of BullMQ left behind; return 1 when it was there."""
    removed: int = await queue.link.call("DEL", queue.key("priority"))
    return removed


# Orphaned jobs

# What lies under a queue's name beside its jobs; the script looks for a job in those of them that can hold ids.
_STATES: Final = (
    "active",
    "wait",
    "waiting-children",
    "paused",
    "id",
    "delayed",
    "prioritized",
    "stalled-check",
    "completed",
    "failed",
    "stalled",
    "repeat",
    "limiter",
    "meta",
    "events",
    "pc",
    "marker",
    "de",
)
# Node does not know these, and removes `metrics:failed` together with the orphans: it looks like a job's `failed`.
_NO_JOBS: Final = ("metrics", "dn")
_KEPT: Final = frozenset(name.encode() for name in ("", *_STATES, *_NO_JOBS))
_OF_A_JOB: Final = ("logs", "dependencies", "processed", "failed", "unsuccessful", "lock")
_ENDINGS: Final = frozenset(name.encode() for name in _OF_A_JOB)

_IDS_AT_A_TIME: Final = 100  # ids: the script looks for each of them in whole lists
_GLOB: Final = re.compile(r"[*?\[\]\\]")  # what SCAN takes for a pattern


@TABLE.function(MANAGE, writes=True, heavy=True, example=[1000, 10])
async def remove_orphaned_jobs(queue: Queue, count: BatchSize = 1000, limit: Count = 0, *, context: Context) -> int:
    """Remove jobs that are in no state; return their number.

    This goes through all keys of the Redis database, some `count` at a time and at most 1,000, and ends early once
    `limit` jobs are removed (0: never).
    """
    pattern = _GLOB.sub(r"\\\g<0>", queue.base) + "*"
    head = [len(_STATES), *_STATES, len(_OF_A_JOB), *_OF_A_JOB]
    removed, cursor = 0, b"0"
    while True:
        cursor, keys = await queue.link.call("SCAN", cursor, "MATCH", pattern, "COUNT", min(count, 1000), decode=False)
        ids = _candidates(key[len(queue.base.encode()) :] for key in keys)
        for at in range(0, len(ids), _IDS_AT_A_TIME):
            removed += await queue.scripts["removeOrphanedJobs"].run(
                queue.keys(""), [*head, *ids[at : at + _IDS_AT_A_TIME]]
            )
        if cursor == b"0" or 0 < limit <= removed:
            return removed
        context.check_still(MANAGE, "removeOrphanedJobs", queue)


def _candidates(names: Iterable[bytes]) -> list[bytes]:
    """Return the ids of the jobs that keys may belong to, by the keys' last parts."""
    ids: dict[bytes, None] = {}
    for name in names:
        id, colon, rest = name.partition(b":")
        if id not in _KEPT and (not colon or rest in _ENDINGS):
            ids[id] = None
    return list(ids)
