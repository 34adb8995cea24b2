"""A final answer whose reply was lost: it is sent again, and hits nothing but the lease that it is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from tests.sessions.peer import Gateway, until
from tests.support.relay import Relay


@pytest.fixture
async def proxy(relay: Relay) -> AsyncIterator[Gateway]:
    """Its backlog waits so shortly that a new fetch overtakes the answer that is sent again."""
    async with Gateway(relay.url, redis_backlog_timeout=0.05) as gateway:
        yield gateway


ANSWERS = [
    ("retryJob", {"err": "again"}, "waiting"),
    ("moveJobFromActiveToWait", {"type": "release"}, "waiting"),
    ("moveToDelayed", {"type": "delay", "delay": 1}, "delayed"),
    ("moveToFinished", {"result": 1}, "completed"),
]


@pytest.mark.parametrize(("script", "answer", "state"), ANSWERS, ids=[answer[0] for answer in ANSWERS])
@pytest.mark.parametrize("outage", [0.0, 1.0], ids=["short", "long"])
async def test_an_answer_whose_reply_was_lost_is_confirmed_once_and_touches_no_later_lease(
    proxy: Gateway, relay: Relay, script: str, answer: dict[str, Any], state: str, outage: float
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=5, confirm=1)
    await producer.call("add", "work", {}, {"attempts": 5})
    first = await worker.job()

    relay.cut_after(sha_of(script_texts()[script]).encode())
    await first.answer(**answer)
    await asyncio.wait_for(relay.cut.wait(), 5)
    asyncio.get_running_loop().call_later(outage, relay.mend)

    confirmed: list[dict[str, Any]] = []
    again: list[dict[str, Any]] = []
    for _ in range(1 if state == "completed" else 2):
        message = await worker.message(timeout=10)
        (again if message["data"]["type"] == "process" else confirmed).append(message)
    shown = {"type": "finished", "state": state, "jobId": first.id}
    assert [message["data"] for message in confirmed] == [{**shown, "delay": 1} if state == "delayed" else shown]
    if state == "completed":
        assert (await producer.call("getJob", first.id))["attemptsMade"] == 1
        return
    [pushed] = again
    assert pushed["data"]["job"]["attemptsMade"] == (1 if script == "retryJob" else 0)
    await worker.send(pushed["id"], result="done")
    assert await worker.data() == {"type": "finished", "state": "completed", "jobId": first.id}
    await worker.nothing_more()
    assert (await producer.call("getJob", first.id))["attemptsStarted"] == 2


async def test_a_job_whose_holder_vanishes_waits_for_no_reply_on_its_way_back(
    proxy: Gateway, relay: Relay, redis: Redis
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "work")
    job = await worker.job()
    relay.cut_after(sha_of(script_texts()["countVanished"]).encode())
    worker.vanish()

    async def is_back() -> bool:
        return await redis.lrange(f"{proxy.prefix}:q:wait", 0, -1) == [job.id]

    await until(is_back, "it is back before the gateway can be told")
    relay.mend()
    again = await (await proxy.worker()).job(timeout=10)
    assert (again.id, again.shown["stalledCounter"]) == (job.id, 1)
