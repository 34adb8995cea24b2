"""What the pages, refusals and errors of a gateway tell while Redis is away: not where it is, nor the login there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from bullmq_proxy.gateway import Proxy, start_proxy
from tests.broker.misbehaving import OK, Command, MisbehavingServer
from tests.net.support import KEY, TIMEOUT, RawClient, get, upgrade

USER, PASSWORD, NODE = "secret-user", "hunter2", "10.1.2.3:6379"


def does_not_know_auth(command: Command) -> bytes:
    """As servers do that have no such command."""
    words = " ".join(f"'{word.decode()}'" for word in command[1:])
    return f"-ERR unknown command 'AUTH', with args beginning with: {words}\r\n".encode()


def says(text: str) -> Callable[[Command], bytes]:
    return lambda command: f"-{text}\r\n".encode()


LOGINS: dict[str, Callable[[Command], bytes | None]] = {
    "closes": lambda command: None,
    "wrong password": says("WRONGPASS invalid username-password pair or user is disabled."),
    "no AUTH": does_not_know_auth,
    "cluster": says(f"MOVED 3999 {NODE}"),
    "no permission": says(f"NOPERM User {USER} has no permissions to run the 'ping' command"),
    "no Redis": lambda command: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "loading": says("LOADING Valkey is loading the dataset in memory"),
    "full": says("ERR max number of clients reached"),
}


def knows_all_scripts(command: Command) -> bytes:
    """The answer to SCRIPT EXISTS."""
    return b"*%d\r\n" % len(command[2:]) + b":1\r\n" * len(command[2:])


async def seen_by_outsiders(proxy: Proxy, client: RawClient) -> str:
    """All that a gateway says to somebody without a key, and in errors to somebody with one."""
    pages = [await get(proxy.port, path) for path in ("/", "/health", "/ready", "/metrics", "/none")]
    paths = ("/queue/q", "/queue/q/process/1", "/queue/q/events", "/flows")
    pages += [await upgrade(proxy.port, path, "Authorization:") for path in paths]
    pages += [await upgrade(proxy.port, path, "Authorization: Bearer wrong") for path in paths]
    pages.append(await upgrade(proxy.port, "/queue/q/events"))  # which needs Redis
    errors = [await client.ask(fn, *args) for fn, *args in (("count",), ("add", "w"), ("getNextJob", "t"))]
    return "\n".join([*(f"{page.headers} {page.body!r}" for page in pages), *map(str, errors)])


@pytest.mark.parametrize("failure", [*LOGINS, "gone"])
async def test_nobody_learns_where_redis_is_or_how_the_gateway_logs_in(
    failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logins: list[Callable[[Command], bytes | None]] = [lambda command: OK]
    async with AsyncExitStack() as stack:

        def answer(command: Command) -> bytes | None:
            return logins[-1](command)

        server = await stack.enter_async_context(MisbehavingServer(knows_all_scripts, answer))
        url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"
        stop = {"redis_timeout": 0.5, "redis_backlog_timeout": 0.0, "drain_timeout": 0.0}
        proxy = await stack.enter_async_context(start_proxy(url, KEY, port=0, **stop))
        client = await stack.enter_async_context(await RawClient.open(proxy.port, "/queue/q"))
        if failure == "gone":
            await server.__aexit__()
        else:
            logins.append(LOGINS[failure])
            for transport in list(server.open):
                transport.abort()
        reason = await reason_of_outage(proxy)
        said = await seen_by_outsiders(proxy, client)
        secrets = (f":{server.port}", "127.0.0.1", USER, PASSWORD, NODE)
        assert [secret for secret in secrets if secret in said] == [], reason
        assert reason.startswith(("Redis is not reachable", "Redis cannot serve"))
    written = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    told = [word for word in (PASSWORD, f"127.0.0.1:{server.port}") if word in written]
    assert told == [f"127.0.0.1:{server.port}"]  # the log is for whoever runs the gateway


async def reason_of_outage(proxy: Proxy) -> str:
    """Wait until the gateway has tried to connect again, and return what it says of that."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            answer = await get(proxy.port, "/ready")
            if answer.status == 503 and "the connection was lost" not in answer.error["message"]:
                return answer.error["message"]
