"""Sweeping up jobs that are in Redis and in no state, as some versions of BullMQ left them behind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from bullmq_proxy.gateway.broker.functions.base import MANAGE, TABLE, BatchSize, Context
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.values.numbers import Count

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

_AT_A_TIME: Final = 100  # ids: the script looks for each of them in whole lists
_PATTERN: Final = re.compile(r"[*?\[\]\\]")  # what SCAN takes for a pattern


@TABLE.function(MANAGE, writes=True, heavy=True)
async def remove_orphaned_jobs(queue: Queue, count: BatchSize = 1000, limit: Count = 0, *, context: Context) -> int:
    """Remove jobs that are in no state; returns how many there were.

    It looks at all keys of the Redis database, about `count` at a time and never more than 1,000, and ends early once
    `limit` jobs are removed (0: never).
    """
    pattern = _PATTERN.sub(r"\\\g<0>", queue.base) + "*"
    head = [len(_STATES), *_STATES, len(_OF_A_JOB), *_OF_A_JOB]
    removed, cursor = 0, b"0"
    while True:
        cursor, keys = await queue.link.call("SCAN", cursor, "MATCH", pattern, "COUNT", min(count, 1000), decode=False)
        ids = _candidates(key[len(queue.base.encode()) :] for key in keys)
        for at in range(0, len(ids), _AT_A_TIME):
            removed += await queue.scripts["removeOrphanedJobs"].run(
                queue.keys(""), [*head, *ids[at : at + _AT_A_TIME]]
            )
        if cursor == b"0" or 0 < limit <= removed:
            return removed
        context.check_still(MANAGE, "removeOrphanedJobs", queue)


def _candidates(names: Iterable[bytes]) -> list[bytes]:
    """The ids of the jobs that keys belong to, by the keys' last parts; of those that may belong to one."""
    ids: dict[bytes, None] = {}
    for name in names:
        id, colon, rest = name.partition(b":")
        if id not in _KEPT and (not colon or rest in _ENDINGS):
            ids[id] = None
    return list(ids)
