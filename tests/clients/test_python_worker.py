"""The Python client's workers: what a handler can do with a job, and what becomes of it when the connection breaks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from bullmq_proxy.gateway.client import ProxyError, Queue, UnrecoverableError, Worker, WorkerJob
from bullmq_proxy.gateway.client.errors import ConflictError, InvalidArgumentsError, NotFoundError, OutcomeUnknownError
from bullmq_proxy.gateway.client.types import JobOptions
from tests.clients.conftest import KEY
from tests.support.relay import Relay
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

SOON = 8.0

Handler = Callable[[WorkerJob], Awaitable[Any]]


@pytest.fixture
async def queue(url: str) -> AsyncIterator[Queue]:
    async with Queue("mails", url=url, key=KEY) as queue:
        yield queue


class Work:
    """A worker whose handler stops at each job until it is told to go on."""

    def __init__(self, url: str, **options: Any) -> None:
        self.begun: asyncio.Queue[WorkerJob] = asyncio.Queue()
        self.go_on = asyncio.Event()
        self.ended: list[tuple[Any, ...]] = []
        self.worker = Worker("mails", self._handle, url=url, key=KEY, **options)
        for name in ("completed", "failed", "cancelled", "lost", "error", "draining"):
            self.worker.on(name, partial(_hear, self.ended, name))

    async def _handle(self, job: WorkerJob) -> Any:
        await self.begun.put(job)
        await self.go_on.wait()
        return job.data

    async def job(self) -> WorkerJob:
        """The next job whose handler has begun."""
        return await asyncio.wait_for(self.begun.get(), SOON)

    async def until(self, *names: str) -> list[tuple[Any, ...]]:
        """Wait until so many things have happened; they must have these names."""
        await eventually(lambda: len(self.ended) >= len(names), f"{names} happen, not {self.ended}", SOON)
        assert [each[0] for each in self.ended] == list(names), self.ended
        return self.ended

    async def __aenter__(self) -> Work:
        self.worker.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        await self.worker.close()


async def one(queue: Queue, url: str, handler: Handler, opts: JobOptions | None = None) -> tuple[Any, ...]:
    """Let a handler have one job; return what the worker said of it."""
    said: list[tuple[Any, ...]] = []
    async with Worker("mails", handler, url=url, key=KEY) as worker:
        for name in ("completed", "failed", "lost", "error"):
            worker.on(name, partial(_hear, said, name))
        await queue.add("work", {"n": 1}, {"jobId": "j", **(opts or {})})
        await eventually(lambda: said, "the worker says something", SOON)
    assert said[0][1].id == "j"
    return said[0]


def _hear(said: list[tuple[Any, ...]], name: str, *args: Any) -> None:
    said.append((name, *args))


class TestHandlers:
    async def test_a_result_completes_the_job(self, queue: Queue, url: str) -> None:
        async def work(job: WorkerJob) -> Any:
            await job.updateProgress({"done": 50})
            await job.log("half")
            assert (await job.queue.getJobCounts("active"))["active"] == 1
            return {"n": job.data["n"] + job.attemptsStarted}

        assert (await one(queue, url, work))[::2] == ("completed", {"n": 2})
        job = await queue.getJob("j")
        assert job is not None
        assert (job.returnvalue, job.progress) == ({"n": 2}, {"done": 50})
        assert (await queue.getJobLogs("j"))["logs"] == ["half"]

    async def test_an_exception_fails_it(self, queue: Queue, url: str) -> None:
        async def work(_: WorkerJob) -> None:
            raise ValueError("no such user")

        name, _, error = await one(queue, url, work, {"attempts": 2, "backoff": 60_000})
        assert (name, str(error)) == ("failed", "no such user")
        job = await queue.getJob("j")
        assert job is not None
        assert (job.failedReason, await job.getState()) == ("no such user", "delayed")
        assert "ValueError: no such user" in (job.stacktrace or [""])[0]

    async def test_or_fails_it_for_good(self, queue: Queue, url: str) -> None:
        async def work(_: WorkerJob) -> None:
            raise UnrecoverableError("closed")

        await one(queue, url, work, {"attempts": 5})
        assert await queue.getJobState("j") == "failed"

    async def test_a_result_that_is_no_json_fails_it(self, queue: Queue, url: str) -> None:
        async def work(_: WorkerJob) -> Any:
            return {1, 2}

        assert isinstance((await one(queue, url, work))[2], TypeError)
        assert await queue.getJobState("j") == "failed"

    async def test_it_is_given_back_delayed_or_waits_for_children(self, queue: Queue, url: str) -> None:
        seen: list[str] = []
        done = asyncio.Event()

        async def work(job: WorkerJob) -> str | None:
            seen.append(job.id)
            if job.id == "back" and seen.count("back") == 1:
                await job.release()
                return None
            if job.id == "later" and seen.count("later") == 1:
                await job.delayFor(1)
                with pytest.raises(NotFoundError):
                    await job.release()
                return None
            assert not await job.waitChildren()
            if seen.count("back") == 2 and seen.count("later") == 2:
                done.set()
            return "done"

        await queue.addBulk([{"name": "x", "opts": {"jobId": "back"}}, {"name": "x", "opts": {"jobId": "later"}}])
        async with Worker("mails", work, url=url, key=KEY):
            await asyncio.wait_for(done.wait(), SOON)
        assert await queue.getJobCounts("completed") == {"completed": 2}
        assert [job.attemptsMade for job in await queue.getCompleted()] == [1, 1]

    async def test_only_one_final_answer_counts(self, queue: Queue, url: str) -> None:
        async def work(job: WorkerJob) -> None:
            one, other = await asyncio.gather(job.delayFor(60_000), job.release(), return_exceptions=True)
            assert one is None
            assert isinstance(other, ConflictError)
            raise ValueError("too late")

        assert await self._says(queue, url, work) == [("error", "too late")]
        assert await queue.getJobState("j") == "delayed"

    async def test_without_confirm_nobody_waits(self, queue: Queue, url: str) -> None:
        async def work(job: WorkerJob) -> int:
            with pytest.raises(InvalidArgumentsError, match="needs confirm"):
                await job.waitChildren()
            return 1

        assert await self._says(queue, url, work, confirm=0) == [("completed", "1")]

        async def look() -> None:
            while await queue.getJobState("j") != "completed":
                pass

        await asyncio.wait_for(look(), SOON)

    async def _says(self, queue: Queue, url: str, work: Handler, **options: Any) -> list[tuple[str, str]]:
        said: list[tuple[Any, ...]] = []
        async with Worker("mails", work, url=url, key=KEY, **options) as worker:
            for name in ("completed", "failed", "lost", "error"):
                worker.on(name, partial(_hear, said, name))
            await queue.add("x", opts={"jobId": "j"})
            await eventually(lambda: said, "something is said", SOON)
        return [(name, str(about)) for name, *_, about in said]


class TestOthers:
    async def test_a_job_that_is_cancelled_cancels_its_handler(self, queue: Queue, url: str) -> None:
        async with Work(url) as work:
            await queue.add("x", opts={"jobId": "j"})
            await work.job()
            assert (await queue.cancelJob("j", "withdrawn"))["delivered"]
            [(_, job, reason)] = await work.until("cancelled")
            assert (job.id, reason) == ("j", "withdrawn")
            with pytest.raises(NotFoundError, match="not in this worker's hands"):
                await job.log("late")
        assert work.worker.inHand == 0

    async def test_an_answer_that_comes_too_late_is_lost(self, queue: Queue, url: str) -> None:
        async with Work(url) as work:
            await queue.add("x", opts={"jobId": "j"})
            job = await work.job()
            await queue.moveJobToFailed("j", "somebody else", job.token or "")
            work.go_on.set()
            [(_, lost, error)] = await work.until("lost")
            assert (lost.id, isinstance(error, ProxyError)) == ("j", True)

    async def test_a_drain_is_told_and_a_pause_holds(self, queue: Queue, url: str, cable: Relay) -> None:
        async with Work(url) as work:
            await work.worker.pause()
            cable.hang_up()
            await queue.add("x", opts={"jobId": "j"})
            await asyncio.wait_for(self._is_back(queue), SOON)
            assert await queue.getJobState("j") == "waiting"
            await work.worker.resume()
            await work.job()
            [consumer] = (await queue.getConsumers())["consumers"]
            await queue.drainConsumer(consumer["id"])
            await work.until("draining")

    async def _is_back(self, queue: Queue) -> None:
        """Wait until the worker has come back, and is paused."""
        while [each["takesJobs"] for each in (await queue.getConsumers())["consumers"] if each["connected"]] != [False]:
            pass

    async def test_close_waits_for_jobs_and_gives_the_others_back(self, queue: Queue, url: str) -> None:
        async with Work(url, concurrency=2) as work:
            await queue.addBulk([{"name": "x", "opts": {"jobId": "a"}}, {"name": "x", "opts": {"jobId": "b"}}])
            await work.job()
            await work.job()
            closing = asyncio.create_task(work.worker.close())
            await queue.add("x", opts={"jobId": "c"})
            work.go_on.set()
            await closing
            await work.until("completed", "completed")
        async with Work(url) as work:
            assert (await work.job()).id == "c"
            await work.worker.close(0.01)
            await work.until("cancelled")
        assert await queue.getJobCounts("waiting", "active") == {"waiting": 1, "active": 0}
        [job] = await queue.getWaiting()
        assert (job.attemptsMade, job.stalledCounter) == (0, 0)

    async def test_a_run_that_is_cancelled_finishes_its_jobs(self, queue: Queue, url: str) -> None:
        work = Work(url)
        running = asyncio.create_task(work.worker.run())
        await queue.add("x", opts={"jobId": "j"})
        await work.job()
        running.cancel()
        await asyncio.sleep(0)
        work.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await queue.getJobState("j") == "completed"


class TestGrace:
    async def test_a_handler_goes_on_while_the_connection_is_made_again(
        self, queue: Queue, url: str, cable: Relay
    ) -> None:
        async with Work(url) as work:
            await queue.add("x", {"n": 7}, {"jobId": "j"})
            job = await work.job()
            broken = asyncio.Event()
            work.worker.on("disconnected", lambda _: broken.set())
            cable.hang_up()
            await broken.wait()
            await job.updateProgress(1)  # waits for the next connection
            work.go_on.set()
            [(_, same, result)] = await work.until("completed")
            assert same is job
            assert result == {"n": 7}
        shown = await queue.getJob("j")
        assert shown is not None
        assert (shown.attemptsStarted, shown.stalledCounter, shown.progress) == (1, 0, 1)

    async def test_an_answer_that_could_not_be_handed_in_is_handed_in_later(
        self, queue: Queue, url: str, cable: Relay
    ) -> None:
        async with Work(url, concurrency=3) as work:
            await queue.addBulk([{"name": "x", "opts": {"jobId": id}} for id in "abc"])
            for _ in "abc":
                await work.job()
            cable.hang_up()
            work.go_on.set()
            await work.until("completed", "completed", "completed")
        assert await queue.getJobCounts("completed", "waiting") == {"completed": 3, "waiting": 0}

    @pytest.mark.parametrize("grace", [0, 100])
    async def test_a_handler_is_cancelled_when_its_job_goes_back(
        self, queue: Queue, url: str, cable: Relay, grace: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.client.link.FIRST_PAUSE", 0.4)
        async with Work(url, grace=grace) as work:
            await queue.add("x", opts={"jobId": "j"})
            job = await work.job()
            cable.hang_up()
            [(_, cancelled, _)] = await work.until("cancelled")
            assert cancelled is job
            again = await work.job()
            assert (again.id, again.attemptsStarted) == ("j", 2)

    async def test_without_a_gateway_nothing_waits_for_ever(
        self, queue: Queue, url: str, cable: Relay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.client.held.LINK_TIMEOUT", 0.1)
        async with Work(url, grace=100, concurrency=2) as work:
            await queue.addBulk([{"name": "x"}, {"name": "x"}])
            held, answered = await work.job(), await work.job()
            cable.refuse()
            await eventually(lambda: not work.worker._jobs.link.is_open, "the connection breaks", SOON)
            telling = asyncio.create_task(held.updateProgress(1))
            answering = asyncio.create_task(answered.release())
            with pytest.raises(NotFoundError):
                await asyncio.wait_for(telling, SOON)
            with pytest.raises(OutcomeUnknownError):
                await asyncio.wait_for(answering, SOON)
            assert work.worker.inHand == 0
            work.go_on.set()
            cable.mend()

    async def test_under_cut_sockets_no_job_is_lost_and_none_handled_twice(
        self, queue: Queue, url: str, cable: Relay
    ) -> None:
        random.seed(4)
        handled: Counter[str] = Counter()

        async def work(job: WorkerJob) -> str:
            handled[job.id] += 1
            await asyncio.sleep(random.random() / 50)  # the job's work
            return job.id

        lost: list[Any] = []
        ids = [f"j{n}" for n in range(300)]
        async with (
            Worker("mails", work, url=url, key=KEY, concurrency=10) as one,
            Worker("mails", work, url=url, key=KEY, concurrency=10) as other,
        ):
            for worker in (one, other):
                worker.on("lost", lambda *args: lost.append(args))
            adding = asyncio.gather(*(queue.add("x", opts={"jobId": id}) for id in ids))
            while (await queue.getJobCounts("completed"))["completed"] < len(ids):
                cable.hang_up()
            await adding
        assert handled == Counter(ids)
        assert all(error.code == "OUTCOME_UNKNOWN" for _, error in lost)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
async def test_when_a_shard_is_killed_no_job_is_lost_and_nobody_hangs(
    service: Callable[..., Service], valkey: ValkeyProcess, prefix: str
) -> None:
    running = service("--procs", "2", "--redis-url", valkey.url, "--prefix", prefix, env={"AUTH_KEYS": KEY}).start()
    url = f"ws://127.0.0.1:{running.port}"
    done: set[str] = set()

    async def work(job: WorkerJob) -> None:
        done.add(job.id)

    async with (
        Queue("load", url=url, key=KEY) as queue,
        Worker("load", work, url=url, key=KEY, concurrency=20) as worker,
    ):
        worker.on("lost", lambda *args: None)
        adding = [asyncio.create_task(queue.add("x", {"n": n}, {"jobId": f"j{n}"})) for n in range(400)]
        await eventually(lambda: len(done) > 50, "the load runs")
        os.kill(running.shards()[0], signal.SIGKILL)
        jobs = await asyncio.wait_for(asyncio.gather(*adding), 20)
        results = (job.waitUntilFinished(20_000) for job in jobs)
        await asyncio.wait_for(asyncio.gather(*results), 20)
    assert done == {f"j{n}" for n in range(400)}
