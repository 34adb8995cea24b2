"""Limits of a queue, and clearing away what is left behind in it."""

from __future__ import annotations

from typing import Final

from tests.interop.scenarios.steps import (
    LATER,
    ONE_IN_EACH_STATE,
    Scenario,
    add,
    call,
    complete,
    redis,
    take,
)

_LONG: Final = 3_600_000_000  # ms; of remaining times, only those that are long are compared with tolerance

CONCURRENCY: Final = Scenario(
    "global concurrency",
    (
        call("getGlobalConcurrency"),
        call("isMaxed"),
        call("setGlobalConcurrency", 2),
        call("setGlobalConcurrency", 1),
        call("getGlobalConcurrency"),
        call("isMaxed"),
        add({"jobId": "a"}),
        add({"jobId": "b"}),
        take(),
        call("isMaxed"),
        take(),
        call("getJobCounts", "active", "waiting"),
        complete("a"),
        call("isMaxed"),
        call("setGlobalConcurrency", 0),
        call("getGlobalConcurrency"),
        call("isMaxed"),
        take(),
        call("removeGlobalConcurrency"),
        call("removeGlobalConcurrency"),
        call("getGlobalConcurrency"),
        call("isMaxed"),
        take(),
        call("getJobCounts", "active", "waiting"),
    ),
)

RATE: Final = Scenario(
    "global rate limit",
    (
        call("getGlobalRateLimit"),
        call("getRateLimitTtl"),
        call("getRateLimitTtl", 0),
        call("getRateLimitTtl", None),
        call("getRateLimitTtl", 5),
        call("setGlobalRateLimit", 2, _LONG),
        call("setGlobalRateLimit", 1, _LONG),
        call("getGlobalRateLimit"),
        call("getRateLimitTtl"),
        *(add({"jobId": id}) for id in "abc"),
        take(),
        call("getRateLimitTtl"),
        call("getRateLimitTtl", 1),
        call("getRateLimitTtl", 2),
        take(),
        call("getJobCounts", "active", "waiting"),
        call("removeRateLimitKey"),
        call("removeRateLimitKey"),
        call("getRateLimitTtl"),
        take(),
        call("getJobCounts", "active", "waiting"),
        call("removeGlobalRateLimit"),
        call("removeGlobalRateLimit"),
        call("getGlobalRateLimit"),
        call("getRateLimitTtl"),
        call("getRateLimitTtl", 1),
        redis("HSET", "meta", "max", "5"),
        call("getGlobalRateLimit"),
        call("removeGlobalRateLimit"),
    ),
)

USED_UP: Final = Scenario(
    "a rate limit that is used up",
    (
        call("setGlobalRateLimit", 100, LATER),
        add({"jobId": "a"}),
        call("rateLimit", _LONG),
        call("getRateLimitTtl"),
        call("getRateLimitTtl", 1000),
        take(),
        call("getJobCounts", "active", "waiting"),
        call("rateLimit", 2 * _LONG),
        call("getRateLimitTtl"),
        call("removeRateLimitKey"),
        take(),
        call("getJobCounts", "active", "waiting"),
        redis("SET", "limiter", "7"),
        call("removeGlobalRateLimit"),
        call("getRateLimitTtl"),
        call("getRateLimitTtl", 7),
        call("getRateLimitTtl", 8),
    ),
)

ORPHANS: Final = Scenario(
    "orphaned jobs",
    (
        call("removeOrphanedJobs"),
        *ONE_IN_EACH_STATE,
        call("addJobLog", "is-waiting", "row"),
        add({"jobId": "a:b:c"}),
        add({"deduplication": {"id": "d"}}),
        redis("HSET", "metrics:completed", "count", "1"),
        redis("HSET", "repeat:tick", "name", "x"),
        redis("SET", "priority", "old"),
        call("removeDeprecatedPriorityKey"),
        call("removeDeprecatedPriorityKey"),
        call("removeOrphanedJobs", 10, 0),
        *(redis("HSET", id, "name", "x") for id in ("o1", "ö2", "o:3", "123")),
        redis("RPUSH", "o1:logs", "row"),
        redis("SET", "o4:lock", "token"),
        redis("SADD", "o5:dependencies", "x"),
        redis("SET", "o6:other", "not of a job"),
        redis("SET", ":odd", "x"),
        call("removeOrphanedJobs", 1000),
        call("removeOrphanedJobs"),
        call("getJobCounts"),
    ),
)

_MANY: Final = tuple(f"old-{number}" for number in range(20_001))

OLD_LIST: Final = Scenario(
    "a list of paused jobs as older versions left it",
    (
        call("getJobCounts", "paused"),
        call("getJobCounts", "paused", "waiting", "paused"),
        call("getJobCountByTypes", "paused", "waiting"),
        call("getJobs", ["paused"]),
        call("pause"),
        *(add({"jobId": id}) for id in ("w1", "w2", "w3")),
        *(step for id in ("p1", "p2", "p3") for step in (redis("HSET", id, "name", id), redis("LPUSH", "paused", id))),
        call("getJobCounts", "paused"),
        call("getJobCounts"),
        call("getWaitingCount"),
        call("count"),
        call("getJobCountByTypes", "paused", "waiting"),
        call("recordJobCountsMetric", "paused"),
        call("getJobState", "p1"),
        call("isJobWaiting", "p1"),
        *(
            call(fn, types, *page, asc)
            for fn in ("getJobs", "getRanges")
            for types in (["paused"], ["paused", "waiting"], ["waiting", "paused"])
            for page in ((0, -1), (0, 1), (1, 1))
            for asc in (False, True)
        ),
        call("resume"),
        call("getWaiting"),
        redis("RPUSH", "paused", *_MANY),
        call("resume"),
        call("getJobCounts", "paused", "waiting"),
        redis("DEL", "wait"),
        redis("RPUSH", "paused", *_MANY),
        call("resume"),
        call("getJobCounts", "paused", "waiting"),
    ),
)

BATCHES: Final = Scenario(
    "more jobs than one script takes",
    (
        redis("ZADD", "completed", *(part for id in _MANY[:10_004] for part in ("1", id))),
        call("clean", 0, 3, "completed"),
        call("clean", 0, 0, "completed"),
        redis("ZADD", "failed", *(part for id in _MANY[:2001] for part in ("1", id))),
        call("retryJobs", {"timestamp": 0}),
        call("getJobCounts", "failed"),
        call("retryJobs"),
        redis("ZADD", "delayed", *(part for id in _MANY[2001:4003] for part in ("1", id))),
        call("promoteJobs"),
        call("getJobCounts"),
        call("obliterate"),
    ),
)

SCENARIOS: Final = (CONCURRENCY, RATE, USED_UP, ORPHANS, OLD_LIST, BATCHES)
