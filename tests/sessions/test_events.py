"""The Events API: what watchers see, and that they miss nothing (PROTOCOL 5)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus

from tests.sessions.peer import Gateway, Peer, until
from tests.sessions.test_heavy_calls import watched


async def names(watcher: Peer, count: int) -> list[str]:
    return [(await watcher.data())["event"] for _ in range(count)]


async def test_events_have_the_arguments_that_node_hands_to_listeners(
    proxy: Gateway, redis: Redis, prefix: str
) -> None:
    watcher = await proxy.events()
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "work")
    job = await worker.job()
    await job.answer(type="progress", progress={"half": 0.5})
    await job.answer(result={"n": 1.0})
    seen = [await watcher.message() for _ in range(6)]
    assert [message["id"] for message in seen] == list(range(6))
    stream = [id for id, _ in (await redis.xrange(f"{prefix}:q:events") or [])]
    assert [message["data"] for message in seen] == [
        {"event": "added", "args": [{"jobId": "1", "name": "work"}, stream[0]]},
        {"event": "waiting", "args": [{"jobId": "1"}, stream[1]]},
        {"event": "active", "args": [{"jobId": "1", "prev": "waiting"}, stream[2]]},
        {"event": "progress", "args": [{"jobId": "1", "data": {"half": 0.5}}, stream[3]]},
        {"event": "completed", "args": [{"jobId": "1", "returnvalue": {"n": 1.0}, "prev": "active"}, stream[4]]},
        {"event": "drained", "args": [stream[5]]},
    ]


async def test_a_failure_shows_its_reason_and_the_attempts_as_text(proxy: Gateway) -> None:
    watcher = await proxy.events("q", "failed", "retries-exhausted")
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "work")
    await (await worker.job()).answer(err="boom")
    assert (await watcher.data())["args"][0] == {"jobId": "1", "failedReason": "boom", "prev": "active"}
    assert (await watcher.data())["args"][0] == {"jobId": "1", "attemptsMade": "1"}


async def test_the_time_of_a_delayed_event_is_a_number(proxy: Gateway) -> None:
    watcher, producer = await proxy.events("q", "delayed"), await proxy.queue()
    added = await producer.call("add", "work", {}, {"delay": 60_000})
    assert (await watcher.data())["args"][0] == {"jobId": "1", "delay": added["timestamp"] + 60_000}


async def test_only_subscribed_events_come(proxy: Gateway) -> None:
    watcher, producer = await proxy.events("q", "paused", "resumed"), await proxy.queue()
    await producer.call("add", "work")
    await producer.call("pause")
    await producer.call("resume")
    assert await names(watcher, 2) == ["paused", "resumed"]


async def test_on_and_off_change_the_subscription_and_reply_with_what_is_in_force(proxy: Gateway) -> None:
    watcher, producer = await proxy.events("q", "paused"), await proxy.queue()
    assert await watcher.call("on", "resumed", "custom:mine") == ["custom:mine", "paused", "resumed"]
    assert await watcher.call("off", "paused") == ["custom:mine", "resumed"]
    await producer.call("pause")
    await producer.call("resume")
    assert await names(watcher, 1) == ["resumed"]
    assert await watcher.call("on", "*") == ["*"]
    assert "added" not in await watcher.call("off", "added")
    assert await watcher.call("off", "*") == []
    await producer.call("add", "work")
    code, message = await watcher.refusal("on", "complete")
    assert code == "INVALID_ARGUMENTS"
    assert "did you mean `completed`?" in message


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("x", "INVALID_MESSAGE"),
        ('{"id":1,"data":{"fn":"add","args":[]}}', "UNKNOWN_FUNCTION"),
        ('{"id":1,"data":{"fn":"on","args":[5]}}', "INVALID_ARGUMENTS"),
        ('{"id":1,"data":{"fn":"on","args":{"a":1}}}', "INVALID_ARGUMENTS"),
    ],
)
async def test_what_a_watcher_cannot_ask_for_is_refused(proxy: Gateway, frame: str, code: str) -> None:
    watcher = await proxy.events()
    await watcher.socket.send(frame)
    assert (await watcher.data())["err"]["code"] == code


async def test_custom_events_of_producers_come_under_their_own_name(proxy: Gateway, redis: Redis, prefix: str) -> None:
    watcher, everything = await proxy.events("q", "custom:mine"), await proxy.events()
    id = await redis.xadd(f"{prefix}:q:events", {"event": "mine", "a": "1", "b": '{"x":1}'})
    assert (await watcher.data()) == {"event": "mine", "args": [{"a": "1", "b": '{"x":1}'}, id]}
    assert (await everything.data())["event"] == "mine"


@pytest.mark.parametrize("query", [{"events": "complete"}, {"lastEventId": "yesterday"}, {"event": "completed"}])
async def test_a_wrong_subscription_is_a_400(proxy: Gateway, query: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await proxy.connect("/queue/q/events", **query)
    assert refused.value.response.status_code == 400
    assert b"INVALID_ARGUMENTS" in bytes(refused.value.response.body or b"")


async def test_resuming_brings_what_was_missed_and_then_what_comes(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer = await proxy.queue()
    for number in range(5):
        await redis.xadd(f"{prefix}:q:events", {"event": "n", "n": number}, id=f"{number + 1}-0")
    watcher = await proxy.events("q", lastEventId="2-0")
    assert [(await watcher.data())["args"][0]["n"] for _ in range(3)] == ["2", "3", "4"]
    await producer.call("pause")
    assert await names(watcher, 1) == ["paused"]


async def test_resuming_loses_and_repeats_nothing_while_events_keep_coming(
    proxy: Gateway, redis: Redis, prefix: str
) -> None:
    key, total = f"{prefix}:q:events", 4000
    for number in range(1500):
        await redis.xadd(key, {"event": "n", "n": number}, id=f"{number + 1}-0")

    async def produce() -> None:
        for start in range(1500, total, 50):
            pipe = redis.pipeline(transaction=False)
            for number in range(start, start + 50):
                pipe.xadd(key, {"event": "n", "n": number}, id=f"{number + 1}-0")
            await pipe.execute()

    producing = asyncio.create_task(produce())
    seen: list[str] = []
    last = "1-0"
    while len(seen) < total - 1:  # again and again on a new connection
        watcher = await proxy.events("q", lastEventId=last)
        for _ in range(min(700, total - 1 - len(seen))):
            fields, last = (await watcher.data())["args"]
            seen.append(fields["n"])
        watcher.vanish()
    await producing
    assert seen == [str(number) for number in range(1, total)]


async def test_a_watcher_that_comes_back_behind_a_trimmed_stream_is_told_of_the_gap(
    proxy: Gateway, redis: Redis, prefix: str
) -> None:
    key = f"{prefix}:q:events"
    for number in range(1, 7):
        await redis.xadd(key, {"event": "n"}, id=f"{number}-0")
    await redis.xtrim(key, maxlen=2, approximate=False)
    watcher = await proxy.events("q", lastEventId="2-0")
    assert await watcher.data() == {"event": "gap", "args": [{"from": "2-0", "to": "5-0"}]}
    assert [(await watcher.data())["args"][1] for _ in range(2)] == ["5-0", "6-0"]


async def test_a_stream_that_was_trimmed_to_nothing_is_a_gap_too(proxy: Gateway, redis: Redis, prefix: str) -> None:
    key = f"{prefix}:q:events"
    await redis.xadd(key, {"event": "n"}, id="5-0")
    await redis.xtrim(key, maxlen=0, approximate=False)
    watcher = await proxy.events("q", lastEventId="2-0")
    assert await watcher.data() == {"event": "gap", "args": [{"from": "2-0", "to": "5-0"}]}


@pytest.mark.parametrize("last", ["5-0", "6-0", "0-0"])
async def test_there_is_no_gap_where_nothing_is_missing(proxy: Gateway, redis: Redis, prefix: str, last: str) -> None:
    key = f"{prefix}:q:events"
    for number in (5, 6):
        await redis.xadd(key, {"event": "n"}, id=f"{number}-0")
    watcher = await proxy.events("q", lastEventId=last)
    await (await proxy.queue()).call("pause")
    seen = [await watcher.data() for _ in range(2 + (6 - max(int(last[0]), 4)) - 1)]
    assert "gap" not in [event["event"] for event in seen]
    assert seen[-1]["event"] == "paused"


async def test_many_watchers_of_a_queue_read_through_one_connection(proxy: Gateway, redis: Redis) -> None:
    watchers = await asyncio.gather(*(proxy.events("q", "paused") for _ in range(30)))
    await (await proxy.queue()).call("pause")
    assert [await names(watcher, 1) for watcher in watchers] == [["paused"]] * 30
    readers = [client for client in await redis.client_list() if client["name"].endswith(":qe")]
    ours = [client for client in readers if client["cmd"] == "xread"]
    assert len([client for client in ours if client["name"].startswith(str(proxy.prefix))]) == 1


async def test_the_reader_ends_with_the_last_watcher_and_starts_again_with_the_next(
    proxy: Gateway, redis: Redis
) -> None:
    producer = await proxy.queue()

    async def gone() -> bool:
        return not any(
            client["name"].startswith(proxy.prefix) and client["name"].endswith(":qe")
            for client in await redis.client_list()
        )

    for fn in ("pause", "resume", "pause"):
        watcher = await proxy.events("q", "paused", "resumed")
        await producer.call(fn)
        assert await names(watcher, 1) == [fn + "d" if fn == "resume" else "paused"]
        await watcher.close()
        await until(gone, "the reader is gone")


async def test_watchers_that_leave_while_they_are_let_in_leave_nothing_behind(proxy: Gateway, redis: Redis) -> None:
    request = proxy.url("/queue/q/events", {}).partition("/queue")[2]
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            f"GET /queue{request} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        await writer.drain()
        writer.transport.abort()

    async def gone() -> bool:
        return not any(
            client["name"].startswith(proxy.prefix) and client["name"].endswith(":qe")
            for client in await redis.client_list()
        )

    await until(gone, "no reader is left")


async def test_a_watcher_that_does_not_read_is_closed_and_can_resume(
    valkey_url: str, redis: Redis, prefix: str
) -> None:
    async with Gateway(valkey_url, prefix=prefix, max_write_buffer=65536) as proxy:
        slow, quick = await proxy.events(), await proxy.events()
        slow.socket.transport.pause_reading()
        key, sent, big = f"{prefix}:q:events", 0, "x" * 20_000

        async def closed() -> bool:
            """More and more events, until the gateway has given the slow one up."""
            nonlocal sent
            for _ in range(20):
                await redis.xadd(key, {"event": "big", "x": big})
            sent += 20
            for _ in range(20):
                await quick.text()
            return await proxy.metric("connections") == 1

        await until(closed, "the slow one is closed")
        slow.socket.transport.resume_reading()
        last, seen = "0-0", 0
        with pytest.raises(Exception, match=r"4002|no close frame"):
            while True:
                last = json.loads(await slow.text())["data"]["args"][1]
                seen += 1
        again = await proxy.events("q", lastEventId=last)
        rest: list[Any] = [await again.data() for _ in range(sent - seen)]
        assert len(rest) + seen == sent


async def test_a_watcher_that_falls_behind_reads_at_its_own_pace(proxy: Gateway, redis: Redis, prefix: str) -> None:
    key = f"{prefix}:q:events"
    await _write(redis, key, 600, "x" * 20_000)
    slow, quick = await proxy.events("q", lastEventId="0-0"), await proxy.events()
    slow.socket.transport.pause_reading()
    await _write(redis, key, 3_000, "")
    for _ in range(3_000):
        await quick.text()
    slow.socket.transport.resume_reading()
    ids = [(await slow.data())["args"][1] for _ in range(3_600)]
    assert ids == [id for id, _ in (await redis.xrange(key) or [])]
    await redis.xadd(key, {"event": "live"})
    assert await names(slow, 1) == ["live"]


async def test_what_is_trimmed_while_a_watcher_falls_behind_is_a_gap(proxy: Gateway, redis: Redis, prefix: str) -> None:
    key = f"{prefix}:q:events"
    await _write(redis, key, 2000, "x" * 20_000)
    slow = await proxy.events("q", lastEventId="0-0")
    first = (await slow.data())["args"][1]
    slow.socket.transport.pause_reading()
    await redis.xtrim(key, maxlen=5, approximate=False)
    slow.socket.transport.resume_reading()
    seen, last = [await slow.data()], first
    while seen[-1]["event"] != "gap":
        last = seen[-1]["args"][-1]
        seen.append(await slow.data())
    left = [id for id, _ in (await redis.xrange(key) or [])]
    assert seen[-1]["args"] == [{"from": last, "to": left[0]}]
    assert [(await slow.data())["args"][1] for _ in left] == left


async def test_large_events_are_resumed_and_read_few_at_a_time(valkey_url: str, redis: Redis, prefix: str) -> None:
    async with Gateway(valkey_url, prefix=prefix, max_write_buffer=4 << 20) as proxy:
        key, big = f"{prefix}:q:events", "x" * 2**20
        await _write(redis, key, 30, big)
        again = await proxy.events("q", lastEventId="0-0")
        ids = [(await again.data())["args"][1] for _ in range(30)]
        assert ids == [id for id, _ in (await redis.xrange(key) or [])]
        async with watched(redis) as seen:
            for _ in range(8):
                await redis.xadd(key, {"event": "n", "x": big})
                await again.text()
            await _write(redis, key, 400, "")
            await names(again, 400)
    reads = [int(words[2]) for words in seen if words[0] == "XREAD"]
    assert max(reads[:4]) <= 16
    assert min(reads) <= 2
    assert reads[-1] > 2  # small ones are read together again


async def _write(redis: Redis, key: str, count: int, text: str) -> None:
    pipe = redis.pipeline(transaction=False)
    for _ in range(count):
        pipe.xadd(key, {"event": "n", "x": text})
    await pipe.execute()


async def test_a_stream_that_is_broken_for_a_while_is_read_again(proxy: Gateway, redis: Redis, prefix: str) -> None:
    watcher, key = await proxy.events(), f"{prefix}:q:events"
    await redis.xadd(key, {"event": "one"}, id="1000-0")
    assert await names(watcher, 1) == ["one"]
    await redis.set(key, "no stream")
    await redis.delete(key)
    # A new stream knows nothing of the ids before: within one millisecond it would give the same one again.
    await redis.xadd(key, {"event": "two"}, id="2000-0")
    assert await names(watcher, 1) == ["two"]
    await redis.set(key, "no stream")
    with pytest.raises(InvalidStatus):
        await proxy.events()
    await redis.delete(key)


async def test_a_watcher_may_resume_before_there_is_any_stream(proxy: Gateway) -> None:
    watcher, producer = await proxy.events("q", "paused", lastEventId="5-0"), await proxy.queue()
    await producer.call("pause")
    assert await names(watcher, 1) == ["paused"]
