"""Redis is there and refuses: answers are kept until it takes them, and what it never takes goes back at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from tests.sessions.peer import Gateway, until
from tests.support.relay import Relay
from tests.support.valkey import ValkeyProcess


@pytest.fixture
async def proxy(server: ValkeyProcess) -> AsyncIterator[Gateway]:
    async with Gateway(server.url) as gateway:
        yield gateway


@pytest.fixture
async def redis(server: ValkeyProcess) -> AsyncIterator[Redis]:
    """To look behind the gateway's back."""
    async with Redis.from_url(server.url, decode_responses=True) as client:
        yield client


def acl(rule: str) -> Callable[[Redis], Awaitable[Any]]:
    return lambda redis: redis.execute_command("ACL", "SETUSER", "default", rule)  # type: ignore[no-untyped-call]


def config(name: str, value: int) -> Callable[[Redis], Awaitable[Any]]:
    return lambda redis: redis.config_set(name, value)


REFUSALS = {
    "no right to scripts": (acl("-evalsha"), acl("+evalsha")),
    "no right within a script": (acl("-del"), acl("+del")),
    "out of memory": (config("maxmemory", 1), config("maxmemory", 0)),
    "no replicas": (config("min-replicas-to-write", 1), config("min-replicas-to-write", 0)),
}


def refused_scripts(redis: Redis) -> Callable[[], Awaitable[bool]]:
    """Ask whether two calls of a script have failed or been refused since the statistics began."""

    async def look() -> bool:
        stats = (await redis.info("commandstats")).get("cmdstat_evalsha", {})
        return int(stats.get("rejected_calls", 0)) + int(stats.get("failed_calls", 0)) >= 2

    return look


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("answer", [{"result": 1}, {"err": "boom"}, None], ids=["completed", "failed", "vanished"])
async def test_what_is_said_of_a_job_while_redis_refuses_is_stored_once_it_does_not(
    proxy: Gateway, redis: Redis, refusal: str, answer: dict[str, Any] | None
) -> None:
    begin, end = REFUSALS[refusal]
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1)
    await producer.call("add", "work")
    job = await worker.job()
    await begin(redis)
    await redis.config_resetstat()
    if answer is None:
        worker.vanish()
    else:
        await job.answer(**answer)
    await until(refused_scripts(redis), "Redis has refused it")
    await end(redis)
    if answer is None:
        assert (await (await proxy.worker()).job()).id == job.id
    else:
        assert (await worker.data())["type"] == "finished"
        assert (await producer.call("getJob", job.id))["attemptsStarted"] == 1


async def test_a_script_that_is_refused_halfway_leaves_no_job_behind(proxy: Gateway, redis: Redis) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "work")
    job = await worker.job()
    await acl("-lrem")(redis)
    await job.answer(result=1)
    told = [await worker.message()]
    assert (told[0]["id"], told[0]["data"]["type"]) == (job.number, "lost")
    await acl("+lrem")(redis)
    again = await worker.job()
    assert (again.id, again.shown["stalledCounter"]) == (job.id, 1)


async def test_a_job_whose_answer_can_never_be_stored_goes_back_at_once_and_counts_as_stalled(
    proxy: Gateway, redis: Redis
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(maxStalledCount=2)
    await redis.set("bull:q:1:dependencies", "no set")
    await producer.call("add", "work")
    for stalled in range(3):
        job = await worker.job()
        assert job.shown["stalledCounter"] == stalled
        await job.answer(result=1)
        told = await worker.message()
        assert (told["id"], told["data"]["type"], told["data"]["err"]["code"]) == (job.number, "lost", "CONFLICT")
    await producer.until_state(job.id, "failed")


async def test_a_schedule_goes_on_after_redis_has_refused_its_next_iteration(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path, tcp=True) as server:
        async with (
            Relay(server) as relay,
            Redis.from_url(server.url) as redis,
            Gateway(relay.url) as proxy,
        ):
            producer, worker = await proxy.queue(), await proxy.worker()
            relay.hold_at(sha_of(script_texts()["updateJobScheduler"]).encode())
            await producer.call("upsertJobScheduler", "tick", {"every": 3_600_000}, {})
            await relay.held.wait()
            await acl("-evalsha")(redis)
            await redis.config_resetstat()
            relay.let_go()
            await until(refused_scripts(redis), "Redis has refused it")
            await acl("+evalsha")(redis)
            job = await worker.job()
            assert job.id.startswith("repeat:tick:")
            assert (await producer.call("getJobCounts"))["delayed"] == 1
