"""Orphans: jobs that a shard was killed with, and how often they may lose their holders."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming import recovery
from bullmq_proxy.gateway.broker.consuming.recovery import take_back
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.redis.scripts import Script


@pytest.mark.parametrize(
    ("scheduler", "times", "reason"),
    [
        ("none", 2, None),
        ("none", 3, "job stalled more than allowable limit"),
        ("gone", 3, "job stalled more than allowable limit"),
        ("its hash", 3, None),
        ("its place in the order", 3, None),
    ],
)
async def test_an_orphan_fails_when_holders_were_killed_too_often_unless_a_scheduler_made_it(
    broker: Broker, redis: Redis, prefix: str, scheduler: str, times: int, reason: str | None
) -> None:
    base = f"{prefix}:q:"
    await redis.hset(
        f"{base}1", mapping={"name": "a", "data": "{}", **({} if scheduler == "none" else {"rjk": "tick"})}
    )
    await redis.lpush(f"{base}active", "1")
    await redis.set(f"{base}1:lock", f"dead:0:3:key:{'a' * 22}:1")
    if scheduler == "its hash":
        await redis.hset(f"{base}repeat:tick", "ic", "1")
    elif scheduler == "its place in the order":
        await redis.zadd(f"{base}repeat", {"tick": 1})
    await redis.hset(f"{base}1", "stc", times)
    assert await take_back(broker.queue("q"), Identity("dead", 0, 3)) == 1
    assert await redis.hmget(f"{base}1", "stc", "defa") == [str(times + 1), reason]
    assert await redis.lrange(f"{base}wait", 0, -1) == ["1"]


async def test_only_the_jobs_of_the_dead_are_taken_back_and_those_without_a_lock(
    broker: Broker, redis: Redis, prefix: str
) -> None:
    secret = "a" * 22
    tokens = {
        "predecessor's": f"dead:1:2:key:{secret}:1",
        "its own": f"dead:1:3:key:{secret}:1",
        "expired": None,
        "successor's": f"dead:1:4:key:{secret}:1",
        "another slot's": f"dead:11:3:key:{secret}:1",
        "another gateway's": f"other:1:3:key:{secret}:1",
        "Node's": "0b5c2f4e-0000-0000-0000-000000000000:7",
        "being taken by an old version": None,
    }
    base = f"{prefix}:q:"
    for id, token in tokens.items():
        is_taken = id != "being taken by an old version"
        await redis.hset(f"{base}{id}", "processedOn" if is_taken else "name", "1")
        await redis.lpush(f"{base}active", id)
        if token:
            await redis.set(f"{base}{id}:lock", token)
    await redis.sadd(f"{base}stalled", "its own", "Node's")

    assert await take_back(broker.queue("q"), Identity("dead", 1, 3)) == 3

    assert await redis.lrange(f"{base}wait", 0, -1) == ["expired", "its own", "predecessor's"], "the oldest is first"
    assert len(await redis.lrange(f"{base}active", 0, -1)) == len(tokens) - 3
    assert not await redis.exists(f"{base}its own:lock")
    assert await redis.smembers(f"{base}stalled") == {"Node's"}
    assert await redis.zcard(f"{base}marker") == 1


async def test_a_thousand_jobs_are_taken_back_among_as_many_others(broker: Broker, redis: Redis, prefix: str) -> None:
    base = f"{prefix}:q:"
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(2201):
            pipe.lpush(f"{base}active", number)
            if number < 2200:
                pipe.hset(f"{base}{number}", "name", "a")
        await pipe.execute()
    await redis.mset({f"{base}{n}:lock": f"{'dead' if n % 2 else 'alive'}:0:0:key:{'a' * 22}:1" for n in range(2200)})
    await redis.set(f"{base}2200:lock", f"dead:0:0:key:{'a' * 22}:1")  # the job itself is on another node
    assert await take_back(broker.queue("q"), Identity("dead")) == 1100
    assert (await redis.llen(f"{base}active"), await redis.llen(f"{base}wait")) == (1101, 1100)
    assert not await redis.exists(f"{base}2200")


async def test_no_job_is_passed_over_because_older_ones_end_meanwhile(
    broker: Broker, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = f"{prefix}:q:"
    ids = ["old-1", "old-2", "1", "2", "3", "4"]
    for id in ids:
        await redis.hset(f"{base}{id}", "name", "a")
        await redis.lpush(f"{base}active", id)
        await redis.set(f"{base}{id}:lock", f"{'alive' if 'old' in id else 'dead'}:0:0:key:{'a' * 22}:1")
    run = Script.run

    async def end_the_old_ones(script: Script, *of: Any) -> Any:
        reply = await run(script, *of)
        for id in ids[:2]:
            await redis.lrem(f"{base}active", 1, id)
        return reply

    monkeypatch.setattr(recovery, "AT_A_TIME", 2)
    monkeypatch.setattr(Script, "run", end_the_old_ones)
    assert await take_back(broker.queue("q"), Identity("dead")) == 4
    assert await redis.llen(f"{base}active") == 0
