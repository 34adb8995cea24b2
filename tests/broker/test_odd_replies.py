"""Whatever a server, a node or another program says, the gateway goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker import reach
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming import presence
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.broker.redis.cluster import Cluster
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.redis_url import Kind
from tests.broker.misbehaving import OK, Command, MisbehavingServer
from tests.sessions.peer import until
from tests.support.link import OPTIONS, started
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually


async def _nothing(ask: object) -> None:
    """Prepare a connection."""


@asynccontextmanager
async def cluster_of(server: MisbehavingServer, options: LinkOptions = OPTIONS) -> AsyncIterator[Cluster]:
    seed = Address(host="127.0.0.1", port=server.port)
    cluster = Cluster(Target(kind=Kind.CLUSTER, seeds=(seed,)), options, _nothing)
    await cluster.start(5.0)
    try:
        yield cluster
    finally:
        await cluster.close()


def slots(server: MisbehavingServer) -> bytes:
    return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % server.port


async def test_a_cluster_is_asked_again_after_a_reply_that_is_none() -> None:
    odd = [b"*1\r\n:1\r\n", b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n:7\r\n$1\r\nx\r\n", b"$3\r\nabc\r\n"]

    def reply(command: Command) -> bytes:
        if command[0] == b"CLUSTER":
            return odd.pop() if odd else slots(server)
        return b"-MOVED nowhere\r\n" if command[1] == b"odd" else OK

    async with MisbehavingServer(reply) as server, cluster_of(server) as cluster:
        route = cluster.of("{q}:")
        with pytest.raises(GatewayError, match="MOVED"):
            await route.call("GET", "odd")
        assert await route.call("GET", "even") == "OK"
        assert not odd


async def test_a_server_with_an_odd_greeting_is_tried_again() -> None:
    greetings = [b"*3\r\n:1\r\n:2\r\n:3\r\n", b"*2\r\n:1\r\n:2\r\n"]

    def login(command: Command) -> bytes:
        return greetings.pop() if command[0] == b"HELLO" and greetings else OK

    async with MisbehavingServer(lambda command: OK, login) as server:
        link = Link(Address(host="127.0.0.1", port=server.port), OPTIONS)
        await link.start(5.0)
        assert await link.call("GET", "a") == "OK"
        await link.close()
    assert server.accepted == 3


async def test_commands_that_wait_for_slots_that_move_have_the_limits_of_a_backlog() -> None:
    refuses = True

    def reply(command: Command) -> bytes:
        if command[0] == b"CLUSTER":
            return slots(server)
        return b"-TRYAGAIN the slot moves\r\n" if refuses else OK

    async with (
        MisbehavingServer(reply) as server,
        cluster_of(server, replace(OPTIONS, backlog_size=1000)) as cluster,
    ):
        routes = [cluster.of("{a}:"), cluster.of("{b}:")]
        waiting = [route.call("SET", "k", "v") for route in routes]
        await eventually(lambda: all(route._held is not None for route in routes), "the slots move")
        waiting += [route.call("SET", "k", "x" * 400) for route in routes]
        with pytest.raises(GatewayError, match="too many commands wait for a slot that moves"):
            await routes[0].call("SET", "k", "x" * 400)
        refuses = False
        assert await asyncio.wait_for(asyncio.gather(*waiting), 5.0) == ["OK"] * 4
        await routes[0].call("SET", "k", "x" * 2000)


async def test_messages_that_no_gateway_writes_are_left_unanswered(
    broker: Broker, redis: Redis, prefix: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.broker.redis.channel.DEADLINE", 0.3)
    channel = f"{prefix}:{{gateways}}:channel@0"
    await eventually(lambda: broker._tracker.is_up, "it listens")
    pubsub = redis.pubsub()
    await pubsub.subscribe(channel)
    await pubsub.get_message(timeout=1)
    await redis.publish(channel, '{"sender":"x","number":0,"question":{"type":"moved","jobs":[7,"x",["1"]]}}')
    asking = asyncio.ensure_future(broker.reach.workers("q"))
    while (message := await pubsub.get_message(timeout=2)) is None or "whoWorks" not in str(message["data"]):
        pass
    own = broker.leases.identity.address
    await redis.publish(f"{channel}:{own}", '{"sender":"x","number":1,"answer":{"workers":7}}')
    workers, omitted, silent = await asking
    assert (workers, omitted) == ([], 0)
    assert silent
    assert "what cannot be read" in caplog.text
    assert "a sink failed" not in caplog.text
    await pubsub.aclose()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("lives", [True, False])
async def test_a_client_that_comes_back_is_refused_while_its_keeper_lives_and_does_not_answer(
    broker: Broker, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    monkeypatch.setattr(reach, "_PATIENCE", 0.3)
    signs, keeper = f"{prefix}:{{gateways}}:signs", "other:0:0"
    await redis.hset(signs, keeper, 1)

    async def live() -> None:
        while lives:
            await redis.hincrby(signs, keeper, 1)
            await asyncio.sleep(0.05)

    living = asyncio.create_task(live())

    async def take_up() -> list[object]:
        return [kept async for kept in broker.reach.take_up("q", f"{keeper}:1:secret", "key", "taker")]

    if lives:
        with pytest.raises(GatewayError, match="does not answer: try again") as refused:
            await take_up()
        assert refused.value.code is ErrorCode.REDIS_UNAVAILABLE
    else:
        assert await take_up() == []
    living.cancel()


async def test_signs_that_nobody_gives_any_more_are_forgotten_where_no_gateway_is_taken_for_dead(
    valkey: ValkeyProcess, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence, "PERIOD", 0.02)
    monkeypatch.setattr(presence, "_FORGOTTEN", 3)
    signs = f"{prefix}:{{gateways}}:signs"
    await redis.hset(signs, mapping={"gone:0:0": 7, "odd": "x", "odd:0:0": "x"})
    await redis.sadd(f"{prefix}:{{gateways}}:served:gone:0:0", "q")
    broker = Broker(Address.from_url(valkey.url), prefix, OPTIONS, Identity("own"), gateway_timeout=0)
    with caplog.at_level(logging.ERROR):
        await broker.start(5.0)

        async def is_forgotten() -> bool:
            return bool(await redis.hkeys(signs) == ["odd", "own:0:0"])

        await until(is_forgotten, "what nobody gives is gone")
        assert not await redis.exists(f"{prefix}:{{gateways}}:served:gone:0:0")
    await broker.close()
    assert not caplog.records


async def test_a_trouble_of_a_queue_ends_with_its_last_user(valkey: ValkeyProcess, prefix: str) -> None:
    async with started(valkey.url, prefix) as broker:
        queue = broker.queue("q")
        consumers = broker.services(queue).manual_consumers()
        queue.troubles.begin("checking", "q", "no rights")
        assert queue.troubles.now
        consumers._on_idle(consumers)
        await eventually(lambda: not queue.troubles.now, "it is forgotten")
