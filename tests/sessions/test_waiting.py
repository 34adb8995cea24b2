"""Waiting for a job to end, and calls in general that may take as long as the client likes."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import EVERYTHING, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.functions.base import CONSUME, Context
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.watching import job_waits
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.under_way import CallLimits
from bullmq_proxy.gateway.wire.envelope import err, ok
from tests.sessions.peer import Gateway, Peer, Refused, down, until
from tests.support.keys import entry, write_keys
from tests.support.link import OPTIONS
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import stretched


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


@pytest.fixture
async def waiting(proxy: Gateway) -> Peer:
    return await proxy.queue()


async def readers(redis: Redis, prefix: str) -> int:
    """How many connections read the queue's events."""
    name = f"{prefix}:{base64.b64encode(b'q').decode()}:qe"
    return sum(client["name"] == name for client in await redis.client_list())


async def calls(redis: Redis, command: str) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def failure(peer: Peer, id: int) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        await peer.reply(id)
    return caught.value.code, caught.value.message


async def looked(peer: Peer) -> None:
    """The waits that were asked for have taken their first look: it is two commands, one after the other."""
    for _ in range(2):
        await peer.nothing_more()


# Ends


async def test_the_return_value_comes_as_it_was_written(proxy: Gateway, queue: Peer, waiting: Peer) -> None:
    worker = await proxy.worker()
    await queue.call("add", "work")
    job = await worker.job()
    id = await waiting.request("waitUntilJobFinished", job.id)
    await waiting.nothing_more()
    value = '{"b": 1.0, "a": 12345678901234567890}'
    await worker.socket.send(f'{{"id":{job.number},"data":{{"result":{value}}}}}')
    assert await waiting.text() == f'{{"id":{id},"data":{{"ok":{value}}}}}'
    await waiting.request("waitUntilJobFinished", job.id)
    assert value in await waiting.text()


async def test_only_the_last_failure_counts(proxy: Gateway, queue: Peer, waiting: Peer) -> None:
    worker = await proxy.worker()
    added = await queue.call("add", "work", {}, {"attempts": 2})
    id = await waiting.request("waitUntilJobFinished", added["id"], 60_000)
    await (await worker.job()).answer(err="once")
    again = await worker.job()
    await waiting.nothing_more()
    await again.answer(err="twice")
    assert await failure(waiting, id) == ("CONFLICT", "twice")
    assert await waiting.refusal("waitUntilJobFinished", added["id"]) == ("CONFLICT", "twice")


async def test_a_job_that_is_removed_when_it_is_completed_is_not_missed(
    proxy: Gateway, queue: Peer, waiting: Peer
) -> None:
    worker = await proxy.worker()
    await queue.call("add", "work", {}, {"removeOnComplete": True})
    job = await worker.job()
    id = await waiting.request("waitUntilJobFinished", job.id)
    await waiting.nothing_more()
    await job.answer(result=1)
    assert await waiting.reply(id) == 1
    code, message = await waiting.refusal("waitUntilJobFinished", job.id)
    assert (code, message) == ("NOT_FOUND", f"Missing key for job {proxy.prefix}:q:{job.id}. isFinished")


async def test_no_end_is_missed_however_close_it_is(proxy: Gateway, queue: Peer, waiting: Peer) -> None:
    worker = await proxy.worker()
    for number in range(30):
        added = await queue.call("add", "work")
        job = await worker.job()
        if number % 2:
            id = await waiting.request("waitUntilJobFinished", added["id"])
            await job.answer(result=number)
        else:
            await job.answer(result=number)
            id = await waiting.request("waitUntilJobFinished", added["id"])
        assert await waiting.reply(id) == number


REMOVALS: dict[str, list[Any]] = {
    "remove": ["j", {"removeChildren": False}],
    "removeJob": ["j"],
    "drain": [],
    "clean": [0, 0, "wait"],
    "obliterate": [{"force": True}],
}


@pytest.mark.parametrize("function", REMOVALS)
async def test_a_wait_ends_when_its_job_is_removed_also_by_another_gateway(
    proxy: Gateway, queue: Peer, waiting: Peer, valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setattr(job_waits, "SETTLE", 0.01)
    async with Gateway(valkey.url, prefix=proxy.prefix) as other:
        await queue.call("add", "work", {}, {"jobId": "j"})
        id = await waiting.request("waitUntilJobFinished", "j", 60_000)
        await looked(waiting)
        await (await other.queue()).call(function, *REMOVALS[function])
        assert await failure(waiting, id) == ("NOT_FOUND", f"Missing key for job {proxy.prefix}:q:j. isFinished")


async def test_a_wait_ends_by_and_by_when_its_job_goes_without_a_word(
    proxy: Gateway, queue: Peer, waiting: Peer, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_waits, "LOOK", 0.05)
    monkeypatch.setattr(job_waits, "SETTLE", 0.01)
    for id in ("a", "b", "c"):
        await queue.call("add", "work", {}, {"jobId": id})
    ids = {id: await waiting.request("waitUntilJobFinished", id) for id in ("a", "b", "c")}
    await looked(waiting)
    await redis.lrem(f"{proxy.prefix}:q:wait", 1, "b")
    await redis.delete(f"{proxy.prefix}:q:b")
    assert (await failure(waiting, ids["b"]))[0] == "NOT_FOUND"
    worker = await proxy.worker(concurrency=3)
    for _ in range(2):
        job = await worker.job()
        await job.answer(result=job.id)
        assert await waiting.reply(ids[job.id]) == job.id


# A job that is added by the same call


async def test_a_job_is_added_and_its_return_value_is_the_reply(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker(concurrency=10)
    for number in range(20):
        options = {"removeOnComplete": True} if number % 2 else {"jobId": f"j{number}"}
        id = await queue.request("addAndWait", "double", {"n": number}, options)
        job = await worker.job()
        assert (job.name, job.payload) == ("double", {"n": number})
        await job.answer(result=2 * number)
        assert await queue.reply(id) == 2 * number


async def test_it_fails_ends_and_is_removed_as_any_that_is_waited_for(proxy: Gateway, queue: Peer) -> None:
    worker = await proxy.worker()
    id = await queue.request("addAndWait", "work")
    await (await worker.job()).answer(err="no")
    assert await failure(queue, id) == ("CONFLICT", "no")
    await worker.pause()
    code, message = await queue.refusal("addAndWait", "work", {}, {"jobId": "j"}, 30)
    assert (code, message[-7:]) == ("TIMEOUT", " (id=j)")
    assert await queue.call("getJobState", "j") == "waiting"
    id = await queue.request("addAndWait", "work", {}, {"jobId": "j"})
    await looked(queue)
    await queue.call("remove", "j")
    assert (await failure(queue, id))[0] == "NOT_FOUND"
    assert (await queue.refusal("addAndWait", "work", {}, {"delay": -1}))[0] == "INVALID_ARGUMENTS"


async def test_one_that_is_there_already_is_waited_for_by_those_who_may_see_it(
    valkey: ValkeyProcess, prefix: str, tmp_path: Path
) -> None:
    keys = [entry("maker", "produce"), entry("seer", "produce", "observe")]
    async with Gateway(valkey.url, prefix=prefix, keys_file=write_keys(tmp_path / "keys.toml", *keys)) as gateway:
        maker, seer = [await gateway.connect("/queue/q", token=name) for name in ("maker", "seer")]
        worker = await gateway.worker()
        own = await maker.request("addAndWait", "work", {}, {"jobId": "j"})
        job = await worker.job()
        code, message = await maker.refusal("addAndWait", "work", {}, {"jobId": "j"})
        assert (code, "needs the permission observe" in message) == ("FORBIDDEN", True)
        others = await seer.request("addAndWait", "work", {}, {"jobId": "j"})
        await seer.nothing_more()
        await job.answer(result="secret")
        assert [await maker.reply(own), await seer.reply(others)] == ["secret", "secret"]


async def test_a_wait_with_a_limit_ends_in_nodes_words(queue: Peer) -> None:
    await queue.call("add", "work")
    start = time.monotonic()
    assert await queue.refusal("waitUntilJobFinished", "1", 200) == (
        "TIMEOUT",
        "Job wait work timed out before finishing, no finish notification arrived after 200ms (id=1)",
    )
    assert 0.2 <= time.monotonic() - start < stretched(2)


@pytest.mark.parametrize("args", [[], [""], [1.5], ["1", -1], ["1", 1.5], ["1", 2**31], ["1", 1, 2]])
async def test_bad_arguments_are_refused(queue: Peer, args: list[Any]) -> None:
    assert (await queue.refusal("waitUntilJobFinished", *args))[0] == "INVALID_ARGUMENTS"


async def test_a_thousand_waits_on_one_connection_cost_one_look_each(
    proxy: Gateway, queue: Peer, waiting: Peer, redis: Redis, prefix: str
) -> None:
    await queue.call("addBulk", [{"name": "work"} for _ in range(10)])
    ends = await calls(redis, "xrevrange")
    looks = await calls(redis, "evalsha")
    ids = [await waiting.request("waitUntilJobFinished", str(number % 10 + 1)) for number in range(1000)]
    await waiting.nothing_more()
    assert await calls(redis, "xrevrange") - ends == 1
    assert await calls(redis, "evalsha") - looks <= 1000 + 50  # one of `nothing_more`, and the signs of life
    assert await readers(redis, prefix) == 1
    worker = await proxy.worker(concurrency=10)
    for _ in range(10):
        job = await worker.job()
        await job.answer(result=int(job.id))
    replies = {message["id"]: message["data"]["ok"] for message in [await waiting.message() for _ in ids]}
    assert replies == {id: number % 10 + 1 for number, id in enumerate(ids)}

    async def nobody_reads() -> bool:
        return await readers(redis, prefix) == 0

    await until(nobody_reads, "the events are read no more")


async def test_a_client_that_goes_leaves_nothing_behind(
    proxy: Gateway, queue: Peer, waiting: Peer, redis: Redis, prefix: str
) -> None:
    await queue.call("add", "work")
    for _ in range(5):
        await waiting.request("waitUntilJobFinished", "1", 60_000)
    await waiting.nothing_more()
    assert await readers(redis, prefix) == 1
    tasks = len(asyncio.all_tasks())
    waiting.vanish()

    async def gone() -> bool:
        return await readers(redis, prefix) == 0 and len(asyncio.all_tasks()) <= tasks - 5

    await until(gone, "nobody reads for it")
    id = await queue.request("waitUntilJobFinished", "1")  # and others wait as before
    job = await queue.call("getNextJob", "token")
    await queue.call("moveJobToCompleted", job["id"], 7, "token")
    assert await answer(queue, id) == 7


async def answer(peer: Peer, id: int) -> Any:
    """The reply to a request, whether it came before others' or is still to come."""
    kept = [message["data"]["ok"] for message in peer.kept() if message["id"] == id]
    return kept[0] if kept else await peer.reply(id)


async def test_a_draining_gateway_sends_those_that_wait_away(queue: Peer, valkey: ValkeyProcess, prefix: str) -> None:
    async with Gateway(valkey.url, prefix=prefix, drain_timeout=30.0) as leaving:
        await queue.call("add", "work")
        waiting = await leaving.queue()
        ids = [await waiting.request("waitUntilJobFinished", "1") for _ in range(3)]
        await waiting.nothing_more()
        stopping = asyncio.create_task(leaving.stop())
        replies = [await waiting.message() for _ in ids]
        assert {reply["id"]: reply["data"]["err"]["code"] for reply in replies} == dict.fromkeys(ids, "SHUTTING_DOWN")
        assert await waiting.closed() == 1001
        await asyncio.wait_for(stopping, 5)


# How much may wait


async def test_those_that_wait_keep_nothing_else_from_being_answered(valkey: ValkeyProcess, prefix: str) -> None:
    async with Gateway(valkey.url, prefix=prefix, max_in_flight=8) as proxy:
        peer = await proxy.queue()
        await peer.call("add", "work")
        for _ in range(8):
            await peer.request("waitUntilJobFinished", "1")
        for _ in range(3):
            assert (await peer.refusal("waitUntilJobFinished", "1"))[0] == "TOO_MANY_REQUESTS"
        for number in range(40):
            await peer.request("add", f"n{number}")
        await (await (await proxy.worker()).job()).answer(result=1)
        await peer.until_state("1", "completed")
        replies = [message["data"]["ok"] for message in peer.kept()]
        while len(replies) < 48:
            replies.append((await peer.data())["ok"])
        assert replies.count(1) == 8


class Client:
    """The other end of a caller: keeps what is sent."""

    write_buffer_size = 0
    is_open = True
    last_heard = 0.0

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, *parts: Any) -> None:
        self.sent.append(json.loads(b"".join(map(bytes, parts))))

    def send_event(self, number: int, data: bytes, id: str) -> None: ...

    def reply(self, id: Any, result: Any) -> None:
        self.send(*((err(id, result),) if isinstance(result, GatewayError) else ok(id, result)))

    def close(self, code: Any, reason: str = "") -> None: ...

    def penalize(self, size: int = 0) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    async def wait_writable(self) -> None: ...


async def test_a_wait_that_is_ended_before_its_first_step_is_answered() -> None:
    table, client = FunctionTable(), Client()

    @table.function(CONSUME, writes=True, waits=True)
    async def for_ever(target: object) -> None:
        await asyncio.get_running_loop().create_future()

    context = Context(Broker(Address(), "bull", OPTIONS, Identity("never started")), Rights(EVERYTHING))
    caller = Caller(table, None, context, client, CallLimits(10, 1000, asyncio.Semaphore(1), Budget()))
    caller.call(b"1", "forEver", [], 1)
    caller.call(b"2", "forEver", [], 1)
    caller.drain()
    caller.call(b"3", "forEver", [], 1)
    await until(_is(lambda: len(client.sent) == 3), "all are answered")
    assert {message["data"]["err"]["code"] for message in client.sent} == {"SHUTTING_DOWN"}
    assert caller.in_flight == 0


def _is(condition: Any) -> Any:
    async def look() -> bool:
        return bool(condition())

    return look


# Redis goes and comes


async def test_an_end_after_a_restart_of_redis_is_not_missed(server: ValkeyProcess, frail: Gateway) -> None:
    waiting, queue = await frail.queue(), await frail.queue()
    await queue.call("add", "work")
    id = await waiting.request("waitUntilJobFinished", "1")
    await looked(waiting)
    server.kill()
    await down(frail)
    server.start()
    await queue.call("getNextJob", "token")
    await queue.call("moveJobToCompleted", "1", "done", "token")
    assert await waiting.reply(id) == "done"


async def test_a_job_that_did_not_survive_the_outage_is_missing(server: ValkeyProcess, frail: Gateway) -> None:
    waiting, queue = await frail.queue(), await frail.queue()
    await queue.call("add", "work")
    id = await waiting.request("waitUntilJobFinished", "1")
    await looked(waiting)
    async with Redis.from_url(server.url) as redis:
        await redis.flushall()
        await redis.client_kill_filter(_type="normal", skipme=True)
    assert await failure(waiting, id) == ("NOT_FOUND", "Missing key for job bull:q:1. isFinished")


async def test_a_wait_that_cannot_look_says_so(server: ValkeyProcess) -> None:
    async with Gateway(server.url, redis_backlog_timeout=0.1) as proxy:
        waiting = await proxy.queue()
        server.kill()
        await down(proxy)
        for args in (("1",), ("1", 60_000)):
            assert (await waiting.refusal("waitUntilJobFinished", *args))[0] == "REDIS_UNAVAILABLE"
        server.start()

        async def up() -> bool:
            return await proxy.metric("redis_up") == 1

        await until(up, "the link is back")
        await waiting.call("add", "work")
        id = await waiting.request("waitUntilJobFinished", "1")
        await waiting.call("getNextJob", "token")
        await waiting.call("moveJobToCompleted", "1", 1, "token")
        assert await answer(waiting, id) == 1
