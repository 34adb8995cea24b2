"""Calls that go through much: no single command holds Redis for long, no call holds the gateway, and results end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Grant, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.functions.base import CONSUME, OBSERVE, Context
from bullmq_proxy.gateway.broker.functions.managing import AT_A_TIME
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.under_way import CallLimits
from bullmq_proxy.gateway.wire.envelope import err, ok
from tests.sessions.peer import Gateway, Peer, Refused, down, until
from tests.support.link import OPTIONS
from tests.support.valkey import ValkeyProcess

MANY = 800
OBSERVER = Grant("observer", frozenset({CONSUME, OBSERVE}), ("*",))


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


@asynccontextmanager
async def watched(redis: Redis) -> AsyncIterator[list[list[str]]]:
    """The words of all commands that Redis gets meanwhile, scripts' own left out; complete at the end."""
    seen: list[list[str]] = []

    async def read(monitor: Any, begun: asyncio.Event) -> None:
        begun.set()
        while True:
            command = await monitor.next_command()
            if "the end" in command["command"]:
                return
            if command["client_type"] != "lua":
                seen.append(command["command"].split(" "))

    async with redis.monitor() as monitor:
        begun = asyncio.Event()
        reading = asyncio.create_task(read(monitor, begun))
        await begun.wait()
        yield seen
        await redis.echo("the end")
        await reading


def calls(seen: list[list[str]], script: str) -> list[list[str]]:
    """ARGV of the calls of a script that has one key."""
    return [words[4:] for words in seen if words[:2] == ["EVALSHA", sha_of(script_texts()[script])]]


# Reading


async def fill(redis: Redis, prefix: str, many: int = MANY) -> None:
    """So many jobs in each of some states, a hash of each kind, and here and there one that is gone."""
    base = f"{prefix}:q:"
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(many):
            for type in ("wait", "active", "delayed", "completed"):
                id = f"{type}{number}"
                if type in ("wait", "active"):
                    pipe.lpush(f"{base}{type}", id)
                else:
                    pipe.zadd(f"{base}{type}", {id: number})
                if number % 5 and not many * 3 // 8 < number < many // 2:
                    pipe.hset(f"{base}{id}", mapping={"name": id, "data": "{}"})
        pipe.lpush(f"{base}wait", "active7", "delayed8")  # in two states, as no job should be
        await pipe.execute()


RANGES = (  # of 160 jobs, read in pages of 100
    (0, -1),
    (0, 2**53 - 1),
    (0, 199),
    (0, 119),
    (0, 99),
    (40, 144),
    (30, 156),
    (158, 600),
    (-140, -1),
    (-1999, 140),
    (3, -4),
    (-124, 158),
    (-5, -60),
    (1000, 1200),
    (0, 19),
    (10, 3),
)


async def test_a_large_range_is_what_bullmq_gives_in_one_go(
    queue: Peer, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.broker.jobs.replies._PAGE", 100)
    await fill(redis, prefix, 160)
    types = ["delayed", "wait", "completed", "active"]
    for start, end in RANGES:
        for asc in (False, True):
            for some in (types, types[1:2]):
                args = [f"{prefix}:q:", start, end, "1" if asc else "0", 5, *some]
                found = await redis.eval(script_texts()["getJobs"], 1, *args)
                ids = list(dict.fromkeys(id for jobs in found for id, _ in jobs))
                shown = [job["id"] for job in await queue.call("getJobs", some, start, end, asc)]
                assert shown == ids, (start, end, asc, some)
    assert [job["name"] for job in await queue.call("getCompleted", 0, 140)][:2] == ["completed159", "completed158"]


async def test_no_call_of_a_script_reads_more_than_a_page_of_jobs(queue: Peer, redis: Redis, prefix: str) -> None:
    await fill(redis, prefix)
    async with watched(redis) as seen:
        await queue.call("getJobs", ["wait", "completed"])
        await queue.call("getActive", 0, 700)
    assert calls(seen, "getJobs") == []
    pages = calls(seen, "readJobs")
    assert len(pages) >= 6
    assert max(map(len, pages)) <= 1 + 500


async def test_a_call_of_a_script_reads_some_mib_at_most(queue: Peer, redis: Redis, prefix: str) -> None:
    await redis.lpush(f"{prefix}:q:wait", *range(501))
    for id in range(12):
        await redis.hset(f"{prefix}:q:{id}", "data", json.dumps("x" * 2**20))
    async with watched(redis) as seen:
        jobs = await queue.call("getWaiting", timeout=30)
    assert [job["id"] for job in jobs] == [str(id) for id in range(12)]
    assert len(calls(seen, "readJobs")) >= 12


@pytest.mark.parametrize("count", [10, 600])
async def test_jobs_that_are_too_large_together_are_refused(
    queue: Peer, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.broker.jobs.replies.MOST_BYTES", 2**20)
    await queue.call("add", "mother", {}, {"jobId": "mother", "delay": 9999})
    parent = {"id": "mother", "queue": f"{prefix}:q"}
    data = "x" * (2**20 // count)
    for _ in range(2):  # as much as fits into a message
        await queue.call(
            "addBulk", [{"name": "a", "data": data, "opts": {"parent": parent}} for _ in range(count // 2)]
        )
    message = "The reply would have more than 1 MiB: ask for fewer, by `start` and `end`"
    for args in (["getJobs"], ["getWaiting"], ["getDependencies", "mother", "pending", 0, -1]):
        assert await queue.refusal(*args) == ("INVALID_ARGUMENTS", message)
    half = count // 2
    assert len(await queue.call("getWaiting", 0, half)) == half + 1


async def test_many_job_schedulers_are_read_in_their_order(queue: Peer, redis: Redis, prefix: str) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(450):
            pipe.zadd(f"{prefix}:q:repeat", {f"s{number:03}": number})
            pipe.hset(f"{prefix}:q:repeat:s{number:03}", mapping={"name": f"s{number:03}", "every": "1000"})
        await pipe.execute()
    found = await queue.call("getJobSchedulers", 0, -1, True)
    assert [scheduler["key"] for scheduler in found] == [f"s{number:03}" for number in range(450)]


# Changing


async def test_no_call_of_a_script_moves_more_than_a_few_hundred(queue: Peer, redis: Redis) -> None:
    await queue.call("add", "a", {}, {"delay": 60_000})
    async with watched(redis) as seen:
        await queue.call("promoteJobs", {"count": 2**53 - 1})
        await queue.call("retryJobs", {"count": AT_A_TIME + 1})
        await queue.call("retryJobs", {"count": AT_A_TIME - 1})
        await queue.call("obliterate", {"count": 2**40})
    words = [word for command in seen for word in command]
    assert (words.count(str(AT_A_TIME)), words.count(str(AT_A_TIME - 1))) == (3, 1)
    assert await queue.call("getJobCounts", "waiting", "delayed") == {"waiting": 0, "delayed": 0}


async def test_a_sweep_ends_with_its_connection(server: ValkeyProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.broker.functions.managing.AT_A_TIME", 1)
    async with Gateway(server.url) as proxy, Redis.from_url(server.url, decode_responses=True) as redis:
        await redis.zadd("bull:q:completed", {str(number): number for number in range(100)})
        queue = await proxy.queue()
        await queue.call("count")
        server.freeze()
        await queue.request("clean", 0, 0)
        await queue.close()

        async def gone() -> bool:
            return await proxy.metric("connections") == 0

        await until(gone, "the connection has ended")
        server.thaw()
        other = await proxy.queue()
        await other.call("add", "a")  # behind the script that was on its way
        assert await redis.zcard("bull:q:completed") == 99


# Adding


async def test_a_large_bulk_is_added_in_its_order_and_before_what_comes_behind(queue: Peer) -> None:
    bulk = await queue.request("addBulk", [{"name": f"n{n}"} for n in range(2500)])
    single = await queue.request("add", "behind")
    count = await queue.request("getJobCounts", "waiting")
    jobs = await queue.reply(bulk)
    assert [(job["id"], job["name"]) for job in jobs] == [(str(n + 1), f"n{n}") for n in range(2500)]
    assert (await queue.reply(single))["id"] == "2501"
    assert await queue.reply(count) == {"waiting": 2501}


async def test_others_have_their_turn_while_a_large_bulk_is_added(proxy: Gateway, queue: Peer) -> None:
    other = await proxy.queue()
    bulk = await queue.request("addBulk", [{"name": "a"} for _ in range(10_000)])
    ids = [int((await other.call("add", "other"))["id"]) for _ in range(3)]
    assert len(await queue.reply(bulk, timeout=30)) == 10_000
    assert min(ids) < 10_000


async def test_a_large_bulk_is_checked_before_any_of_it_is_stored(queue: Peer) -> None:
    jobs: list[dict[str, Any]] = [{"name": "a"} for _ in range(2500)]
    jobs[2400]["opts"] = {"delai": 5}
    bulk, single = await queue.request("addBulk", jobs), await queue.request("add", "behind")
    message = "Unknown option `delai`, did you mean `delay`? - at `args[0][2400].opts`"
    refused = await queue.message()
    assert (refused["id"], refused["data"]["err"]["message"]) == (bulk, message)
    assert (await queue.reply(single))["id"] == "1"


async def test_a_large_bulk_that_loses_redis_on_the_way_ends_there(server: ValkeyProcess, frail: Gateway) -> None:
    queue = await frail.queue()
    bulk, single = await queue.request("addBulk", [{"name": f"n{n}"} for n in range(40_000)]), None
    async with Redis.from_url(server.url, decode_responses=True) as redis:
        while not await redis.llen("bull:q:wait"):
            pass
    server.kill()
    await down(frail)
    single = await queue.request("add", "behind")
    server.start()
    with pytest.raises(Refused) as caught:
        await queue.reply(bulk)
    assert caught.value.code == "OUTCOME_UNKNOWN"
    assert (await queue.reply(single))["name"] == "behind"
    *names, last = [job["name"] for job in await queue.call("getWaiting", timeout=30)]
    assert 0 < len(names) < 40_000
    assert (names, last) == ([f"n{n}" for n in range(len(names))], "behind")


async def test_a_call_adds_500_jobs_of_flows_at_most(proxy: Gateway, redis: Redis, prefix: str) -> None:
    flows = await proxy.connect("/flows")
    leaf = {"name": "a", "queueName": "q"}
    refused = (
        "INVALID_ARGUMENTS",
        "There are more than 500 jobs: add fewer flows in a call, or smaller ones - at `args[0]`",
    )
    assert await flows.refusal("add", {**leaf, "children": [leaf] * 500}) == refused
    assert await flows.refusal("addBulk", [leaf] * 501) == refused
    assert await redis.keys(f"{prefix}:[^{{]*") == []
    assert len((await flows.call("add", {**leaf, "children": [leaf] * 499}))["children"]) == 499


# All connections together


class Client:
    """The other end of a caller: keeps what is sent."""

    is_open = True
    last_heard = 0.0

    def __init__(self) -> None:
        self.write_buffer_size = 0
        self.has_read = asyncio.Event()
        self.sent: list[Any] = []

    def send(self, *parts: Any) -> None:
        self.sent.append(json.loads(b"".join(map(bytes, parts)))["data"])

    def send_event(self, number: int, data: bytes, id: str) -> None: ...

    def reply(self, id: Any, result: Any) -> None:
        self.send(*((err(id, result),) if isinstance(result, GatewayError) else ok(id, result)))

    def close(self, code: Any, reason: str = "") -> None: ...

    def penalize(self, size: int = 0) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    async def wait_writable(self) -> None:
        await self.has_read.wait()


class Shard:
    """Callers that share three places, and a function that ends when the test says so."""

    def __init__(self) -> None:
        self.table = FunctionTable()
        self.running: dict[str, asyncio.Event] = {}
        self.heavy = asyncio.Semaphore(3)
        self._broker = Broker(Address(), "bull", OPTIONS, Identity("never started"))

        @self.table.function(OBSERVE, writes=False, heavy=True)
        async def read(target: object, name: str) -> None:
            self.running[name] = asyncio.Event()
            try:
                await self.running[name].wait()
            finally:
                del self.running[name]

        self.table.function(OBSERVE, writes=False, name="look")(read)
        self.table.function(OBSERVE, writes=True, name="write", heavy=True)(read)
        self.table.function(OBSERVE, writes=False, name="wait", waits=True)(read)

        @self.table.direct(OBSERVE, writes=False, packs=False, result=str)
        def hot(target: object, *, sink: Sink) -> None:
            sink(b'"hot"')

    def caller(self, rights: Rights | None = None) -> tuple[Caller, Client]:
        client = Client()
        context = Context(self._broker, rights or Rights(OBSERVER))
        return Caller(self.table, None, context, client, CallLimits(100, 10_000, self.heavy, Budget())), client

    async def runs(self, *names: str) -> None:
        async def look() -> bool:
            return sorted(self.running) == sorted(names)

        await until(look, f"these run: {names}")
        await asyncio.sleep(0)  # another turn starts no more
        assert sorted(self.running) == sorted(names)


def call(caller: Caller, fn: str, *args: str) -> None:
    caller.call(b"1", fn, [Raw(json.dumps(arg).encode()) for arg in args], sum(map(len, args)))


async def test_heavy_calls_of_all_connections_take_turns_in_the_order_in_which_they_came() -> None:
    shard = Shard()
    (first, _), (second, _), (third, client) = shard.caller(), shard.caller(), shard.caller()
    for name in ("a1", "a2", "a3", "a4"):
        call(first, "read", name)
    await shard.runs("a1", "a2", "a3")
    call(second, "read", "b1")
    call(third, "read", "c1")
    second.close()  # what waits is dropped, and no place is kept for it
    await shard.runs("a1", "a2", "a3")
    shard.running["a2"].set()
    await shard.runs("a1", "a3", "a4")
    shard.running["a1"].set()
    await shard.runs("a3", "a4", "c1")
    shard.running["c1"].set()
    await until(_is(lambda: client.sent == [{"ok": None}]), "it is answered")
    await shard.runs("a3", "a4")
    call(second, "read", "b2")
    await shard.runs("a3", "a4", "b2")
    for name in ("a3", "a4", "b2"):
        shard.running[name].set()
    await shard.runs()
    for name in ("d1", "d2", "d3", "d4"):
        call(third, "read", name)
    await shard.runs("d1", "d2", "d3")  # no place was lost
    for name in ("d1", "d2", "d3"):
        shard.running[name].set()
    await shard.runs("d4")
    shard.running["d4"].set()
    await shard.runs()


async def test_what_may_not_be_called_any_more_at_its_turn_takes_no_place() -> None:
    shard = Shard()
    rights = Rights(OBSERVER)
    (first, _), (second, client), (third, _) = shard.caller(), shard.caller(rights), shard.caller()
    for name in ("a1", "a2", "a3"):
        call(first, "read", name)
    await shard.runs("a1", "a2", "a3")
    call(second, "read", "b1")
    call(second, "read", "b2")
    call(third, "read", "c1")
    rights.change(Grant("observer"))
    shard.running["a1"].set()
    await shard.runs("a2", "a3", "c1")
    assert [data["err"]["code"] for data in client.sent] == ["FORBIDDEN", "FORBIDDEN"]
    rights.change(OBSERVER)
    call(second, "read", "b3")
    shard.running["a2"].set()
    await shard.runs("a3", "b3", "c1")
    for name in ("a3", "b3", "c1"):
        shard.running[name].set()
    await shard.runs()


async def test_who_goes_leaves_the_places_of_what_only_reads() -> None:
    shard = Shard()
    (first, _), (second, _) = shard.caller(), shard.caller()
    call(first, "read", "a1")
    call(first, "write", "a2")
    call(first, "read", "a3")
    await shard.runs("a1", "a2", "a3")
    call(second, "read", "b1")
    first.close()
    await shard.runs("a2", "b1")
    assert first.in_flight == 1
    shard.running["a2"].set()
    await shard.runs("b1")
    assert first.in_flight == 0
    for name in ("b2", "b3"):
        call(second, "read", name)
    await shard.runs("b1", "b2", "b3")  # no place was lost
    for name in ("b1", "b2", "b3"):
        shard.running[name].set()
    await shard.runs()


async def test_a_client_that_does_not_read_its_replies_leaves_its_place_to_the_next() -> None:
    shard = Shard()
    (first, _), (second, client), (third, _) = shard.caller(), shard.caller(), shard.caller()
    for name in ("a1", "a2", "a3"):
        call(first, "read", name)
    await shard.runs("a1", "a2", "a3")
    call(second, "read", "b1")
    call(third, "read", "c1")
    client.write_buffer_size = 10_000
    client.has_read = asyncio.Event()
    shard.running["a1"].set()
    await shard.runs("a2", "a3", "c1")
    client.write_buffer_size = 0
    client.has_read.set()
    shard.running["a2"].set()
    await shard.runs("a3", "b1", "c1")
    for name in ("a3", "b1", "c1"):
        shard.running[name].set()
    await shard.runs()


async def test_hot_calls_light_ones_and_those_that_wait_pass_by_the_gate() -> None:
    shard = Shard()
    (first, _), (second, client) = shard.caller(), shard.caller()
    for name in ("a1", "a2", "a3", "a4"):
        call(first, "read", name)
    await shard.runs("a1", "a2", "a3")
    call(second, "hot")
    assert client.sent == [{"ok": "hot"}]
    call(second, "wait", "w")
    call(second, "look", "t")
    call(second, "read", "b1")
    await shard.runs("a1", "a2", "a3", "w", "t")
    for name in ("w", "t"):
        shard.running[name].set()  # none of them leaves a place that it did not take
    await shard.runs("a1", "a2", "a3")
    for name in ("a1", "a2"):
        shard.running[name].set()
    await shard.runs("a3", "a4", "b1")
    for name in ("a3", "a4", "b1"):
        shard.running[name].set()
    await shard.runs()


def _is(condition: Any) -> Any:
    async def look() -> bool:
        return bool(condition())

    return look
