"""How many events a queue keeps, where the gateway has a setting for it, beside Node's queues that have theirs."""

from __future__ import annotations

from typing import Any, Final

import pytest
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, until
from tests.support.relay import Relay
from tests.support.valkey import ValkeyProcess

FIELD: Final = "opts.maxLenEvents"


async def test_the_setting_is_written_as_nodes_queue_writes_it_and_holds_from_the_first_event(
    valkey: ValkeyProcess, redis: Redis, prefix: str
) -> None:
    meta = f"{prefix}:q:meta"
    await redis.hset(meta, FIELD, "10000")  # by a Queue of Node's that was made before
    async with Gateway(valkey.url, prefix=prefix, max_len_events=50) as gateway:
        queue = await gateway.queue()
        await queue.call("addBulk", [{"name": "a"}] * 400)
        assert await redis.hget(meta, FIELD) == "50"
        assert await redis.xlen(f"{prefix}:q:events") < 250  # Redis removes whole nodes of a hundred
        await redis.hset(meta, FIELD, "10000")  # by one that was made later
        await queue.call("add", "a")
        assert (await queue.call("getMeta"))["maxLenEvents"] == 10_000


async def test_without_the_setting_the_queue_keeps_its_own_length(proxy: Gateway, redis: Redis, prefix: str) -> None:
    await redis.hset(f"{prefix}:q:meta", FIELD, "70")
    queue = await proxy.queue()
    await queue.call("add", "a")
    assert (await queue.call("getMeta"))["maxLenEvents"] == 70


@pytest.mark.parametrize(
    "call",
    [
        ("upsertJobScheduler", "tick", {"every": 3_600_000}),
        ("addBulk", [{"name": "a", "opts": {"jobId": "once"}}]),
    ],
)
async def test_whatever_adds_first_writes_it(
    valkey: ValkeyProcess, redis: Redis, prefix: str, call: tuple[Any, ...]
) -> None:
    async with Gateway(valkey.url, prefix=prefix, max_len_events=50) as gateway:
        queue = await gateway.queue()
        await queue.call(*call)
        assert await redis.hget(f"{prefix}:q:meta", FIELD) == "50"


async def test_each_queue_of_a_flow_gets_it(valkey: ValkeyProcess, redis: Redis, prefix: str) -> None:
    flow = {"name": "top", "queueName": "one", "children": [{"name": "kid", "queueName": "two"}]}
    async with Gateway(valkey.url, prefix=prefix, max_len_events=50) as gateway:
        flows = await gateway.connect("/flows")
        await flows.reply(await flows.request("add", flow))
    assert [await redis.hget(f"{prefix}:{name}:meta", FIELD) for name in ("one", "two")] == ["50", "50"]


async def test_it_is_written_when_redis_was_away_at_first(relay: Relay) -> None:
    async with Gateway(relay.url, max_len_events=50, redis_backlog_timeout=0.0) as gateway:
        queue = await gateway.queue()
        relay.cut_after(b"HEXISTS")
        assert (await queue.refusal("isPaused"))[0] == "REDIS_UNAVAILABLE"
        assert (await queue.refusal("add", "a"))[0] == "REDIS_UNAVAILABLE"
        relay.mend()

        async def is_back() -> bool:
            return await gateway.metric("redis_up") == 1

        await until(is_back, "Redis is back")
        await queue.call("add", "a")
        assert (await queue.call("getMeta"))["maxLenEvents"] == 50


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        ({}, "Expected an object with `eventName`, a string"),
        ({"eventName": 7}, "Expected an object with `eventName`, a string"),
        ({"eventName": None}, "Expected an object with `eventName`, a string"),
        ({"eventName": "a", "b": {}}, "got an object"),
        ({"eventName": "a", "b": [1]}, "got an array"),
        ([], "Expected an object"),
        ("a", "Expected an object"),
    ],
)
async def test_an_event_that_cannot_be_published_is_refused(
    proxy: Gateway, redis: Redis, prefix: str, event: object, wanted: str
) -> None:
    code, message = await (await proxy.queue()).refusal("publishEvent", event)
    assert (code, wanted in message, "`args[0]" in message) == ("INVALID_ARGUMENTS", True, True), message
    assert not await redis.exists(f"{prefix}:q:events")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (r'{"eventName":"half \ud83d","f\udc00":"\ud800"}', {"event": "half \ufffd", "f\ufffd": "\ufffd"}),
        ('{"eventName":"a","n":9007199254740993}', {"event": "a", "n": "9007199254740992"}),
        ('{"eventName":"a","":""}', {"event": "a", "": ""}),
        ('{"eventName":"a","eventName":"b"}', {"event": "b"}),
    ],
)
async def test_an_event_is_stored_as_node_stores_it(
    proxy: Gateway, redis: Redis, prefix: str, text: str, fields: dict[str, str]
) -> None:
    queue = await proxy.queue()
    await queue.socket.send(f'{{"id":1,"data":{{"fn":"publishEvent","args":[{text}]}}}}')
    assert await queue.message() == {"id": 1, "data": {"ok": None}}
    entries: Any = await redis.xrange(f"{prefix}:q:events")
    [(_, stored)] = entries
    assert stored == fields


@pytest.mark.parametrize("number", ["1e400", "9" * 400])
async def test_a_number_that_no_double_holds_is_refused(proxy: Gateway, number: str) -> None:
    queue = await proxy.queue()
    await queue.socket.send(f'{{"id":1,"data":{{"fn":"publishEvent","args":[{{"eventName":"a","n":{number}}}]}}}}')
    assert (await queue.message())["data"]["err"]["code"] == "INVALID_ARGUMENTS"
