"""Calls of many scripts: they stop between two when the caller's key has lost its rights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Grant, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.functions.base import MANAGE, Context
from bullmq_proxy.gateway.broker.functions.managing import (
    ObliterateOptions,
    PromoteJobsOptions,
    RetryJobsOptions,
    clean,
    obliterate,
    promote_jobs,
    remove_orphaned_jobs,
    resume,
    retry_jobs,
)
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

MANY = 300
MANAGER = Grant("manager", frozenset({MANAGE}), ("q",))
LOST = [
    (Grant("manager"), "The key manager may not go on with {}: it needs the permission manage"),
    (Grant("manager", frozenset({MANAGE}), ("other",)), "The key manager is not for the queue q"),
]

Run = Callable[[Queue, Context], Awaitable[Any]]
CALLS: list[tuple[str, str, Run]] = [
    ("promoteJobs", "delayed", lambda queue, context: promote_jobs(queue, PromoteJobsOptions(1), context=context)),
    ("retryJobs", "failed", lambda queue, context: retry_jobs(queue, RetryJobsOptions(1), context=context)),
    ("clean", "completed", lambda queue, context: clean(queue, 0, 0, context=context)),
    ("obliterate", "completed", lambda queue, context: obliterate(queue, ObliterateOptions(count=1), context=context)),
    ("removeOrphanedJobs", "none", lambda queue, context: remove_orphaned_jobs(queue, 1, context=context)),
]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """`clean` has no count of its own."""
    monkeypatch.setattr("bullmq_proxy.gateway.broker.functions.managing.AT_A_TIME", 10)


async def fill(redis: Redis, prefix: str, type: str) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(MANY):
            pipe.hset(f"{prefix}:q:{number}", mapping={"name": "a", "data": "{}", "timestamp": "1", "finishedOn": "1"})
            if type != "none":
                pipe.zadd(f"{prefix}:q:{type}", {str(number): number + 1})
        await pipe.execute()


@pytest.mark.parametrize(("grant", "message"), LOST)
@pytest.mark.parametrize(("name", "type", "run"), CALLS, ids=[name for name, *_ in CALLS])
async def test_no_further_script_runs_without_the_right(
    broker: Broker, redis: Redis, prefix: str, name: str, type: str, run: Run, grant: Grant, message: str
) -> None:
    await fill(redis, prefix, type)
    with pytest.raises(GatewayError) as caught:
        await run(broker.queue("q"), Context(broker, Rights(grant)))
    assert (caught.value.code, caught.value.message) == (ErrorCode.FORBIDDEN, message.format(name))
    left = await redis.zcard(f"{prefix}:q:{type}") if type != "none" else len(await redis.keys(f"{prefix}:q:*"))
    assert 0 < left <= MANY


@pytest.mark.parametrize(("name", "type", "run"), CALLS, ids=[name for name, *_ in CALLS])
async def test_with_the_right_it_goes_on_to_the_end(
    broker: Broker, redis: Redis, prefix: str, name: str, type: str, run: Run
) -> None:
    await fill(redis, prefix, type)
    await run(broker.queue("q"), Context(broker, Rights(MANAGER)))
    assert not await redis.exists(f"{prefix}:q:{type}")
    if name not in ("promoteJobs", "retryJobs"):
        assert await redis.keys(f"{prefix}:q:[0-9]*") == []


async def test_resuming_a_long_list_of_an_old_version_goes_on_while_the_key_has_the_right(
    broker: Broker, redis: Redis, prefix: str
) -> None:
    await redis.rpush(f"{prefix}:q:wait", "first")
    await redis.rpush(f"{prefix}:q:paused", *range(1001))  # one more than the script moves
    with pytest.raises(GatewayError, match="may not go on with resume"):
        await resume(broker.queue("q"), context=Context(broker, Rights(Grant("manager"))))
    assert await redis.llen(f"{prefix}:q:paused") == 1
    await resume(broker.queue("q"), context=Context(broker, Rights(MANAGER)))
    assert await redis.llen(f"{prefix}:q:wait") == 1002
