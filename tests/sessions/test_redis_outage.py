"""What clients notice when Redis goes away and comes back: as little as possible, and never a lost answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from bullmq import Queue
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from tests.sessions.peer import Gateway, until
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import stretched


@pytest.fixture
async def proxy(server: ValkeyProcess) -> AsyncIterator[Gateway]:
    async with Gateway(server.url, redis_timeout=0.5, redis_backlog_timeout=20.0) as gateway:
        yield gateway


async def test_an_answer_given_while_redis_is_away_is_stored_once_it_is_back(
    server: ValkeyProcess, proxy: Gateway
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1)
    await producer.call("add", "work")
    job = await worker.job()
    server.kill()
    await job.answer(result={"n": 1.0})
    server.start()
    assert await worker.data() == {"type": "finished", "state": "completed", "jobId": job.id}
    assert (await producer.call("getJob", job.id))["returnvalue"] == {"n": 1.0}


async def test_an_answer_is_stored_even_if_its_worker_has_left_before_redis_is_back(
    server: ValkeyProcess, proxy: Gateway
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    other = await proxy.worker()  # keeps the queue served
    await other.pause()
    await producer.call("add", "work")
    job = await worker.job()
    server.kill()
    await until(lambda: _is(proxy, "redis_up", 0), "the link notices")
    await job.answer(result=1)
    await worker.close()
    server.start()
    await producer.until_state(job.id, "completed")
    assert (await producer.call("getJob", job.id))["attemptsStarted"] == 1


async def _is(proxy: Gateway, metric: str, value: float) -> bool:
    return await proxy.metric(metric) == value


async def test_a_failure_whose_reply_was_lost_is_stored_once(server: ValkeyProcess, proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1)
    await producer.call("add", "work", {}, {"attempts": 3, "backoff": 60_000})
    job = await worker.job()
    server.freeze()
    await job.answer(err="boom")
    await until(lambda: _is(proxy, "redis_up", 0), "the link gives up waiting")
    server.thaw()  # and executes what it has been sent
    assert (await worker.data())["state"] == "delayed"
    stored = await producer.call("getJob", job.id)
    assert (stored["attemptsMade"], stored["stacktrace"]) == (1, ["Error: boom"])


async def test_a_job_whose_worker_vanishes_while_redis_is_away_comes_back(
    server: ValkeyProcess, proxy: Gateway
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "work")
    job = await worker.job()
    server.kill()
    worker.vanish()
    server.start()
    assert (await (await proxy.worker()).job()).id == job.id


async def test_a_lock_that_did_not_survive_the_outage_is_told_to_the_worker_and_the_job_goes_back_at_once(
    server: ValkeyProcess, proxy: Gateway
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(lockDuration=500)
    await producer.call("add", "work")
    job = await worker.job()
    server.kill()
    ends = time.monotonic() + 0.6
    await until(lambda: _passed(ends), "the lock's life is over")
    server.start()
    cancelled = await worker.message()
    assert (cancelled["id"], cancelled["data"]["type"]) == (job.number, "cancel")
    assert (await worker.job()).id == job.id


async def _passed(moment: float) -> bool:
    return time.monotonic() > moment


async def test_idle_workers_and_watchers_go_on_after_a_restart(server: ValkeyProcess, proxy: Gateway) -> None:
    producer, worker, watcher = await proxy.queue(), await proxy.worker(), await proxy.events("q", "completed")
    for number in range(3):
        server.kill()
        await until(lambda: _is(proxy, "redis_up", 0), "the link notices")
        server.start()
        start = time.monotonic()
        added = await producer.call("add", f"n{number}")
        job = await worker.job()
        assert job.name == f"n{number}"
        assert time.monotonic() - start < stretched(3)
        await job.answer(result=number)
        assert (await watcher.data())["args"][0] == {"jobId": added["id"], "returnvalue": number, "prev": "active"}


async def test_events_written_while_the_reader_was_away_are_not_missed(server: ValkeyProcess, proxy: Gateway) -> None:
    watcher, producer = await proxy.events("q", "paused", "resumed"), await proxy.queue()
    await producer.call("pause")
    assert (await watcher.data())["event"] == "paused"
    with Redis.from_url(server.url) as redis:
        redis.client_kill_filter(_type="normal", skipme=True)
        redis.xadd("bull:q:events", {"event": "resumed"})
    assert (await watcher.data())["event"] == "resumed"


@pytest.mark.parametrize("queue_links", [32, 0], ids=["blocked", "asleep"])
async def test_watchers_are_told_of_events_that_were_trimmed_while_the_reader_was_away(
    server: ValkeyProcess, queue_links: int
) -> None:
    async with Gateway(server.url, queue_links=queue_links) as proxy:
        watcher, other, producer = (
            await proxy.events("q", "paused"),
            await proxy.events("q", "resumed"),
            await proxy.queue(),
        )
        await other.reply(await other.request("on", "resumed"))  # it is live from now on
        added = await producer.call("add", "work")
        waiting = await producer.request("waitUntilJobFinished", added["id"])
        await producer.call("pause")
        heard = (await watcher.data())["args"][1]
        async with AsyncRedis.from_url(server.url, decode_responses=True) as redis, redis.pipeline(False) as pipe:
            for kind in ("normal", "pubsub"):
                pipe.client_kill_filter(_type=kind, skipme=True)
            pipe.zadd("bull:q:completed", {added["id"]: 1})
            for _ in range(6):
                pipe.xadd("bull:q:events", {"event": "paused"})
            pipe.xtrim("bull:q:events", maxlen=3, approximate=False)
            pipe.xrange("bull:q:events")
            left = [id for id, _ in (await pipe.execute())[-1]]
        for each in (watcher, other):
            assert await each.data() == {"event": "gap", "args": [{"from": heard, "to": left[0]}]}
        assert [(await watcher.data())["args"][1] for _ in left] == left
        await producer.reply(waiting)
        await producer.call("resume")
        assert (await other.data())["event"] == "resumed"


@pytest.mark.parametrize("queue_links", [32, 0], ids=["blocked", "asleep"])
@pytest.mark.parametrize("ahead", [2, 0], ids=["and has others instead", "and nothing instead"])
async def test_watchers_are_told_when_the_next_master_never_had_the_last_event(
    server: ValkeyProcess, queue_links: int, ahead: int
) -> None:
    async with Gateway(server.url, queue_links=queue_links) as proxy:
        watcher, producer = await proxy.events("q", "paused,resumed"), await proxy.queue()
        for call in ("pause", "resume"):
            await producer.call(call)
        common, lost = [(await watcher.data())["args"][1] for _ in range(2)]
        moment, number = map(int, lost.split("-"))
        others = [f"{moment}-{number + 1 + each}" for each in range(ahead)]
        async with AsyncRedis.from_url(server.url) as redis, redis.pipeline() as pipe:  # as a failover does at once
            for kind in ("normal", "pubsub"):
                pipe.client_kill_filter(_type=kind, skipme=True)
            pipe.delete("bull:q:events")
            for id in (common, *others):
                pipe.xadd("bull:q:events", {"event": "paused"}, id=id)
            await pipe.execute()
        newest = [common, *others][-1]
        first, last = (common, lost) if newest == common else (lost, newest)
        assert await watcher.data() == {"event": "gap", "args": [{"from": first, "to": last}]}
        async with AsyncRedis.from_url(server.url) as redis:
            later = f"{newest.partition('-')[0]}-9"
            await redis.xadd("bull:q:events", {"event": "resumed"}, id=later)
        assert (await watcher.data())["args"][1] == later


async def test_a_job_whose_fetch_was_executed_but_never_answered_is_pushed_and_not_blamed(
    server: ValkeyProcess, proxy: Gateway
) -> None:
    producer = await proxy.queue()
    added = await producer.call("add", "work")
    server.freeze()
    worker = await proxy.worker()  # its fetch is sent
    await until(lambda: _is(proxy, "redis_up", 0), "the link gives up waiting")
    server.thaw()
    job = await worker.job()
    assert job.id == added["id"]
    assert (job.shown["attemptsMade"], job.shown["stalledCounter"]) == (0, 0)
    await job.answer(result=1)
    await producer.until_state(job.id, "completed")


async def test_locks_that_could_not_be_renewed_are_tried_again_in_time(server: ValkeyProcess, proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=2, lockDuration=1200)
    await producer.call("addBulk", [{"name": "a"}, {"name": "b"}])
    jobs = [await worker.job() for _ in range(2)]
    taken = time.monotonic()
    with Redis.from_url(server.url) as redis:
        redis.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-evalsha"])
        await until(lambda: _passed(taken + 0.7), "the renewal was due and has been refused")
        redis.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    await until(lambda: _passed(taken + 1.5), "the first lock's life is over")
    await worker.nothing_more()
    for job in jobs:
        await job.answer(result=1)
        await producer.until_state(job.id, "completed")


async def test_a_schedule_goes_on_although_redis_was_away_when_its_job_was_taken(server: ValkeyProcess) -> None:
    async with Gateway(server.url) as proxy:
        async with AsyncRedis.from_url(server.url, decode_responses=True) as connection:
            queue = Queue("q", {"connection": connection})
            await queue.upsertJobScheduler("tick", {"every": 400}, "beat", {}, {})
            await queue.close()
        server.kill()
        await until(lambda: _is(proxy, "redis_up", 0), "the link notices")
        server.start()
        worker = await proxy.worker()
        for _ in range(2):
            await (await worker.job()).answer(result=1)


async def test_writes_that_reach_a_frozen_redis_strand_no_job(server: ValkeyProcess, proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await worker.nothing_more()
    server.freeze()
    ids = [await producer.request("add", f"n{number}") for number in range(3)]
    await until(lambda: _is(proxy, "redis_up", 0), "the link gives up waiting")
    server.thaw()
    for id in ids:
        reply = await producer.message()
        assert reply["id"] == id
        assert reply["data"]["err"]["code"] == "OUTCOME_UNKNOWN"
    await producer.call("add", "last")
    seen = []
    while "last" not in seen:
        job = await worker.job()
        seen.append(job.name)
        await job.answer(result=1)
    await producer.until_state(job.id, "completed")
    counts = await producer.call("getJobCounts")
    assert (counts["active"], counts["waiting"]) == (0, 0)


async def test_requests_wait_for_redis_up_to_the_backlogs_limits_and_then_fail_at_once(
    server: ValkeyProcess,
) -> None:
    async with Gateway(server.url, redis_backlog_timeout=0.3, redis_backlog=2) as proxy:
        producer = await proxy.queue()
        server.kill()
        await until(lambda: _is(proxy, "redis_up", 0), "the link notices")
        start = time.monotonic()
        for fn in ("add", "add", "add"):
            await producer.request(fn, "work")
        errors = [(await producer.data())["err"] for _ in range(3)]
        assert time.monotonic() - start < stretched(2)
        assert [error["code"] for error in errors] == ["REDIS_UNAVAILABLE"] * 3
        for fn, *args in (("add", "work"), ("getJob", "1"), ("getJobLogs", "1"), ("pause",), ("getJobCounts",)):
            start = time.monotonic()
            assert (await producer.refusal(fn, *args))[0] == "REDIS_UNAVAILABLE"
            assert time.monotonic() - start < stretched(0.2)
        server.start()
        await until(lambda: _is(proxy, "redis_up", 1), "the link is back")
        assert (await producer.call("add", "work"))["id"] == "1"


async def test_a_request_to_a_frozen_redis_is_answered_within_the_deadline(
    server: ValkeyProcess, proxy: Gateway
) -> None:
    producer = await proxy.queue()
    server.freeze()
    ids = {
        fn: await producer.request(fn, *args) for fn, args in (("add", ["a"]), ("getJob", ["1"]), ("getJobCounts", []))
    }
    start = time.monotonic()
    errors = {message["id"]: message["data"]["err"]["code"] for message in [await producer.message() for _ in ids]}
    assert time.monotonic() - start < stretched(3)
    assert errors[ids["add"]] == "OUTCOME_UNKNOWN"
    assert errors[ids["getJob"]] == errors[ids["getJobCounts"]] == "REDIS_UNAVAILABLE"
    server.thaw()


async def test_scripts_that_redis_forgot_are_sent_again(server: ValkeyProcess, proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1)
    with Redis.from_url(server.url) as redis:
        for number in range(3):
            redis.script_flush()
            plain = await producer.request("add", f"n{number}")
            watched = await producer.request("add", f"w{number}", {}, {"jobId": f"id{number}"})
            again = await producer.request("add", f"w{number}", {}, {"jobId": f"id{number}"})
            assert (await producer.reply(plain))["name"] == f"n{number}"
            assert "duplicate" not in await producer.reply(watched)
            assert (await producer.reply(again))["duplicate"] is True
            for _ in range(2):
                job = await worker.job()
                redis.script_flush()
                await job.answer(result=1)
                assert (await worker.data())["state"] == "completed"


async def test_an_events_connection_without_redis_is_a_503_that_says_why(server: ValkeyProcess) -> None:
    async with Gateway(server.url, redis_backlog_timeout=0.1) as proxy:
        server.kill()
        await until(lambda: _is(proxy, "redis_up", 0), "the link notices")
        with pytest.raises(Exception, match="503"):
            await proxy.events()


async def test_stopping_without_redis_ends_quickly_and_leaves_no_task(server: ValkeyProcess) -> None:
    before = asyncio.all_tasks()
    async with Gateway(server.url, redis_timeout=0.5, redis_backlog_timeout=0.2) as proxy:
        producer, worker, watcher = await proxy.queue(), await proxy.worker(), await proxy.events()
        await producer.call("add", "work")
        job = await worker.job()
        server.kill()
        await job.answer(result=1)
        start = time.monotonic()
    assert time.monotonic() - start < stretched(5)
    assert watcher.socket.close_code is not None

    async def nothing_left() -> bool:
        return asyncio.all_tasks() <= before | {asyncio.current_task()}

    await until(nothing_left, "all tasks have ended")


async def test_a_drain_whose_last_command_redis_refuses_says_why(
    server: ValkeyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    async with Gateway(server.url) as proxy:
        await (await proxy.queue()).call("count")
        with Redis.from_url(server.url) as redis:
            redis.execute_command("ACL", "SETUSER", "default", "-ping")
    [said] = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("drain: jobs in hand may")
    ]
    assert "'ping'" in said and said.endswith("; the stalled check will find them")
