"""A server that is no master any more: what it refused goes to the one that is, and the caller never hears of it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.deployment import link_to
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.scripts import load_scripts, script_texts, scripts_on
from bullmq_proxy.gateway.broker.redis.socket import future_of
from bullmq_proxy.gateway.broker.redis.stale import READ_SCRIPTS
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.options import OptionsCache
from tests.broker.misbehaving import OK, MisbehavingServer
from tests.support.link import OPTIONS as DEFAULTS
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually

OPTIONS = replace(DEFAULTS, name="moving", deadline=5.0, backlog_timeout=5.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path_factory.mktemp("moving"), tcp=True) as process:
        yield process


@pytest.fixture
async def redis(server: ValkeyProcess) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        yield client
        await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


@asynccontextmanager
async def connected(address: Address, options: LinkOptions = OPTIONS) -> AsyncIterator[Link]:
    link = Link(address, options, setup=load_scripts)
    await link.start(5.0)
    try:
        yield link
    finally:
        await link.close()


async def demote(redis: Redis) -> None:
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]


async def promote(redis: Redis) -> None:
    await redis.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


def add(queue: Queue, id: str = "") -> asyncio.Future[Any]:
    """Add a job by a script, or in a transaction when it has an id."""
    options = OptionsCache().prepare(Raw(b'{"jobId":"%b"}' % id.encode() if id else b"{}"), "opts")
    return future_of(lambda sink: queue.add(("n", Raw(b"{}"), options), sink))


async def test_a_refused_command_script_and_transaction_are_executed_once_by_the_next_master(
    server: ValkeyProcess, redis: Redis, prefix: str
) -> None:
    async with connected(Address.from_url(server.url)) as link:
        queue = Queue(prefix, "q", link, scripts_on(link))
        await add(queue)
        await demote(redis)
        waiting = [link.call("RPUSH", prefix, word) for word in "abc"]
        waiting += [add(queue), add(queue, "mine")]
        await eventually(lambda: not link.is_up, "the link leaves the replica")
        assert link.last_error.message == (
            "Redis is not reachable (it has become a replica, which takes no writes); nothing was written"
        )
        assert not any(future.done() for future in waiting)
        await promote(redis)
        await asyncio.gather(*waiting)
        assert await redis.lrange(prefix, 0, -1) == ["a", "b", "c"]
        assert set(await redis.lrange(queue.key("wait"), 0, -1)) == {"1", "2", "mine"}


async def test_what_is_refused_for_longer_than_a_backlog_waits_fails(server: ValkeyProcess, redis: Redis) -> None:
    async with connected(Address.from_url(server.url), replace(OPTIONS, backlog_timeout=0.2)) as link:
        await demote(redis)
        with pytest.raises(GatewayError) as refused:
            await link.call("SET", "a", "b")
        assert refused.value.code is ErrorCode.REDIS_UNAVAILABLE
        assert "replica" in refused.value.message
        assert link.is_failing


async def test_a_replica_is_not_taken_for_a_server(server: ValkeyProcess, redis: Redis) -> None:
    await demote(redis)
    link = Link(Address.from_url(server.url), OPTIONS)
    with pytest.raises(GatewayError, match="is a replica, which takes no writes: name its master"):
        await link.start(2.0)


async def test_commands_that_come_while_the_server_is_left_keep_their_order() -> None:
    is_master = False
    done: list[bytes] = []

    def reply(command: list[bytes]) -> bytes:
        if not is_master:
            return b"-READONLY You can't write against a read only replica.\r\n"
        done.append(command[1])
        return OK

    async with MisbehavingServer(reply) as server:
        link = Link(Address(host="127.0.0.1", port=server.port), OPTIONS)
        await link.start(5.0)
        calls = [link.call("SET", f"{number}", "") for number in range(3)]
        await eventually(lambda: not link.is_up, "the link leaves")
        calls += [link.call("SET", f"{number}", "") for number in range(3, 6)]
        is_master = True
        await asyncio.gather(*calls)
        await link.close()
    assert done == [b"0", b"1", b"2", b"3", b"4", b"5"]


async def test_reads_behind_a_refused_write_see_it() -> None:
    is_master = False
    value = b"$3\r\nold\r\n"

    def reply(command: list[bytes]) -> bytes:
        nonlocal value
        if command[0] != b"SET":
            return value
        if is_master:
            value = b"$3\r\nnew\r\n"
            return OK
        return b"-READONLY You can't write against a read only replica.\r\n"

    async with MisbehavingServer(reply) as server:
        link = Link(Address(host="127.0.0.1", port=server.port), OPTIONS)
        await link.start(5.0)
        scripts = scripts_on(link)
        before = link.call("GET", "a")
        set_, after, unknown = link.call("SET", "a", "new"), link.call("GET", "a"), link.call("OBJECT", "FREQ", "a")
        script = future_of(lambda sink: scripts["getState"].send([], [], sink))
        await eventually(lambda: not link.is_up, "the link leaves")
        is_master = True
        replies = list(await asyncio.gather(before, set_, after, unknown, script))
        assert replies == ["old", "OK", "new", "old", b"new"]
        await link.close()


def test_scripts_that_are_taken_for_reads_write_nothing() -> None:
    texts = script_texts()
    writes = re.compile(
        r"""["'](HSET|HMSET|HSETNX|HINCRBY|HDEL|SET|SETEX|INCR|DEL|UNLINK|P?EXPIRE|[LR]PUSHX?|[LR]POP|RPOPLPUSH|LREM"""
        r"""|LTRIM|LMOVE|SADD|SREM|ZADD|ZREM\w*|ZPOP\w+|XADD|XTRIM|XDEL)["']""",
        re.IGNORECASE,
    )
    found = {name: writes.findall(texts[name]) for name in READ_SCRIPTS}
    assert {name: words for name, words in found.items() if words} == {"getCounts": ["RPOP"], "getRanges": ["RPOP"]}


async def test_when_one_link_hears_nothing_all_give_up_and_try_again_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = replace(OPTIONS, deadline=0.4)
    with ValkeyProcess(tmp_path, tcp=True) as server:
        async with connected(Address.from_url(server.url), options) as link:
            blocked = link.sibling(replace(options, deadline=60.0))
            blocked.open()
            await blocked.wait_up()
            reply = blocked.call("BLPOP", "nothing", 50)
            with caplog.at_level(logging.WARNING):
                server.freeze()
                with pytest.raises(GatewayError, match="no reply in time"):
                    await asyncio.wait_for(reply, 5.0)
                server.thaw()
                await asyncio.wait_for(asyncio.gather(link.wait_up(), blocked.wait_up()), 5.0)
                await eventually(lambda: "connected again" in caplog.text, "the log says so")
            await blocked.close()
    lines = [record.message for record in caplog.records if "connected again" in record.message]
    assert len(lines) == 1


async def test_a_password_that_has_changed_counts_for_the_next_connection(
    tmp_path: Path, server: ValkeyProcess, redis: Redis
) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    await redis.execute_command("ACL", "SETUSER", "ann", "on", ">first", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
    address = replace(Address.from_url(server.url), username="ann", password_file=str(file))
    async with connected(address) as link:
        await redis.execute_command("ACL", "SETUSER", "ann", "<first", ">second")  # type: ignore[no-untyped-call]
        file.write_text("second\n")
        await redis.execute_command("CLIENT", "KILL", "USER", "ann")  # type: ignore[no-untyped-call]
        await eventually(lambda: link.times_up == 2 and link.is_up, "it is let in again")


# What cannot be a cluster, or the sentinels of a master


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("cluster", r"is no node of a cluster: write redis:// for redis\+cluster://"),
        ("sentinel", r"is no sentinel: write redis:// for redis\+sentinel://"),
    ],
)
async def test_a_plain_server_is_taken_for_nothing_else(server: ValkeyProcess, kind: str, why: str) -> None:
    path = "/mymaster" if kind == "sentinel" else ""
    target = Target.from_url(server.url.replace("redis://", f"redis+{kind}://") + path)
    with pytest.raises(GatewayError, match=why):
        await link_to(target, OPTIONS, load_scripts).start(1.0)


async def test_a_cluster_that_cannot_be_reached_or_does_not_let_in_says_why(server: ValkeyProcess) -> None:
    for url, why in (
        ("redis+cluster://127.0.0.1:1", "Connection refused"),
        (server.url.replace("redis://", "redis+cluster://ann:wrong@"), "refused the login: WRONGPASS"),
    ):
        with pytest.raises(GatewayError, match=why):
            await link_to(Target.from_url(url), OPTIONS, load_scripts).start(1.0)


async def test_a_master_that_the_sentinels_do_not_know_is_named(tmp_path: Path) -> None:
    conf = tmp_path / "sentinel.conf"
    conf.write_text("")
    with ValkeyProcess(tmp_path, tcp=True, conf=conf, extra_args=["--sentinel"]) as sentinel:
        target = Target.from_url(f"redis+sentinel://127.0.0.1:{sentinel.port}/nobody")
        with pytest.raises(GatewayError, match="know no master of the name 'nobody'"):
            await link_to(target, OPTIONS, load_scripts).start(3.0)


@asynccontextmanager
async def failing_over(
    told: bytes = b"",
) -> AsyncIterator[tuple[Link, MisbehavingServer, list[MisbehavingServer], list[bytes]]]:
    """Two masters that both take writes, a sentinel that names the first until the link is up, and the link to it.

    The last is the list of the ports that the sentinel has named, the latest one being what it names now.

    Args:
        told: the command at which the first one's sentinel tells of the second; by default it never does.
    """
    named: list[bytes] = []

    def reply(command: list[bytes]) -> bytes:
        match command:
            case [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", _]:
                return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(named[-1]), named[-1])
            case [b"SUBSCRIBE", channel]:
                return b">3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(channel), channel)
            case _:
                return b"*0\r\n"

    def login(command: list[bytes]) -> bytes:
        if command[0] == told and len(named) == 1:
            named.append(b"%d" % second.port)
            text = b"mymaster 127.0.0.1 %b 127.0.0.1 %b" % (named[0], named[1])
            for transport in sentinel.open:
                transport.write(b">3\r\n$7\r\nmessage\r\n+switch-master\r\n$%d\r\n%b\r\n" % (len(text), text))
        return OK

    async def no_setup(ask: Any) -> None:
        pass

    async with (
        MisbehavingServer(reply) as sentinel,
        MisbehavingServer(lambda command: OK, login) as first,
        MisbehavingServer(lambda command: OK) as second,
    ):
        named.append(b"%d" % first.port)
        link = link_to(Target.from_url(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster"), OPTIONS, no_setup)
        assert isinstance(link, Link)
        await link.start(3.0)
        named.append(b"%d" % second.port)
        yield link, sentinel, [first, second], named
        await link.close()


async def test_a_failover_that_no_sentinel_told_of_is_seen_when_the_next_one_is_connected() -> None:
    async with failing_over() as (link, sentinel, [first, second], _):
        await eventually(lambda: [b"SUBSCRIBE", b"+switch-master"] in sentinel.commands, "it listens")
        for connection in sentinel.open:
            connection.abort()
        await eventually(lambda: not first.open, "the link leaves the first master")
        await link.call("SET", "a", "b")
        assert (first.commands, second.commands) == ([], [[b"SET", b"a", b"b"]])


@pytest.mark.parametrize("told", [b"PING", b"HELLO", b"CLIENT"])
async def test_a_failover_that_is_told_of_while_a_link_connects_lets_it_not_begin_with_the_old_master(
    told: bytes,
) -> None:
    async with failing_over(told) as (link, _, [first, second], _):
        await link.call("SET", "a", "b")
        assert (first.commands, second.commands) == ([], [[b"SET", b"a", b"b"]])


async def test_a_sentinel_that_is_late_does_not_lead_back_to_the_old_master() -> None:
    async with failing_over(b"PING") as (link, sentinel, [first, second], named):
        await link.call("SET", "a", "b")
        before = first.accepted
        named.append(named[0])
        for connection in sentinel.open | second.open:
            connection.abort()
        asked = len(sentinel.commands)
        await eventually(lambda: len(sentinel.commands) > asked + 6, "it is asked again and again")
        named.append(named[1])
        await link.call("SET", "c", "d")
        assert (first.accepted, first.commands) == (before, [])
        assert second.commands == [[b"SET", b"a", b"b"], [b"SET", b"c", b"d"]]


async def test_what_a_server_says_unasked_is_the_same_whatever_reply_is_waited_for() -> None:
    said: list[Any] = []

    def reply(command: list[bytes]) -> bytes:
        return b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n$2\r\n\xff1\r\n" + OK

    async with MisbehavingServer(reply) as server:
        link = Link(Address(host="127.0.0.1", port=server.port), OPTIONS, on_push=said.append)
        await link.start(3.0)
        for decode in (True, False):
            await link.call("GET", "a", decode=decode)
        await link.close()
    assert said == [[b"message", b"c", [b"\xff1"]]] * 2
