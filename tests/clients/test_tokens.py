"""Clients whose key is a function that returns tokens: asked at each connection, and before a token ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bullmq_proxy.gateway.client import FlowProducer, ProxyError, Queue, QueueEvents, Worker, sync
from bullmq_proxy.gateway.client.errors import UnauthorizedError
from bullmq_proxy.gateway.client.held import WorkerJob
from tests.net.support import RawClient
from tests.sessions.peer import Gateway
from tests.support.tokens import SETTINGS, jwk, token, write_set
from tests.support.valkey import ValkeyProcess

SOON = 8.0


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that lets tokens in; they end when they say so."""
    keys = write_set(tmp_path / "tokens.json", jwk("EdDSA"))
    async with Gateway(valkey.url, prefix=prefix, token_keys=keys, token_leeway=0, **SETTINGS) as gateway:
        yield gateway


class Login:
    """A maker of tokens for the clients: the first one is short-lived, the others not, unless they say so."""

    def __init__(self, *lifetimes: float) -> None:
        self.asked = 0
        self._ends = [time.time() + each for each in lifetimes]

    def __call__(self) -> str:
        self.asked += 1
        return token(exp=self._ends[self.asked - 1] if self.asked <= len(self._ends) else time.time() + 600)

    async def later(self) -> str:
        await asyncio.sleep(0)
        return self()


async def until_expired(proxy: Gateway, lifetime: float) -> None:
    """Wait until the gateway has closed the connections of a token."""
    async with await RawClient.open(proxy.port, "/queue/q", f"Authorization: Bearer {token(lifetime=lifetime)}") as raw:
        assert (await raw.message())["data"]["type"] == "expires"
        assert (await raw.closed())[0] == 4004


async def test_every_client_goes_on_with_a_fresh_token_on_its_connection(proxy: Gateway) -> None:
    url = f"ws://127.0.0.1:{proxy.port}"
    logins = [Login(2) for _ in range(4)]
    troubles: list[ProxyError] = []
    done: asyncio.Queue[str | None] = asyncio.Queue()

    async def handle(job: WorkerJob) -> None:
        done.put_nowait(job.name)

    async with (
        Queue("mails", url=url, key=logins[0]) as queue,
        FlowProducer(url=url, key=logins[1].later) as flows,
        QueueEvents("mails", url=url, key=logins[2]) as events,
        Worker("mails", handle, url=url, key=logins[3].later) as worker,
    ):
        for client in (queue, flows, events, worker):
            client.on("disconnected", troubles.append)
        completed: asyncio.Queue[object] = asyncio.Queue()
        events.on("completed", lambda fields, _: completed.put_nowait(fields["jobId"]))
        assert (await flows.whoami())["key"] == "jwt/ada"
        await queue.count()
        await until_expired(proxy, 2.2)
        async with asyncio.timeout(SOON):
            job = await queue.add("after", {})
            assert await done.get() == "after"
            assert await completed.get() == job.id
        assert (await flows.whoami())["key"] == "jwt/ada"
        assert troubles == []
    assert [login.asked for login in logins] == [2, 2, 2, 2]


async def test_without_a_fresh_one_it_connects_again_at_once(proxy: Gateway) -> None:
    login = Login(1.5, 1.6)  # the second one is as old as the first when it is handed in
    troubles: asyncio.Queue[ProxyError] = asyncio.Queue()
    async with Queue("mails", url=f"ws://127.0.0.1:{proxy.port}", key=login) as queue:
        queue.on("disconnected", troubles.put_nowait)
        await queue.count()
        async with asyncio.timeout(SOON):
            assert "closed with 4004: the token has expired" in str(await troubles.get())
            await queue.count()
    assert login.asked == 3


async def test_a_token_that_has_just_expired_is_not_the_end_and_two_are(proxy: Gateway) -> None:
    url = f"ws://127.0.0.1:{proxy.port}"
    login = Login(-1)
    async with Queue("mails", url=url, key=login) as queue:
        await queue.count()
    assert login.asked == 2
    login = Login(-1, -1)
    async with Queue("mails", url=url, key=login) as queue:
        with pytest.raises(UnauthorizedError, match="This token has expired: get a fresh one"):
            await queue.count()
    assert login.asked == 2


async def test_a_function_that_fails_is_asked_again(proxy: Gateway) -> None:
    answers: list[Callable[[], str | Awaitable[str]]] = [Login(), Login().later]
    told: list[str] = []

    def key() -> str | Awaitable[str]:
        if not told:
            raise OSError("the login does not answer")
        return answers.pop()()

    async with Queue("mails", url=f"ws://127.0.0.1:{proxy.port}", key=key) as queue:
        queue.on("disconnected", lambda trouble: told.append(str(trouble)))
        await queue.count()
    assert told == ["There is no key: the login does not answer"]


async def test_the_client_for_scripts_takes_a_function_too(proxy: Gateway) -> None:
    def run() -> str:
        with sync.FlowProducer(url=f"ws://127.0.0.1:{proxy.port}", key=Login()) as flows:
            return str(flows.whoami()["key"])

    assert await asyncio.to_thread(run) == "jwt/ada"
