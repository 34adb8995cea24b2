"""Queues that wait without a connection of their own: nothing is lost, nothing comes late, and Redis hardly notices."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import Raw, json
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming import stalled
from bullmq_proxy.gateway.broker.consuming.leases import Consumer, Holder, Lease
from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.consuming.stalled import StalledChecker
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.functions.status import get_workers, get_workers_count
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.seats import Seat, Seats
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions
from bullmq_proxy.gateway.wire.events import StreamEvent, StreamId
from tests.support.commands import executed
from tests.support.link import OPTIONS, started
from tests.support.relay import Relay
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually, stretched

ASLEEP: dict[str, Any] = {"deadline": 2.0, "seats": 0}
PROMPT = 2.0
"""Seconds, well below those after which the net finds a job whose marker was lost."""


@asynccontextmanager
async def shard(url: str, prefix: str, *, name: str = "1", **options: Any) -> AsyncIterator[Broker]:
    own = f"{prefix}-{name}"
    async with started(url, prefix, Identity(own), name=own, **{**ASLEEP, **options}) as broker:
        yield broker


@pytest.fixture
async def broker(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Broker]:
    """A shard whose queues all sleep."""
    async with shard(valkey.url, prefix) as broker:
        yield broker


class Worker:
    """A consumer that completes what it is given at once."""

    def __init__(self, broker: Broker, name: str = "q") -> None:
        self.done: list[str] = []
        self.feed = broker.services(broker.queue(name)).feed()
        self.consumer: Consumer = self.feed.join(WorkerOptions(), self)

    def take(self, lease: Lease, fields: Hash) -> None:
        self.done.append(lease.id)
        self.feed.settler.complete(lease, Raw(b"1"), lambda outcome: None)

    def cancel(self, lease: Lease, reason: str) -> bool:
        return False

    def forget(self, lease: Lease) -> None: ...

    async def sleeps(self) -> None:
        await eventually(lambda: self.feed.is_starving, "it waits")
        await self.feed.queue.link.call("PING")

    async def has(self, count: int) -> None:
        await eventually(lambda: len(self.done) >= count, f"{count} jobs have come", PROMPT)

    def leave(self) -> None:
        self.feed.leave(self.consumer)


class Listener:
    """One that keeps the names of the events that it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def hear(self, event: StreamEvent) -> None:
        self.heard.append(event.name)

    def missed(self, start: StreamId, end: StreamId) -> None:
        raise AssertionError("nothing is missing")

    async def hears_of(self, count: int) -> None:
        await eventually(lambda: self.heard.count("completed") == count, f"{count} ends are heard of", PROMPT)


async def have(workers: list[Worker], count: int) -> None:
    await eventually(lambda: sum(len(worker.done) for worker in workers) == count, "each job has come", PROMPT)


async def add(queue: Queue, **options: Any) -> None:
    done = asyncio.get_running_loop().create_future()
    queue.add(("n", Raw(b"{}"), queue.options.prepare(Raw(json.encode(options)))), done.set_result)
    assert isinstance(await done, tuple | bytes)


async def connections(redis: Redis, name: str) -> int:
    return sum(name in client["name"] for client in await redis.client_list())


async def tracker_of(redis: Redis, prefix: str) -> str:
    """The id of the connection on which the first shard is told of changes."""
    (found,) = [each["id"] for each in await redis.client_list() if each["name"] == f"{prefix}-1:tracker"]
    return str(found)


# Many queues


async def test_queues_beyond_the_seats_share_one_connection(valkey: ValkeyProcess, prefix: str, redis: Redis) -> None:
    async with shard(valkey.url, prefix, seats=2) as broker:
        queues = [f"q{number}" for number in range(20)]
        workers = [Worker(broker, name) for name in queues]
        readers = [broker.services(broker.queue(name)).event_reader() for name in queues]
        listeners = [Listener() for _ in queues]
        for reader, listener in zip(readers, listeners, strict=True):
            await reader.join(listener)
        for name, worker in zip(queues, workers, strict=True):
            await worker.sleeps()
            await add(broker.queue(name))
        for worker, listener in zip(workers, listeners, strict=True):
            await worker.has(1)
            await listener.hears_of(1)
        assert await connections(redis, prefix) == 1 + 2 + 2 + 1  # commands, seats for jobs and for events, the tracker
        assert await connections(redis, f"{prefix}:") == 4


async def test_a_sleeping_queue_sends_redis_no_command_until_there_is_a_job(
    broker: Broker, valkey: ValkeyProcess, prefix: str
) -> None:
    worker = Worker(broker)
    await worker.sleeps()
    with SyncRedis.from_url(valkey.url) as client, executed(client, prefix) as commands:
        for _ in range(20):
            await broker.link.nodes[0].call("PING")
    assert commands == []


async def test_each_job_comes_at_once_and_to_one_of_the_shards_that_sleep_on_its_queue(
    valkey: ValkeyProcess, prefix: str
) -> None:
    async with AsyncExitStack() as stack:
        shards = [await stack.enter_async_context(shard(valkey.url, prefix, name=f"{n}")) for n in range(3)]
        names = [f"q{number}" for number in range(8)]
        workers = {name: [Worker(each, name) for each in shards] for name in names}
        for round in range(1, 21):
            for name in names:
                await add(random.choice(shards).queue(name))
            for name in names:
                given = workers[name]
                await have(given, round)
        for given in workers.values():
            ids = [id for worker in given for id in worker.done]
            assert len(ids) == len(set(ids)) == 20


async def test_a_job_that_comes_while_its_queue_falls_asleep_is_not_missed(broker: Broker) -> None:
    worker = Worker(broker)
    for number in range(200):
        await add(broker.queue("q"))
        for _ in range(random.randrange(12)):
            await asyncio.sleep(0)
        await worker.has(number - 3)  # it is behind at most by what is on its way
    await worker.has(200)


async def test_a_worker_that_leaves_takes_no_marker_along(valkey: ValkeyProcess, prefix: str, broker: Broker) -> None:
    async with shard(valkey.url, prefix, name="2") as other:
        stays = Worker(other)
        await stays.sleeps()
        gone = 0
        for number in range(1, 61):
            leaves = Worker(broker)
            for _ in range(random.randrange(30)):
                await asyncio.sleep(0)
            added = asyncio.create_task(add(other.queue("q")))
            for _ in range(random.randrange(6)):
                await asyncio.sleep(0)
            leaves.leave()
            await added
            await have([stays, leaves], number - gone)
            gone += len(leaves.done)


async def test_a_delayed_job_comes_when_it_is_due(broker: Broker) -> None:
    worker = Worker(broker)
    await worker.sleeps()
    started = time.monotonic()
    await add(broker.queue("q"), delay=60_000)
    await add(broker.queue("q"), delay=300)  # comes first, although it was added last
    await worker.has(1)
    assert 0.29 < time.monotonic() - started < stretched(1.0)
    await add(broker.queue("q"))
    await worker.has(2)


async def test_a_prioritized_job_wakes_its_queue(broker: Broker) -> None:
    worker = Worker(broker)
    await worker.sleeps()
    await add(broker.queue("q"), priority=3)
    await worker.has(1)


async def test_everybody_looks_again_when_all_keys_are_removed(broker: Broker, redis: Redis) -> None:
    worker = Worker(broker)
    listener = Listener()
    await broker.services(broker.queue("q")).event_reader().join(listener)
    await worker.sleeps()
    await redis.flushall()
    await add(broker.queue("q"))
    await worker.has(1)
    await listener.hears_of(1)


async def test_sleeping_workers_are_found_by_get_workers_while_they_are_there(
    valkey: ValkeyProcess, prefix: str, broker: Broker, redis: Redis
) -> None:
    async with shard(valkey.url, prefix, name="2", seats=1) as other:
        workers = [Worker(broker), Worker(other)]
        for worker in workers:
            await worker.sleeps()
        queue = broker.queue("q")

        async def are_found(count: int) -> None:
            async with asyncio.timeout(5):
                while await get_workers_count(queue) != count:
                    pass

        await are_found(2)
        found = await get_workers(queue)
        assert [worker["name"] for worker in found] == ["q", "q"]
        assert sorted(worker["rawname"] for worker in found) == sorted([queue.client_name, f"{prefix}-1:tracker"])
        assert await get_workers_count(broker.queue("another")) == 0
        await redis.client_kill_filter(_id=await tracker_of(redis, prefix))
        await are_found(1)
        await are_found(2)
        for left, worker in enumerate(workers, 1):
            worker.leave()
            await are_found(2 - left)


async def test_a_sleeping_watcher_hears_large_events_and_the_shared_connection_does_not_carry_them(
    broker: Broker, redis: Redis, prefix: str
) -> None:
    listener = Listener()
    Worker(broker)
    await broker.services(broker.queue("q")).event_reader().join(listener)

    await eventually(lambda: broker._tracker.is_up, "it sleeps")
    before = await tracker_of(redis, prefix)
    async with redis.pipeline(transaction=True) as pipe:
        for _ in range(40):
            pipe.xadd(broker.queue("q").key("events"), {"event": "completed", "x": "x" * 1_000_000})
        await pipe.execute()
    await listener.hears_of(40)
    assert await tracker_of(redis, prefix) == before


# The net


class Asleep:
    def __init__(self) -> None:
        self.woken = 0

    def wake_up(self) -> None:
        self.woken += 1


async def test_the_net_wakes_exactly_those_who_have_jobs_without_a_marker(
    broker: Broker, redis: Redis, prefix: str
) -> None:
    net = SafetyNet(period=0.02)
    sleepers = [Asleep() for _ in range(600)]
    for number, sleeper in enumerate(sleepers):
        net.add(sleeper, broker.queue("q").link, [f"{prefix}:{number}"])
    await redis.set(f"{prefix}:7", 1)
    await redis.set(f"{prefix}:599", 1)
    await eventually(lambda: sleepers[7].woken and sleepers[599].woken, "both are found")
    assert [n for n, sleeper in enumerate(sleepers) if sleeper.woken] == [7, 599]
    for sleeper in sleepers[:599]:
        net.discard(sleeper)
    net.add(sleepers[7], broker.queue("q").link, [f"{prefix}:7"])
    before = sleepers[7].woken, sleepers[599].woken
    await eventually(lambda: sleepers[7].woken > before[0] and sleepers[599].woken > before[1], "both are found again")
    assert len(net._groups) == 1 and sum(sleeper.woken > 0 for sleeper in sleepers) == 2
    net.close()


async def test_the_check_for_stalled_jobs_runs_only_where_there_may_be_some(
    broker: Broker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalled, "CHECK_PERIOD", 0.01)
    net = SafetyNet(period=0.02)
    queue = broker.queue("q")
    checker = StalledChecker(queue, net)
    consumer = Consumer("q", WorkerOptions(stalled_interval=20), broker.leases, cast(Holder, None), None)

    async def calls(name: str) -> int:
        stats = await redis.info("commandstats")
        return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])

    await redis.config_resetstat()
    checker.join(consumer)
    async with asyncio.timeout(5):
        while not await calls("xtrim"):  # which each check does
            pass
        looks = await calls("exists")
        while await calls("exists") < looks + 10:
            pass
        assert await calls("xtrim") == 1
        await redis.lpush(queue.key("active"), "gone")
        while await calls("xtrim") == 1:
            pass
    checker.close()
    net.close()


async def test_a_job_without_a_marker_is_fetched_when_the_net_finds_it(broker: Broker, redis: Redis) -> None:
    worker = Worker(broker)
    await worker.sleeps()
    queue = broker.queue("q")
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hset(queue.key("1"), mapping={"name": "n", "data": "{}", "opts": "{}", "timestamp": "1"})
        pipe.lpush(queue.key("wait"), "1")
        await pipe.execute()
    ((waiter, group),) = broker._parts.sleeping._idle.items()
    assert queue.key("wait").encode() in group.members[waiter].words
    waiter.wake_up()
    await worker.has(1)


# Outages


async def test_changes_that_a_lost_connection_has_missed_are_found(broker: Broker, redis: Redis, prefix: str) -> None:
    worker = Worker(broker)
    listener = Listener()
    await broker.services(broker.queue("q")).event_reader().join(listener)
    for number in range(1, 6):
        await worker.sleeps()
        tracker = await tracker_of(redis, prefix)
        await asyncio.gather(redis.client_kill_filter(_id=tracker), add(broker.queue("q")))
        await worker.has(number)
        await listener.hears_of(number)


async def test_a_queue_that_has_no_events_yet_is_asked_once_what_was_missed(
    broker: Broker, redis: Redis, prefix: str
) -> None:
    listener = Listener()
    reader = broker.services(broker.queue("q")).event_reader()
    await reader.join(listener)
    await redis.config_resetstat()

    await eventually(lambda: broker._tracker.is_up, "it sleeps")
    await redis.client_kill_filter(_id=await tracker_of(redis, prefix))
    async with asyncio.timeout(5):
        while "cmdstat_xinfo|stream" not in await redis.info("commandstats"):
            pass
    await eventually(lambda: not reader._was_away, "it reads on", PROMPT)
    assert (await redis.info("commandstats"))["cmdstat_xinfo|stream"]["calls"] == 1


async def test_a_marker_whose_reply_was_lost_costs_no_job(relay: Relay, redis: Redis, prefix: str) -> None:
    async with shard(relay.url, prefix) as broker:
        worker = Worker(broker)
        await worker.sleeps()
        relay.cut_after(b"ZPOPMIN")
        queue = broker.queue("q")
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hset(queue.key("1"), mapping={"name": "n", "data": "{}", "opts": "{}", "timestamp": "1"})
            pipe.lpush(queue.key("wait"), "1")
            pipe.zadd(queue.key("marker"), {"0": 0})
            await pipe.execute()
        await relay.cut.wait()
        relay.mend()
        await worker.has(1)


async def test_a_frozen_redis_is_missed_although_nothing_is_asked_of_it(tmp_path: Path, prefix: str) -> None:
    with ValkeyProcess(tmp_path, tcp=True) as server:
        async with shard(server.url, prefix, deadline=0.3) as broker:
            worker = Worker(broker)
            tracker = broker._tracker
            await worker.sleeps()
            await eventually(lambda: tracker.is_up, "the queue sleeps")
            server.freeze()
            await eventually(lambda: not tracker.is_up, "the silence is noticed")
            server.thaw()
            await eventually(lambda: tracker.is_up and broker.link.is_up, "it is back")
            await add(broker.queue("q"))
            await worker.has(1)


async def test_a_server_that_takes_no_writes_is_not_beset_by_those_who_sleep_and_serves_them_later(
    tmp_path: Path, prefix: str
) -> None:
    with ValkeyProcess(tmp_path, tcp=True) as server:
        async with shard(server.url, prefix) as broker, Redis.from_url(server.url) as redis:

            async def calls(name: str, what: str = "calls") -> int:
                stats = await redis.info("commandstats")
                return int(stats.get(f"cmdstat_{name}", {}).get(what, 0))

            worker = Worker(broker)
            await worker.sleeps()
            await redis.config_set("min-replicas-to-write", 1)
            fetches = await calls("evalsha")
            for kind in ("normal", "pubsub"):
                await redis.client_kill_filter(skipme=True, _type=kind)
            async with asyncio.timeout(5):
                while not await calls("zpopmin", "rejected_calls"):
                    pass
                for _ in range(50):
                    await broker.link.nodes[0].call("PING")
            assert await calls("evalsha") <= fetches + 6, "signs of life alone, one a second"
            await redis.config_set("min-replicas-to-write", 0)
            await add(broker.queue("q"))
            await worker.has(1)


async def test_where_keys_are_not_tracked_each_queue_has_a_connection_of_its_own(
    valkey: ValkeyProcess, prefix: str, redis: Redis
) -> None:
    await redis.execute_command("ACL", "SETUSER", prefix, "on", ">secret", "~*", "&*", "+@all", "-client|tracking")  # type: ignore[no-untyped-call]
    url = valkey.url.replace("unix://", f"unix://{prefix}:secret@")
    async with shard(url, prefix) as broker:
        workers = [Worker(broker, f"q{number}") for number in range(4)]
        reader = broker.services(broker.queue("q0")).event_reader()
        listener = Listener()
        await reader.join(listener)
        for number, worker in enumerate(workers):
            await worker.sleeps()
            await add(broker.queue(f"q{number}"))
        for worker in workers:
            await worker.has(1)
        await listener.hears_of(1)
        assert await connections(redis, f"{prefix}:") == 5
    await redis.execute_command("ACL", "DELUSER", prefix)  # type: ignore[no-untyped-call]


# Seats


@pytest.fixture
def make_seats() -> Callable[[int], Seats]:
    return lambda limit: Seats(limit, lambda link: Tracker(link, OPTIONS), busy=0.05)


async def test_a_seat_stays_with_a_busy_queue_and_goes_from_a_quiet_one_to_a_busy_one(
    make_seats: Callable[[int], Seats],
) -> None:
    seats = make_seats(1)
    link = Link(Address(), OPTIONS)
    first, second = Seat(seats, link), Seat(seats, link)
    assert first.take()
    assert not second.take()
    for _ in range(2):
        first.stir()
        second.stir()
    assert not second.take(), "both are busy"
    quiet_at = first.stirred_at
    loop = asyncio.get_running_loop()

    def stirred() -> bool:
        second.stir()
        return loop.time() - quiet_at > 0.05

    await eventually(stirred, "the first one is quiet")
    second.stir()
    assert second.take()
    assert not first.take()
    second.leave()
    assert first.take()


async def test_a_queue_that_gets_busy_is_given_a_connection_of_its_own(
    valkey: ValkeyProcess, prefix: str, redis: Redis
) -> None:
    async with shard(valkey.url, prefix, seats=1) as broker:
        for seats in (broker._parts.worker_seats, broker._parts.reader_seats):
            seats._busy = 0.1
        quiet, busy = Worker(broker, "quiet"), Worker(broker, "busy")
        await quiet.sleeps()
        name = broker.queue("busy").client_name

        async def look() -> bool:
            await add(broker.queue("busy"))
            return bool(await connections(redis, name))

        async with asyncio.timeout(5):
            while not await look():
                await busy.sleeps()
        await add(broker.queue("quiet"))
        await quiet.has(1)
