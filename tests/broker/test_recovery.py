"""Orphans: jobs that a predecessor in our slot was killed with, and how often they may lose their holders."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.recovery import give_back


@pytest.mark.parametrize(
    ("scheduler", "limit", "reason"),
    [
        ("none", 1, None),
        ("none", 0, "job stalled more than allowable limit"),
        ("gone", 0, "job stalled more than allowable limit"),
        ("its hash", 0, None),
        ("its place in the order", 0, None),
    ],
)
async def test_an_orphan_fails_when_holders_were_killed_too_often_unless_a_scheduler_made_it(
    broker: Broker, redis: Redis, prefix: str, scheduler: str, limit: int, reason: str | None
) -> None:
    base = f"{prefix}:q:"
    await redis.hset(
        f"{base}1", mapping={"name": "a", "data": "{}", **({} if scheduler == "none" else {"rjk": "tick"})}
    )
    await redis.lpush(f"{base}active", "1")
    await redis.set(f"{base}1:lock", "token")
    if scheduler == "its hash":
        await redis.hset(f"{base}repeat:tick", "ic", "1")
    elif scheduler == "its place in the order":
        await redis.zadd(f"{base}repeat", {"tick": 1})
    assert await give_back(broker.queue("q"), lambda token, id: True, limit=limit) == 1
    assert await redis.hmget(f"{base}1", "stc", "defa") == ["1", reason]
    assert await redis.lrange(f"{base}wait", 0, -1) == ["1"]
