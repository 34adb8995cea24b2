"""A shard puts few large replies together at a time; small ones pass by."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.functions.reading import get_job, get_jobs
from bullmq_proxy.gateway.broker.jobs.queue import LARGE_REPLIES, Queue
from bullmq_proxy.gateway.errors import GatewayError


@pytest.fixture
async def queue(broker: Broker, redis: Redis, prefix: str) -> Queue:
    """A hundred jobs that wait, 200 KB in all."""
    async with redis.pipeline(transaction=False) as pipe:
        for id in range(100):
            pipe.hset(f"{prefix}:q:{id}", mapping={"name": "a", "data": '"' + "x" * 2000 + '"'})
            pipe.rpush(f"{prefix}:q:wait", id)
        await pipe.execute()
    return broker.queue("q")


async def test_a_large_reply_waits_for_a_place_and_small_ones_do_not(broker: Broker, queue: Queue) -> None:
    for _ in range(LARGE_REPLIES):
        await broker.queue("other").large_replies.acquire()
    large = asyncio.create_task(get_jobs(queue, "waiting"))
    assert await get_job(queue, "1") is not None
    assert len(await get_jobs(queue, "waiting", 0, 9)) == 10
    assert not large.done()
    queue.large_replies.release()
    assert len(await large) == 100


async def test_whatever_becomes_of_a_reply_its_place_is_free_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.broker.jobs.replies.MOST_BYTES", 100_000)
    for _ in range(LARGE_REPLIES + 1):
        with pytest.raises(GatewayError):
            await get_jobs(queue, "waiting")
    monkeypatch.undo()
    for _ in range(LARGE_REPLIES + 1):
        gone = asyncio.create_task(get_jobs(queue, "waiting"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait((gone,))
    for _ in range(LARGE_REPLIES + 1):
        assert len(await get_jobs(queue, "waiting")) == 100
