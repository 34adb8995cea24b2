"""The gateway inside somebody's own program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bullmq_proxy.gateway import Proxy, start_proxy
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.settings import SettingError
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess


async def ask(proxy: Proxy, queue: str, fn: str, *args: Any, key: str = "my-auth-key-1") -> Any:
    async with connect(f"{proxy.url}/queue/{queue}", additional_headers={"Authorization": f"Bearer {key}"}) as socket:
        await socket.send(json.dumps({"id": 1, "data": {"fn": fn, "args": args}}))
        return json.loads(await socket.recv())["data"]["ok"]


async def test_it_serves_from_a_url(valkey: ValkeyProcess, prefix: str) -> None:
    async with start_proxy(valkey.url, ["my-auth-key-1", "my-auth-key-2"], port=0, prefix=prefix) as proxy:
        assert (await ask(proxy, "mails", "add", "welcome", {"to": "a@b.c"}))["id"] == "1"
        assert await ask(proxy, "mails", "count", key="my-auth-key-2") == 1
        with pytest.raises(InvalidStatus):
            await ask(proxy, "mails", "count", key="my-auth-key-3")


async def test_it_serves_from_an_existing_client_and_leaves_it_alone(valkey: ValkeyProcess, prefix: str) -> None:
    client = redis.asyncio.from_url(valkey.url, decode_responses=True)
    async with start_proxy(client, ["my-auth-key-1"], port=0, prefix=prefix) as proxy:
        await ask(proxy, "mails", "add", "welcome")
        assert await client.hget(f"{prefix}:mails:1", "name") == "welcome"
    assert await client.ping()
    await client.aclose()


async def test_leaving_the_context_closes_connections_as_going_away(valkey: ValkeyProcess, prefix: str) -> None:
    proxy = await start_proxy(valkey.url, no_auth=True, port=0, prefix=prefix).start()
    socket = await connect(f"{proxy.url}/queue/mails")
    await proxy.stop()
    with pytest.raises(ConnectionClosed) as closed:
        await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


async def test_two_in_one_program_do_not_meet(valkey: ValkeyProcess, prefix: str) -> None:
    one, other = (start_proxy(valkey.url, no_auth=True, port=0, prefix=f"{prefix}{n}") for n in (1, 2))
    async with one, other:
        await ask(one, "mails", "add", "welcome")
        assert [await ask(proxy, "mails", "count") for proxy in (one, other)] == [1, 0]


def test_nobody_is_let_in_by_accident() -> None:
    with pytest.raises(ValueError, match="no_auth=True"):
        start_proxy("redis://localhost")


def test_a_setting_that_cannot_be_used_is_refused_at_once() -> None:
    with pytest.raises(SettingError, match="ping_interval"):
        start_proxy("redis://localhost", ["key"], ping_interval=-1)
    with pytest.raises(ValueError, match="redis"):
        start_proxy("http://localhost", ["key"])


async def test_one_key_needs_no_list(valkey: ValkeyProcess, prefix: str) -> None:
    async with start_proxy(valkey.url, "only-key", port=0, prefix=prefix) as proxy:
        address = f"ws://127.0.0.1:{proxy.port}/queue/q"
        async with connect(address, additional_headers={"Authorization": "Bearer only-key"}):
            pass
        with pytest.raises(InvalidStatus):
            await connect(address, additional_headers={"Authorization": "Bearer o"})


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])  # shards run on uvloop
@pytest.mark.parametrize(
    ("url", "answer", "problem"),
    [
        ("redis://me:secret@{closed}", b"", "redis://{closed}/0 cannot be reached: Connection refused"),
        ("redis://no.such.host.invalid", b"", "redis://no.such.host.invalid:6379/0 cannot be reached: "),
        ("unix:///no/such/socket", b"", "unix:/no/such/socket cannot be reached: No such file or directory"),
        (
            "redis://{open}",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "redis://{open}/0 does not answer as Redis does: it is no Redis server",
        ),
        (
            "redis://{open}",
            b"\x15\x03\x01\x00\x02\x02\x46",  # an alert
            "redis://{open}/0 does not answer as Redis does: it wants TLS: write rediss://",
        ),
        (
            "rediss://{open}",
            b"-ERR unknown command\r\n",
            "rediss://{open}/0 does not speak TLS: write redis:// for rediss://",
        ),
        (
            "redis://{open}",
            b"",
            "cannot be reached: it closes the connection at once (if it wants TLS, write rediss://",
        ),
    ],
    ids=["closed", "no host", "no socket", "web", "tls", "plain", "curt"],
)
def test_a_redis_that_cannot_be_used_fails_the_start(
    run: Callable[[Coroutine[Any, Any, None]], None], port: int, url: str, answer: bytes, problem: str
) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        writer.close()

    async def start() -> None:
        async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
            places = {"closed": f"127.0.0.1:{port}", "open": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}
            proxy = start_proxy(url.format(**places), ["key"], port=0, redis_start_timeout=0.3)
            with pytest.raises(GatewayError) as failed:
                await proxy.start()
        assert problem.format(**places) in str(failed.value)
        assert "secret" not in str(failed.value)

    run(start())


async def test_keys_with_permissions_come_from_a_file(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.toml", entry("shop", "produce", queues=["mails"]))
    async with start_proxy(valkey.url, port=0, prefix=prefix, keys_file=path) as proxy:
        assert (await ask(proxy, "mails", "add", "welcome", key="shop"))["id"] == "1"
        with pytest.raises(KeyError):  # there is no `ok`
            await ask(proxy, "mails", "count", key="shop")
        with pytest.raises(InvalidStatus):
            await ask(proxy, "orders", "add", "order", key="shop")
        write_keys(tmp_path / "keys.toml", entry("shop", "produce", queues=["orders"]))
        proxy.reload_keys()
        assert (await ask(proxy, "orders", "add", "order", key="shop"))["id"] == "1"


def test_a_keys_file_must_be_usable_and_let_somebody_in(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        start_proxy("redis://localhost", keys_file=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="holds no key"):
        start_proxy("redis://localhost", keys_file=write_keys(tmp_path / "keys.toml"))
    assert start_proxy("redis://localhost", ["key"], keys_file=str(tmp_path / "keys.toml"))


def test_a_keys_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.toml", entry("shop"))
    (tmp_path / "keys.toml").chmod(0o646)
    with pytest.raises(ValueError, match=r"other users can read or write .*: chmod 600 "):
        start_proxy("redis://localhost", keys_file=path)


@pytest.mark.parametrize("name", ["procs", "redis_url", "auth_keys_file"])
def test_a_setting_that_would_be_ignored_is_refused(name: str) -> None:
    unfit: dict[str, Any] = {name: "x"}
    with pytest.raises(ValueError, match=f"start_proxy takes no {name}: "):
        start_proxy("redis://localhost", ["key"], port=0, **unfit)
