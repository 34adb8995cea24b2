"""Signs of life: what a shard that is silent held is given back by the others, and it learns of that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
from msgspec import Raw
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming import presence
from bullmq_proxy.gateway.broker.consuming.leases import Lease
from bullmq_proxy.gateway.broker.consuming.renewal import LOST
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.rules.options import NO_OPTIONS
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions
from tests.sessions.peer import until
from tests.support.link import OPTIONS
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually, stretched

SILENCE = 2.0
Start = Callable[..., Awaitable[Broker]]


class Worker:
    """A consumer that keeps what it is given."""

    def __init__(self, broker: Broker, queue: str = "q") -> None:
        self.leases: list[Lease] = []
        self.cancelled: list[tuple[str, str]] = []
        self.feed = broker.services(broker.queue(queue)).feed()
        self.consumer = self.feed.join(WorkerOptions(), self)

    def take(self, lease: Lease, fields: Hash) -> None:
        self.leases.append(lease)

    def cancel(self, lease: Lease, reason: str) -> bool:
        self.cancelled.append((lease.id, reason))
        return True

    def forget(self, lease: Lease) -> None: ...


async def add(broker: Broker) -> None:
    done = asyncio.get_running_loop().create_future()
    queue = broker.queue("q")
    queue.add_bulk([("a", Raw(b"{}"), queue.options.prepare(NO_OPTIONS))], done.set_result)
    assert isinstance(await done, bytes)


async def leave_behind(redis: Redis, prefix: str, shard: str, *queues: str) -> None:
    """Write what a shard has in Redis when it is killed with a job of each queue."""
    for name in queues:
        base = f"{prefix}:{name}:"
        await redis.hset(f"{base}of-{shard}", mapping={"name": "a", "data": "{}", "processedOn": 1})
        await redis.lpush(f"{base}active", f"of-{shard}")
        await redis.set(f"{base}of-{shard}:lock", f"{shard}:key:{'a' * 22}:1")
        await redis.sadd(f"{prefix}:{{gateways}}:served:{shard}", name)
    await redis.hset(f"{prefix}:{{gateways}}:signs", shard, 7)


async def known(redis: Redis, prefix: str) -> set[str]:
    """All keys about shards, and the shards with a sign."""
    keys, shards = await redis.keys(f"{prefix}:{{gateways}}:*"), await redis.hkeys(f"{prefix}:{{gateways}}:signs")
    return {str(name) for name in (*keys, *shards)}


@pytest.fixture
async def start(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def make(shard: Identity, timeout: float = SILENCE) -> Broker:
            broker = Broker(Address.from_url(valkey.url), prefix, OPTIONS, shard, gateway_timeout=timeout)
            await broker.start(5.0)
            stack.push_async_callback(broker.close)
            return broker

        yield make


async def test_a_successor_gives_the_jobs_of_its_killed_predecessors_back_at_once(
    start: Start, redis: Redis, prefix: str
) -> None:
    await leave_behind(redis, prefix, "run:0:1", "q", "r")
    await leave_behind(redis, prefix, "run:0:0", "q")
    began = time.monotonic()
    heir = await start(Identity("run", 0, 2), 0)
    worker = Worker(heir)
    await eventually(lambda: worker.leases, "it has the job")
    assert time.monotonic() - began < stretched(SILENCE / 2)
    assert await redis.hget(f"{prefix}:q:{worker.leases[0].id}", "stc") == "1"
    mine = {f"{prefix}:{{gateways}}:signs", f"{prefix}:{{gateways}}:served:run:0:2", "run:0:2"}

    async def is_clean() -> bool:
        return await known(redis, prefix) == mine

    await until(is_clean, "nothing is left of the dead")
    assert await redis.lrange(f"{prefix}:r:wait", 0, -1) == ["of-run:0:1"]
    worker.feed.leave(worker.consumer, counted=False)


async def test_a_shard_that_is_known_to_be_dead_is_not_waited_for(start: Start, redis: Redis, prefix: str) -> None:
    await leave_behind(redis, prefix, "run:1:0", "q")
    sibling = await start(Identity("run", 0, 0), 0)
    worker = Worker(sibling)
    sibling.presence.bury(Identity("run", 1, 0))
    await eventually(lambda: worker.leases, "it has the job")
    worker.feed.leave(worker.consumer, counted=False)


async def test_the_jobs_of_a_silent_gateway_are_given_back_and_those_of_a_living_one_are_not(
    start: Start, redis: Redis, prefix: str, background: list[str]
) -> None:
    living = await start(Identity("living"))
    holder = Worker(living)
    await add(living)
    await eventually(lambda: holder.leases, "it holds a job")
    await redis.set(f"{prefix}:broken:active", "no list")
    await leave_behind(redis, prefix, "dead:3:0", "q", *(f"q{n}" for n in range(200)))
    await redis.sadd(f"{prefix}:{{gateways}}:served:dead:3:0", "broken")
    began = time.monotonic()
    await start(Identity("other"))  # two that notice
    trusting = await start(Identity("trusting"), 0)
    watcher = Worker(trusting)

    await eventually(lambda: watcher.leases, "the job of the dead one has come")

    assert watcher.leases[0].id == "of-dead:3:0"
    assert SILENCE - 1 < time.monotonic() - began < stretched(SILENCE + 2)

    async def is_forgotten() -> bool:
        return "dead:3:0" not in await known(redis, prefix)

    await until(is_forgotten, "all is given back")
    for n in range(200):
        assert await redis.hmget(f"{prefix}:q{n}:of-dead:3:0", "stc") == ["1"]
    assert not holder.cancelled and await redis.lrange(f"{prefix}:q:active", 1, -1) == ["1"]
    assert not [key for key in await known(redis, prefix) if "dead" in key]
    for worker in (holder, watcher):
        worker.feed.leave(worker.consumer, counted=False)


async def test_a_shard_that_was_taken_for_dead_learns_at_once_which_jobs_it_has_lost(
    start: Start, redis: Redis, prefix: str
) -> None:
    broker = await start(Identity("slow"))
    worker, other = Worker(broker), Worker(broker)
    await add(broker)
    await add(broker)
    await eventually(lambda: worker.leases and other.leases, "both hold a job")
    await until(lambda: redis.hget(f"{prefix}:{{gateways}}:signs", "slow:0:0"), "it has given a sign")
    await redis.delete(f"{prefix}:q:1:lock")  # and then it would go to somebody else
    await redis.delete(*await redis.keys(f"{prefix}:{{gateways}}:*"))

    holder, spared = (worker, other) if worker.leases[0].id == "1" else (other, worker)
    await eventually(lambda: holder.cancelled, "it is told")

    assert holder.cancelled == [("1", LOST)] and not spared.cancelled
    assert await redis.smembers(f"{prefix}:{{gateways}}:served:slow:0:0") == {"q"}, "it is written down again"
    for each in (worker, other):
        each.feed.leave(each.consumer, counted=False)


async def test_what_is_served_no_more_is_forgotten_once_all_its_jobs_are_back(
    start: Start, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_FORGETTING", 1)
    broker = await start(Identity("run"))
    served = f"{prefix}:{{gateways}}:served:run:0:0"
    await redis.delete(served)
    worker, passing = Worker(broker), Worker(broker, "passing")
    await add(broker)
    await eventually(lambda: worker.leases, "it holds a job")
    assert await redis.smembers(served) == {"q", "passing"}
    passing.feed.leave(passing.consumer)
    await eventually(lambda: broker.presence.served == {"q"}, "one of them is forgotten", 5)
    worker.feed.leave(worker.consumer)
    await eventually(lambda: not broker.presence.served, "both are forgotten")

    async def is_forgotten() -> bool:
        return not await redis.exists(served)

    await until(is_forgotten, "Redis has it, too")
    assert await redis.llen(f"{prefix}:q:wait") == 1
    await broker.close()
    assert await known(redis, prefix) == set()


async def test_whoever_loses_all_keys_again_and_again_does_not_take_the_living_for_dead(
    start: Start, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PERIOD", 0.1)
    living, other = await start(Identity("living"), 0.3), await start(Identity("other"), 0.3)
    worker, looks = Worker(living), list[int]()
    other.presence.on_look = lambda shards, version: looks.append(shards)
    await add(living)
    await eventually(lambda: worker.leases, "it holds a job")
    for times in range(1, 13):
        await eventually(partial(lambda times: looks.count(2) >= times, times), f"look {times} that sees both")
        await redis.delete(f"{prefix}:{{gateways}}:signs")
    assert await redis.lrange(f"{prefix}:q:active", 0, -1) == [worker.leases[0].id]
    assert worker.cancelled == []
    worker.feed.leave(worker.consumer)


async def test_a_shard_whose_link_breaks_again_and_again_does_not_take_the_living_for_dead(
    start: Start, redis: Redis, prefix: str
) -> None:
    living, flapping = await start(Identity("living")), await start(Identity("flapping"))
    worker = Worker(living)
    await add(living)
    await eventually(lambda: worker.leases, "it holds a job")

    async def signs() -> int:
        return int(await redis.hget(f"{prefix}:{{gateways}}:signs", "living:0:0") or 0)

    before = await signs()
    [link] = flapping.link.nodes
    for times in range(1, 7):  # each time it looks at the signs of the others
        link.give_up("it is lost")
        await eventually(partial(lambda times: link.times_up > times, times), "it is connected again")

    async def has_gone_on() -> bool:
        return await signs() > before + 1

    await until(has_gone_on, "the living one has given further signs")
    assert await redis.hget(f"{prefix}:q:1", "stc") is None and not worker.cancelled
    worker.feed.leave(worker.consumer, counted=False)
