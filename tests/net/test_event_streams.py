"""Server-sent events: what a WebSocket tells of a queue, for those who ask by HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.net import event_stream
from tests.net.conftest import MakeGateway
from tests.net.support import TIMEOUT, RawClient, request
from tests.support.keys import entry, write_keys

STREAM = "Accept: text/event-stream"
EVENTS = "/queue/q/events"


class Stream:
    """An open stream, on a connection that may have been used before."""

    def __init__(self, client: RawClient) -> None:
        self.client = client

    @classmethod
    async def open(cls, client: RawClient, target: str = EVENTS, *headers: str) -> Stream:
        client.request("GET", target, STREAM, *headers)
        head = (await cls(client).block()).split("\r\n")
        assert head[0] == "HTTP/1.1 200 OK"
        assert "Content-Type: text/event-stream" in head
        return cls(client)

    async def block(self) -> str:
        """What comes until the next empty line."""
        async with asyncio.timeout(TIMEOUT):
            text = b""
            while not text.endswith((b"\n\n", b"\r\n\r\n")):
                text += await self.client._reader.readuntil(b"\n")
        return text.decode()

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The id and the data of the next event."""
        lines = [line.partition(": ") for line in (await self.block()).splitlines() if line]
        data = "\n".join(value for name, _, value in lines if name == "data")
        return next((value for name, _, value in lines if name == "id"), ""), json.loads(data)


async def add(gateway: Proxy, *names: str) -> None:
    async with await RawClient.connect(gateway.port) as client:
        for name in names:
            assert (await client.fetch("POST", "/queue/q/add", body=json.dumps([name]))).status == 200


async def test_events_come_with_their_ids_and_a_client_resumes_by_them(gateway: Proxy) -> None:
    async with await RawClient.connect(gateway.port) as client, await RawClient.connect(gateway.port) as again:
        assert (await client.fetch("GET", "/queue/q/count")).status == 200
        stream = await Stream.open(client, f"{EVENTS}?events=waiting")
        await add(gateway, "a", "b", "c")
        seen = [await stream.event() for _ in range(3)]
        assert [data["event"] for _, data in seen] == ["waiting"] * 3
        assert [data["args"][0]["jobId"] for _, data in seen] == ["1", "2", "3"]
        assert [data["args"][1] for _, data in seen] == [id for id, _ in seen]
        resumed = await Stream.open(again, f"{EVENTS}?events=waiting&lastEventId=0-0", f"Last-Event-ID: {seen[0][0]}")
        assert [await resumed.event() for _ in range(2)] == seen[1:]
        await add(gateway, "d")
        assert (await stream.event())[1]["args"][0]["jobId"] == "4"
        assert (await resumed.event())[1]["args"][0]["jobId"] == "4"


async def test_a_gap_is_told(gateway: Proxy) -> None:
    await add(gateway, "a", "b")
    async with await RawClient.connect(gateway.port) as client:
        await client.fetch("POST", "/queue/q/trimEvents", body="[0]")
        stream = await Stream.open(client, f"{EVENTS}?lastEventId=1-0")
        id, data = await stream.event()
        assert (id, data["event"], data["args"][0]["from"]) == ("", "gap", "1-0")


async def test_a_silence_is_broken_by_comments(gateway: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.0)
    async with await RawClient.connect(gateway.port) as client:
        assert await (await Stream.open(client)).block() == ":\n\n"


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        (EVENTS, (STREAM, "Authorization: Bearer wrong"), 401),
        (EVENTS, (STREAM, "Last-Event-ID: x"), 400),
        (f"{EVENTS}?x=1", (STREAM,), 400),
        (EVENTS, ("Accept: text/html",), 426),
        ("/queue/q", (STREAM,), 426),
        (EVENTS, (STREAM, "Origin: https://evil.example"), 403),
    ],
)
async def test_what_is_no_stream_is_refused(gateway: Proxy, target: str, headers: tuple[str, ...], status: int) -> None:
    async with await RawClient.connect(gateway.port) as client:
        assert (await client.fetch("GET", target, *headers)).status == status
        assert (await client.fetch("GET", "/health")).status == 200


async def test_a_page_that_is_allowed_may_listen_with_its_key_in_the_url(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(allowed_origins=("https://shop.example",))
    async with await RawClient.connect(gateway.port) as client:
        client.request("GET", f"{EVENTS}?token=key-1", STREAM, "Origin: https://shop.example", "Authorization:")
        assert "Access-Control-Allow-Origin: https://shop.example" in await Stream(client).block()


async def test_it_ends_with_the_right_to_watch_and_with_the_gateway(make_gateway: MakeGateway, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    gateway = await make_gateway(
        keys_file=write_keys(path, entry("watch", "observe", connections=1)), drain_timeout=5.0
    )
    watch = "Authorization: Bearer watch"
    async with await RawClient.connect(gateway.port) as client, await RawClient.connect(gateway.port) as other:
        assert (await client.fetch("GET", "/queue/q/count", watch)).status == 200
        await Stream.open(client, EVENTS, watch)
        client.write(request("GET", "/health"))  # is not looked at
        assert (await other.fetch("GET", EVENTS, STREAM, watch)).status == 429
        write_keys(path)
        gateway.reload_keys()
        await client.gone()
        await Stream.open(other)
        await gateway.stop()
        await other.gone()
