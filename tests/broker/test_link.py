"""The pipelined link: login, order, and what is known of a command when its connection breaks."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import RedisRefused, of_read
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.socket import RedisSocket, pack_command
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.json_text import encode
from tests.broker.misbehaving import OK, Command, MisbehavingServer
from tests.support.certificates import make_certificate
from tests.support.link import OPTIONS as DEFAULTS
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually, stretched

OPTIONS = replace(DEFAULTS, name="test-link", deadline=1.0, backlog=100, backlog_timeout=5.0)


@asynccontextmanager
async def connected(address: Address, options: LinkOptions = OPTIONS, **more: Any) -> AsyncIterator[Link]:
    link = Link(address, options, **more)
    await link.start(5.0)
    try:
        yield link
    finally:
        await link.close()


async def code_of(call: Awaitable[Any]) -> ErrorCode:
    with pytest.raises(GatewayError) as caught:
        await call
    return caught.value.code


async def code_of_read(call: Awaitable[Any]) -> ErrorCode:
    """Return the code that a client gets from a function that only reads."""
    with pytest.raises(GatewayError) as caught:
        await call
    return of_read(caught.value).code


def local(server: MisbehavingServer) -> Address:
    return Address(host="127.0.0.1", port=server.port)


# Getting in


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[ValkeyProcess]:
    """Over TCP and with a password."""
    with ValkeyProcess(tmp_path, tcp=True, password="p@ss:w/ord") as server:
        yield server


async def test_a_password_lets_in_and_the_database_is_selected(guarded: ValkeyProcess) -> None:
    async with connected(Address.from_url(guarded.url + "/3")) as link:
        info = await link.call("CLIENT", "INFO")
        assert " db=3 " in info
        assert " name=test-link " in info


async def test_an_acl_user_gets_in_with_its_own_password(guarded: ValkeyProcess) -> None:
    address = Address.from_url(guarded.url)
    async with connected(address) as link:
        await link.call("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all")
    async with connected(replace(address, username="ann", password="secret")) as link:
        assert await link.call("ACL", "WHOAMI") == "ann"


@pytest.mark.parametrize(("password", "why"), [("wrong", "WRONGPASS"), (None, "NOAUTH")])
async def test_a_wrong_or_missing_password_is_refused_for_good_and_never_shown(
    guarded: ValkeyProcess, password: str | None, why: str
) -> None:
    link = Link(replace(Address.from_url(guarded.url), password=password), OPTIONS)
    with pytest.raises(RedisRefused, match=why) as refused:
        await link.start(5.0)
    assert "wrong" not in refused.value.message


async def test_a_database_that_is_not_there_is_refused_for_good(valkey: ValkeyProcess) -> None:
    link = Link(replace(Address.from_url(valkey.url), db=99), OPTIONS)
    with pytest.raises(RedisRefused, match="has no database 99"):
        await link.start(5.0)


async def test_a_link_that_nobody_waits_for_gets_in_once_the_password_is_right(guarded: ValkeyProcess) -> None:
    right = Address.from_url(guarded.url)
    link = Link(replace(right, password="later"), OPTIONS)
    await link.start(None)
    await eventually(lambda: "not let in" in link.last_error.message, "it has been refused")
    async with connected(right) as other:
        await other.call("CONFIG", "SET", "requirepass", "later")
    async with asyncio.timeout(10):
        await link.wait_up()
    await link.close()


async def test_a_server_that_is_not_there_is_reported_in_time() -> None:
    link = Link(Address(host="127.0.0.1", port=1), OPTIONS)
    start = time.monotonic()
    with pytest.raises(GatewayError, match=r"redis://127.0.0.1:1/0 cannot be reached: Connect") as caught:
        await link.start(0.2)
    assert caught.value.code is ErrorCode.REDIS_UNAVAILABLE
    assert not isinstance(caught.value, RedisRefused)
    assert time.monotonic() - start < stretched(2)


async def test_a_refused_client_name_is_no_reason_to_stay_out() -> None:
    def login(command: Command) -> bytes:
        return b"-ERR unknown command\r\n" if command[0] == b"CLIENT" else OK

    async with MisbehavingServer(lambda command: OK, login) as server, connected(local(server)) as link:
        assert await link.call("GET", "x") == "OK"


async def test_a_server_that_is_full_is_tried_again() -> None:
    full = True

    def login(command: Command) -> bytes:
        return b"-ERR max number of clients reached\r\n" if full else OK

    async with MisbehavingServer(lambda command: OK, login) as server:
        link = Link(local(server), OPTIONS)
        await link.start(None)
        await eventually(
            lambda: "refuses the gateway's first commands" in link.last_error.message, "it has been refused"
        )
        assert link.last_error.code is ErrorCode.REDIS_UNAVAILABLE
        full = False
        assert await link.call("GET", "x") == "OK"
        await link.close()


async def test_a_server_that_closes_during_the_handshake_is_tried_again_at_once() -> None:
    tries = 0

    def login(command: Command) -> bytes | None:
        nonlocal tries
        tries += command[0] == b"PING"
        return None if tries <= 2 else OK

    async with MisbehavingServer(lambda command: OK, login) as server:
        start = time.monotonic()
        async with connected(local(server)) as link:
            assert link.is_up
        assert time.monotonic() - start < stretched(1)


async def test_a_connection_that_has_ended_before_the_first_command_does_not_let_it_wait() -> None:
    """So it is when the loop was busy elsewhere between the two."""
    async with MisbehavingServer(lambda command: None) as server:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(RedisSocket, "127.0.0.1", server.port)
        await eventually(lambda: server.open, "it has been accepted")
        server.open.pop().abort()
        await connection.lost
        assert await code_of(connection.ask("PING")) is ErrorCode.REDIS_UNAVAILABLE


async def test_a_setup_that_fails_does_not_wait_for_the_deadline() -> None:
    def reply(command: Command) -> bytes | None:
        return None if server.accepted == 1 else OK

    async def setup(ask: Callable[..., Awaitable[Any]]) -> None:
        await asyncio.gather(*(ask("SCRIPT", "LOAD", str(number)) for number in range(5)))

    async with MisbehavingServer(reply) as server:
        start = time.monotonic()
        async with connected(local(server), replace(OPTIONS, deadline=30.0), setup=setup):
            assert server.accepted == 2
        assert time.monotonic() - start < stretched(2)


async def test_a_server_that_lets_in_only_to_close_is_not_hammered() -> None:
    async with MisbehavingServer(lambda command: None) as server:
        link = Link(local(server), OPTIONS)
        await link.start(5.0)
        ends = time.monotonic() + 0.5
        while time.monotonic() < ends:
            await asyncio.gather(link.call("GET", "x"), return_exceptions=True)
        await link.close()
        assert server.accepted < 20


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of our own making, and its key."""
    certificate = make_certificate(tmp_path, "localhost", also="IP:127.0.0.1")
    return certificate, certificate.with_suffix(".key")


@asynccontextmanager
async def tls_in_front_of(port: int, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """A relay that ends TLS; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        for pair in ((reader, inner_writer), (inner_reader, writer)):
            tasks.add(asyncio.create_task(copy(*pair)))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def test_tls_checks_the_certificate_unless_told_not_to(
    guarded: ValkeyProcess, certificate: tuple[Path, Path]
) -> None:
    async with tls_in_front_of(guarded.port, certificate) as port:
        url = guarded.url.replace("redis://", "rediss://").replace(str(guarded.port), str(port))
        trusted = Address.from_url(f"{url}/1?ssl_ca_certs={certificate[0]}")
        async with connected(trusted) as link:
            assert await link.call("PING") == "PONG"
        async with connected(Address.from_url(f"{url}?ssl_cert_reqs=none")) as link:
            assert await link.call("PING") == "PONG"
        with pytest.raises(GatewayError, match="certificate") as caught:
            await Link(Address.from_url(url), OPTIONS).start(0.3)
        assert caught.value.code is ErrorCode.REDIS_UNAVAILABLE


# Commands


async def test_replies_come_in_the_order_of_the_commands(valkey: ValkeyProcess, prefix: str) -> None:
    async with connected(Address.from_url(valkey.url)) as link:
        calls = [link.call("SET", f"{prefix}:{n}", n) if n % 2 else link.call("INCR", prefix) for n in range(1000)]
        replies = await asyncio.gather(*calls)
        assert replies == ["OK" if n % 2 else n // 2 + 1 for n in range(1000)]
        await link.call("DEL", prefix, *(f"{prefix}:{n}" for n in range(1000)))


async def test_replies_that_arrive_in_pieces_are_put_together() -> None:
    pieces = iter([b"$5\r\nhe", b"llo\r\n*2\r\n:", b"1\r\n$-1\r\n"])
    async with MisbehavingServer(lambda command: next(pieces)) as server, connected(local(server)) as link:
        first, second = link.call("GET", "a"), link.call("GET", "b")
        link.send(pack_command("GET", "c"), lambda reply: None)
        assert (await first, await second) == ("hello", [1, None])


async def test_text_that_is_not_utf8_goes_back_as_the_bytes_that_it_was(valkey: ValkeyProcess, prefix: str) -> None:
    async with connected(Address.from_url(valkey.url)) as link:
        await link.call("SET", prefix, b"\xff")
        text = await link.call("GET", prefix)
        await link.call("SET", prefix, text)
        assert await link.call("GETDEL", prefix, decode=False) == b"\xff"
        assert encode(text) == '"\ufffd"'.encode()


@pytest.mark.parametrize(
    "error",
    [
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "BUSY Redis is busy running a script.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "NOREPLICAS Not enough good replicas to write.",
    ],
)
async def test_a_server_that_cannot_serve_now_is_unavailable(error: str) -> None:
    impatient = replace(OPTIONS, backlog_timeout=0.2)
    async with (
        MisbehavingServer(lambda command: f"-{error}\r\n".encode()) as server,
        connected(local(server), impatient) as link,
    ):
        assert await code_of(link.call("SET", "a", "b")) is ErrorCode.REDIS_UNAVAILABLE


async def test_another_error_is_ours_and_says_what_redis_said(valkey: ValkeyProcess) -> None:
    async with connected(Address.from_url(valkey.url)) as link:
        with pytest.raises(GatewayError, match="Redis refused the command: ERR unknown command") as caught:
            await link.call("NONSENSE")
        assert caught.value.code is ErrorCode.INTERNAL


async def test_of_a_refused_transaction_the_first_error_counts() -> None:
    replies = iter(
        [b"+OK\r\n", b"+QUEUED\r\n", b"-OOM command not allowed\r\n", b"-EXECABORT discarded\r\n", b":7\r\n"]
    )
    async with MisbehavingServer(lambda command: next(replies)) as server, connected(local(server)) as link:
        seen: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        commands = [("MULTI",), ("EXISTS", "a"), ("SET", "a", "b"), ("EXEC",)]
        link.send(b"".join(pack_command(*command) for command in commands), seen.set_result, replies=4)
        after = link.call("INCR", "x")
        assert str(await seen).startswith("OOM")
        assert await after == 7


async def test_a_sink_that_fails_keeps_no_reply_from_the_others(background: list[str]) -> None:
    async with MisbehavingServer(lambda command: OK) as server, connected(local(server)) as link:
        link.send(pack_command("GET", "a"), {}.__getitem__)
        assert await link.call("GET", "b") == "OK"
    assert "a sink failed" in background.pop()


# The connection breaks


async def test_a_lost_reply_to_a_write_is_an_unknown_outcome_and_it_is_never_sent_twice() -> None:
    async with MisbehavingServer(lambda command: None) as server, connected(local(server)) as link:
        write, read = link.call("SET", "a", "b"), link.call("GET", "a")
        assert await code_of(write) is ErrorCode.OUTCOME_UNKNOWN
        assert await code_of_read(read) is ErrorCode.REDIS_UNAVAILABLE
        server.reply = lambda command: OK
        assert await link.call("INCR", "x") == "OK"
        assert [command[0] for command in server.commands] == [b"SET", b"INCR"]


async def test_half_a_reply_is_no_reply() -> None:
    answers = iter([b"$100\r\nhalf", None])
    async with MisbehavingServer(lambda command: next(answers)) as server, connected(local(server)) as link:
        first, second = link.call("GET", "a"), link.call("GET", "b")
        assert await code_of(first) is ErrorCode.OUTCOME_UNKNOWN
        assert await code_of(second) is ErrorCode.OUTCOME_UNKNOWN


async def test_a_reply_that_is_no_redis_protocol_ends_the_connection() -> None:
    async with MisbehavingServer(lambda command: b"HTTP/1.1 400\r\n") as server, connected(local(server)) as link:
        assert await code_of_read(link.call("GET", "a")) is ErrorCode.REDIS_UNAVAILABLE
        server.reply = lambda command: OK
        assert await link.call("GET", "b") == "OK"


async def test_a_reply_that_nobody_asked_for_ends_the_connection() -> None:
    """Else it would be taken for the next command's, and every later one for the one after that."""
    async with MisbehavingServer(lambda command: b"+a\r\n+stray\r\n") as server, connected(local(server)) as link:
        assert await link.call("GET", "a") == "a"
        await eventually(lambda: not link.is_up or server.accepted > 1, "the connection has ended")
        server.reply = lambda command: b"+b\r\n"
        assert await link.call("GET", "b") == "b"


async def test_the_link_comes_back_after_a_restart_and_what_was_not_sent_is_sent_then(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path, tcp=True) as server:
        async with connected(Address.from_url(server.url)) as link:
            ups: list[bool] = []
            link.on_up.append(lambda: ups.append(link.is_up))
            assert await link.call("INCR", "x") == 1
            server.stop()
            await eventually(lambda: not link.is_up, "the link notices")
            kept = [link.call("INCR", "x") for _ in range(3)]
            server.start()
            assert await asyncio.gather(*kept) == [2, 3, 4]
            assert ups == [True]


async def test_only_so_many_commands_are_kept_and_only_for_so_long() -> None:
    options = replace(OPTIONS, backlog=2, backlog_timeout=0.3)
    async with MisbehavingServer(lambda command: None) as server:
        async with connected(local(server), options) as link:
            server.port = 0
            await server.__aexit__()
            await eventually(lambda: not link.is_up, "the link notices")
            start = time.monotonic()
            kept = [link.call("SET", "a", n) for n in range(2)]
            assert await code_of(link.call("SET", "a", "too many")) is ErrorCode.REDIS_UNAVAILABLE
            assert time.monotonic() - start < stretched(0.2)
            assert [await code_of(call) for call in kept] == [ErrorCode.REDIS_UNAVAILABLE] * 2
            assert 0.15 < time.monotonic() - start < stretched(1)
            start = time.monotonic()
            assert await code_of(link.call("SET", "a", "later")) is ErrorCode.REDIS_UNAVAILABLE
            assert time.monotonic() - start < stretched(0.1)
        await server.__aenter__()


async def test_only_so_many_bytes_of_commands_are_kept_and_there_is_room_for_as_many_in_the_next_outage(
    tmp_path: Path,
) -> None:
    small, large = b"x" * 100, b"x" * 1000
    with ValkeyProcess(tmp_path, tcp=True) as server:
        async with connected(Address.from_url(server.url), replace(OPTIONS, backlog_size=1000)) as link:
            for _ in range(2):
                server.stop()
                await eventually(lambda: not link.is_up, "the link notices")
                kept = [link.call("SET", "a", small) for _ in range(5)]
                assert await code_of(link.call("SET", "a", large)) is ErrorCode.REDIS_UNAVAILABLE
                server.start()
                assert await asyncio.gather(*kept) == ["OK"] * 5
                assert await link.call("SET", "a", large) == "OK"  # while the link is up there is no such bound


async def test_commands_in_pieces_and_whole_ones_keep_their_order(tmp_path: Path) -> None:
    replies: list[Any] = []
    with ValkeyProcess(tmp_path) as server:
        async with connected(Address.from_url(server.url)) as link:
            link.send(pack_command("RPUSH", "l", "1"), replies.append)
            head, value, end = pack_command("RPUSH", "l", "22").partition(b"22")
            link.send([head, value, end], replies.append)
            link.send(pack_command("RPUSH", "l", "3"), replies.append)
            assert await link.call("LRANGE", "l", 0, -1) == ["1", "22", "3"]
            assert replies == [1, 2, 3]


async def test_the_errors_of_an_outage_are_each_a_new_one() -> None:
    """One shared exception would collect the traceback of everybody who raises it."""
    link = Link(Address(host="127.0.0.1", port=1), replace(OPTIONS, backlog=0))
    await link.start(None)
    errors = await asyncio.gather(*(link.call("GET", "a") for _ in range(3)), return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    await link.close()


async def test_a_frozen_server_is_given_up_after_the_deadline(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path, tcp=True) as server:
        async with connected(Address.from_url(server.url), replace(OPTIONS, deadline=0.4)) as link:
            server.freeze()
            start = time.monotonic()
            write, read = link.call("SET", "a", "b"), link.call("GET", "a")
            assert await code_of(write) is ErrorCode.OUTCOME_UNKNOWN
            assert await code_of_read(read) is ErrorCode.REDIS_UNAVAILABLE
            assert 0.35 < time.monotonic() - start < stretched(1.5)
            server.thaw()
            assert await link.call("GET", "a") == "b"  # it had happened


async def test_a_slow_server_that_goes_on_answering_is_not_given_up() -> None:
    options = replace(OPTIONS, deadline=0.3)
    async with MisbehavingServer(lambda command: b"") as server, connected(local(server), options) as link:
        calls, start = [link.call("GET", n) for n in range(6)], time.monotonic()
        for number, call in enumerate(calls):
            await eventually(partial(_passed, start + number * 0.15), "half of the deadline has passed")
            next(iter(server.open)).write(OK)
            await call
        assert server.accepted == 1


def _passed(moment: float) -> bool:
    return time.monotonic() > moment


async def test_what_has_not_arrived_when_a_link_is_given_up_does_not_do_so_later() -> None:
    async with MisbehavingServer(lambda command: b"") as server:
        async with connected(local(server), replace(OPTIONS, deadline=0.3)) as link:
            [deaf] = server.open
            deaf.pause_reading()
            deaf.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            calls = [link.call("SET", "key", "x" * 1000) for _ in range(1000)]
            assert {await code_of(call) for call in calls} == {ErrorCode.OUTCOME_UNKNOWN}
            await link.wait_up()
            deaf.resume_reading()
            await eventually(lambda: deaf not in server.open, "the server sees the end of the first connection")
        assert len(server.commands) < 100  # they had arrived


async def test_an_idle_link_stays_up_for_longer_than_its_deadline() -> None:
    options = replace(OPTIONS, deadline=0.2)
    async with MisbehavingServer(lambda command: OK) as server, connected(local(server), options) as link:
        start = time.monotonic()
        await eventually(lambda: time.monotonic() - start > 0.5, "more than twice the deadline has passed")
        assert await link.call("GET", "a") == "OK"
        assert server.accepted == 1


# The end


async def test_close_leaves_no_task_and_no_socket_behind() -> None:
    before = asyncio.all_tasks()
    async with MisbehavingServer(lambda command: b"") as server:
        async with connected(local(server)) as link:
            write, read = link.call("SET", "a", "b"), link.call("GET", "a")
            await eventually(lambda: len(server.commands) == 2, "they have been sent")
        assert await code_of(write) is ErrorCode.OUTCOME_UNKNOWN
        assert await code_of_read(read) is ErrorCode.REDIS_UNAVAILABLE
        assert await code_of(link.call("GET", "a")) is ErrorCode.SHUTTING_DOWN
        assert asyncio.all_tasks() == before
        await eventually(lambda: not server.open, "the socket is closed")


async def test_close_ends_what_waits_for_the_connection() -> None:
    before = asyncio.all_tasks()
    link = Link(Address(host="127.0.0.1", port=1), OPTIONS)
    await link.start(None)
    kept = link.call("SET", "a", "b")
    await link.close()
    assert await code_of(kept) is ErrorCode.SHUTTING_DOWN
    assert asyncio.all_tasks() == before
