"""A scheduler's job reaches nobody before the job of the next iteration stands in Redis, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from tests.sessions.peer import Gateway, Peer, until
from tests.support.relay import Relay

HOUR: Final = 3_600_000  # ms
UPDATE: Final = sha_of(script_texts()["updateJobScheduler"]).encode()


@pytest.fixture
async def proxy(relay: Relay) -> AsyncIterator[Gateway]:
    async with Gateway(relay.url, redis_backlog_timeout=0.05) as gateway:
        yield gateway


@pytest.fixture
async def queue(proxy: Gateway, relay: Relay) -> Peer:
    """A queue with a scheduler whose first job is due, and whose next one is held back on its way to Redis."""
    queue = await proxy.queue()
    await queue.call("upsertJobScheduler", "s", {"every": HOUR}, {"data": {"n": 1}})
    relay.hold_at(UPDATE)
    return queue


async def has_nothing(peer: Peer) -> None:
    """The peer has been sent nothing: this refusal comes behind it, and Redis is not asked for it."""
    assert (await peer.refusal("nothing"))[0] == "UNKNOWN_FUNCTION"
    assert peer.kept() == []


async def iterations(queue: Peer) -> tuple[int, int]:
    """How many jobs the scheduler has made, and how many wait for their time."""
    scheduler = await queue.call("getJobScheduler", "s")
    return scheduler["iterationCount"], (await queue.call("getJobCounts", "delayed"))["delayed"]


async def test_a_worker_gets_the_job_when_the_next_one_stands(proxy: Gateway, queue: Peer, relay: Relay) -> None:
    worker = await proxy.worker(confirm=1)
    await relay.held.wait()
    await has_nothing(worker)
    relay.let_go()
    job = await worker.job()
    assert await iterations(queue) == (2, 1)
    await job.answer(result=1)
    assert (await worker.data())["state"] == "completed"


async def test_so_does_one_that_gets_it_for_the_job_that_it_has_finished(
    proxy: Gateway, queue: Peer, relay: Relay
) -> None:
    await queue.call("add", "first", {}, {"lifo": True})
    worker = await proxy.worker()
    job = await worker.job()
    assert job.name == "first"
    await job.answer(result=1)
    await relay.held.wait()
    await has_nothing(worker)
    relay.let_go()
    assert (await worker.job()).shown["repeatJobKey"] == "s"
    assert await iterations(queue) == (2, 1)


@pytest.mark.parametrize("options", [{}, {"block": 10_000}], ids=["at once", "waiting"])
async def test_so_does_a_client_that_takes_it_by_hand(
    proxy: Gateway, queue: Peer, relay: Relay, options: dict[str, int]
) -> None:
    taker = await proxy.queue()
    asked = await taker.request("getNextJob", "hand", options)
    await relay.held.wait()
    await has_nothing(taker)
    relay.let_go()
    job = await taker.reply(asked)
    assert await iterations(queue) == (2, 1)
    assert await taker.call("moveJobToCompleted", job["id"], 1, "hand") == []


async def test_so_does_a_client_that_takes_it_by_hand_for_the_job_that_it_has_finished(
    proxy: Gateway, queue: Peer, relay: Relay
) -> None:
    await queue.call("add", "first", {}, {"lifo": True, "jobId": "first"})
    assert (await queue.call("getNextJob", "hand"))["id"] == "first"
    taker = await proxy.queue()
    asked = await taker.request("moveJobToCompleted", "first", 1, "hand", True)
    await relay.held.wait()
    await has_nothing(taker)
    relay.let_go()
    [job, *_] = await taker.reply(asked)
    assert (job["repeatJobKey"], await iterations(queue)) == ("s", (2, 1))


@pytest.mark.parametrize("how", ["vanishes", "pauses"])
async def test_it_goes_back_uncounted_when_its_worker_is_not_there_for_it_any_more(
    proxy: Gateway, queue: Peer, relay: Relay, how: str
) -> None:
    worker = await proxy.worker()
    await relay.held.wait()
    if how == "vanishes":
        worker.vanish()
        await worker.closed()
        await until_gone(proxy)
    else:
        await worker.pause()
    relay.let_go()
    job = await (await proxy.worker()).job()
    assert (job.shown["stalledCounter"], job.shown["attemptsMade"], job.shown["attemptsStarted"]) == (0, 0, 2)
    assert await iterations(queue) == (2, 1)
    if how == "pauses":
        await worker.nothing_more()


@pytest.mark.parametrize("options", [{}, {"block": 10_000}], ids=["at once", "waiting"])
async def test_it_goes_back_when_the_caller_who_takes_it_by_hand_has_gone(
    proxy: Gateway, queue: Peer, relay: Relay, options: dict[str, int]
) -> None:
    taker = await proxy.queue()
    await taker.request("getNextJob", "hand", options)
    await relay.held.wait()
    taker.vanish()
    await taker.closed()
    await until_gone(proxy)
    relay.let_go()
    job = await (await proxy.worker()).job()
    assert (job.shown["repeatJobKey"], job.shown["stalledCounter"]) == ("s", 0)
    assert await iterations(queue) == (2, 1)


async def until_gone(proxy: Gateway) -> None:
    """Wait until the gateway has only the one connection of `queue`."""

    async def look() -> bool:
        return await proxy.metric("connections") == 1

    await until(look, "the other connection has ended")


@pytest.mark.parametrize("query", [{}, {"lockDuration": 500, "stalledInterval": 500}], ids=["kept", "lost"])
async def test_an_outage_delays_it_and_makes_no_job_twice(proxy: Gateway, relay: Relay, query: dict[str, Any]) -> None:
    """The lock of the job that its worker does not have yet may be lost meanwhile: the worker hears nothing of that."""
    queue = await proxy.queue()
    await queue.call("upsertJobScheduler", "s", {"every": HOUR})
    relay.cut_after(UPDATE)
    worker = await proxy.worker(confirm=1, **query)
    await asyncio.wait_for(relay.cut.wait(), 5)
    asyncio.get_running_loop().call_later(1.2 if query else 0, relay.mend)
    job = await worker.job(timeout=10)
    assert await iterations(queue) == (2, 1)
    await job.answer(result=1)
    assert (await worker.data())["type"] in (("finished", "lost", "cancel") if query else ("finished",))


@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_gateway_that_stops_while_redis_is_away_does_not_wait_for_it(
    proxy: Gateway, relay: Relay, by_hand: bool
) -> None:
    queue = await proxy.queue()
    await queue.call("upsertJobScheduler", "s", {"every": HOUR})
    relay.cut_after(UPDATE)
    if by_hand:
        await queue.request("getNextJob", "hand")
    else:
        await proxy.worker()
    await asyncio.wait_for(relay.cut.wait(), 5)
    await asyncio.wait_for(proxy.stop(), 5)
