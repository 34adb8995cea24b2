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
from bullmq_proxy.gateway.broker.functions.families import remove_family
from bullmq_proxy.gateway.broker.jobs.pages import LISTS
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER, Count, Milliseconds
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


AT_A_TIME: Final = 100
"""Jobs that one script moves or removes while everybody else waits: about 10 ms, and more on a busy machine."""

_CLEANED: Final = 10_000  # jobs that Node's `clean` looks at in one go; it ends where fewer were removed
_EVERY: Final = "~"  # a time that no job is younger than: cleanJobsInSet compares texts
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
async def drain(queue: Queue, delayed: bool | None = False, *, context: Context) -> None:
    """Remove all waiting jobs, and with `delayed` the delayed ones, too; the next jobs of schedulers stay."""
    states = ("wait", "paused", *(("delayed",) if delayed else ()), "prioritized")
    left = [(state, MAX_SAFE_INTEGER, 0) for state in states]
    while True:
        slices = await _clean_slice(queue, _EVERY, left)
        left = [(state, looked, passed) for state, (looked, passed, _) in zip(states, slices, strict=True)]
        if not any(looked for _, looked, _ in left):
            break
        context.check_still(MANAGE, "drain", queue)
    context.broker.reach.look_again(queue.name)  # somebody may wait for a job that is gone: no event tells of it


@TABLE.function(MANAGE, writes=True, heavy=True, example=[3600000, 1000, "completed"])
async def clean(
    queue: Queue, grace: Milliseconds, limit: Count, type: CleanableState = "completed", *, context: Context
) -> list[str]:
    """Remove at most `limit` jobs (0: all) of a type that are older than `grace` ms; return their ids."""
    before, state = now_ms() - grace, stored_type(type)
    removed: list[str] = []
    while True:
        batch = min(_CLEANED, limit - len(removed)) if limit else _CLEANED  # as Node
        ids = await _clean(queue, state, before, batch, context)
        removed.extend(ids)
        if len(ids) < batch or (limit and len(removed) >= limit):
            return removed
        context.check_still(MANAGE, "clean", queue)


async def _clean(queue: Queue, state: str, before: int, most: int, context: Context) -> list[str]:
    """Remove the jobs that are old enough among the oldest `most`; return their ids as cleanJobsInSet does."""
    slices: list[list[bytes]] = []
    left, passed = most, 0
    while True:
        [(left, passed, ids)] = await _clean_slice(queue, before, [(state, left, passed)])
        slices.append(ids)
        if not left:
            break
        context.check_still(MANAGE, "clean", queue)
    removed = sum(map(len, slices))
    await queue.link.call("XADD", queue.key("events"), "*", "event", "cleaned", "count", removed)
    return [text_of(id) for ids in (slices[::-1] if state in LISTS else slices) for id in ids]  # lists: the oldest last


async def _clean_slice(
    queue: Queue, before: int | str, states: list[tuple[str, int, int]]
) -> list[tuple[int, int, list[bytes]]]:
    words = [word for state in states for word in state]
    slices: list[tuple[int, int, list[bytes]]] = await queue.scripts["cleanSlice"].run(
        queue.keys("", "", "repeat"), [queue.base, before, AT_A_TIME, *words]
    )
    return slices


@TABLE.function(MANAGE, writes=True, heavy=True, example=[{"force": True}])
async def obliterate(queue: Queue, opts: ObliterateOptions | None = None, *, context: Context) -> None:
    """Pause the queue and remove it completely; with `force` even while jobs are active."""
    options = opts or ObliterateOptions()
    await _pause(queue)
    keys, args = queue.keys("meta", ""), [min(options.count, AT_A_TIME), "force" if options.force else ""]
    while cursor := await queue.scripts["obliterate"].run(keys, args):
        if cursor < 0:
            raise GatewayError(ErrorCode.CONFLICT, _OBLITERATE_ERRORS[cursor])
        context.check_still(MANAGE, "obliterate", queue)
    context.broker.reach.look_again(queue.name)  # as in `drain`


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
    return bool(await queue.scripts["moveJobsToWait"].run(keys, [min(count, AT_A_TIME), until, state]))


@TABLE.function(MANAGE, writes=True, heavy=True, example=["waiting-1", {"removeChildren": False}])
async def remove(queue: Queue, job_id: JobId, opts: RemoveOptions | None = None, *, context: Context) -> int:
    """Remove a job and its children, and theirs; return 1, or 0 when a worker holds one of them.

    With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too. Many
    children are removed some at a time, the job last: a worker that takes one meanwhile keeps what is left.
    """
    with_children = opts is None or opts.remove_children
    code = await remove_family(queue, job_id, context, "remove", with_children=with_children)
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

_SETS: Final = ("completed", "failed", "delayed", "prioritized", "waiting-children")
_IDS_AT_A_TIME: Final = 100  # ids that one script looks for
_SEARCHED: Final = 500_000  # entries of lists that one script looks through, each for each id
_LISTED: Final = 5000  # ids of a list that are read at a time
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
    listed = await _listed(queue)  # jobs that come later are found by the script, at the beginning of a list
    step = max(min(_SEARCHED // max(len(listed), 1), _IDS_AT_A_TIME), 1)
    while True:
        cursor, keys = await queue.link.call("SCAN", cursor, "MATCH", pattern, "COUNT", min(count, 1000), decode=False)
        ids = [id for id in _candidates(key[len(queue.base.encode()) :] for key in keys) if id not in listed]
        if ids:
            ids = await queue.scripts["notInSets"].run(queue.keys(*_SETS), ids)
        for at in range(0, len(ids), step):
            removed += await queue.scripts["removeOrphanedJobs"].run(queue.keys(""), [*head, *ids[at : at + step]])
            context.check_still(MANAGE, "removeOrphanedJobs", queue)
        if cursor == b"0" or 0 < limit <= removed:
            return removed
        context.check_still(MANAGE, "removeOrphanedJobs", queue)


async def _listed(queue: Queue) -> set[bytes]:
    """Return the ids that are in lists: to look for one of them there takes Redis some ms."""
    found: set[bytes] = set()
    for list in LISTS:
        key = queue.key(list)
        for first in range(0, await queue.link.call("LLEN", key), _LISTED):
            found.update(await queue.link.call("LRANGE", key, first, first + _LISTED - 1, decode=False))
    return found


def _candidates(names: Iterable[bytes]) -> list[bytes]:
    """Return the ids of the jobs that keys may belong to, by the keys' last parts."""
    ids: dict[bytes, None] = {}
    for name in names:
        id, colon, rest = name.partition(b":")
        if id not in _KEPT and (not colon or rest in _ENDINGS):
            ids[id] = None
    return list(ids)
