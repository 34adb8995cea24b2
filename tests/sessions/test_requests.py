"""Functions over HTTP: each gives what it gives on a WebSocket, and each error has the status of its code."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.table import Function
from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net.exchange import refusal
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint
from bullmq_proxy.gateway.wire.routes import parse_request
from tests.net.support import RawClient
from tests.sessions.peer import SOON, Gateway, Peer, Refused, until
from tests.sessions.test_examples import prepare, real
from tests.support.contract import check_result
from tests.support.keys import entry, write_keys
from tests.support.ports import free_port
from tests.support.relay import Relay
from tests.support.tokens import SETTINGS, token
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually


class Requests(Peer):
    """A client that calls each function by a request."""

    def __init__(self, client: RawClient, target: str, key: str = "key-1") -> None:
        self.client = client
        self._target = target
        self._key = f"Authorization: Bearer {key}"

    async def call(self, fn: str, *args: Any, timeout: float = SOON) -> Any:
        """Call a function and return its result, which has to be what the AsyncAPI document says."""
        body = json.dumps(args) if args else ""
        answer = await self.client.fetch("POST", f"{self._target}/{fn}", self._key, body=body)
        data = json.loads(answer.body)
        if "err" in data:
            assert answer.status == ErrorCode.__members__[data["err"]["code"]].http_status
            raise Refused(data["err"])
        assert (answer.status, data.keys()) == (200, {"ok"})
        check_result(fn, data["ok"])
        return data["ok"]


Outcome = tuple[str, Any]
"""The code of an error and its message, or `ok` and the result."""


async def outcome(peer: Peer, fn: str, *args: Any) -> Outcome:
    """Call a function, whatever becomes of it."""
    try:
        return "ok", await peer.call(fn, *args)
    except Refused as error:
        return error.code, error.message


def doubtful(function: Function) -> list[list[Any]]:
    """Arguments that the function may refuse: too few, too many, of other types, and a job that there is not."""
    some: list[list[Any]] = [[], [None] * 9, [{}, {}]]
    return some if function.waits else [*some, ["none", *function.example[1:]]]


def lasting(outcome: Outcome) -> Outcome:
    """An outcome without what the call itself changes, the calls of its connection, and how long a job has waited."""
    return outcome[0], re.sub(r'"calls": \d|"oldest": \d+', "CHANGES", json.dumps(outcome[1]))


def masked(outcome: Outcome, prefix: str) -> Outcome:
    """An outcome without what differs from gateway to gateway, and from moment to moment."""
    text = json.dumps(outcome[1]).replace(prefix, "PREFIX")
    return outcome[0], re.sub(r'1[78]\d{11}|"delay": \d{6,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', "TIME", text)


async def test_every_function_that_reads_gives_what_it_gives_on_a_websocket(valkey: ValkeyProcess, prefix: str) -> None:
    async with Gateway(valkey.url, prefix=prefix, bad_messages_per_second=1_000_000) as proxy:
        socket, flows = await proxy.queue("mails"), await proxy.connect("/flows")
        await prepare(socket, flows, "mails")
        async with await RawClient.connect(proxy.port) as client:
            for table, peer, target in (TABLE, socket, "/queue/mails"), (FLOWS, flows, "/flows"):
                requests = Requests(client, target)
                for function in table:
                    if function.writes:
                        continue
                    for args in (list(function.example), *doubtful(function)):
                        by_socket = lasting(await outcome(peer, function.name, *args))
                        by_request = lasting(await outcome(requests, function.name, *args))
                        assert by_socket == by_request, (function.name, args)
                        by_get = await client.fetch("GET", f"{target}/{function.name}?args={quote(json.dumps(args))}")
                        data = json.loads(by_get.body)
                        err = data.get("err", {})
                        assert by_socket == lasting((err["code"], err["message"]) if err else ("ok", data["ok"]))


async def test_every_function_that_writes_gives_what_it_gives_on_a_websocket(
    valkey: ValkeyProcess, prefix: str
) -> None:
    """On two gateways whose queues have the same jobs."""
    prefixes = f"{prefix}a", f"{prefix}b"
    first, second = (Gateway(valkey.url, prefix=each, bad_messages_per_second=1_000_000) for each in prefixes)
    async with first, second, await RawClient.connect(second.port) as client:
        flows, flow_requests = await first.connect("/flows"), Requests(client, "/flows")
        for table, name_of in (TABLE, lambda function: function.name), (FLOWS, lambda _: "mails"):
            for function in table:
                if not function.writes:
                    continue
                queue = name_of(function)
                peer = await first.queue(queue)
                requests = Requests(client, f"/queue/{queue}")
                if table is TABLE or function is next(iter(FLOWS)):
                    await asyncio.gather(prepare(peer, flows, queue), prepare(requests, flow_requests, queue))
                by_socket = peer if table is TABLE else flows
                by_request = requests if table is TABLE else flow_requests
                example = await asyncio.gather(
                    real(function.example, first, peer, queue), real(function.example, second, requests, queue)
                )
                for ours, theirs in (example, *((args, args) for args in doubtful(function))):
                    found = await asyncio.gather(
                        outcome(by_socket, function.name, *ours), outcome(by_request, function.name, *theirs)
                    )
                    one, other = map(masked, found, prefixes)
                    assert one == other, (function.name, ours)
                await peer.close()


def calls(proxy: Gateway) -> int:
    """How many calls have been begun."""
    app = proxy._proxy._app
    assert app is not None
    return app.broker.counters.begun_calls


async def up(proxy: Gateway) -> bool:
    return await proxy.metric("redis_up") == 1


async def test_every_code_comes_by_both_ways(relay: Relay, prefix: str, redis: Redis, tmp_path: Path) -> None:
    keys = entry("watcher", "observe"), entry("slow", *Permission, messages_per_second=1)
    path = write_keys(tmp_path / "keys.toml", *keys)
    options: dict[str, Any] = {"redis_backlog": 0, "drain_timeout": 5.0, **SETTINGS}
    options["token_keys"] = f"http://127.0.0.1:{free_port()}/keys"
    seen: set[str] = set()
    async with Gateway(relay.url, prefix=prefix, keys_file=path, **options) as proxy, AsyncExitStack() as stack:

        async def ways(key: str = "key-1") -> list[Peer]:
            client = await stack.enter_async_context(await RawClient.connect(proxy.port))
            return [await proxy.connect("/queue/q", token=key), Requests(client, "/queue/q", key)]

        async def both(peers: list[Peer], fn: str, *args: Any) -> None:
            one, other = [await outcome(peer, fn, *args) for peer in peers]
            assert one == other
            seen.add(one[0])

        peers = await ways()
        await peers[0].call("add", "job", {}, {"jobId": "here"})
        await both(peers, "add")
        await both(peers, "nothing")
        await both(peers, "updateJobData", "none", {})
        await both(peers, "promoteJob", "here")
        await both(peers, "waitUntilJobFinished", "here", 1)
        await peers[0].call("getNextJob", "t")
        await both(peers, "moveJobToCompleted", "here", None, "other")
        await both(await ways("watcher"), "pause")
        slow = await ways("slow")
        for peer in slow:
            async with asyncio.timeout(SOON):
                while (await outcome(peer, "count"))[0] == "ok":
                    pass
        await both(slow, "count")
        await redis.set(f"{prefix}:q:id", "no number")
        await both(peers, "add", "job")
        [raw] = [peer for peer in peers if isinstance(peer, Requests)]
        await peers[0].socket.send("[")
        refused = (await raw.client.fetch("POST", "/queue/q", body="[")).error
        assert (await peers[0].data())["err"]["code"] == refused["code"]
        seen.add(refused["code"])
        for shown in ("wrong", token()):  # whose keys nobody has read
            with pytest.raises(InvalidStatus) as wrong:
                await proxy.connect("/queue/q", token=shown)
            refused = (await raw.client.fetch("GET", "/queue/q/count", f"Authorization: Bearer {shown}")).error
            assert json.loads(wrong.value.response.body or b"")["err"] == refused
            seen.add(refused["code"])

        before = calls(proxy)
        relay.hold_at(sha_of(script_texts()["addStandardJob"]).encode())
        adding = [asyncio.create_task(outcome(peer, "add", "lost")) for peer in peers]
        async with asyncio.timeout(SOON):
            await relay.held.wait()
        await eventually(lambda: calls(proxy) == before + 2, "both are under way")
        relay.hang_up()
        relay.let_go()
        one, other = [await each for each in adding]
        assert one == other
        seen.add(one[0])
        await until(lambda: up(proxy), "the link is back")
        relay.cut_after(sha_of(script_texts()["getCounts"]).encode())
        seen |= {(await outcome(peer, "getJobCounts"))[0] for peer in peers}
        relay.mend()
        await until(lambda: up(proxy), "the link is back")

        before = calls(proxy)
        waiting = [asyncio.create_task(outcome(peer, "getNextJob", "t", {"block": 60_000})) for peer in await ways()]
        await eventually(lambda: calls(proxy) == before + 2, "both wait")
        stopping = asyncio.create_task(proxy.stop())
        one, other = [await each for each in waiting]
        await stopping
        assert one == other
        seen.add(one[0])
    assert seen == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_has_the_status_of_its_code(code: ErrorCode) -> None:
    response = refusal(GatewayError(code, "why"))
    assert response.status_code == code.http_status
    assert json.loads(response.body or b"") == {"err": {"message": "why", "code": code}}
    assert ("Retry-After" in response.headers) == (code.http_status in (429, 503))


def test_no_function_has_the_name_of_another_path() -> None:
    words = {word for endpoint in SessionEndpoint for word in endpoint.value.path.split("/")}
    for function in [*TABLE, *FLOWS]:
        for start in ("/queue/q", "/flows"):
            assert parse_request("POST", f"{start}/{function.name}").function == function.name
        assert function.name not in words
