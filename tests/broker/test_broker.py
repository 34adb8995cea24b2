"""Leases, orphans and the lives of feeds: what the broker does when its surroundings do not behave."""

from __future__ import annotations

import asyncio
import base64
import gc
import re
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.feed import UNREADABLE, Feed
from bullmq_proxy.gateway.broker.consuming.leases import Consumer, Lease
from bullmq_proxy.gateway.broker.consuming.settling import Outcome
from bullmq_proxy.gateway.broker.consuming.tokens import Identity, new_run, parse_identity, parse_token, usable_token
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.rules.options import NO_OPTIONS
from bullmq_proxy.gateway.rules.stored_options import backoff_delay, keep_jobs
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions
from tests.support.link import OPTIONS as DEFAULTS
from tests.support.link import started
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

OPTIONS = replace(DEFAULTS, deadline=2.0)


class Worker:
    """A consumer that keeps what it is given."""

    def __init__(self, broker: Broker, queue: Queue, **options: Any) -> None:
        self.leases: list[Lease] = []
        self.cancelled: list[str] = []
        self.outcomes: list[Outcome] = []
        self.feed = broker.services(queue).feed()
        self.consumer = self.feed.join(WorkerOptions(**options), self)

    def take(self, lease: Lease, fields: Hash) -> None:
        self.leases.append(lease)

    def cancel(self, lease: Lease, reason: str) -> bool:
        self.cancelled.append(lease.id)
        return True

    def forget(self, lease: Lease) -> None: ...

    async def lease(self, number: int = 1) -> Lease:
        """The `number`th that was given to us."""
        await eventually(lambda: len(self.leases) >= number, f"{number} jobs have come")
        return self.leases[number - 1]

    async def outcome(self) -> str | GatewayError:
        await eventually(lambda: self.outcomes, "it is settled")
        outcome = self.outcomes.pop(0)
        return outcome if isinstance(outcome, GatewayError) else outcome.state

    def leave(self, *, counted: bool = True) -> None:
        self.feed.leave(self.consumer, counted=counted)


async def add(queue: Queue, count: int = 1) -> None:
    done = asyncio.get_running_loop().create_future()
    queue.add_bulk([(f"n{n}", Raw(b"{}"), queue.options.prepare(NO_OPTIONS)) for n in range(count)], done.set_result)
    assert isinstance(await done, bytes)


async def counts(queue: Queue) -> dict[str, int]:
    active, waiting = await asyncio.gather(
        queue.link.call("LLEN", queue.key("active")), queue.link.call("LLEN", queue.key("wait"))
    )
    return {"active": active, "wait": waiting}


# Who we are


def test_a_predecessor_is_an_earlier_process_in_our_slot_of_the_same_run() -> None:
    me = Identity("run", 2, 5)
    assert parse_identity("run:2:4") == Identity("run", 2, 4)
    assert Identity("run", 2, 4).precedes(me)
    for other in ("run:2:5", "run:2:6", "run:1:4", "other:2:4"):
        identity = parse_identity(other)
        assert identity is not None and identity.address == other and not identity.precedes(me)


@pytest.mark.parametrize("text", ["", "x", "run:2", "run:2:x", "run:-2:4", "run:2:\u0664"])
def test_what_is_no_shard_is_none(text: str) -> None:
    assert parse_identity(text) is None
    assert parse_token(f"{text}:shop:{'a' * 22}:1") is None


@pytest.mark.parametrize("rest", ["shop:x:1", "shop:S:", "S:1", "shop:S:x"])
def test_what_is_no_token_of_a_gateway_is_none(rest: str) -> None:
    assert parse_token("run:2:4:" + rest.replace("S", "a" * 22)) is None


@pytest.mark.parametrize("gateway", ["run", "host:6379-1-ab", ""])
def test_a_token_says_whose_it_is(gateway: str) -> None:
    identity = Identity(gateway, 2, 5)
    assert parse_token(f"{identity.new_consumer_token('shop')}:9") == (identity, "shop", 9)
    assert parse_token(f"{identity.new_consumer_token('')}:9") == (identity, "", 9)


def test_a_token_has_128_bits_of_chance_and_names_no_host_and_no_process() -> None:
    run = new_run()
    tokens = [Identity(run).new_consumer_token("shop") for _ in range(100)]
    chance = [base64.urlsafe_b64decode(token.rpartition(":")[2] + "==") for token in tokens]
    assert {len(secret) for secret in chance} == {128 // 8}
    assert len(set(chance)) == len({secret[:4] for secret in chance}) == 100
    assert {token.rpartition(":")[0] for token in tokens} == {f"{run}:0:0:shop"}
    assert re.fullmatch("[0-9a-f]{16}", run) and run != new_run()


def test_a_token_of_a_worker_is_usable_for_its_key_alone() -> None:
    token = f"{Identity('run').new_consumer_token('shop')}:1"
    assert usable_token(token, "shop") == token
    assert token not in (usable_token(token, key) for key in ("", "sho", "shop2"))
    for of_the_clients_own in ("token-1", "", "run:0:0:shop:1", "00000000-0000-0000-0000-000000000000:1"):
        assert usable_token(of_the_clients_own, "other") == of_the_clients_own


async def eventually_field(redis: Redis, key: str, field: str, value: str) -> None:
    seen: list[Any] = []
    async with asyncio.timeout(8):
        while not seen or seen[-1] != value:
            seen.append(await redis.hget(key, field))


# Feeds


async def test_a_feed_that_is_left_and_joined_again_at_once_is_served_by_the_new_one(broker: Broker) -> None:
    queue = broker.queue("q")
    first = Worker(broker, queue)
    for _ in range(5):
        first.leave()
        second = Worker(broker, queue)
        assert second.feed is not first.feed
        await add(queue)
        lease = await second.lease()
        second.feed.settler.complete(lease, Raw(b"1"), second.outcomes.append)
        assert await second.outcome() == "completed"
        first = second
    first.leave()


async def test_consumers_that_come_and_go_leave_nothing_in_the_feed(broker: Broker) -> None:
    queue = broker.queue("q")
    resident = Worker(broker, queue)
    for _ in range(50):
        Worker(broker, queue).leave()
    gc.collect()
    alive = [consumer for consumer in gc.get_objects() if isinstance(consumer, Consumer) and consumer.open]
    assert resident.consumer in alive
    await eventually(lambda: not _closed_consumers(), "those that left are gone")
    resident.leave()


def _closed_consumers() -> list[Consumer]:
    gc.collect()
    return [consumer for consumer in gc.get_objects() if isinstance(consumer, Consumer) and not consumer.open]


async def test_queues_are_forgotten_when_nobody_uses_them(broker: Broker) -> None:
    for number in range(50):
        worker = Worker(broker, broker.queue(f"q{number}"))
        worker.leave()
    del worker
    await broker.link.nodes[0].call("PING")

    def left() -> bool:
        gc.collect()
        return not any(isinstance(thing, Queue | Feed) for thing in gc.get_objects())

    await eventually(left, "no queue and no feed is left")


async def test_a_stopped_broker_takes_no_job_and_no_marker_from_others(
    broker: Broker, valkey: ValkeyProcess, prefix: str
) -> None:
    stopping = Worker(broker, broker.queue("q"))
    await eventually(lambda: stopping.feed.is_starving, "it waits")
    broker.stop_fetching()
    async with started(valkey.url, prefix, Identity(f"{prefix}-2")) as other:
        worker = Worker(other, other.queue("q"))
        for number in range(1, 4):
            await eventually(lambda: worker.feed.is_starving, "it waits")
            await add(broker.queue("q"))
            async with asyncio.timeout(2):
                lease = await worker.lease(number)
            worker.feed.settler.complete(lease, Raw(b"1"), worker.outcomes.append)
            assert await worker.outcome() == "completed"
        assert stopping.leases == []
        worker.leave()
    stopping.leave()


async def test_a_job_that_cannot_be_handed_out_is_failed(
    broker: Broker, redis: Redis, prefix: str, background: list[str]
) -> None:
    queue = broker.queue("q")
    worker = Worker(broker, queue)
    worker.take = {}.__getitem__  # type: ignore[assignment, method-assign] # takes nothing
    await add(queue)
    await eventually_field(redis, f"{prefix}:q:1", "failedReason", UNREADABLE)
    await eventually(lambda: background, "it is logged")
    assert "cannot be handed out" in background.pop()
    worker.leave()


async def test_a_lease_that_goes_on_because_there_are_no_children_ends_if_its_holder_has_left(
    broker: Broker,
) -> None:
    queue = broker.queue("q")
    worker = Worker(broker, queue)
    await add(queue)
    worker.feed.settler.wait_children(await worker.lease(), worker.outcomes.append)
    worker.leave()
    assert isinstance(await worker.outcome(), GatewayError)
    other = Worker(broker, queue)
    assert (await other.lease()).id == "1"
    other.leave()


async def test_a_consumer_is_known_until_its_last_answer_is_stored(broker: Broker) -> None:
    queue = broker.queue("q")
    other, worker = Worker(broker, queue, concurrency=1), Worker(broker, queue)
    await add(queue, 2)
    lease = await worker.lease()
    worker.feed.settler.complete(lease, Raw(b"1"), worker.outcomes.append)
    worker.leave()
    assert worker.consumer.leases == {lease}
    assert await worker.outcome() == "completed"
    assert worker.consumer.leases == set()
    other.leave()


async def test_close_ends_every_task(valkey: ValkeyProcess, prefix: str) -> None:
    before = asyncio.all_tasks()
    async with started(valkey.url, prefix) as broker:
        workers = [Worker(broker, broker.queue(name)) for name in ("a", "b")]
        await eventually(lambda: all(worker.feed.is_starving for worker in workers), "they wait")
        workers[0].leave()
    assert asyncio.all_tasks() == before


async def test_retries_of_an_answer_end_with_the_broker(tmp_path: Any, prefix: str) -> None:
    with ValkeyProcess(tmp_path) as server:
        broker = Broker(Address.from_url(server.url), prefix, replace(OPTIONS, backlog_timeout=0.0), Identity(prefix))
        await broker.start(5.0)
        worker = Worker(broker, broker.queue("q"))
        await add(broker.queue("q"))
        lease = await worker.lease()
        server.stop()
        await eventually(lambda: not broker.link.is_up, "the link notices")
        worker.feed.settler.complete(lease, Raw(b"1"), worker.outcomes.append)
        worker.leave()
        await broker.close()
        outcome = await worker.outcome()
        assert isinstance(outcome, GatewayError)
        assert outcome.code == "SHUTTING_DOWN"


# Small rules


@pytest.mark.parametrize(
    ("backoff", "attempts_made", "delay"),
    [
        (None, 1, 0),
        (0, 1, 0),
        (500, 3, 500),
        ({"type": "fixed", "delay": 500}, 3, 500),
        ({"type": "fixed"}, 1, 0),
        ({"type": "exponential", "delay": 500}, 1, 500),
        ({"type": "exponential", "delay": 500}, 4, 4000),
        ({"type": "mine", "delay": 500}, 2, 500),
        ({"type": "fixed", "delay": "500"}, 1, 500),
        ({"type": "exponential", "delay": "1e2"}, 2, 200),
        ({"type": "fixed", "delay": {}}, 1, 0),
        ({"type": "fixed", "delay": 1e300}, 1, 2**53 - 1),
        ({"type": "fixed", "delay": -1}, 1, None),
        ("70", 1, 70),
        ([], 1, 0),
    ],
)
def test_the_wait_before_the_next_attempt_is_nodes(backoff: Any, attempts_made: int, delay: int | None) -> None:
    assert backoff_delay(backoff, attempts_made) == delay


@pytest.mark.parametrize("attempts_made", [100, 100_000])
def test_a_great_many_attempts_do_not_break_the_backoff(attempts_made: int) -> None:
    assert (backoff_delay({"type": "exponential", "delay": 1}, attempts_made) or 0) > 0


def test_jitter_takes_off_up_to_its_share() -> None:
    delays = [backoff_delay({"type": "fixed", "delay": 1000, "jitter": 0.25}, 1) or 0 for _ in range(200)]
    assert min(delays) >= 750
    assert max(delays) <= 1000
    assert len(set(delays)) > 20


@pytest.mark.parametrize(
    ("remove", "kept"),
    [
        (None, {"count": -1}),
        (False, {"count": -1}),
        (True, {"count": 0}),
        (0, {"count": 0}),
        (7, {"count": 7}),
        ({"age": 5}, {"age": 5}),
        ("yes", {"count": 0}),
        ("", {"count": -1}),
        (1.9, {"count": 1}),
        ({"count": "7", "age": None}, {"count": 7, "age": 0}),
        ({"count": {}, "age": 1e300}, {"count": -1}),
        ([3], {"count": -1}),
    ],
)
def test_how_many_finished_jobs_stay_is_nodes(remove: Any, kept: dict[str, Any]) -> None:
    assert keep_jobs(remove) == kept
