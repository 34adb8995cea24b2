"""How sessions end when the gateway stops: what is under way is finished, the rest is given back."""

from __future__ import annotations

import asyncio

from tests.sessions.peer import Gateway, until
from tests.support.valkey import ValkeyProcess


async def test_a_worker_is_told_to_finish_and_its_answer_is_stored_before_it_is_sent_away(
    proxy: Gateway, valkey: ValkeyProcess, prefix: str
) -> None:
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=5.0) as leaving:
        held, other, watcher = await leaving.worker(), await leaving.worker(), await leaving.events()
        producer = await proxy.queue()
        await producer.call("addBulk", [{"name": "a"}, {"name": "b"}])
        job, second = await held.job(), await other.job()
        await second.answer(result=1)
        await producer.until_state(second.id, "completed")
        stopping = asyncio.create_task(leaving.stop())
        assert await held.message() == {"id": 1, "data": {"type": "drain", "deadline": 5000}}
        assert await other.closed() == 1001
        assert await watcher.closed() == 1001
        await producer.call("add", "late")
        await job.answer(result="done")
        assert await held.closed() == 1001
        await stopping
        assert (await producer.call("getJob", job.id))["returnvalue"] == "done"
        assert (await (await proxy.worker()).job()).name == "late"


async def test_a_job_that_is_not_answered_in_time_is_given_back_and_not_blamed(
    proxy: Gateway, valkey: ValkeyProcess, prefix: str
) -> None:
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=0.2) as leaving:
        worker, producer = await leaving.worker(), await proxy.queue()
        await producer.call("add", "slow")
        job = await worker.job()
        await leaving.stop()
        assert await worker.closed() == 1001
        again = await (await proxy.worker()).job(timeout=2)
        assert again.id == job.id
        assert (again.shown["attemptsMade"], again.shown["stalledCounter"]) == (0, 0)


async def test_a_draining_gateway_leaves_new_jobs_to_others_at_once(
    proxy: Gateway, valkey: ValkeyProcess, prefix: str
) -> None:
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=5.0) as leaving:
        busy, producer = await leaving.worker(concurrency=2), await proxy.queue()
        await producer.call("add", "slow")
        job = await busy.job()
        stopping = asyncio.create_task(leaving.stop())
        assert (await busy.data())["type"] == "drain"
        worker = await proxy.worker()
        for number in range(3):
            await worker.nothing_more()
            await producer.call("add", f"n{number}")
            fresh = await worker.job(timeout=2)
            await fresh.answer(result=1)
        await job.answer(result=1)
        await stopping

        async def all_done() -> bool:
            return bool((await producer.call("getJobCounts"))["completed"] == 4)

        await until(all_done, "all are completed")
