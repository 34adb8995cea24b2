"""How jobs come to workers and go back from them: concurrency, silence, pauses, locks, vanishing (PROTOCOL 4)."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from typing import Any

import pytest
from bullmq import Queue
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Peer, until
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import stretched


async def add(peer: Peer, count: int, **opts: Any) -> list[str]:
    jobs = await peer.call("addBulk", [{"name": f"job {n}", "opts": opts} for n in range(count)])
    return [job["id"] for job in jobs]


async def test_no_worker_has_more_unanswered_jobs_than_its_concurrency(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=3)
    await add(producer, 8)
    jobs = [await worker.job() for _ in range(3)]
    await worker.nothing_more()
    assert (await producer.call("getJobCounts"))["active"] == 3
    await jobs[1].answer(result=1)
    jobs[1] = await worker.job()
    await worker.nothing_more()
    for job in jobs:
        await job.answer(result=1)
    assert len({(await worker.job()).id for _ in range(3)}) == 3


async def test_jobs_come_in_the_order_in_which_they_were_added(proxy: Gateway) -> None:
    producer = await proxy.queue()
    ids = await add(producer, 40)
    worker = await proxy.worker(concurrency=10)
    seen = []
    for _ in ids:
        job = await worker.job()
        seen.append(job.id)
        await job.answer(result=1)
    assert seen == ids


async def test_jobs_are_shared_among_the_workers_of_a_queue(proxy: Gateway) -> None:
    workers = [await proxy.worker(concurrency=2) for _ in range(3)]
    producer = await proxy.queue()
    await add(producer, 6)
    jobs = [await worker.job() for worker in workers for _ in range(2)]
    assert len({job.id for job in jobs}) == 6


async def test_priorities_come_in_order_and_after_jobs_without_one(proxy: Gateway) -> None:
    producer = await proxy.queue()
    for name, priority in (("c", 9), ("a", 1), ("none", 0), ("b", 3), ("a2", 1)):
        await producer.call("add", name, {}, {"priority": priority})
    worker = await proxy.worker()
    seen = []
    for _ in range(5):
        job = await worker.job()
        seen.append(job.name)
        await job.answer(result=1)
    assert seen == ["none", "a", "a2", "b", "c"]


async def test_the_last_one_in_is_the_first_one_out_if_it_asks_for_it(proxy: Gateway) -> None:
    producer = await proxy.queue()
    await add(producer, 2)
    await producer.call("add", "last", {}, {"lifo": True})
    assert (await (await proxy.worker()).job()).name == "last"


async def test_delayed_jobs_are_on_time(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=10)
    delays = [120, 400, 250, 60, 180]
    for delay in delays:
        await producer.call("add", "later", {"due": time.time() * 1000 + delay}, {"delay": delay})
    for _ in delays:
        job = await worker.job()
        late = time.time() * 1000 - job.payload["due"]
        assert -5 <= late < stretched(100)
        await job.answer(result=1)


async def test_a_job_for_now_does_not_wait_behind_a_delayed_one(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "later", {}, {"delay": 60_000})
    await worker.nothing_more()
    await producer.call("add", "now")
    assert (await worker.job(timeout=1)).name == "now"


async def test_a_sooner_delay_shortens_the_wait_for_a_later_one(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "later", {}, {"delay": 60_000})
    await worker.nothing_more()
    await producer.call("add", "sooner", {}, {"delay": 100})
    assert (await worker.job(timeout=1)).name == "sooner"


# Silence


async def acking(proxy: Gateway, producer: Peer, name: str = "q", /, **query: Any) -> Peer:
    """Return a worker that has said `ack` and is done with that job."""
    worker = await proxy.worker(name, **query)
    await add(producer, 1)
    job = await worker.job()
    await job.answer(type="ack")
    await job.answer(result=None)
    await producer.until_state(job.id, "completed")
    return worker


async def test_a_job_of_which_nothing_is_heard_goes_to_another_worker(proxy: Gateway) -> None:
    producer = await proxy.queue()
    silent = await acking(proxy, producer, ackTimeout=150)
    await add(producer, 1)
    job = await silent.job()
    other = await proxy.worker()
    again = await other.job(timeout=2)
    assert (again.id, again.shown["attemptsMade"], again.shown["stalledCounter"]) == (job.id, 0, 1)
    cancelled = await silent.message()
    assert (cancelled["id"], cancelled["data"]["type"]) == (job.number, "cancel")
    assert "150 ms" in cancelled["data"]["reason"]


async def test_a_silent_worker_gets_no_new_job_until_it_says_something(proxy: Gateway) -> None:
    producer = await proxy.queue()
    silent = await acking(proxy, producer, ackTimeout=100)
    await add(producer, 1)
    job = await silent.job()
    assert (await silent.data())["type"] == "cancel"
    await producer.until_state(job.id, "waiting")
    await job.answer(result=1)  # too late, but it lives
    assert (await silent.data())["type"] == "lost"
    assert (await silent.job(timeout=2)).id == job.id


@pytest.mark.parametrize("opts", [{}, {"priority": 3}])
async def test_a_job_that_was_missed_is_not_the_next_one_for_the_same_connection(
    proxy: Gateway, opts: dict[str, Any]
) -> None:
    producer = await proxy.queue()
    silent = await acking(proxy, producer, ackTimeout=100)
    await silent.pause()
    missed, behind, last = [(await producer.call("add", "a", {}, opts))["id"] for _ in range(3)]
    await silent.resume()
    job = await silent.job()
    assert job.id == missed
    assert (await silent.data())["type"] == "cancel"
    await producer.until_state(missed, "prioritized" if opts else "waiting")

    async def is_last() -> bool:
        return bool((await producer.call("getRanges", ["prioritized" if opts else "wait"], 0, -1, True))[-1] == missed)

    await until(is_last, "the missed job is last in line")
    await silent.resume()  # a sign of life
    order = []
    for _ in range(3):
        job = await silent.job()
        order.append(job.id)
        await job.answer(type="ack")
        await job.answer(result=1)
    assert order == [behind, last, missed]


async def test_a_job_that_is_missed_over_and_over_fails(proxy: Gateway) -> None:
    producer = await proxy.queue()
    silent = await acking(proxy, producer, ackTimeout=50, maxStalledCount=1)
    [id] = await add(producer, 1)
    for _ in range(2):
        job = await silent.job()
        assert (await silent.data())["type"] == "cancel"
        await silent.resume()  # a sign of life
    assert job.id == id
    await producer.until_state(id, "failed")
    assert (await producer.call("getJob", id))["failedReason"] == "job stalled more than allowable limit"


async def test_a_connection_that_never_says_ack_is_not_held_to_it(proxy: Gateway) -> None:
    producer, old = await proxy.queue(), await proxy.worker(ackTimeout=50)
    await add(producer, 1)
    job = await old.job()
    control = await acking(proxy, await proxy.queue("c"), "c", ackTimeout=100)
    await add(await proxy.queue("c"), 1)
    await control.job()
    assert (await control.data())["type"] == "cancel"  # a later and longer timeout has passed
    await old.nothing_more()
    await job.answer(result=1)
    await producer.until_state(job.id, "completed")


async def test_the_first_ack_starts_the_clocks_of_the_jobs_in_hand(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=2, ackTimeout=100)
    await add(producer, 2)
    first, second = await worker.job(), await worker.job()
    await first.answer(type="ack")
    cancelled = await worker.message()
    assert (cancelled["id"], cancelled["data"]["type"]) == (second.number, "cancel")


@pytest.mark.parametrize("data", ['{"err":7,"type":7}', '{"result":NaN}', '{"type":"compelted"}', '{"result":', "[1]"])
async def test_an_answer_that_cannot_be_read_has_its_error_and_starts_the_clock(proxy: Gateway, data: str) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(ackTimeout=50)
    await add(producer, 1)
    job = await worker.job()
    await worker.socket.send(f'{{"id":{job.number},"data":{data}}}')
    refused = await worker.message()
    assert (refused["id"], refused["data"]["err"]["code"]) == (job.number, "INVALID_MESSAGE")
    cancelled = await worker.message()
    assert (cancelled["id"], cancelled["data"]["type"]) == (job.number, "cancel")


@pytest.mark.parametrize("data", ["{}", "[]", '{"result":null,"err":null,"type":null}'])
async def test_what_stands_for_an_empty_answer_completes_the_job_with_null(proxy: Gateway, data: str) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1)
    await add(producer, 1)
    job = await worker.job()
    await worker.socket.send(f'{{"id":{job.number},"data":{data}}}')
    assert (await worker.data())["state"] == "completed"
    assert (await producer.call("getJob", job.id))["returnvalue"] is None


async def test_an_answer_that_can_be_read_stops_that_clock(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(ackTimeout=60_000, confirm=1)
    await add(producer, 1)
    job = await worker.job()
    await worker.send(job.number, result=1, type=[])
    assert "err" in await worker.data()
    await job.answer(result=1)
    assert (await worker.data())["state"] == "completed"


@pytest.mark.parametrize(
    "sign_of_life", [{"type": "ack"}, {"type": "progress", "progress": 1}, {"type": "log", "row": "here"}]
)
async def test_any_word_about_a_job_says_that_it_has_started(proxy: Gateway, sign_of_life: dict[str, Any]) -> None:
    producer = await proxy.queue()
    worker = await acking(proxy, producer, ackTimeout=200)
    control = await acking(proxy, await proxy.queue("c"), "c", ackTimeout=300)
    await add(producer, 1)
    job = await worker.job()
    await job.answer(**sign_of_life)
    await add(await proxy.queue("c"), 1)
    await control.job()
    assert (await control.data())["type"] == "cancel"  # a later and longer timeout has passed
    await worker.nothing_more()
    await job.answer(result=1)
    await producer.until_state(job.id, "completed")


async def test_the_oldest_clients_that_know_no_ack_answer_when_they_are_done(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(ackTimeout=0)
    await add(producer, 2)
    for _ in range(2):
        job = await worker.job()
        await worker.send(job.number, result=None)
    await producer.until_state(job.id, "completed")
    await worker.nothing_more()


# Pause


async def test_a_paused_connection_gets_no_job_and_goes_on_with_those_in_hand(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=2)
    await add(producer, 1)
    job = await worker.job()
    await worker.pause()
    await add(producer, 2)
    await worker.nothing_more()
    await job.answer(result=1)
    await producer.until_state(job.id, "completed")
    await worker.nothing_more()
    await worker.resume()
    assert {(await worker.job()).id, (await worker.job()).id} == {"2", "3"}


async def test_after_the_reply_to_a_pause_no_job_comes_even_if_its_fetch_was_under_way(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    ids = await add(producer, 30)
    for _ in range(10):
        job = await worker.job()
        await job.answer(result=1)  # brings the next one
        await worker.pause()
        counts: dict[str, int] = {}

        async def nothing_is_active(counts: dict[str, int] = counts) -> bool:
            counts.update(await producer.call("getJobCounts"))
            return counts["active"] == 0

        for early in worker.kept():  # pushed before the pause was read: in hand, as it should be
            await worker.send(early["id"], result=1)
        await until(nothing_is_active, "a job that came too late is given back")
        await worker.nothing_more()
        await worker.resume()
    assert len(ids) == 30


async def test_a_paused_queue_serves_nobody_until_it_is_resumed(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("pause")
    await add(producer, 1)
    await worker.nothing_more()
    await producer.call("resume")
    assert (await worker.job(timeout=2)).name == "job 0"


# Locks


async def test_a_job_may_take_longer_than_its_lock_lives(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(lockDuration=500, stalledInterval=500)
    await add(producer, 1)
    job = await worker.job()
    await job.answer(type="ack")
    lock = f"{prefix}:q:{job.id}:lock"
    started, lives = time.monotonic(), []

    async def look() -> bool:
        lives.append(await redis.pttl(lock))
        return time.monotonic() - started > 1.3

    await until(look, "two and a half times the lock's life have passed")
    assert min(lives) > 100
    assert sum(later > earlier + 100 for earlier, later in itertools.pairwise(lives)) >= 3  # renewals
    await job.answer(result=1)
    await producer.until_state(job.id, "completed")
    await worker.nothing_more()


async def test_a_worker_is_told_when_the_lock_of_its_job_is_lost(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(lockDuration=500)
    await add(producer, 1)
    job = await worker.job()
    await redis.delete(f"{prefix}:q:{job.id}:lock")
    cancelled = await worker.message()
    assert cancelled == {
        "id": job.number,
        "data": {"type": "cancel", "reason": "The lock of this job was lost"},
    }
    await job.answer(result=1)
    assert (await worker.data())["type"] == "lost"


async def test_an_answer_whose_lock_is_lost_is_told_so(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await add(producer, 1)
    job = await worker.job()
    await redis.set(f"{prefix}:q:{job.id}:lock", "somebody else's")
    await job.answer(result=1)
    lost = await worker.data()
    assert lost["type"] == "lost"
    assert lost["err"] == {
        "code": "NOT_LOCKED",
        "message": f"Lock mismatch for job {job.id}. Cmd moveToFinished from active",
    }


async def test_a_lost_lock_makes_room_for_another_job(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(lockDuration=500)
    await add(producer, 2)
    job = await worker.job()
    await redis.delete(f"{prefix}:q:{job.id}:lock")
    assert (await worker.data())["type"] == "cancel"
    assert (await worker.job(timeout=2)).id != job.id


# Vanishing


@pytest.mark.parametrize("priority", [0, 5])
async def test_the_jobs_of_a_worker_that_vanishes_are_first_in_line_within_a_second(
    proxy: Gateway, priority: int
) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(concurrency=2)
    await add(producer, 5, priority=priority)
    held = {(await worker.job()).id for _ in range(2)}
    start = time.monotonic()
    worker.vanish()

    async def are_back() -> bool:
        return bool((await producer.call("getJobCounts"))["active"] == 0)

    await until(are_back, "the jobs are back")
    assert time.monotonic() - start < stretched(1)
    other = await proxy.worker(concurrency=5)
    jobs = [await other.job() for _ in range(5)]
    assert {job.id for job in jobs[:2]} == held


async def test_a_vanished_workers_job_is_pushed_again_and_no_attempt_is_charged(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await add(producer, 2)
    job = await worker.job()
    other = await proxy.worker()
    assert (await other.job()).id != job.id
    third = await proxy.worker()
    await third.nothing_more()
    worker.vanish()
    again = await third.job(timeout=1)
    assert (again.id, again.shown["attemptsMade"], again.shown["stalledCounter"]) == (job.id, 0, 1)


async def test_a_worker_that_closes_in_good_order_gives_its_job_back_too(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await add(producer, 1)
    job = await worker.job()
    await worker.close()
    assert (await (await proxy.worker()).job(timeout=1)).id == job.id


async def test_a_job_whose_holders_vanish_too_often_is_failed(proxy: Gateway) -> None:
    producer = await proxy.queue()
    await producer.call("add", "killer", {}, {"attempts": 9})
    for _ in range(3):
        worker = await proxy.worker(maxStalledCount=2)
        job = await worker.job()
        worker.vanish()
    await producer.until_state(job.id, "failed")
    assert (await producer.call("getJob", job.id))["failedReason"] == "job stalled more than allowable limit"


async def test_a_worker_that_leaves_while_its_fetch_is_under_way_takes_no_job_along(proxy: Gateway) -> None:
    producer = await proxy.queue()
    await add(producer, 20)
    workers = await asyncio.gather(*(proxy.worker(concurrency=5) for _ in range(6)))
    for worker in workers:
        worker.vanish()

    async def look() -> bool:
        counts = await producer.call("getJobCounts")
        return bool(counts["active"] == 0 and counts["waiting"] == 20)

    await until(look, "all jobs are back in wait")


async def test_workers_that_come_and_go_quickly_leave_the_queue_served(proxy: Gateway) -> None:
    producer = await proxy.queue()
    for _ in range(10):
        (await proxy.worker()).vanish()
        worker = await proxy.worker()
        await producer.call("add", "work")
        await (await worker.job(timeout=2)).answer(result=1)
        await worker.close()


async def test_a_stalled_job_of_somebody_elses_worker_is_found(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer = await proxy.queue()
    await producer.call("pause")
    [id] = await add(producer, 1)
    await redis.lmove(f"{prefix}:q:wait", f"{prefix}:q:active", "RIGHT", "LEFT")  # a worker took it and died
    await producer.call("resume")
    worker = await proxy.worker(stalledInterval=500)
    again = await worker.job(timeout=3)
    assert (again.id, again.shown["stalledCounter"]) == (id, 1)


async def test_a_deferred_failure_fails_the_job_without_asking_a_worker(
    proxy: Gateway, redis: Redis, prefix: str
) -> None:
    producer = await proxy.queue()
    [id] = await add(producer, 1, attempts=5, delay=100)
    await redis.hset(f"{prefix}:q:{id}", "defa", "child failed")
    worker = await proxy.worker()
    await producer.until_state(id, "failed")
    await worker.nothing_more()
    assert (await producer.call("getJob", id))["failedReason"] == "child failed"


async def test_a_job_that_cannot_be_read_fails_and_does_not_block_the_queue(
    proxy: Gateway, redis: Redis, prefix: str
) -> None:
    producer = await proxy.queue()
    ids = await add(producer, 2)
    await redis.hset(f"{prefix}:q:{ids[0]}", mapping={"data": "{no json", "opts": "[]", "atm": "x", "priority": ""})
    worker = await proxy.worker(concurrency=2)
    jobs = [await worker.job(), await worker.job()]
    assert [job.id for job in jobs] == ids
    assert jobs[0].payload == "{no json"


# Limits


async def test_a_limiter_lets_no_more_jobs_through_than_it_says(proxy: Gateway) -> None:
    producer = await proxy.queue()
    await add(producer, 6)
    worker = await proxy.worker(concurrency=10, limiter__max=2, limiter__duration=300)
    times = []
    for _ in range(6):
        job = await worker.job(timeout=3)
        times.append(time.monotonic())
        await job.answer(result=1)
    assert times[2] - times[0] >= 0.28
    assert times[4] - times[2] >= 0.28
    assert times[5] - times[0] < 1.5


async def test_a_global_rate_limit_holds_for_all_workers_together(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer = await proxy.queue()
    await add(producer, 6)
    await redis.hset(f"{prefix}:q:meta", mapping={"max": 2, "duration": 300})
    workers = [await proxy.worker(concurrency=2) for _ in range(3)]

    async def work(worker: Peer) -> None:
        while True:
            await (await worker.job()).answer(result=1)

    tasks = [asyncio.create_task(work(worker)) for worker in workers]
    await until(lambda: _is_card(redis, f"{prefix}:q:completed", 6), "all are done")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    entries: Any = await redis.xrange(f"{prefix}:q:events")
    started = [int(id.partition("-")[0]) for id, fields in entries if fields["event"] == "active"]  # ms
    assert started[2] - started[0] >= 290
    assert started[4] - started[2] >= 290


async def _is_card(redis: Redis, key: str, size: int) -> bool:
    return int(await redis.zcard(key)) == size


async def test_a_global_concurrency_holds_for_all_workers_together(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer = await proxy.queue()
    await redis.hset(f"{prefix}:q:meta", "concurrency", 1)
    await add(producer, 3)
    first = await proxy.worker(concurrency=2)
    job = await first.job()
    second = await proxy.worker()
    await first.nothing_more()
    await second.nothing_more()
    await first.pause()
    await job.answer(result=1)
    await (await second.job(timeout=2)).answer(result=1)
    await second.job(timeout=2)
    assert (await producer.call("getJobCounts"))["active"] == 1


# Options


async def test_a_worker_says_how_many_finished_jobs_stay(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1, removeOnComplete="true", removeOnFail=1)
    await add(producer, 4)
    for answer in ({"result": 1}, {"err": "a"}, {"result": 1}, {"err": "b"}):
        await (await worker.job()).answer(**answer)
        confirmed = await worker.data()
        if confirmed["type"] == "process":
            raise AssertionError("the confirmation comes before the next job")
    counts = await producer.call("getJobCounts")
    assert (counts["completed"], counts["failed"]) == (0, 1)


async def test_what_a_job_says_about_its_removal_counts_more_than_what_its_worker_says(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1, removeOnComplete="true")
    await add(producer, 1, removeOnComplete=False)
    await (await worker.job()).answer(result=1)
    await worker.data()
    assert (await producer.call("getJobCounts"))["completed"] == 1


async def test_the_name_of_a_worker_is_written_on_what_it_processes(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(name="w ✓", confirm=1)
    ids = await add(producer, 2)
    for _ in ids:  # the second one comes with the answer to the first
        await (await worker.job()).answer(result=1)
        await worker.data()
    assert [(await producer.call("getJob", id))["processedBy"] for id in ids] == ["w ✓", "w ✓"]


# Schedulers


async def test_a_job_scheduler_goes_on_as_its_jobs_are_taken(
    proxy: Gateway, valkey: ValkeyProcess, prefix: str, redis: Redis
) -> None:
    async with Redis.from_url(valkey.url, decode_responses=True) as connection:
        queue = Queue("q", {"connection": connection, "prefix": prefix})
        await queue.upsertJobScheduler("tick", {"every": 200}, "beat", {"n": 1}, {"attempts": 2})
        worker = await proxy.worker()
        ids = []
        for _ in range(3):
            job = await worker.job(timeout=3)
            ids.append(job.id)
            assert (job.name, job.payload, job.shown["repeatJobKey"]) == ("beat", {"n": 1}, "tick")
            await job.answer(result=1)
        assert len(set(ids)) == 3
        assert int(await redis.hget(f"{prefix}:q:repeat:tick", "ic") or 0) >= 3
        await queue.close()


# Connections


async def test_many_idle_workers_of_a_queue_wait_on_one_connection(proxy: Gateway, redis: Redis, prefix: str) -> None:
    workers = await asyncio.gather(*(proxy.worker() for _ in range(50)))
    await asyncio.gather(*(worker.nothing_more() for worker in workers))
    name = f"{prefix}:{base64.b64encode(b'q').decode()}"

    async def ours() -> list[Any]:
        return [client for client in await redis.client_list() if client["name"] == name]

    await until(ours, "the waiter is connected")
    assert len(await ours()) == 1
    assert len(await (await proxy.queue()).call("getWorkers")) == 1


async def test_the_waiter_ends_with_the_last_worker(proxy: Gateway, redis: Redis, prefix: str) -> None:
    worker = await proxy.worker()
    name = f"{prefix}:{base64.b64encode(b'q').decode()}"

    async def connected() -> bool:
        return any(client["name"] == name for client in await redis.client_list())

    async def gone() -> bool:
        return not await connected()

    await until(connected, "the waiter is connected")
    await worker.close()
    await until(gone, "the waiter is gone")
