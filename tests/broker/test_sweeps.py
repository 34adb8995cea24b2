"""Sweeps in slices leave in Redis what BullMQ's scripts leave, which do all at once; and families go some at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, cast

import pytest
from msgspec import Raw
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import EVERYTHING, Grant, Permission, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.leases import Consumer, Holder
from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.consuming.stalled import StalledChecker, check_stalled
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.families import remove_job_unprocessed_children
from bullmq_proxy.gateway.broker.functions.managing import RemoveOptions, clean, drain, remove
from bullmq_proxy.gateway.broker.jobs.moves import load_job
from bullmq_proxy.gateway.broker.redis.scripts import script_texts
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions
from tests.sessions.peer import until

MANY = 40
NOW = 1_700_000_000_000
STATES = ("wait", "paused", "active", "delayed", "prioritized", "completed", "failed")
LISTS = ("wait", "paused", "active")


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.broker.functions.managing.AT_A_TIME", 3)
    monkeypatch.setattr("bullmq_proxy.gateway.broker.functions.families._BUDGET", 2500)


_READ: Final[dict[str, tuple[Any, ...]]] = {
    "hash": ("HGETALL",),
    "list": ("LRANGE", 0, -1),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    "string": ("GET",),
}


async def keyspace(redis: Redis, base: str) -> Any:
    """All keys of a queue but its events, the base cut off wherever it stands."""
    keys = await redis.keys(f"{base}*")
    async with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.type(key)
        types = await pipe.execute()
        read = [(key, _READ[type]) for key, type in zip(keys, types, strict=True) if type in _READ]
        for key, (command, *rest) in read:
            pipe.execute_command(command, key, *rest)
        values = await pipe.execute()
    found = {
        key: sorted(value) if isinstance(value, set) else value for (key, _), value in zip(read, values, strict=True)
    }
    return eval(repr(found).replace(base, "BASE:"))


async def events(redis: Any, base: str) -> list[dict[str, str]]:
    return [fields for _, fields in await redis.xrange(f"{base}events")]


async def fill(redis: Redis, base: str) -> None:
    """Jobs of each state: old and young ones, ids without a hash, held ones, a scheduler's, with deduplication."""
    pipe = redis.pipeline(transaction=False)
    for state in STATES:
        for number in range(MANY):
            id = f"{state}{number}"
            fields: dict[Any, Any] = {
                "name": "a",
                "data": "{}",
                "timestamp": str(NOW + number % 7),
                "finishedOn": str(NOW + number % 7),
            }
            if number % 11 == 3:
                fields |= {"deid": id}
                pipe.set(f"{base}de:{id}", id)
            if number in (5, 6, 7, 20):
                id = f"repeat:{id}:{NOW}"
                fields |= {"rjk": f"{state}{number}"}
                pipe.zadd(f"{base}repeat", {f"{state}{number}": NOW})
            if number % 9 == 1:
                pipe.set(f"{base}{id}:lock", "token")
            if number % 10 != 4:
                pipe.hset(f"{base}{id}", mapping=fields)
            if state in LISTS:
                pipe.lpush(f"{base}{state}", id)
            else:
                pipe.zadd(f"{base}{state}", {id: fields["finishedOn"]})
    await pipe.execute()


async def fill_both(redis: Redis, theirs: str, ours: str) -> None:
    """Two queues with the same jobs."""
    await fill(redis, theirs)
    copy = """
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
      redis.call('COPY', key, ARGV[2] .. string.sub(key, #ARGV[1] + 1))
    end
    """
    await redis.eval(copy, 0, theirs, ours)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("limit", [0, 1, 7, 30])
@pytest.mark.parametrize("state", STATES)
async def test_cleaning_in_slices_is_cleaning_at_once(
    broker: Broker, redis: Redis, prefix: str, state: Any, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = NOW + 4
    monkeypatch.setattr("bullmq_proxy.gateway.broker.functions.managing.now_ms", lambda: before)
    theirs, ours = f"{prefix}:theirs:", f"{prefix}:ours:"
    await fill_both(redis, theirs, ours)
    keys = [f"{theirs}{state}", f"{theirs}events", f"{theirs}repeat"]
    text = script_texts()["cleanJobsInSet"]
    removed: list[str] = []
    while True:  # as Node's `clean`
        most = min(10_000, limit - len(removed)) if limit else 10_000
        ids = await redis.eval(text, 3, *keys, theirs, before, most, state)
        removed += ids
        if len(ids) < most or (limit and len(removed) >= limit):
            break
    found = await clean(broker.queue("ours"), 0, limit, state, context=Context(broker, Rights(EVERYTHING)))
    assert found == removed
    assert await keyspace(redis, ours) == await keyspace(redis, theirs)
    assert await events(redis, ours) == await events(redis, theirs)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("delayed", [False, True])
async def test_draining_in_slices_is_draining_at_once(broker: Broker, redis: Redis, prefix: str, delayed: bool) -> None:
    theirs, ours = f"{prefix}:theirs:", f"{prefix}:ours:"
    await fill_both(redis, theirs, ours)
    for base in (theirs, ours):
        for state in ("wait", "paused"):  # BullMQ's script takes other jobs out of a list than it removes
            await redis.ltrim(f"{base}{state}", 0, 18)
    keys = [f"{theirs}{name}" for name in ("wait", "paused", "delayed", "prioritized", "repeat")]
    await redis.eval(script_texts()["drain"], 5, *keys, theirs, "1" if delayed else "0")
    await drain(broker.queue("ours"), delayed, context=Context(broker, Rights(EVERYTHING)))
    assert await keyspace(redis, ours) == await keyspace(redis, theirs)


@pytest.mark.usefixtures("small_slices")
async def test_draining_keeps_the_waiting_job_of_a_scheduler(broker: Broker, redis: Redis, prefix: str) -> None:
    base = f"{prefix}:q:"
    await fill(redis, base)
    await drain(broker.queue("q"), context=Context(broker, Rights(EVERYTHING)))
    kept = [f"repeat:wait{number}:{NOW}" for number in (20, 7, 6, 5)]
    assert await redis.lrange(f"{base}wait", 0, -1) == kept
    assert await redis.exists(*(base + id for id in kept)) == 4


async def test_what_comes_while_a_queue_is_drained_stays(broker: Broker, redis: Redis, prefix: str) -> None:
    queue = broker.queue("q")
    await fill(redis, queue.base)
    draining = drain(queue, context=Context(broker, Rights(EVERYTHING)))
    draining.send(None)  # its first script is on its way
    draining.close()
    await queue.link.call("LPUSH", queue.key("wait"), "new")
    assert await redis.lrange(f"{queue.base}wait", 0, 0) == ["new"]
    assert await redis.llen(f"{queue.base}wait") == 5


# Families

Shape = dict[str, Any]


async def family(redis: Redis, base: str, children: int = 30) -> None:
    """A job with children of each kind, one of which has children of each kind, and so on."""
    pipe = redis.pipeline(transaction=False)
    parent = f"{base}root"
    pipe.hset(parent, mapping={"name": "a", "data": "{}"})
    pipe.zadd(f"{base}waiting-children", {"root": 1})
    for level in range(3):
        for number in range(children):
            id = f"{level}-{number}"
            pipe.hset(f"{base}{id}", mapping={"name": "a", "data": "{}", "parentKey": parent})
            match number % 5:
                case 0:
                    pipe.hset(f"{parent}:processed", f"{base}{id}", "1")
                    pipe.zadd(f"{base}completed", {id: number})
                case 1:
                    pipe.hset(f"{parent}:failed", f"{base}{id}", "no")
                    pipe.zadd(f"{base}failed", {id: number})
                case 2:
                    pipe.zadd(f"{parent}:unsuccessful", {f"{base}{id}": number})
                    pipe.zadd(f"{base}failed", {id: number})
                case 3:
                    pipe.sadd(f"{parent}:dependencies", f"{base}{id}")
                    pipe.lpush(f"{base}wait", id)
                case 4:
                    pipe.sadd(f"{parent}:dependencies", f"{base}{id}")
                    pipe.zadd(f"{base}waiting-children", {id: number})
        parent = f"{base}{level}-4"
    await pipe.execute()


@pytest.fixture
async def twins(redis: Redis, prefix: str) -> tuple[str, str]:
    for base in (bases := (f"{prefix}:theirs:", f"{prefix}:ours:")):
        await family(redis, base)
        await redis.lpush(f"{base}wait", "bystander")
    return bases


@pytest.mark.usefixtures("small_slices")
async def test_a_large_family_is_removed_like_a_small_one(broker: Broker, redis: Redis, twins: tuple[str, str]) -> None:
    theirs, _ = twins
    text = script_texts()["removeJob"]
    assert await redis.eval(text, 2, f"{theirs}root", f"{theirs}repeat", "root", "1", theirs) == 1
    before = await calls(redis)
    assert await remove(broker.queue("ours"), "root", context=Context(broker, Rights(EVERYTHING))) == 1
    assert await calls(redis) - before > 20
    await compare(redis, twins)


async def compare(redis: Redis, twins: tuple[str, str]) -> None:
    theirs, ours = twins
    assert await keyspace(redis, ours) == await keyspace(redis, theirs)

    def removed(found: list[dict[str, str]]) -> set[str]:
        return {fields["jobId"] for fields in found if fields["event"] == "removed"}

    assert removed(await events(redis, ours)) == removed(await events(redis, theirs))


async def calls(redis: Redis) -> int:
    stats: dict[str, Any] = await redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("held", [(), ("0-8", "0-13", "1-3"), ("0-4",), ("0-3", "0-8", "0-13", "0-18", "0-23", "0-28")])
async def test_many_unfinished_children_are_removed_like_few(
    broker: Broker, redis: Redis, twins: tuple[str, str], held: tuple[str, ...]
) -> None:
    theirs, _ = twins
    for base in twins:
        for id in held:
            await redis.set(f"{base}{id}:lock", "token")
    text = script_texts()["removeUnprocessedChildren"]
    await redis.eval(text, 2, f"{theirs}root", f"{theirs}meta", theirs, "root")
    await remove_job_unprocessed_children(broker.queue("ours"), "root", context=Context(broker, Rights(EVERYTHING)))
    await compare(redis, twins)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("held", ["root", "0-3", "1-8", "2-29"])
async def test_nothing_of_a_family_goes_while_a_worker_holds_one_that_is_waited_for(
    broker: Broker, redis: Redis, twins: tuple[str, str], held: str
) -> None:
    _, ours = twins
    await redis.set(f"{ours}{held}:lock", "token")
    before = await keyspace(redis, ours)
    assert await remove(broker.queue("ours"), "root", context=Context(broker, Rights(EVERYTHING))) == 0
    assert await keyspace(redis, ours) == before


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("end", [lambda context: context.rights.change(Grant("none")), None])
async def test_the_removal_of_a_large_family_ends_with_the_right_and_with_the_connection(
    broker: Broker, redis: Redis, twins: tuple[str, str], end: Callable[[Context], None] | None
) -> None:
    context = Context(broker, Rights(EVERYTHING))
    if end is None:
        context.has_ended, code = True, ErrorCode.SHUTTING_DOWN
    else:
        end(context)
        code = ErrorCode.FORBIDDEN
    with pytest.raises(GatewayError) as caught:
        await remove(broker.queue("ours"), "root", context=context)
    assert caught.value.code is code
    assert await redis.exists(f"{twins[1]}root")
    assert await redis.zscore(f"{twins[1]}waiting-children", "root") is not None  # no worker is told of it


@pytest.mark.usefixtures("small_slices")
async def test_a_long_chain_of_jobs_is_removed_one_by_one(broker: Broker, redis: Redis, prefix: str) -> None:
    queue = broker.queue("q")
    for number in range(30):
        await redis.hset(queue.key(str(number)), mapping={"name": "a", "parentKey": queue.key(str(number - 1))})
        await redis.sadd(queue.key(f"{number}:dependencies"), queue.key(str(number + 1)))
        await redis.zadd(queue.key("waiting-children"), {str(number): number})
    await redis.hset(queue.key("30"), mapping={"name": "a", "parentKey": queue.key("29")})
    await redis.lpush(queue.key("wait"), "30")
    assert await remove(queue, "0", context=Context(broker, Rights(EVERYTHING))) == 1
    assert set(await redis.keys(f"{queue.base}*")) == {queue.key("events"), queue.key("meta")}
    told = await events(redis, queue.base)
    assert [fields["jobId"] for fields in told] == [str(number) for number in range(31)]
    assert {fields["event"] for fields in told} == {"removed"}


@pytest.mark.usefixtures("small_slices")
async def test_a_family_in_a_circle_is_removed(broker: Broker, redis: Redis, prefix: str) -> None:
    base = f"{prefix}:q:"
    await family(redis, base)
    await redis.sadd(f"{base}1-3:dependencies", f"{base}root")
    context = Context(broker, Rights(Grant("manager", frozenset({Permission.MANAGE}), ("q",))))
    assert await remove(broker.queue("q"), "root", RemoveOptions(), context=context) == 1
    assert await redis.keys(f"{base}[0-9r]*") == []


# What happens by itself


@pytest.mark.parametrize("many", [1001, 1700])
async def test_stalled_jobs_among_many_active_ones_go_back_to_wait(
    broker: Broker, redis: Redis, prefix: str, many: int
) -> None:
    queue = broker.queue("q")
    ids = [str(number) for number in range(many)]
    held = set(ids[::3])
    pipe = redis.pipeline(transaction=False)
    for id in ids:
        pipe.hset(queue.key(id), mapping={"name": "a", "stc": "1" if id == "7" else "0"})
    pipe.lpush(queue.key("active"), *ids)
    for id in held:
        pipe.set(queue.key(f"{id}:lock"), "token")
    await pipe.execute()

    async def checked(stalled: int) -> bool:
        return await redis.scard(queue.key("stalled")) == stalled

    check_stalled(queue, 1, 1, lambda: None)
    await until(lambda: checked(many), "all active jobs are under suspicion")
    assert await redis.llen(queue.key("wait")) == 0
    await until(lambda: _is_gone(redis, queue.key("stalled-check")), "the next check may come")
    check_stalled(queue, 60_000, 1, lambda: None)
    await until(lambda: checked(len(held)), "those without a lock are back")
    assert set(await redis.lrange(queue.key("active"), 0, -1)) == held
    assert set(await redis.lrange(queue.key("wait"), 0, -1)) == set(ids) - held
    assert await redis.hmget(queue.key("7"), "stc", "defa") == ["2", "job stalled more than allowable limit"]
    assert await redis.hmget(queue.key("8"), "stc", "defa") == ["1", None]
    check_stalled(queue, 60_000, 1, lambda: None)  # within the interval nothing is done
    assert (await queue.link.call("LLEN", queue.key("active"))) == len(held)


async def _is_gone(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)


@pytest.mark.parametrize("kept", [{"count": 5}, {"age": 1, "limit": 100_000}])
async def test_a_finished_job_sweeps_a_few_hundred_others_away_and_the_next_one_goes_on(
    broker: Broker, redis: Redis, prefix: str, kept: dict[str, int]
) -> None:
    queue = broker.queue("q")
    await redis.zadd(queue.key("completed"), {f"old{number}": number for number in range(500)})
    sizes = []
    for id in ("1", "2", "3"):
        await redis.hset(
            queue.key(id), mapping={"name": "a", "data": "{}", "opts": json.dumps({"removeOnComplete": kept})}
        )
        await redis.lpush(queue.key("active"), id)
        await redis.set(queue.key(f"{id}:lock"), "token")
        manual = broker.services(queue).manual_consumers()
        await manual.complete(await load_job(manual.queue, id, "token"), Raw(b"1"), False)
        sizes.append(await redis.zcard(queue.key("completed")))
    assert sizes == ([251, 5, 5] if "count" in kept else [251, 2, 3])
    assert await redis.zscore(queue.key("completed"), "3") is not None


async def test_every_check_for_stalled_jobs_takes_place(broker: Broker, redis: Redis) -> None:
    checker = StalledChecker(broker.queue("q"), SafetyNet(10.0))
    consumer = Consumer("q", WorkerOptions(stalled_interval=20), broker.leases, cast(Holder, None), None)
    await redis.config_resetstat()
    checker.join(consumer)

    async def calls(command: str) -> int:
        return int((await redis.info("commandstats")).get(f"cmdstat_{command}", {"calls": 0})["calls"])

    async def has_checked_often() -> bool:
        return await calls("xtrim") + await calls("exists") >= 40  # a check that comes too early only looks

    await until(has_checked_often, "it checks over and over")
    checker.leave(consumer)
    assert await calls("set") >= 0.8 * await calls("exists") > 15
