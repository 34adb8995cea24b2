"""Limits that hold for all workers of a queue: what the functions set is what the workers keep to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Peer, both_listen, until
from tests.support.valkey import ValkeyProcess

LONG = 3_600_000  # ms


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


async def add(queue: Peer, count: int) -> None:
    await queue.call("addBulk", [{"name": "a"} for _ in range(count)])


async def test_all_workers_together_have_no_more_jobs_than_the_global_concurrency(proxy: Gateway, queue: Peer) -> None:
    assert await queue.call("getGlobalConcurrency") is None
    assert await queue.call("setGlobalConcurrency", 2) == 1
    assert await queue.call("getGlobalConcurrency") == 2
    await add(queue, 4)
    workers = [await proxy.worker(concurrency=5) for _ in range(2)]
    assert workers

    async def maxed() -> bool:
        return bool(await queue.call("isMaxed"))

    await until(maxed, "two jobs are active")
    for worker in workers:
        await worker.call("getJobCounts")  # whatever was to come is here
    assert await queue.call("getJobCounts", "active", "waiting") == {"active": 2, "waiting": 2}
    assert await queue.call("removeGlobalConcurrency") == 1
    assert await queue.call("removeGlobalConcurrency") == 0
    assert await queue.call("isMaxed") is False


async def test_a_finished_job_makes_room_for_the_next(proxy: Gateway, queue: Peer) -> None:
    await queue.call("setGlobalConcurrency", 1)
    await add(queue, 3)
    worker = await proxy.worker(concurrency=3)
    for number in range(3):
        job = await worker.job()
        await worker.nothing_more()
        assert job.id == str(number + 1)
        await job.answer(result=None)


async def test_no_more_jobs_start_in_a_while_than_the_global_rate_limit_says(proxy: Gateway, queue: Peer) -> None:
    assert await queue.call("getGlobalRateLimit") is None
    assert await queue.call("getRateLimitTtl") == -2
    assert await queue.call("setGlobalRateLimit", 2, LONG) == 2
    assert await queue.call("getGlobalRateLimit") == {"max": 2, "duration": LONG}
    await add(queue, 4)
    worker = await proxy.worker(concurrency=4)
    assert [(await worker.job()).id for _ in range(2)] == ["1", "2"]
    await worker.nothing_more()
    assert 0 < await queue.call("getRateLimitTtl") <= LONG
    assert await queue.call("getRateLimitTtl", 3) == 0
    assert await queue.call("removeGlobalRateLimit") == 2
    assert await queue.call("removeRateLimitKey") == 1
    assert await queue.call("getRateLimitTtl") == -2


async def test_a_limit_that_is_used_up_lets_nothing_through_until_it_is_over(
    proxy: Gateway, queue: Peer, redis: Redis, prefix: str
) -> None:
    await queue.call("setGlobalRateLimit", 100, 1000)
    assert await queue.call("rateLimit", 300) is None
    assert await redis.get(f"{prefix}:q:limiter") == str(2**53 - 1)
    assert 0 < await queue.call("getRateLimitTtl") <= 300
    await add(queue, 1)
    worker = await proxy.worker()
    assert (await worker.job()).id == "1"
    assert await queue.call("getRateLimitTtl", 100) == 0


@pytest.fixture
async def other(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Gateway]:
    """Another gateway on the same Redis."""
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        yield gateway


SOON_ENOUGH = 2.0
"""Seconds, well below the 5 after which workers look by themselves."""


@pytest.mark.parametrize("lift", [("setGlobalConcurrency", 2), ("removeGlobalConcurrency",)], ids=lambda lift: lift[0])
async def test_workers_everywhere_take_at_once_what_a_higher_concurrency_allows(
    proxy: Gateway, queue: Peer, other: Gateway, redis: Redis, prefix: str, lift: tuple[Any, ...]
) -> None:
    await queue.call("setGlobalConcurrency", 1)
    await add(queue, 2)
    worker = await other.worker(concurrency=5)
    await worker.job()
    await both_listen(redis, prefix)
    await until(lambda: _is_quiet(redis, prefix), "the worker waits")
    await queue.call(*lift)
    await worker.job(SOON_ENOUGH)


@pytest.mark.parametrize(
    "lift",
    [("removeRateLimitKey",), ("removeGlobalRateLimit",), ("setGlobalRateLimit", 5, LONG)],
    ids=lambda lift: lift[0],
)
async def test_workers_everywhere_go_on_at_once_when_a_rate_limit_is_lifted(
    proxy: Gateway, queue: Peer, other: Gateway, redis: Redis, prefix: str, lift: tuple[Any, ...]
) -> None:
    await queue.call("setGlobalRateLimit", 1, LONG)
    await add(queue, 2)
    worker = await other.worker(concurrency=5)
    await worker.job()
    await both_listen(redis, prefix)
    await worker.nothing_more()
    await queue.call(*lift)
    await worker.job(SOON_ENOUGH)


async def _is_quiet(redis: Redis, prefix: str) -> bool:
    """Whether the worker's shard is blocked on the marker."""
    return any(
        client["cmd"] == "bzpopmin" and client["name"].startswith(prefix) for client in await redis.client_list()
    )


@pytest.mark.parametrize(
    ("fn", "args", "place"),
    [
        ("rateLimit", [], "args"),
        ("rateLimit", [None], "args[0]"),
        ("rateLimit", [0], "args[0]"),
        ("rateLimit", [-5], "args[0]"),
        ("rateLimit", [1.5], "args[0]"),
        ("rateLimit", [2**60], "args[0]"),
        ("rateLimit", ["5"], "args[0]"),
        ("setGlobalConcurrency", [], "args"),
        ("setGlobalConcurrency", [-1], "args[0]"),
        ("setGlobalConcurrency", ["x"], "args[0]"),
        ("setGlobalConcurrency", [1.5], "args[0]"),
        ("setGlobalConcurrency", [None], "args[0]"),
        ("setGlobalRateLimit", [1], "args"),
        ("setGlobalRateLimit", [0, 1000], "args[0]"),
        ("setGlobalRateLimit", [1, 0], "args[1]"),
        ("setGlobalRateLimit", [1, None], "args[1]"),
        ("getRateLimitTtl", [-1], "args[0]"),
        ("getRateLimitTtl", ["1"], "args[0]"),
        ("isMaxed", [1], "args"),
    ],
)
async def test_bad_arguments_name_their_place(queue: Peer, fn: str, args: list[Any], place: str) -> None:
    code, message = await queue.refusal(fn, *args)
    assert code == "INVALID_ARGUMENTS"
    assert f"`{place}`" in message


# Metrics


async def test_jobs_of_workers_that_keep_metrics_are_counted(proxy: Gateway, queue: Peer) -> None:
    assert await queue.call("getMetrics", "completed") == {
        "meta": {"count": 0, "prevTS": 0, "prevCount": 0},
        "data": [],
        "count": 0,
    }
    await add(queue, 4)
    for query in ({}, {"metrics__maxDataPoints": 0}, {"metrics__maxDataPoints": 60}):
        worker = await proxy.worker(confirm=1, **query)
        await (await worker.job()).answer(result=1)
        await worker.data()
        await worker.close()
    worker = await proxy.worker(confirm=1, metrics__maxDataPoints=60)
    await (await worker.job()).answer(err="no luck")
    await worker.data()
    for type in ("completed", "failed"):
        metrics = await queue.call("getMetrics", type)
        assert (metrics["meta"]["count"], metrics["meta"]["prevCount"], metrics["data"]) == (1, 0, [])
        assert metrics["meta"]["prevTS"] > 1_700_000_000_000


async def test_each_full_minute_is_a_data_point_and_the_oldest_ones_go(
    proxy: Gateway, queue: Peer, redis: Redis, prefix: str
) -> None:
    await add(queue, 3)
    worker = await proxy.worker(confirm=1, metrics__maxDataPoints=3)
    key = f"{prefix}:q:metrics:completed"
    for number in range(3):
        if number:
            await redis.hincrby(key, "prevTS", -600_000)  # ten minutes have passed
        await (await worker.job()).answer(result=1)
        assert (await worker.data())["type"] == "finished"
        assert (await queue.call("getMetrics", "completed"))["data"] == ([0, 0, 1] if number else [])
    metrics = await queue.call("getMetrics", "completed", 0, 0)
    assert (metrics["meta"]["count"], metrics["count"], metrics["data"]) == (3, 3, [0])


async def test_a_page_for_prometheus(queue: Peer, redis: Redis, prefix: str) -> None:
    await add(queue, 2)
    await redis.hset(f"{prefix}:q:metrics:completed", "count", "5")
    page = await queue.call("exportPrometheusMetrics", {"env": 'a "b"\\\n'})
    lines = page.split("\n")
    assert 'bullmq_job_count{queue="q", state="waiting", env="a \\"b\\"\\\\\\n"} 2' in lines
    assert lines[-1] == 'bullmq_job_failed_total{queue="q", env="a \\"b\\"\\\\\\n"} 0'
    assert 'bullmq_job_completed_total{queue="q", env="a \\"b\\"\\\\\\n"} 5' in lines


@pytest.mark.parametrize(
    ("fn", "args", "place"),
    [
        ("getMetrics", [], "args"),
        ("getMetrics", ["active"], "args[0]"),
        ("getMetrics", ["completed", True], "args[1]"),
        ("getMetrics", ["completed", 0, 2**60], "args[2]"),
        ("exportPrometheusMetrics", [[1]], "args[0]"),
        ("exportPrometheusMetrics", [{"a": 1}], "args[0]"),
        ("exportPrometheusMetrics", [{"a-b": "x"}], "args[0]"),
        ("exportPrometheusMetrics", [{"1": "x"}], "args[0]"),
        ("exportPrometheusMetrics", [{"a\n": "x"}], "args[0]"),
    ],
)
async def test_bad_arguments_of_metrics_name_their_place(queue: Peer, fn: str, args: list[Any], place: str) -> None:
    code, message = await queue.refusal(fn, *args)
    assert code == "INVALID_ARGUMENTS"
    assert f"`{place}" in message
    assert "job's id" not in message
