"""The metrics of a gateway under a mixed load with faults, beside what its clients have counted themselves."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from redis.asyncio import Redis

from tests.net.support import RawClient, upgrade
from tests.sessions.peer import Gateway, Job, Peer, until
from tests.support.waiting import eventually

JOBS = 120
REFUSED = 9
VANISHING = 5


class Auditor:
    """Clients of a gateway that count what they see of it."""

    def __init__(self, proxy: Gateway, redis: Redis) -> None:
        self.counted: Counter[str] = Counter()
        self._proxy = proxy
        self._redis = redis
        self._rng = random.Random(7)
        self._vanished = 0
        self._spoils = True

    async def produce(self, producer: Peer, count: int) -> None:
        for _ in range(count):
            await producer.call("add", "work", {}, {"attempts": 1})
            self.counted["add/ok"] += 1
            if self._rng.random() < 0.2:
                code, _ = await producer.refusal("getJob")
                self.counted["getJob/error"] += 1
                self.counted[f"error {code}"] += 1
            if self._rng.random() < 0.2:
                await producer.call("getJobCounts")
                self.counted["getJobCounts/ok"] += 1

    async def work(self) -> None:
        worker = await self._worker()
        while True:
            job = await worker.job()
            self.counted["pushed"] += 1
            if self._vanished < VANISHING and not job.shown["stalledCounter"]:
                self._vanished += 1
                worker.vanish()
                self.counted["closed 1006"] += 1
                worker = await self._worker()
                continue
            await job.answer(type="ack")
            await self._answer(worker, job)

    async def _answer(self, worker: Peer, job: Job) -> None:
        how: dict[str, Any] = self._rng.choice([{"result": 1}, {"err": "no"}, {"type": "release"}])
        if self._spoils:
            self._spoils = False
            await self._redis.delete(f"{self._proxy.prefix}:q:{job.id}:lock")
        await job.answer(**how)
        data = await worker.data()
        self.counted["lost" if data["type"] == "lost" else data["state"]] += 1

    async def _worker(self) -> Peer:
        self.counted["opened"] += 1
        return await self._proxy.worker(confirm=1)

    async def knock(self, number: int) -> None:
        """Be refused once, and connect twice without a call: one of them ends with a close frame."""
        code = (await upgrade(self._proxy.port, "/queue/q", "Authorization: Bearer wrong")).status
        self.counted[f"refused {code}"] += 1
        async with await RawClient.open(self._proxy.port, f"/queue/q{number}"):
            self.counted["opened"] += 1
        self.counted["closed 1006"] += 1
        await (await self._proxy.queue()).close()
        self.counted["opened"] += 1
        self.counted["closed 1000"] += 1

    async def miss(self) -> None:
        """Come back to events that are trimmed by then."""
        key = f"{self._proxy.prefix}:gaps:events"
        for number in range(1, 7):
            await self._redis.xadd(key, {"event": "n"}, id=f"{number}-0")
        await self._redis.xtrim(key, maxlen=2, approximate=False)
        watcher = await self._proxy.events("gaps", lastEventId="2-0")
        self.counted["opened"] += 1
        for _ in range(3):
            self.counted["gaps" if (await watcher.data())["event"] == "gap" else "events"] += 1


async def test_each_figure_is_what_an_auditor_has_counted(proxy: Gateway, redis: Redis) -> None:
    auditor = Auditor(proxy, redis)
    counted = auditor.counted
    watcher = await proxy.events("q", "added")
    producers = [await proxy.queue() for _ in range(2)]
    counted["opened"] += 3

    async with asyncio.TaskGroup() as group:
        working = [group.create_task(auditor.work()) for _ in range(3)]
        async with asyncio.TaskGroup() as producing:
            for producer in producers:
                producing.create_task(auditor.produce(producer, JOBS // 2))
            producing.create_task(auditor.miss())
            for number in range(REFUSED):
                await auditor.knock(number)
        await eventually(lambda: counted["completed"] + counted["failed"] == JOBS, "all jobs are done")
        for task in working:
            task.cancel()
    for _ in range(JOBS):
        assert (await watcher.data())["event"] == "added"
        counted["events"] += 1

    calls = {name: count for name, count in (await proxy.metrics("calls_total")).items() if count}
    assert calls == {name: counted[name] for name in ("add/ok", "getJob/error", "getJobCounts/ok")}
    assert await proxy.metrics("call_seconds_count") == {name.partition("/")[0]: calls[name] for name in calls}
    assert await proxy.metric("calls_begun_total") == sum(calls.values())
    for name, kind in (("call_errors_total", "error"), ("refusals_total", "refused")):
        assert await by_code(proxy, name, kind) == {each: counted[each] for each in counted if each.startswith(kind)}
    assert counted["refused 401"] == REFUSED
    answered = {state: count for state, count in (await proxy.metrics("jobs_answered_total")).items() if count}
    assert answered == {state: counted[state] for state in ("completed", "failed", "waiting")}
    expected = {
        "jobs_pushed_total": counted["pushed"],
        "jobs_lost_total": counted["lost"],
        "workers_lost_total": VANISHING,
        "job_waiting_seconds_count": JOBS,
        "job_running_seconds_count": sum(answered.values()),
        "events_delivered_total": counted["events"],
        "event_gaps_total": counted["gaps"],
        "connections_accepted_total": counted["opened"],
        "jobs_held": 0,
        "redis_connected_total": 1,
        "connections_given_up_total": 0,
    }
    assert {name: await proxy.metric(name) for name in expected} == expected
    assert (counted["lost"], counted["gaps"]) == (1, 1)

    async def all_ends_are_seen() -> bool:
        ends = await by_code(proxy, "connections_closed_total", "closed")
        return ends == {each: counted[each] for each in counted if each.startswith("closed")}

    await until(all_ends_are_seen, "the end of each connection is counted")
    assert (await proxy.metrics("clients"))["worker"] == 3


async def by_code(proxy: Gateway, name: str, kind: str) -> dict[str, float]:
    """The figures that are not 0, under the names that the auditor has for them."""
    return {f"{kind} {code}": count for code, count in (await proxy.metrics(name)).items() if count}


async def test_a_worker_that_vanishes_with_jobs_is_counted(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=2)
    for _ in range(2):
        await producer.call("add", "work")
        await worker.job()
    worker.vanish()

    async def is_counted() -> bool:
        return await proxy.metric("workers_lost_total") == 1

    await until(is_counted, "the loss is counted")
