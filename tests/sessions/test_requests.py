"""Functions over HTTP: each gives what it gives on a WebSocket, and each error has the status of its code."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net.exchange import refusal
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint
from bullmq_proxy.gateway.wire.routes import parse_request
from tests.net.support import RawClient
from tests.sessions.peer import SOON, Gateway, Peer, Refused
from tests.sessions.test_examples import prepare, real
from tests.support.contract import check_result


class Requests(Peer):
    """A client that calls each function by a request."""

    def __init__(self, client: RawClient, target: str) -> None:
        self._client = client
        self._target = target

    async def call(self, fn: str, *args: Any, timeout: float = SOON) -> Any:
        """Call a function and return its result, which has to be what the AsyncAPI document says."""
        answer = await self._client.fetch("POST", f"{self._target}/{fn}", body=json.dumps(args) if args else "")
        data = json.loads(answer.body)
        if "err" in data:
            assert answer.status == ErrorCode.__members__[data["err"]["code"]].http_status
            raise Refused(data["err"])
        assert (answer.status, data.keys()) == (200, {"ok"})
        check_result(fn, data["ok"])
        return data["ok"]


async def test_every_function_that_reads_gives_what_it_gives_on_a_websocket(proxy: Gateway) -> None:
    socket, flows = await proxy.queue("mails"), await proxy.connect("/flows")
    await prepare(socket, flows, "mails")
    async with await RawClient.connect(proxy.port) as client:
        for table, peer, target in (TABLE, socket, "/queue/mails"), (FLOWS, flows, "/flows"):
            for function in table:
                if function.writes:
                    continue
                asked = json.dumps(list(function.example))
                by_socket = await peer.call(function.name, *function.example)
                assert by_socket == await Requests(client, target).call(function.name, *function.example), function.name
                by_get = await client.fetch("GET", f"{target}/{function.name}?args={quote(asked)}")
                assert json.loads(by_get.body) == {"ok": by_socket}, function.name


async def test_every_function_that_writes_can_be_called(proxy: Gateway) -> None:
    async with await RawClient.connect(proxy.port) as client, await RawClient.connect(proxy.port) as others:
        flows = Requests(others, "/flows")
        for function in TABLE:
            if function.writes:
                name = function.name
                queue = Requests(client, f"/queue/{name}")
                await prepare(queue, flows, name)
                await queue.call(name, *await real(function.example, proxy, queue, name))
        await prepare(Requests(client, "/queue/mails"), flows, "mails")
        for function in FLOWS:
            if function.writes:
                await flows.call(function.name, *function.example)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_has_the_status_of_its_code(code: ErrorCode) -> None:
    response = refusal(GatewayError(code, "why"))
    assert response.status_code == code.http_status
    assert json.loads(response.body or b"") == {"err": {"message": "why", "code": code}}
    assert ("Retry-After" in response.headers) == (code.http_status in (429, 503))


@pytest.mark.parametrize("function", [*TABLE, *FLOWS], ids=lambda function: function.name)
def test_no_function_has_the_name_of_another_path(function: Any) -> None:
    for start in ("/queue/q", "/flows"):
        assert parse_request("POST", f"{start}/{function.name}").function == function.name
    assert all(function.name not in endpoint.value.path.split("/") for endpoint in SessionEndpoint)
