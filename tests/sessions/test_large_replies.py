"""Replies end: what is too large is refused before Redis sends it."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Peer, Refused

MIB = 2**20
# Fills keys within Redis: so many entries of so many bytes.
FILL = """
local base, entries, size = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local value = '"' .. string.rep('x', size) .. '"'
for n = 1, entries do
  local job, child = 'j' .. n, base .. 'j' .. n
  redis.call('HSET', child, 'name', 'a', 'data', value, 'timestamp', '1')
  redis.call('RPUSH', base .. 'wait', job)
  redis.call('SADD', base .. 'parent:dependencies', child)
  redis.call('HSET', base .. 'parent:processed', child, value)
  redis.call('HSET', base .. 'parent:failed', child, value)
  redis.call('RPUSH', base .. 'parent:logs', value)
  redis.call('ZADD', base .. 'repeat', n, 's' .. n)
  redis.call('HSET', base .. 'repeat:s' .. n, 'name', 'a', 'every', '1000', 'data', value)
end
redis.call('HSET', base .. 'parent', 'name', 'a', 'data', '{}', 'timestamp', '1')
"""
READERS: list[tuple[str, list[Any]]] = [
    ("getJobs", []),
    ("getWaiting", [0, -1]),
    ("getJobLogs", ["parent"]),
    ("getJobLogs", ["parent", 0, -1, False]),
    ("getJobChildrenValues", ["parent"]),
    ("getJobIgnoredChildrenFailures", ["parent"]),
    ("getJobDependencies", ["parent"]),
    ("getJobDependencies", ["parent", {"processed": {"count": 100}}]),
    ("getJobDependencies", ["parent", {"ignored": {"count": 100}}]),
    ("getDependencies", ["parent", "pending", 0, -1]),
    ("getDependencies", ["parent", "processed", 0, -1]),
    ("getJobSchedulers", []),
]


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


async def sent_bytes(redis: Redis) -> int:
    """Return the bytes that Redis has sent to all its clients so far."""
    total: int = (await redis.info("stats"))["total_net_output_bytes"]
    return total


async def test_a_value_that_is_too_large_is_refused_and_stays_in_redis(queue: Peer, redis: Redis, prefix: str) -> None:
    await redis.eval(FILL, 1, f"{prefix}:q:", 1, 17 * MIB)
    for fn, args in [*READERS, ("getJob", ["j1"])]:
        before = await sent_bytes(redis)
        code, message = await queue.refusal(fn, *args)
        assert await sent_bytes(redis) - before < MIB, (fn, args)
        assert code == "INVALID_ARGUMENTS", (fn, args)
        assert message.startswith("The reply would have more than 16 MiB: "), (fn, args)
    await redis.flushdb()


async def test_entries_that_are_too_large_together_are_refused_on_the_way(
    queue: Peer, redis: Redis, prefix: str
) -> None:
    await redis.eval(FILL, 1, f"{prefix}:q:", 24, MIB)
    for fn, args in READERS:
        before = await sent_bytes(redis)
        code, message = await queue.refusal(fn, *args)
        assert await sent_bytes(redis) - before < 17 * MIB, (fn, args)
        assert (code, "ask for" in message) == ("INVALID_ARGUMENTS", True), (fn, args)
    await redis.flushdb()


async def test_a_flow_that_is_too_large_is_refused(proxy: Gateway, redis: Redis, prefix: str) -> None:
    await redis.eval(FILL, 1, f"{prefix}:q:", 24, MIB)
    flows = await proxy.connect("/flows")
    with pytest.raises(Refused, match=r"more than 16 MiB: ask for less - at `args\[0\].depth`"):
        await flows.call("getFlow", {"queueName": "q", "id": "parent", "maxChildren": 100})
    shown = await flows.call("getFlow", {"queueName": "q", "id": "parent", "depth": 1})
    assert shown["job"]["id"] == "parent"
    await redis.flushdb()


async def test_what_fits_comes_whole_whatever_the_pages(queue: Peer, redis: Redis, prefix: str) -> None:
    await redis.eval(FILL, 1, f"{prefix}:q:", 700, 2000)
    keys = {f"{prefix}:q:j{n}" for n in range(1, 701)}
    assert len(await queue.call("getWaiting")) == 700
    assert set(await queue.call("getJobChildrenValues", "parent")) == keys
    assert set(await queue.call("getJobIgnoredChildrenFailures", "parent")) == keys
    assert set((await queue.call("getJobDependencies", "parent"))["unprocessed"]) == keys
    page = await queue.call("getJobDependencies", "parent", {"processed": {"count": 10**9}})
    assert (set(page["processed"]), page["nextProcessedCursor"]) == (keys, 0)
    assert (await queue.call("getJobLogs", "parent", 690, 710))["count"] == 700
    assert len((await queue.call("getJobLogs", "parent", 690, 710, False))["logs"]) == 10
    for kind in ("pending", "processed"):
        whole = await queue.call("getDependencies", "parent", kind, 0, -1)
        part = await queue.call("getDependencies", "parent", kind, 100, 219)
        assert {item["id"] for item in whole["items"]} == keys
        assert part["items"] == whole["items"][100:220]
        assert len(part["jobs"]) == 120
    assert [scheduler["key"] for scheduler in await queue.call("getJobSchedulers", 0, 599, True)] == [
        f"s{n}" for n in range(1, 601)
    ]
