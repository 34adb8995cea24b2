"""Jobs that run for too long on a connection with `maxRuntime`."""

from __future__ import annotations

from typing import Any

import pytest

from bullmq_proxy.gateway.sessions.deadlines import Deadlines
from tests.sessions.peer import Gateway, Peer
from tests.support.waiting import eventually

REASON = "The job has run for more than 50 ms"


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


async def is_taken_away(worker: Peer, number: int) -> None:
    assert await worker.message() == {"id": number, "data": {"type": "cancel", "reason": REASON}}


async def test_a_job_that_runs_for_too_long_fails_and_is_tried_again(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker(maxRuntime=50)
    await queue.call("add", "work", {}, {"attempts": 2, "backoff": 60_000, "jobId": "j"})
    job = await worker.job()
    await is_taken_away(worker, job.number)
    await queue.until_state("j", "delayed")
    await job.answer(result=1)
    assert (await worker.data())["type"] == "lost"
    await queue.call("promoteJob", "j")
    job = await worker.job()
    assert job.shown["attemptsMade"] == 1
    await is_taken_away(worker, job.number)
    await queue.until_state("j", "failed")
    assert (await queue.call("getJob", "j"))["failedReason"] == REASON


async def test_it_goes_back_as_if_its_worker_had_vanished_where_that_is_asked_for(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker(maxRuntime=50, overrun="release", maxStalledCount=1)
    await queue.call("add", "work", {}, {"jobId": "j"})
    for stalled in (0, 1):
        job = await worker.job()
        assert (job.shown["stalledCounter"], job.shown["attemptsMade"]) == (stalled, 0)
        await is_taken_away(worker, job.number)
    await queue.until_state("j", "failed")


async def test_the_time_begins_when_a_client_that_says_so_starts_the_job(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker(concurrency=3, maxRuntime=50)
    await queue.call("addBulk", [{"name": "work", "opts": {"jobId": f"j{number}"}} for number in range(3)])
    jobs = [await worker.job() for _ in range(3)]
    await jobs[0].answer(type="ack")
    await is_taken_away(worker, jobs[0].number)
    assert await queue.call("getJobCounts", "active") == {"active": 2}
    await jobs[1].answer(type="progress", progress=1)  # as good as `ack`
    await is_taken_away(worker, jobs[1].number)
    await jobs[2].answer(result=1)
    await queue.until_state("j2", "completed")


ANSWERS: dict[str, dict[str, Any]] = {"completed": {"result": 1}, "failed": {"err": "no"}}


@pytest.mark.parametrize("state", ANSWERS)
async def test_an_answer_in_time_ends_the_clock(proxy: Gateway, queue: Peer, state: str) -> None:
    worker = await proxy.worker(concurrency=2, maxRuntime=50, confirm=1)
    await queue.call("add", "work", {}, {"jobId": "a"})
    quick = await worker.job()
    await quick.answer(**ANSWERS[state])
    assert (await worker.data())["state"] == state
    await queue.call("add", "work", {}, {"jobId": "b"})
    slow = await worker.job()
    await is_taken_away(worker, slow.number)  # its time has passed, and so has that of the one before
    await worker.nothing_more()
    await queue.until_state("a", state)


async def test_deadlines_pass_although_somebody_cannot_be_told_of_one(background: list[str]) -> None:
    told: list[Any] = []

    def passed(overdue: list[Any]) -> None:
        told.extend(overdue)
        if "second" not in told:
            raise RuntimeError("not now")

    deadlines = Deadlines(20, passed)
    jobs: list[Any] = ["first", "second"]
    deadlines.start(jobs[0])
    deadlines.ends[jobs[1]] = deadlines.ends[jobs[0]] + 0.05  # due after that
    await eventually(lambda: told == jobs, "the second one is told, too")
    deadlines.close()
    assert "not now" in background.pop()
