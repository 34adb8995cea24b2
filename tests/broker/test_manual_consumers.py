"""Consuming by hand, from within: callers that go at the worst moment, replies that are lost, callers that died."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.feed import UNREADABLE
from bullmq_proxy.gateway.broker.consuming.manual import ManualConsumers
from bullmq_proxy.gateway.broker.jobs.moves import load_job
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.options import NO_OPTIONS
from tests.support.link import started
from tests.support.relay import Relay
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

TOKEN = "mine"
LOCK = 30_000  # ms
LONG = 60_000  # ms
BLOCKS = pytest.mark.parametrize("block", [0, LONG], ids=["at once", "blocked"])


async def add(queue: Queue) -> None:
    done = asyncio.get_running_loop().create_future()
    queue.add(("work", Raw(b"{}"), queue.options.prepare(NO_OPTIONS)), done.set_result)
    await done


def take(broker: Broker, block: int, token: str = TOKEN) -> asyncio.Task[Raw | None]:
    return asyncio.create_task(broker.services(broker.queue("q")).manual_consumers().take(token, LOCK, block))


async def read(queue: Queue, *command: Any) -> Any:
    return await queue.link.call(*command)


async def turn_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn, and go on in the very turn in which the condition is true."""
    async with asyncio.timeout(8):
        for _ in itertools.takewhile(lambda _: not condition(), itertools.count()):
            await asyncio.sleep(0)


async def is_back(queue: Queue, id: str = "1") -> None:
    """Wait until a job waits again, with nothing held against it."""
    async with asyncio.timeout(8):
        while await read(queue, "LRANGE", queue.key("wait"), 0, -1) != [id]:
            pass
    assert await read(queue, "LLEN", queue.key("active")) == 0
    assert await read(queue, "HMGET", queue.key(id), "atm", "stc") == [None, None]
    assert await read(queue, "EXISTS", queue.key(f"{id}:lock")) == 0


async def is_callers(queue: Queue, job: Raw | None) -> None:
    """The caller has the job, under its own token, and can complete it."""
    assert job is not None
    id = msgspec.json.decode(job)["id"]
    assert await read(queue, "GET", queue.key(f"{id}:lock")) == TOKEN


# Callers that go


@BLOCKS
async def test_a_job_that_is_fetched_for_a_caller_that_has_gone_is_back(
    broker: Broker, valkey: ValkeyProcess, block: int
) -> None:
    queue = broker.queue("q")
    await add(queue)
    valkey.freeze()
    try:
        caller = take(broker, block)
        await asyncio.sleep(0)  # it has begun
        caller.cancel()
        await asyncio.wait((caller,))
        assert caller.cancelled()
    finally:
        valkey.thaw()
    await is_back(queue)


async def test_whenever_a_caller_goes_its_job_is_either_its_own_or_back(broker: Broker) -> None:
    queue = broker.queue("q")
    hands = broker.services(queue).manual_consumers()
    outcomes = set()
    for turns in range(120):
        caller = take(broker, LONG)
        await asyncio.sleep(0)
        await read(queue, "PING")  # it has looked, and waits
        await add(queue)
        await turn_until(lambda caller=caller: len(broker.leases) > 0 or caller.done())  # type: ignore[misc]
        for _ in range(turns // 3):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait((caller,))
        outcomes.add(caller.cancelled())
        id = str(turns + 1)
        if caller.cancelled():
            await is_back(queue, id)
            assert await take(broker, LONG) is not None
        await hands.complete(await load_job(hands.queue, id, TOKEN), Raw(b"1"), False)
    assert outcomes == {True, False}


async def test_a_feed_that_stops_gives_back_what_it_fetches_for_callers(broker: Broker, valkey: ValkeyProcess) -> None:
    queue = broker.queue("q")
    caller = take(broker, LONG)
    await asyncio.sleep(0)
    await read(queue, "PING")
    await add(queue)
    await turn_until(lambda: len(broker.leases) > 0)
    broker.stop_fetching()
    caller.cancel()
    await asyncio.wait((caller,))
    await is_back(queue)


# Replies that are lost


def sha(script: str) -> bytes:
    return sha_of(script_texts()[script]).encode()


async def test_a_fetch_whose_reply_was_lost_is_undone(relay: Relay, prefix: str) -> None:
    async with started(relay.url, prefix) as broker:
        queue = broker.queue("q")
        await add(queue)
        relay.cut_after(sha("moveToActive"))
        with pytest.raises(GatewayError) as caught:
            await take(broker, LONG)
        assert caught.value.code is ErrorCode.REDIS_UNAVAILABLE
        relay.mend()
        await is_back(queue)
        await is_callers(queue, await take(broker, 0))


@BLOCKS
async def test_a_lock_is_handed_over_although_the_reply_to_that_was_lost(relay: Relay, prefix: str, block: int) -> None:
    async with started(relay.url, prefix) as broker:
        queue = broker.queue("q")
        relay.cut_after(sha("handOver"))
        caller = await begin(broker, block)
        await relay.cut.wait()
        relay.mend()
        await is_callers(queue, await caller)


@BLOCKS
async def test_a_job_whose_caller_goes_before_redis_is_back_is_given_back(
    relay: Relay, prefix: str, block: int
) -> None:
    async with started(relay.url, prefix) as broker:
        queue = broker.queue("q")
        relay.cut_after(sha("handOver"))
        caller = await begin(broker, block)
        await relay.cut.wait()
        await eventually(lambda: not queue.link.is_up, "the link is down")
        caller.cancel()
        await asyncio.wait((caller,))
        relay.mend()
        await is_back(queue)


async def begin(broker: Broker, block: int) -> asyncio.Task[Raw | None]:
    """Let a caller come by a job: at once, or after it has waited."""
    if not block:
        await add(broker.queue("q"))
        return take(broker, block)
    caller = take(broker, block)
    await asyncio.sleep(0)
    await read(broker.queue("q"), "PING")
    await add(broker.queue("q"))
    return caller


@BLOCKS
async def test_a_lock_that_was_lost_before_it_could_be_handed_over_is_not(
    relay: Relay, redis: Redis, prefix: str, block: int
) -> None:
    async with started(relay.url, prefix) as broker:
        queue = broker.queue("q")
        relay.cut_after(sha("handOver"))
        caller = await begin(broker, block)
        await relay.cut.wait()
        await redis.set(queue.key("1:lock"), "somebody else")
        relay.mend()
        if block:
            await add(queue)
            job = await caller
            assert job is not None and msgspec.json.decode(job)["id"] == "2"
        else:
            assert await caller is None
        assert await read(queue, "GET", queue.key("1:lock")) == "somebody else"


@BLOCKS
async def test_a_refused_hand_over_is_told(broker: Broker, block: int) -> None:
    queue = broker.queue("q")
    caller = await begin(broker, block)
    await is_callers(queue, await caller)
    broker.queue("q").scripts["handOver"].text = "return redis.error_reply('ERR no')"
    broker.queue("q").scripts["handOver"].sha = "0" * 40
    with pytest.raises(GatewayError, match="no"):
        await (await begin(broker, block))
    assert await read(queue, "LLEN", queue.key("active")) == 1


# Jobs whose caller died


def unattended(broker: Broker, idle: list[ManualConsumers]) -> ManualConsumers:
    """Some that check for dead callers every 100 ms."""
    queue = broker.queue("q")
    return ManualConsumers(queue, broker.leases, broker.services(queue), idle.append, stalled_interval=100)


async def test_the_job_of_a_caller_that_died_is_back_once_its_lock_has_expired(broker: Broker) -> None:
    idle: list[ManualConsumers] = []
    queue = broker.queue("q")
    hands = unattended(broker, idle)
    await add(queue)
    assert await hands.take(TOKEN, 500, 0) is not None

    async with asyncio.timeout(8):
        while await read(queue, "HGET", queue.key("1"), "stc") != "1":
            pass
    assert await read(queue, "LRANGE", queue.key("wait"), 0, -1) == ["1"]
    await eventually(lambda: idle == [hands], "nobody is watched any more")
    await hands.close()


async def test_hands_that_took_nothing_are_over_as_well(broker: Broker) -> None:
    idle: list[ManualConsumers] = []
    hands = unattended(broker, idle)
    with pytest.raises(GatewayError, match="Missing key"):
        await hands.release(await load_job(hands.queue, "1", TOKEN))
    await eventually(lambda: idle == [hands], "nobody is watched any more")
    await hands.close()


async def test_hands_watch_for_no_lock_that_nobody_got(broker: Broker) -> None:
    idle: list[ManualConsumers] = []
    hands = unattended(broker, idle)
    day = 86_400_000
    assert await hands.take(TOKEN, day, 10) is None
    assert await hands.extend("1", TOKEN, day) == 0
    await eventually(lambda: idle == [hands], "nobody is watched any more")
    await hands.close()


async def test_hands_watch_while_a_lock_that_was_extended_lives(broker: Broker) -> None:
    idle: list[ManualConsumers] = []
    queue = broker.queue("q")
    hands = unattended(broker, idle)
    await add(queue)
    assert await hands.take(TOKEN, 500, 0) is not None
    assert await hands.extend("1", TOKEN, 1500) == 1
    async with asyncio.timeout(8):
        while await read(queue, "HGET", queue.key("1"), "stc") != "1":
            pass
    await eventually(lambda: idle == [hands], "nobody is watched any more")
    await hands.close()


async def test_what_nobody_uses_is_given_up(broker: Broker) -> None:
    hands = broker.services(broker.queue("q")).manual_consumers()
    assert broker.presence.served == {"q"}
    assert broker.services(broker.queue("q")).manual_consumers() is hands
    hands._on_idle(hands)
    assert broker.services(broker.queue("q")).manual_consumers() is not hands


@BLOCKS
async def test_a_job_that_cannot_be_shown_fails(
    broker: Broker, block: int, monkeypatch: pytest.MonkeyPatch, background: list[str]
) -> None:
    queue = broker.queue("q")

    def broken(*_: object) -> None:
        raise ValueError("cannot be read")

    monkeypatch.setattr("bullmq_proxy.gateway.broker.consuming.manual.loaded_job", broken)
    caller = await begin(broker, block)
    async with asyncio.timeout(8):
        while await read(queue, "HGET", queue.key("1"), "failedReason") != UNREADABLE:
            pass
    if not block:
        assert await caller is None
    caller.cancel()
    await asyncio.wait((caller,))
    assert len(background) == 1 and "cannot be read" in background.pop()
