"""Workers that read more slowly than jobs could be pushed, and jobs that no clock can wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.net.support import RawClient
from tests.sessions.peer import Gateway, until
from tests.support.valkey import ValkeyProcess

LIMIT = 256 * 1024


@pytest.fixture
async def narrow(valkey: ValkeyProcess, prefix: str) -> Gateway:
    return Gateway(valkey.url, prefix=prefix, max_write_buffer=LIMIT)


async def test_a_slow_reader_gets_no_more_than_it_reads_and_keeps_its_connection(narrow: Gateway) -> None:
    async with narrow as proxy:
        producer = await proxy.queue()
        for _ in range(4):
            await producer.call("addBulk", [{"name": "big", "data": "x" * 50_000} for _ in range(15)])
        worker = await proxy.worker(concurrency=60, confirm=1)
        worker.socket.transport.pause_reading()

        async def pushed() -> int:
            return int(await producer.call("getJobCountByTypes", "active"))

        await until(pushed, "jobs are pushed")
        # 60 jobs are 3 MB; what the kernel's buffers and ours hold is less, and the rest waits for somebody who reads.
        await asyncio.wait_for(_settled(proxy), 5)
        worker.socket.transport.resume_reading()
        done = 0
        while done < 60:
            message = await worker.message()
            if message["data"]["type"] == "process":
                await worker.send(message["id"], result=1)
            else:
                assert message["data"]["type"] == "finished", message
                done += 1
        assert await producer.call("getJobCounts", "completed", "failed") == {"completed": 60, "failed": 0}


async def _settled(proxy: Gateway) -> None:
    """Wait until the number of jobs in hand no longer grows."""
    before = -1.0
    while (now := await proxy.metric("jobs_held")) != before:
        before = now
        await asyncio.sleep(0.2)


async def test_jobs_that_were_never_read_are_given_back_uncounted(narrow: Gateway) -> None:
    async with narrow as proxy:
        producer = await proxy.queue()
        for _ in range(8):
            await producer.call("addBulk", [{"name": "big", "data": "x" * 50_000} for _ in range(15)])
        for _ in range(5):  # more often than `maxStalledCount` allows
            worker = await RawClient.open(proxy.port, "/queue/q/process/120")
            worker.stop_reading()
            await asyncio.wait_for(_settled(proxy), 5)
            worker.abort()

            async def all_back() -> bool:
                return bool(await producer.call("getJobCountByTypes", "waiting") == 120)

            await until(all_back, "all jobs are back")
        jobs = await producer.call("getWaiting")
        assert max(job["stalledCounter"] for job in jobs[:60]) == 0


@pytest.mark.parametrize("score", ["inf", "1e300"])
async def test_a_delay_without_end_stops_no_queue(proxy: Gateway, redis: Redis, score: str) -> None:
    worker, producer = await proxy.worker(), await proxy.queue()
    marker = f"{proxy.prefix}:q:marker"
    await redis.zadd(marker, {"1": float(score)})

    async def taken() -> bool:
        return not await redis.exists(marker)

    await until(taken, "the marker is taken")
    await producer.call("add", "work")
    assert (await worker.job()).name == "work"


async def test_one_client_cannot_make_redis_hold_many_large_replies(proxy: Gateway) -> None:
    producer = await proxy.queue()
    await producer.call("addBulk", [{"name": "a", "data": "x" * 1000} for _ in range(500)])
    ids = [await producer.request("getJobs", ["waiting"]) for _ in range(50)]
    for id in ids:
        assert len(await producer.reply(id)) == 500
    adds = [await producer.request(*call) for call in [("getJobs",), ("add", "x"), ("count",)] * 10]
    replies: dict[int, Any] = {}
    while len(replies) < len(adds):
        message = await producer.message()
        replies[message["id"]] = message["data"]["ok"]
    counts = [replies[id] for id in adds[2::3]]
    assert counts == list(range(501, 511))  # they start in order, although the first of each three waits its turn
