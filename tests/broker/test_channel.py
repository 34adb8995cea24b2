"""The channel between shards: who hears what, and what an asker learns of those who do not answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.redis import channel
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.channel import Answers, Channel
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from tests.sessions.peer import until
from tests.support.link import OPTIONS
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually


class Shard:
    """One end of the channel. `heard` are the questions and news that came; `says` is its answer."""

    def __init__(self, url: str, prefix: str, address: str) -> None:
        self.heard: list[bytes] = []
        self.says: list[bytes] = [b'"%b"' % address.encode()]
        self.link = Link(Address.from_url(url), OPTIONS)
        self.tracker = Tracker(self.link, replace(OPTIONS, deadline=2.0))
        self.channel = Channel(self.link, self.tracker, prefix, address, self._answer)

    def _answer(self, question: bytes) -> list[bytes]:
        self.heard.append(question)
        return self.says


Make = Callable[..., Awaitable[Shard]]


@pytest.fixture
async def make(valkey: ValkeyProcess, prefix: str, redis: Redis) -> AsyncIterator[Make]:
    """Make shards that listen."""
    async with AsyncExitStack() as stack:

        async def make(address: str, prefix: str = prefix, url: str = valkey.url) -> Shard:
            shard = Shard(url, prefix, address)
            await shard.link.start(5.0)
            shard.tracker.open()
            stack.push_async_callback(shard.link.close)
            stack.push_async_callback(shard.tracker.close)
            await listens(redis, f"{prefix}:{{gateways}}:channel@{shard.link.db}:{address}")
            return shard

        yield make


async def listens(redis: Redis, name: str) -> None:
    async def look() -> bool:
        return bool((await redis.pubsub_numsub(name))[0][1])

    await until(look, f"somebody listens to {name}")


async def test_one_is_asked_or_all_of_the_prefix_and_the_database(make: Make, valkey: ValkeyProcess) -> None:
    a, b, c = [await make(name) for name in "abc"]
    stranger = await make("s", prefix="other")
    elsewhere = await make("e", url=f"{valkey.url}?db=3")
    assert elsewhere.link.db == 3
    assert await a.channel.ask(b"1", to="b") == Answers([b'"b"'])
    everybody = await a.channel.ask(b"2")
    assert (sorted(everybody.pieces), everybody.silent) == ([b'"a"', b'"b"', b'"c"'], 0)
    assert (a.heard, b.heard, c.heard) == ([b"2"], [b"1", b"2"], [b"2"])
    assert not stranger.heard and not elsewhere.heard


async def test_one_that_cannot_listen_still_has_its_own_answer(make: Make) -> None:
    a, b = await make("a"), await make("b")
    await a.tracker.close()
    await b.tracker.close()
    assert await a.channel.ask(b"1") == Answers([b'"a"'])


async def test_one_asks_itself_without_redis(make: Make) -> None:
    a = await make("a")
    await a.link.close()
    assert await a.channel.ask(b"1", to="a") == Answers([b'"a"'])


async def test_a_long_answer_comes_in_pieces(make: Make) -> None:
    a, b = await make("a"), await make("b")
    b.says = [b"1", b"2", b"3"]
    assert await a.channel.ask(b"1", to="b") == Answers(b.says)


async def test_nobody_is_waited_for_who_is_not_there(make: Make) -> None:
    a = await make("a")
    started = time.monotonic()
    assert await a.channel.ask(b"1", to="gone") == Answers()
    assert time.monotonic() - started < channel.DEADLINE


async def test_one_that_is_there_and_says_nothing_in_time_is_silent(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "DEADLINE", 0.05)
    a, b, c = [await make(name) for name in "abc"]
    b.says = []
    c.says = [b"1", b"2"]
    assert await a.channel.ask(b"1", to="b") == Answers(silent=1)
    answers = await a.channel.ask(b"1")
    assert (sorted(answers.pieces), answers.silent) == ([b'"a"', b"1", b"2"], 1)


async def test_news_is_heard_by_all_and_answered_by_nobody(make: Make, redis: Redis) -> None:
    a, b = await make("a"), await make("b")
    published = await calls(redis)
    a.channel.tell(b"1")
    await eventually(lambda: a.heard == b.heard == [b"1"], "both hear it")
    await a.link.call("PING")
    await b.link.call("PING")
    assert await calls(redis) == published + 1


async def calls(redis: Redis) -> int:
    stats: dict[str, Any] = await redis.info("commandstats")
    return int(stats.get("cmdstat_publish", {}).get("calls", 0))


async def test_what_cannot_be_read_is_dropped(make: Make, redis: Redis, prefix: str) -> None:
    a, _ = await make("a"), await make("b")
    name = f"{prefix}:{{gateways}}:channel@0"
    for text in ("", "no JSON", "[]", '{"sender":1}', '{"sender":"b","number":1}', b"\xff"):
        await redis.publish(name, text)
    await redis.publish(name, f'{{"sender":"b","number":1,"question":"{"x" * 2**16}"}}')
    await redis.publish(name, '{"sender":"b","number":77,"answer":"that nobody waits for"}')
    assert await a.channel.ask(b"1", to="b") == Answers([b'"b"'])
    assert a.heard == []


async def test_nothing_is_asked_while_redis_is_away(make: Make, tmp_path: Any) -> None:
    with ValkeyProcess(tmp_path) as server:
        shard = Shard(server.url, "p", "a")
        await shard.link.start(5.0)
        server.kill()
        await eventually(lambda: not shard.link.is_up, "the link notices")
        with pytest.raises(GatewayError) as refused:
            await shard.channel.ask(b"1")
        assert refused.value.code is ErrorCode.REDIS_UNAVAILABLE
        await shard.link.close()


async def test_it_listens_again_after_its_connection_broke(make: Make, redis: Redis, prefix: str) -> None:
    a, b = await make("a"), await make("b")
    for client in await redis.client_list():
        if client["name"].endswith(":tracker"):
            await redis.client_kill_filter(client["id"])
    await eventually(lambda: a.tracker.is_up and b.tracker.is_up, "both are connected again")
    await listens(redis, f"{prefix}:{{gateways}}:channel@0:b")
    assert await a.channel.ask(b"1", to="b") == Answers([b'"b"'])
