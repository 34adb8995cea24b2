"""Reaching the clients that hold jobs, from any connection to any gateway on the same Redis."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.redis import channel
from tests.sessions.peer import Gateway, Job, Peer, Refused, until
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

    async def look() -> bool:
        return bool((await redis.pubsub_numsub(f"{prefix}:gateways@0"))[0][1] == 2)

    await until(look, "both gateways listen")


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
            await frozen.subscribe(f"{prefix}:gateways@0:{address}")
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
