"""Refused handshakes: clients that have offered our subprotocol see why, and pages of foreign origins learn nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from bullmq_proxy.gateway.wire.closing import REASON_LIMIT, Refusal
from tests.net.conftest import MakeGateway
from tests.net.refusing import NO_KEY, Request, refusals, refused
from tests.net.support import CLOSE, KEY, RawClient, upgrade
from tests.support.browser import Pages, browsing, find_chromium
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import stretched

CHROMIUM = find_chromium()
FOREIGN = "Origin: http://elsewhere"

REASONS = {
    Refusal.KEY_GONE: "The key old has expired",
    Refusal.BAD_REQUEST: "Expected a whole number from 0 to 60000",
    Refusal.UNAUTHORIZED: "This key is not known",
    Refusal.FORBIDDEN: "The key shop is not for the queue q",
    Refusal.ORIGIN: "This page's origin is not allowed to connect: name it in allowed_origins",
    Refusal.NOT_FOUND: "No",
    Refusal.VERSION: "bullmq-proxy.v1 is spoken here, and no other version",
    Refusal.LIMIT: "The key small has all its connections open (connections = 1): close one first",
    Refusal.INTERNAL: "Redis",
    Refusal.UNAVAILABLE: "Redis is not reachable",
    Refusal.STOPPING: "The gateway is shutting down",
}
"""The begin of each refusal's reason, as a client sees it."""


def shown(refusal: Refusal, seen: tuple[int, str]) -> tuple[int, str]:
    """A code, and of its reason as much as the table has."""
    code, reason = seen
    assert len(reason.encode()) <= REASON_LIMIT
    return code, reason[: len(REASONS[refusal])]


async def test_each_refusal_has_its_code_and_reason_or_by_http_its_status(
    make_gateway: MakeGateway, valkey: ValkeyProcess, prefix: str, tmp_path: Path
) -> None:
    async with refusals(make_gateway, valkey, prefix, tmp_path) as requests:
        assert {*requests, Refusal.ORIGIN} == set(Refusal)
        for refusal, request in requests.items():
            assert shown(refusal, await refused(request)) == (refusal, REASONS[refusal])
            if refusal not in (Refusal.VERSION, Refusal.STOPPING):  # without a version; the gateway has gone
                answer = await upgrade(request.port, request.path, f"Authorization: Bearer {request.key}")
                assert answer.status == refusal.status


async def test_a_page_of_a_foreign_origin_learns_nothing_else(
    make_gateway: MakeGateway, valkey: ValkeyProcess, prefix: str, tmp_path: Path
) -> None:
    expected = Refusal.ORIGIN, REASONS[Refusal.ORIGIN]
    async with refusals(make_gateway, valkey, prefix, tmp_path) as requests:
        for request in requests.values():
            assert await refused(request, FOREIGN) == expected
        working = replace(requests[Refusal.UNAUTHORIZED], key=KEY)
        assert await refused(working, FOREIGN) == expected


SCRIPT = """
const requests = REQUESTS, told = {};
if (location.hostname === "localhost") delete requests.STOPPING;  // which is there for one client
if (location.hostname === "127.0.0.1") {
  const frame = document.createElement("iframe");
  frame.src = `http://localhost:${location.port}/`;
  document.documentElement.append(frame);
}
await Promise.all(Object.entries(requests).map(([name, [url, protocols]]) => new Promise(resolve => {
  const socket = new WebSocket(url, protocols), events = [];
  for (const type of ["open", "message", "error"]) socket[`on${type}`] = () => events.push(type);
  socket.onclose = ({code, reason}) => resolve(told[name] = [code, reason, events.join()]);
})));
return told;
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: no page is tried in a browser")
async def test_pages_in_a_browser_see_why(
    make_gateway: MakeGateway, valkey: ValkeyProcess, prefix: str, tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    async with Pages() as pages:
        origin = f"http://127.0.0.1:{pages.port}"
        async with refusals(make_gateway, valkey, prefix, tmp_path, origin) as requests:
            urls = {
                refusal.name: (f"ws://127.0.0.1:{request.port}{request.path}", request.subprotocols)
                for refusal, request in requests.items()
            }
            pages.script = SCRIPT.replace("REQUESTS", json.dumps(urls))
            async with browsing(CHROMIUM, origin, tmp_path / "profile"):
                seen = await pages.seen(2)
        for name, (code, reason, *rest) in seen["127.0.0.1"].items():
            refusal = Refusal[name]
            assert shown(refusal, (code, reason)) == (refusal, REASONS[refusal])
            assert rest == ["open"]
        foreign = [Refusal.ORIGIN, REASONS[Refusal.ORIGIN], "open"]
        assert seen["localhost"] == {name: foreign for name in urls if name != Refusal.STOPPING.name}


async def test_refused_clients_count_as_unopened_and_are_closed_soon(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bullmq_proxy.gateway.net.unopened.UNOPENED", 3)
    gateway = await make_gateway()
    request = Request(gateway.port, "/queue/q", "wrong")
    protocols = f"Sec-WebSocket-Protocol: {', '.join(request.subprotocols)}"
    clients = []
    for _ in range(4):
        clients.append(await RawClient.connect(gateway.port))
        assert (await clients[-1].upgrade(request.path, NO_KEY, protocols)).status == 101
        assert (await clients[-1].read())[0] == CLOSE
    async with asyncio.timeout(stretched(1)):  # not because of the time
        await clients[0].gone()
    monkeypatch.setattr("bullmq_proxy.gateway.net.opening_connection._REFUSED_TIMEOUT", 0.05)
    async with await RawClient.connect(gateway.port) as late:
        await late.upgrade(request.path, NO_KEY, protocols)
        await late.gone()
    for client in clients:
        client.abort()
