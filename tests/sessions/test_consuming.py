"""Consuming by hand: what the clients see that take jobs one by one, and the workers whose jobs they move."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Any

import pytest
from bullmq import Queue
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Peer, Refused, down, until
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import stretched

TOKEN = "mine"
LONG = {"block": 60_000}


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


@pytest.fixture
async def caller(proxy: Gateway) -> Peer:
    return await proxy.queue()


async def is_blocked(redis: Redis, prefix: str, queue: str = "q") -> None:
    """Wait until somebody waits for this queue's jobs."""
    name = f"{prefix}:{base64.b64encode(queue.encode()).decode()}"

    async def look() -> bool:
        clients = await redis.client_list()
        return any(client["name"] == name and client["cmd"] == "bzpopmin" for client in clients)

    await until(look, "the shard waits for a job")


async def waiters(redis: Redis, prefix: str, queue: str = "q") -> int:
    name = f"{prefix}:{base64.b64encode(queue.encode()).decode()}"
    return sum(client["name"] == name for client in await redis.client_list())


# Taking


async def test_a_job_is_locked_under_the_callers_token(queue: Peer, redis: Redis, prefix: str) -> None:
    await queue.call("add", "work", {"n": 1.0})
    job = await queue.call("getNextJob", TOKEN, {"lockDuration": 5000})
    assert (job["id"], job["name"], job["token"], job["attemptsStarted"]) == ("1", "work", TOKEN, 1)
    assert await redis.get(f"{prefix}:q:1:lock") == TOKEN
    assert 0 < await redis.pttl(f"{prefix}:q:1:lock") <= 5000
    assert await queue.call("getNextJob", TOKEN) is None
    assert await queue.call("extendJobLock", "1", TOKEN, 60_000) == 1
    assert await redis.pttl(f"{prefix}:q:1:lock") > 50_000
    assert await queue.call("moveJobToCompleted", "1", "done", TOKEN) == []
    assert (await queue.call("getJob", "1"))["returnvalue"] == "done"


async def test_the_lock_is_the_callers_to_renew(queue: Peer, redis: Redis, prefix: str) -> None:
    await queue.call("add", "work")
    await queue.call("getNextJob", TOKEN, {"lockDuration": 500})

    async def gone() -> bool:
        return not await redis.exists(f"{prefix}:q:1:lock")

    await until(gone, "nobody has renewed it")
    assert await queue.call("extendJobLock", "1", TOKEN, 1000) == 0
    assert (await queue.refusal("moveJobToCompleted", "1", 1, TOKEN))[0] == "NOT_LOCKED"


async def test_a_blocked_caller_is_woken_at_once_by_a_new_job(
    queue: Peer, caller: Peer, redis: Redis, prefix: str
) -> None:
    id = await caller.request("getNextJob", TOKEN, LONG)
    await is_blocked(redis, prefix)
    start = time.monotonic()
    await queue.call("add", "work")
    job = await caller.reply(id)
    assert time.monotonic() - start < stretched(1)
    assert (job["name"], job["token"]) == ("work", TOKEN)
    assert await redis.get(f"{prefix}:q:1:lock") == TOKEN
    assert await caller.call("moveJobToFailed", "1", "no luck", TOKEN) == []


async def test_a_blocked_caller_is_woken_when_a_delayed_job_is_due(queue: Peer, caller: Peer) -> None:
    await queue.call("add", "work", {}, {"delay": 400})
    start = time.monotonic()
    job = await caller.call("getNextJob", TOKEN, LONG)
    assert job["name"] == "work"
    assert 0.3 < time.monotonic() - start < stretched(1.5)


async def test_a_blocked_caller_gets_a_job_that_is_there_however_short_it_blocks(queue: Peer) -> None:
    for number in range(20):
        await queue.call("add", f"n{number}")
        assert (await queue.call("getNextJob", TOKEN, {"block": 1}))["name"] == f"n{number}"


async def test_blocking_ends_with_nothing_when_there_is_no_job_in_time(queue: Peer, caller: Peer) -> None:
    start = time.monotonic()
    assert await caller.call("getNextJob", TOKEN, {"block": 300}) is None
    assert 0.3 <= time.monotonic() - start < stretched(2)
    await queue.call("add", "work")
    await queue.nothing_more()
    assert await queue.call("getJobState", "1") == "waiting"


async def test_a_caller_and_a_worker_take_turns(proxy: Gateway, queue: Peer, caller: Peer) -> None:
    worker = await proxy.worker()
    await worker.nothing_more()
    id = await caller.request("getNextJob", TOKEN, LONG)
    await caller.nothing_more()
    await queue.call("addBulk", [{"name": "a"}, {"name": "b"}])
    pushed, taken = await worker.job(), await caller.reply(id)
    assert {pushed.name, taken["name"]} == {"a", "b"}


async def test_many_blocked_callers_share_one_connection_and_no_job_is_handed_out_twice(
    proxy: Gateway, queue: Peer, redis: Redis, prefix: str
) -> None:
    callers = [await proxy.queue() for _ in range(4)]
    asked = [(caller, await caller.request("getNextJob", TOKEN, LONG)) for caller in callers for _ in range(25)]
    await is_blocked(redis, prefix)
    assert await waiters(redis, prefix) == 1
    await queue.call("addBulk", [{"name": f"n{number}"} for number in range(100)])
    replies: dict[Peer, dict[int, Any]] = {caller: {} for caller in callers}
    for caller, _ in asked:
        message = await caller.message()
        replies[caller][message["id"]] = message["data"]["ok"]
    names = [replies[caller][id]["name"] for caller, id in asked]
    assert sorted(names) == sorted(f"n{number}" for number in range(100))
    assert {await redis.get(f"{prefix}:q:{number}:lock") for number in range(1, 101)} == {TOKEN}


async def test_the_connection_that_blocked_callers_share_goes_when_nobody_has_asked_for_a_while(
    caller: Peer, redis: Redis, prefix: str
) -> None:
    for _ in range(3):
        assert await caller.call("getNextJob", TOKEN, {"block": 50}) is None
        assert await waiters(redis, prefix) == 1

    async def gone() -> bool:
        return not await waiters(redis, prefix)

    await until(gone, "the connection is closed")


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(queue: Peer, caller: Peer) -> None:
    await queue.call("add", "work")
    await queue.call("pause")
    assert await queue.call("getNextJob", TOKEN) is None
    id = await caller.request("getNextJob", TOKEN, LONG)
    await caller.nothing_more()
    await queue.call("resume")
    assert (await caller.reply(id))["name"] == "work"


async def test_under_a_global_concurrency_the_next_one_is_woken_when_a_job_is_moved_on(
    queue: Peer, caller: Peer, redis: Redis, prefix: str
) -> None:
    await redis.hset(f"{prefix}:q:meta", "concurrency", 1)
    await queue.call("addBulk", [{"name": "a"}, {"name": "b"}])
    first = await queue.call("getNextJob", "first")
    id = await caller.request("getNextJob", TOKEN, LONG)
    await is_blocked(redis, prefix)
    start = time.monotonic()
    await queue.call("moveJobToCompleted", first["id"], 1, "first")
    assert (await caller.reply(id))["name"] == "b"
    assert time.monotonic() - start < stretched(1)


async def test_a_schedule_goes_on_when_its_jobs_are_taken_by_hand(proxy: Gateway, caller: Peer, redis: Redis) -> None:
    scheduler = Queue("q", {"connection": redis, "prefix": proxy.prefix})
    await scheduler.upsertJobScheduler("tick", {"every": 300}, "beat", {}, {})
    for _ in range(2):
        job = await caller.call("getNextJob", TOKEN, LONG)
        assert job["name"] == "beat"
        await caller.call("moveJobToCompleted", job["id"], 1, TOKEN)
    job = await caller.call("getNextJob", TOKEN, LONG)
    await caller.call("add", "other")
    following = await caller.call("moveJobToCompleted", job["id"], 1, TOKEN, True)
    assert following[0]["name"] in ("other", "beat")
    await scheduler.close()


async def test_a_job_that_has_failed_already_is_handed_out_with_the_reason(
    queue: Peer, caller: Peer, redis: Redis, prefix: str
) -> None:
    for block in (0, 60_000):
        added = await queue.call("add", "work")
        await redis.hset(f"{prefix}:q:{added['id']}", "defa", "why")
        assert (await caller.call("getNextJob", TOKEN, {"block": block}))["deferredFailure"] == "why"


async def test_a_job_that_is_no_json_is_handed_out_as_a_text(queue: Peer, redis: Redis, prefix: str) -> None:
    added = await queue.call("add", "work")
    await redis.hset(f"{prefix}:q:{added['id']}", mapping={"opts": "broken", "data": "{broken"})
    assert (await queue.call("getNextJob", TOKEN))["data"] == "{broken"


@pytest.mark.parametrize(
    ("fn", "args", "place"),
    [
        ("getNextJob", [], "args"),
        ("getNextJob", [""], "args[0]"),
        ("getNextJob", ["0"], "args[0]"),
        ("getNextJob", [None], "args[0]"),
        ("getNextJob", ["x" * 1001], "args[0]"),
        ("getNextJob", [TOKEN, {"block": -1}], "args[1].block"),
        ("getNextJob", [TOKEN, {"block": True}], "args[1].block"),
        ("getNextJob", [TOKEN, {"block": 3_600_001}], "args[1].block"),
        ("getNextJob", [TOKEN, {"lockDuration": 0}], "args[1].lockDuration"),
        ("getNextJob", [TOKEN, {"lockduration": 1000}], "args[1]"),
        ("moveJobToCompleted", ["1", 1], "args"),
        ("moveJobToCompleted", ["1", 1, "0"], "args[2]"),
        ("moveJobToCompleted", ["1", 1, TOKEN, 1], "args[3]"),
        ("moveJobToFailed", ["1", "no luck", "0"], "args[2]"),
        ("moveJobToDelayed", ["1", -1, TOKEN], "args[1]"),
        ("moveJobToDelayed", ["1", 1, "0"], "args[2]"),
        ("moveJobToWait", ["1", "0"], "args[1]"),
        ("moveJobToWaitingChildren", ["1", "0"], "args[1]"),
        ("moveJobToWaitingChildren", ["1", TOKEN, {"child": {"id": "2"}}], "args[2].child"),
        ("extendJobLock", ["1", TOKEN, 0], "args[2]"),
        ("extendJobLock", ["1", TOKEN, 1.5], "args[2]"),
    ],
)
async def test_bad_arguments_are_refused_with_their_place(queue: Peer, fn: str, args: list[Any], place: str) -> None:
    code, message = await queue.refusal(fn, *args)
    assert code == "INVALID_ARGUMENTS"
    assert f"`{place}`" in message


# Callers that go


async def test_a_caller_that_goes_while_it_is_blocked_leaves_nothing_behind(
    proxy: Gateway, queue: Peer, redis: Redis, prefix: str
) -> None:
    leaving = await proxy.queue()
    for _ in range(3):
        await leaving.request("getNextJob", TOKEN, LONG)
    await is_blocked(redis, prefix)
    leaving.vanish()

    async def gone() -> bool:
        return await proxy.metric("connections") == 1

    await until(gone, "the gateway has noticed")
    await queue.call("add", "work")
    await queue.nothing_more()
    assert await queue.call("getJobState", "1") == "waiting"
    assert (await queue.call("getNextJob", "other"))["attemptsStarted"] == 1


async def test_a_job_that_is_fetched_while_its_caller_goes_is_first_in_line_again_and_not_charged(
    proxy: Gateway, queue: Peer
) -> None:
    for number in range(20):
        leaving = await proxy.queue()
        await leaving.request("getNextJob", TOKEN, LONG)
        await leaving.nothing_more()
        ids = [await queue.request("add", f"n{number}"), await queue.request("add", "behind")]
        for _ in range(number % 5):  # meets the fetch in all its stages
            await asyncio.sleep(0)
        leaving.vanish()
        for id in ids:
            await queue.reply(id)

    async def settled() -> bool:
        counts: dict[str, int] = await queue.call("getJobCounts")
        # What was sent out before the gateway could know stays locked: that is the client's loss of a reply.
        return counts["active"] + counts["waiting"] == 40 and await proxy.metric("connections") == 1

    await until(settled, "no job is lost")
    jobs = await queue.call("getJobs", ["waiting"], 0, -1, True)
    assert all((job["attemptsMade"], job["stalledCounter"]) == (0, 0) for job in jobs)


async def test_a_draining_shard_sends_blocked_callers_away_and_keeps_no_job(
    proxy: Gateway, queue: Peer, valkey: ValkeyProcess, redis: Redis, prefix: str
) -> None:
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=5.0) as leaving:
        caller, worker = await leaving.queue(), await leaving.worker()
        await queue.call("add", "held")
        job = await worker.job()
        blocked = [await caller.request("getNextJob", TOKEN, LONG) for _ in range(3)]
        await caller.nothing_more()
        adding = [await queue.request("add", f"n{number}") for number in range(3)]
        stopping = asyncio.create_task(leaving.stop())
        for _ in blocked:
            data = await caller.data()
            assert data.get("err", {}).get("code") == "SHUTTING_DOWN" or data["ok"]["token"] == TOKEN
        assert await caller.closed() == 1001
        assert (await worker.data())["type"] == "drain"
        for fn, *args in (("getNextJob", TOKEN, LONG), ("getNextJob", TOKEN), ("waitUntilJobFinished", job.id)):
            assert (await worker.refusal(fn, *args))[0] == "SHUTTING_DOWN"
        await job.answer(result=1)
        await stopping
        for id in adding:
            await queue.reply(id)

    async def all_accounted_for() -> bool:
        waiting = await queue.call("getWaiting")
        locks = [await redis.get(f"{prefix}:q:{active['id']}:lock") for active in await queue.call("getActive")]
        return len(waiting) + len(locks) == 3 and set(locks) <= {TOKEN}

    await until(all_accounted_for, "what was not handed out is back")


# Jobs that a worker holds


MOVES: list[tuple[str, list[Any], str]] = [
    ("moveJobToCompleted", ["by hand"], "completed"),
    ("moveJobToFailed", ["no luck"], "failed"),
    ("moveJobToDelayed", [4_102_444_800_000], "delayed"),
    ("moveJobToWait", [], "waiting"),
]


@pytest.mark.parametrize(("fn", "args", "state"), MOVES)
@pytest.mark.parametrize("from_where", ["elsewhere", "the same connection"])
async def test_a_job_that_is_moved_by_its_token_is_settled_for_its_worker(
    proxy: Gateway, queue: Peer, fn: str, args: list[Any], state: str, from_where: str
) -> None:
    worker = await proxy.worker(ackTimeout=700)
    await queue.call("addBulk", [{"name": "first"}, {"name": "second"}])
    job = await worker.job()
    mover = queue if from_where == "elsewhere" else worker
    if state == "waiting":
        await queue.call("pause")  # it would be pushed again at once
    id = await mover.request(fn, job.id, *args, job.shown["token"])
    if from_where == "elsewhere":
        await mover.reply(id)
    else:
        assert "ok" in (await worker.message())["data"]
    await queue.until_state(job.id, state)
    await queue.call("resume")
    following = await worker.job()  # no `cancel` before it
    assert following.name == ("first" if state == "waiting" else "second")
    await following.answer(type="ack")
    await job.answer(result="too late")
    late = await worker.message()
    assert (late["id"], late["data"]["type"], late["data"]["err"]["code"]) == (job.number, "lost", "NOT_FOUND")
    ends = time.monotonic() + 0.8

    async def passed() -> bool:
        return time.monotonic() > ends

    await until(passed, "the time for an `ack` is over")
    await worker.nothing_more()


async def test_a_worker_keeps_a_job_that_has_no_children_to_wait_for(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker()
    await queue.call("add", "work")
    job = await worker.job()
    token = job.shown["token"]
    assert await queue.call("moveJobToWaitingChildren", job.id, token) is False
    child = await queue.call("add", "child", {}, {"parent": {"id": job.id, "queue": f"{proxy.prefix}:q"}})
    assert (await queue.refusal("moveJobToCompleted", job.id, 1, token))[0] == "CONFLICT"
    assert (await queue.refusal("moveJobToCompleted", job.id, 1, "wrong"))[0] == "CONFLICT"
    opts = {"child": {"id": child["id"], "queue": f"{proxy.prefix}:q"}}
    assert await queue.call("moveJobToWaitingChildren", job.id, token, opts) is True
    following = await worker.job()
    assert following.id == child["id"]
    await following.answer(result=1)
    again = await worker.job()
    assert again.id == job.id
    await again.answer(result=1)
    await queue.until_state(job.id, "completed")


async def test_the_next_job_of_a_workers_token_is_pushed_and_not_fetched(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker()
    await queue.call("add", "work")
    token = (await worker.job()).shown["token"]
    for fn, *args in (
        ("getNextJob", token),
        ("moveJobToCompleted", "1", 1, token, True),
        ("moveJobToFailed", "1", 1, token, True),
    ):
        assert (await queue.refusal(fn, *args))[0] == "INVALID_ARGUMENTS"
    assert await queue.call("getJobState", "1") == "active"


async def test_a_worker_of_another_shard_that_answers_a_moved_job_has_lost_it(
    proxy: Gateway, queue: Peer, valkey: ValkeyProcess, prefix: str
) -> None:
    async with Gateway(valkey.url, prefix=prefix) as other:
        worker = await other.worker(confirm=1)
        await queue.call("add", "work")
        job = await worker.job()
        await queue.call("moveJobToFailed", job.id, {"message": "by hand", "unrecoverable": True}, job.shown["token"])
        await job.answer(result="too late")
        data = await worker.data()
        assert data["type"] == "lost"
        assert data["err"]["code"] in ("NOT_FOUND", "NOT_LOCKED")  # its shard has been told of the move, or not yet
        assert (await queue.call("getJob", job.id))["failedReason"] == "by hand"


# Redis goes and comes


async def test_a_blocked_caller_waits_on_while_redis_restarts(server: ValkeyProcess, frail: Gateway) -> None:
    caller, queue = await frail.queue(), await frail.queue()
    id = await caller.request("getNextJob", TOKEN, LONG)
    await caller.nothing_more()
    server.kill()
    await down(frail)
    server.start()
    await queue.call("add", "work")
    job = await caller.reply(id)
    assert (job["name"], job["attemptsStarted"]) == ("work", 1)
    assert await caller.call("moveJobToCompleted", job["id"], 1, TOKEN) == []


async def test_blocking_that_ends_while_redis_is_away_says_so(server: ValkeyProcess, frail: Gateway) -> None:
    caller = await frail.queue()
    id = await caller.request("getNextJob", TOKEN, {"block": 1500})
    await caller.nothing_more()
    server.kill()
    with pytest.raises(Refused) as caught:
        await caller.reply(id)
    assert caught.value.code == "REDIS_UNAVAILABLE"


@pytest.mark.parametrize("block", [0, 60_000])
async def test_a_job_whose_fetch_was_executed_but_never_answered_is_there_for_the_next(
    server: ValkeyProcess, frail: Gateway, block: int
) -> None:
    caller = await frail.queue()
    await caller.call("add", "work")
    server.freeze()
    id = await caller.request("getNextJob", TOKEN, {"block": block})
    with pytest.raises(Refused) as caught:
        await caller.reply(id)
    assert caught.value.code == "REDIS_UNAVAILABLE"
    server.thaw()
    job = await caller.call("getNextJob", "other", LONG)
    assert (job["id"], job["attemptsMade"], job["stalledCounter"]) == ("1", 0, 0)
    assert await caller.call("moveJobToCompleted", "1", 1, "other") == []


async def test_an_answer_that_is_sent_again_does_not_take_a_move_by_hand_for_its_own(
    server: ValkeyProcess, frail: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.broker.consuming.settling._FIRST_PAUSE", 1.5)
    worker, queue = await frail.worker(confirm=1), await frail.queue()
    await queue.call("add", "work")
    job = await worker.job()
    server.freeze()
    await job.answer(result="sent, and never executed")
    await down(frail)
    server.kill()
    server.start()
    await queue.call("moveJobToFailed", job.id, {"message": "by hand", "unrecoverable": True}, job.shown["token"])
    data = await worker.data()
    assert (data["type"], data["err"]["code"]) == ("lost", "NOT_LOCKED")
    assert (await queue.call("getJob", job.id))["failedReason"] == "by hand"
    await queue.call("add", "next")
    assert (await worker.job()).name == "next"
