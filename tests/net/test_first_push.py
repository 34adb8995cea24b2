"""The first push: never in one segment with the answer to the handshake, as some clients listen only a tick later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bullmq_proxy.gateway import Proxy
from tests.net.conftest import MakeGateway
from tests.net.support import PING, PONG, RawClient, call, frame, handshake
from tests.support.waiting import stretched

PUSHING = ["/queue/q/process/1", "/queue/q/events?lastEventId=0"]
NEVER = 60.0  # s


@pytest.fixture
def long_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.net.connection._FIRST_PUSH_DELAY", NEVER)


@pytest_asyncio.fixture
async def busy(gateway: Proxy) -> AsyncIterator[Proxy]:
    """A gateway with a job and an event that wait for whoever comes."""
    async with await RawClient.open(gateway.port, "/queue/q") as producer:
        await producer.ask("add", "job")
        yield gateway


def pause(id: int) -> str:
    return json.dumps({"id": id, "data": {"type": "pause"}})


@pytest.mark.parametrize("target", PUSHING)
async def test_a_client_that_says_nothing_gets_it_a_little_later(busy: Proxy, target: str) -> None:
    async with await RawClient.open(busy.port, target) as client:
        async with asyncio.timeout(stretched(1)):
            assert "data" in await client.message()


@pytest.mark.parametrize("target", PUSHING)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(frame("hello", PING), id="ping"),
        pytest.param(frame("", PONG), id="pong"),
        pytest.param(frame(""), id="empty text"),
        pytest.param(frame("no JSON"), id="broken text"),
        pytest.param(frame("", fin=False), id="a fragment"),
        pytest.param(b"\x81", id="the beginning of a frame"),
    ],
)
@pytest.mark.usefixtures("long_delay")
async def test_any_frame_lets_it_come_at_once(busy: Proxy, target: str, words: bytes) -> None:
    async with await RawClient.open(busy.port, target) as client:
        client.write(words)
        while "err" in (pushed := (await client.message())["data"]):
            pass
        assert pushed.get("type", pushed.get("event")) in ("process", "added")


@pytest.mark.parametrize("target", PUSHING)
@pytest.mark.usefixtures("long_delay")
async def test_what_came_before_the_answer_is_answered_and_lets_nothing_else_come(busy: Proxy, target: str) -> None:
    async with await RawClient.connect(busy.port) as client:
        client.write(handshake(target) + frame(call(1, "off", "*")) + frame("early", PING))
        assert (await client.answer()).status == 101
        assert {(await client.read())[0] for _ in range(2)} == {0x1, PONG}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.read(), 0.1)


@pytest.mark.usefixtures("long_delay")
async def test_a_worker_whose_first_word_is_pause_gets_no_job(busy: Proxy) -> None:
    async with await RawClient.connect(busy.port) as client:
        client.write(handshake("/queue/q/process/1") + frame(pause(1)))
        assert (await client.answer()).status == 101
        assert await client.message() == {"id": 1, "data": {"ok": None}}
        assert await client.ask("getJobCountByTypes", "waiting", id=2) == {"ok": 1}
        client.send(json.dumps({"id": 3, "data": {"type": "resume"}}))
        shown: list[Any] = [message["data"] for message in await client.messages(2)]
        assert sorted(shown, key=len)[-1]["type"] == "process"


@pytest.mark.parametrize("target", PUSHING)
@pytest.mark.usefixtures("long_delay")
async def test_a_gateway_that_stops_before_just_closes(make_gateway: MakeGateway, target: str) -> None:
    gateway = await make_gateway(drain_timeout=10.0)
    async with await RawClient.open(gateway.port, target) as client:
        stopping = asyncio.create_task(gateway.stop())
        assert (await client.read())[0] == 0x8
        await client.close()
        await stopping
