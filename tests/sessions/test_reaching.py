"""Reaching the clients that hold jobs, from any connection to any gateway on the same Redis."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker import reach
from bullmq_proxy.gateway.broker.redis import channel
from tests.sessions.peer import Gateway, Job, Peer, Refused, both_listen, until
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

REASON = "the order was withdrawn"


@pytest.fixture
async def here(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with keys of one permission each."""
    keys = [entry(name, name) for name in ("produce", "consume", "observe", "tune")]
    async with Gateway(valkey.url, prefix=prefix, keys_file=write_keys(tmp_path / "keys.toml", *keys)) as gateway:
        yield gateway


@pytest.fixture
async def there(valkey: ValkeyProcess, prefix: str, redis: Redis) -> AsyncIterator[Gateway]:
    """Another gateway on the same Redis, which knows nothing of the first."""
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        yield gateway


@pytest.fixture
async def listening(here: Gateway, there: Gateway, redis: Redis, prefix: str) -> None:
    """Both gateways hear each other."""
    await both_listen(redis, prefix)


pytestmark = pytest.mark.usefixtures("listening")


async def held(worker: Peer, queue: Peer, id: str = "1", **options: Any) -> Job:
    await queue.call("add", "work", {}, {"jobId": f"j{id}", **options})
    job = await worker.job()
    assert job.id == f"j{id}"
    return job


class TestCancelling:
    @pytest.mark.parametrize("elsewhere", [True, False], ids=["another-gateway", "the-same-shard"])
    async def test_the_worker_is_told_and_the_job_fails_for_good(
        self, here: Gateway, there: Gateway, elsewhere: bool
    ) -> None:
        queue, worker = await here.queue(), await (there if elsewhere else here).worker(lockDuration=60_000)
        job = await held(worker, queue, attempts=5)
        assert await queue.call("cancelJob", job.id, REASON) == {"delivered": True, "state": "failed"}
        assert await worker.message() == {"id": job.number, "data": {"type": "cancel", "reason": REASON}}
        stored = await queue.call("getJob", job.id)
        assert (stored["failedReason"], stored["attemptsMade"]) == (REASON, 1)
        assert await queue.call("getJobState", job.id) == "failed"
        await job.answer(result=1)  # it comes too late, and changes nothing
        assert (await worker.data())["type"] == "lost"
        assert await queue.call("getJobState", job.id) == "failed"
        await held(worker, queue, "2")  # its place is free again

    async def test_it_goes_back_where_that_is_asked_for(self, here: Gateway, there: Gateway) -> None:
        queue, worker = await here.queue(), await there.worker()
        job = await held(worker, queue, priority=3)
        assert await queue.call("cancelJob", job.id, REASON, {"fail": False}) == {"delivered": True, "state": "waiting"}
        assert (await worker.data()) == {"type": "cancel", "reason": REASON}
        again = await worker.job()
        assert (again.id, again.shown["attemptsMade"], again.shown["stalledCounter"]) == (job.id, 0, 0)

    async def test_a_job_taken_by_hand_is_taken_away_although_nobody_can_be_told(
        self, here: Gateway, there: Gateway
    ) -> None:
        queue, holder = await here.queue(), await there.queue()
        await queue.call("add", "work", {}, {"jobId": "j"})
        await holder.call("getNextJob", "token-1")
        assert await queue.call("cancelJob", "j") == {"delivered": False, "state": "failed"}
        assert await holder.call("extendJobLock", "j", "token-1", 30_000) == 0
        code, _ = await holder.refusal("moveJobToCompleted", "j", 1, "token-1")
        assert code in ("NOT_LOCKED", "CONFLICT")
        assert (await queue.call("getJob", "j"))["failedReason"] == "The job was cancelled"

    async def test_the_place_of_a_job_taken_by_hand_is_free_at_once_under_a_global_concurrency(
        self, here: Gateway, there: Gateway
    ) -> None:
        queue, holder = await here.queue(), await there.queue()
        await queue.call("setGlobalConcurrency", 1)
        await queue.call("addBulk", [{"name": "work", "opts": {"jobId": id}} for id in ("a", "b")])
        assert (await holder.call("getNextJob", "token-1"))["id"] == "a"
        worker = await here.worker()
        await worker.nothing_more()
        await queue.call("cancelJob", "a")
        assert (await worker.job(2.0)).id == "b"

    async def test_one_with_an_enormous_id_fails_although_its_gateway_is_not_told(
        self, here: Gateway, there: Gateway
    ) -> None:
        queue, worker = await here.queue(), await there.worker()
        job = await held(worker, queue, "x" * 2**16)
        assert await queue.call("cancelJob", job.id) == {"delivered": False, "state": "failed"}
        await job.answer(result=1)
        assert (await worker.data())["type"] == "lost"

    async def test_a_job_that_nobody_holds_is_not_cancelled(self, here: Gateway) -> None:
        queue = await here.queue()
        await queue.call("add", "work", {}, {"jobId": "j"})
        assert await queue.refusal("cancelJob", "j") == ("CONFLICT", "Job j is in nobody's hands: it is waiting")
        assert await queue.refusal("cancelJob", "none") == ("NOT_FOUND", "Missing key for job none. cancelJob")
        assert (await queue.refusal("cancelJob", "j", "x" * 1001))[0] == "INVALID_ARGUMENTS"
        assert await queue.call("getJobState", "j") == "waiting"

    @pytest.mark.parametrize("key", ["produce", "consume", "observe", "tune"])
    async def test_it_needs_the_permission_manage(self, here: Gateway, there: Gateway, key: str) -> None:
        worker = await there.worker()
        job = await held(worker, await here.queue())
        stranger = await here.connect("/queue/q", token=key)
        assert (await stranger.refusal("cancelJob", job.id))[0] == "FORBIDDEN"
        await worker.nothing_more()

    async def test_a_shard_that_does_not_answer_is_waited_for_shortly_and_its_job_is_taken_all_the_same(
        self, here: Gateway, there: Gateway, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(channel, "DEADLINE", 0.1)
        queue, worker = await here.queue(), await there.worker()
        job = await held(worker, queue)
        async with redis.pubsub() as frozen:  # takes its questions, and answers none
            run, slot, _, *rest = job.shown["token"].split(":")
            address = f"{run}:{slot}:99"
            token = ":".join([address, *rest])
            await frozen.subscribe(f"{prefix}:{{gateways}}:channel@0:{address}")
            await redis.set(f"{prefix}:q:{job.id}:lock", token)
            assert await queue.call("cancelJob", job.id) == {"delivered": False, "state": "failed"}

    async def test_a_client_that_is_being_closed_is_not_said_to_be_told(self, here: Gateway, there: Gateway) -> None:
        queue, worker = await here.queue(), await there.worker()
        job = await held(worker, queue)
        worker.socket.transport.pause_reading()  # it answers the close frame late
        await worker.socket.send(b"binary")
        await until(lambda: _is_closing(there), "it is being closed")
        cancelled = await queue.call("cancelJob", job.id)
        worker.socket.transport.resume_reading()
        assert cancelled == {"delivered": False, "state": "failed"}


async def test_a_job_that_is_moved_by_its_token_makes_room_on_whatever_gateway_its_worker_is(
    here: Gateway, there: Gateway
) -> None:
    queue, worker = await here.queue(), await there.worker(lockDuration=60_000)
    job = await held(worker, queue)
    await queue.call("add", "work", {}, {"jobId": "next"})
    await queue.call("moveJobToCompleted", job.id, {"by": "hand"}, job.shown["token"])
    assert (await worker.job()).id == "next"
    await job.answer(result=1)
    assert (await worker.data())["type"] == "lost"


class TestConsumers:
    async def test_they_are_found_on_all_gateways_with_what_they_do(self, here: Gateway, there: Gateway) -> None:
        queue = await here.queue()
        before = time.time() * 1000
        first = await here.worker(token="consume", name="w" * 200, concurrency=3)
        await held(first, queue)
        second = await there.worker("q", 2)
        await second.pause()
        await (await there.worker("another")).pause()
        found = await queue.call("getConsumers")
        assert (found["omitted"], found["silent"]) == (0, 0)
        mine, other = sorted(found["consumers"], key=lambda each: -each["inHand"])
        for each in (mine, other):
            assert before - 1 <= each.pop("connectedSince") <= each.pop("lastHeard") + 1 <= time.time() * 1000 + 2
            assert len(each.pop("id").split(":")) == 4
            assert each.pop("connected")
            assert not each.pop("webhook")
        assert mine == {"key": "consume", "name": "w" * 100, "concurrency": 3, "inHand": 1, "takesJobs": True}
        assert other == {"key": "", "name": None, "concurrency": 2, "inHand": 0, "takesJobs": False}
        await second.close()
        await until(lambda: self._are(queue, 1), "the other is gone")

    async def test_a_shard_shows_so_many_in_pieces_and_counts_the_rest(
        self, here: Gateway, there: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reach, "MOST_SHOWN", 5)
        monkeypatch.setattr(channel, "_PIECE", 600)
        for _ in range(7):
            await (await there.worker()).pause()
        found = await (await here.queue()).call("getConsumers")
        assert (len({each["id"] for each in found["consumers"]}), found["omitted"]) == (5, 2)

    async def test_one_that_is_drained_gets_no_more_jobs_and_finishes_what_it_has(
        self, here: Gateway, there: Gateway
    ) -> None:
        queue, worker = await here.queue(), await there.worker(concurrency=5, confirm=1)
        job = await held(worker, queue)
        [consumer] = (await queue.call("getConsumers"))["consumers"]
        for _ in range(2):
            assert await queue.call("drainConsumer", consumer["id"]) is None
        assert await worker.data() == {"type": "drain"}
        await queue.call("add", "work", {}, {"jobId": "next"})
        await worker.resume()
        await job.answer(result=1)
        assert (await worker.data())["type"] == "finished"
        await worker.nothing_more()
        [consumer] = (await queue.call("getConsumers"))["consumers"]
        assert (consumer["takesJobs"], consumer["inHand"]) == (False, 0)
        assert (await (await there.worker()).job()).id == "next"

    async def test_one_that_is_disconnected_gives_back_its_jobs_uncounted(self, here: Gateway, there: Gateway) -> None:
        queue, worker = await here.queue(), await there.worker()
        job = await held(worker, queue)
        [consumer] = (await queue.call("getConsumers"))["consumers"]
        assert await queue.call("disconnectConsumer", consumer["id"]) is None
        assert await worker.closed() == 4001
        again = await (await here.worker()).job()
        assert (again.id, again.shown["stalledCounter"], again.shown["attemptsMade"]) == (job.id, 0, 0)

    @pytest.mark.parametrize("function", ["drainConsumer", "disconnectConsumer"])
    async def test_one_of_another_queue_and_one_that_is_gone_are_not_found(
        self, here: Gateway, there: Gateway, function: str
    ) -> None:
        queue = await here.queue()
        worker = await there.worker("another")
        await worker.pause()
        [consumer] = (await (await here.queue("another")).call("getConsumers"))["consumers"]
        for id in (consumer["id"], f"{consumer['id']}1", "x", "a:b:c:d", ":::"):
            assert (await queue.refusal(function, id))[0] == "NOT_FOUND"
        assert (await queue.refusal(function, ""))[0] == "INVALID_ARGUMENTS"
        await worker.nothing_more()

    async def test_a_shard_that_does_not_answer_is_said_to_be_silent(
        self, here: Gateway, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(channel, "DEADLINE", 0.1)
        queue = await here.queue()
        async with redis.pubsub() as frozen:
            for name in ("", ":a:0:0"):
                await frozen.subscribe(f"{prefix}:{{gateways}}:channel@0{name}")
            found = await queue.call("getConsumers")
            assert (found["consumers"], found["silent"]) == ([], 1)
            assert (await queue.refusal("drainConsumer", "a:0:0:1"))[0] == "OUTCOME_UNKNOWN"

    @staticmethod
    async def _are(queue: Peer, count: int) -> bool:
        return len((await queue.call("getConsumers"))["consumers"]) == count


async def _is_closing(gateway: Gateway) -> bool:
    app = gateway._proxy._app
    return app is not None and not app.listener.connections


# Under load


class Racer:
    """A worker that answers at once or late, and notes what it is told."""

    def __init__(self, peer: Peer, seed: int) -> None:
        self._peer = peer
        self._chance = random.Random(seed)
        self.cancelled: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.lost: set[str] = set()
        self._ids: dict[int, str] = {}

    async def run(self) -> None:
        while True:
            message = await self._peer.message(60.0)
            number, data = message["id"], message["data"]
            if data.get("type") == "process":
                self._ids[number] = id = data["job"]["id"]
                if self._chance.random() < 0.5:
                    self.answered.add(id)
                    await Job(self._peer, message).answer(result=id)
            elif data.get("type") == "cancel":
                self.cancelled[self._ids[number]] += 1
            elif data.get("type") == "lost":
                self.lost.add(self._ids[number])


async def test_every_cancel_is_answered_truthfully_while_workers_answer(here: Gateway, there: Gateway) -> None:
    count = 200
    queue = await here.queue()
    racers = [Racer(await gateway.worker(concurrency=50), seed) for seed, gateway in enumerate([here, there] * 2)]
    running = [asyncio.create_task(racer.run()) for racer in racers]
    said: dict[str, Any] = {}

    async def cancel(caller: Peer, ids: list[str]) -> None:
        for id in ids:
            try:
                said[id] = await caller.call("cancelJob", id, REASON)
            except Refused as refused:
                said[id] = refused.code

    ids = [f"j{number}" for number in range(count)]
    await queue.call("addBulk", [{"name": "work", "opts": {"jobId": id}} for id in ids[: count // 2]])
    callers = [await gateway.queue() for gateway in (here, there)]
    await asyncio.gather(
        *(cancel(caller, ids[at :: len(callers)]) for at, caller in enumerate(callers)),
        queue.call("addBulk", [{"name": "work", "opts": {"jobId": id}} for id in ids[count // 2 :]]),
    )
    for id in ids:  # those that nobody had taken yet, or whose worker does not answer

        async def is_taken(id: str = id) -> bool:
            return bool(await queue.call("getJobState", id) in ("active", "completed", "failed"))

        await until(is_taken, f"{id} is taken")
        if said[id] == "CONFLICT":
            await cancel(queue, [id])
    states = {id: await queue.call("getJobState", id) for id in ids}
    told: Counter[str] = Counter()

    async def all_are_told() -> bool:
        told.clear()
        for racer in racers:
            told.update(racer.cancelled)
        return all(told[id] for id in ids if said[id] != "CONFLICT" and said[id]["delivered"])

    await until(all_are_told, "who was to be told is told")
    for id in ids:
        if said[id] == "CONFLICT":
            assert (states[id], told[id]) == ("completed", 0)
        else:
            assert (states[id], said[id]["state"], told[id]) == ("failed", "failed", said[id]["delivered"])
    assert set(states.values()) == {"completed", "failed"}
    for task in running:
        task.cancel()
