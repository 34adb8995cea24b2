"""The metrics of a gateway under a mixed load with faults, beside what its clients have counted themselves."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from tests.net.support import RawClient, upgrade
from tests.sessions.peer import Gateway, until
from tests.support.waiting import eventually

JOBS = 120
REFUSED = 9


async def test_each_figure_is_what_an_auditor_has_counted(proxy: Gateway) -> None:
    rng = random.Random(7)
    counted: Counter[str] = Counter()
    watcher = await proxy.events("q", "added")
    workers = [await proxy.worker(confirm=1) for _ in range(3)]
    producers = [await proxy.queue() for _ in range(2)]

    async def produce(producer: Any, count: int) -> None:
        for _ in range(count):
            await producer.call("add", "work", {}, {"attempts": 1})
            counted["add/ok"] += 1
            if rng.random() < 0.2:
                await producer.refusal("getJob")
                counted["getJob/error"] += 1
            if rng.random() < 0.2:
                await producer.call("getJobCounts")
                counted["getJobCounts/ok"] += 1

    async def work(worker: Any) -> None:
        while True:
            job = await worker.job()
            counted["pushed"] += 1
            await job.answer(type="ack")
            answer: dict[str, Any] = rng.choice([{"result": 1}, {"err": "no"}])
            await job.answer(**answer)
            state = (await worker.data())["state"]
            counted[state] += 1

    async with asyncio.TaskGroup() as group:
        working = [group.create_task(work(worker)) for worker in workers]
        async with asyncio.TaskGroup() as producing:
            for producer in producers:
                producing.create_task(produce(producer, JOBS // 2))
        for number in range(REFUSED):
            code = (await upgrade(proxy.port, "/queue/q", "Authorization: Bearer wrong")).status
            counted[f"refused {code}"] += 1
            async with await RawClient.open(proxy.port, f"/queue/q{number}"):
                counted["opened"] += 1
        await eventually(lambda: counted["completed"] + counted["failed"] == JOBS, "all jobs are done")
        for task in working:
            task.cancel()
    for _ in range(JOBS):
        assert (await watcher.data())["event"] == "added"

    calls = await proxy.metrics("calls_total")
    assert {name: count for name, count in calls.items() if count} == {
        name: counted[name] for name in ("add/ok", "getJob/error", "getJobCounts/ok")
    }
    histogram = await proxy.metrics("call_seconds_count")
    assert histogram == {name.partition("/")[0]: count for name, count in calls.items() if count}
    assert await proxy.metric("jobs_pushed_total") == counted["pushed"] == JOBS
    answered = await proxy.metrics("jobs_answered_total")
    assert (answered["completed"], answered["failed"]) == (counted["completed"], counted["failed"])
    for name in ("job_waiting_seconds", "job_running_seconds"):
        assert await proxy.metric(f"{name}_count") == JOBS
    assert await proxy.metric("events_delivered_total") == JOBS
    assert (await proxy.metrics("refusals_total"))["401"] == counted["refused 401"] == REFUSED
    assert (await proxy.metrics("clients"))["worker"] == 3
    assert await proxy.metric("connections_accepted_total") == counted["opened"] + 6
    ends = await proxy.metrics("connections_closed_total")
    assert sum(ends.values()) == ends["1006"] == REFUSED
    assert await proxy.metric("jobs_held") == 0


async def test_a_worker_that_vanishes_with_jobs_is_counted(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=2)
    for _ in range(2):
        await producer.call("add", "work")
        await worker.job()
    worker.vanish()

    async def is_counted() -> bool:
        return await proxy.metric("workers_lost_total") == 1

    await until(is_counted, "the loss is counted")
