"""Plain HTTP and refused handshakes: every status, each with the body that all errors have."""

from __future__ import annotations

import asyncio
import json
from itertools import product
from pathlib import Path

import pytest

from bullmq_proxy.gateway import Proxy, __version__
from tests.net.conftest import MakeGateway
from tests.net.support import RawClient, becomes, call, fetch, get, handshake, upgrade
from tests.support.valkey import ValkeyProcess

WEBSOCKET_PATHS = [
    f"{prefix}/q{rest}"
    for prefix in ("/queue", "/queues", "/ws/queues")
    for rest in ("", "/process/2", "/events", "/events?events=completed")
]
PAGES = ["/", "/health", "/ready", "/metrics"]


class TestPages:
    async def test_the_root_is_one_line_with_name_and_version(self, gateway: Proxy) -> None:
        answer = await get(gateway.port, "/")
        assert (answer.status, answer.body) == (200, f"bullmq-proxy {__version__}\n".encode())
        assert answer.headers["content-type"] == "text/plain;charset=utf-8"

    async def test_health_says_that_the_process_is_alive(self, gateway: Proxy) -> None:
        answer = await get(gateway.port, "/health")
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "alive", "version": __version__})

    async def test_ready_says_that_redis_answers(self, gateway: Proxy) -> None:
        answer = await get(gateway.port, "/ready")
        assert (answer.status, json.loads(answer.body)) == (200, {"status": "ready"})

    async def test_metrics_are_prometheus_text(self, gateway: Proxy) -> None:
        async with await RawClient.open(gateway.port, "/queue/q"):
            answer = await get(gateway.port, "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b'\nbullmq_proxy_connections{slot="0"} 1\n' in answer.body

    async def test_a_path_for_websockets_tells_what_a_handshake_would_be_refused_for(self, gateway: Proxy) -> None:
        wrong = await get(gateway.port, "/queue/q/process/1?lockDuration=1", "Authorization: Bearer key-1")
        assert (wrong.status, "`?lockDuration`" in wrong.error["message"]) == (400, True)
        assert (await get(gateway.port, "/queue/q/process/1", "Authorization: Bearer key-1")).status == 426

    @pytest.mark.parametrize("path", PAGES)
    async def test_they_need_no_key(self, gateway: Proxy, path: str) -> None:
        assert (await get(gateway.port, f"{path}?token=wrong", "Authorization: Bearer wrong")).status == 200

    async def test_one_connection_is_enough_for_all(self, gateway: Proxy) -> None:
        async with await RawClient.connect(gateway.port) as client:
            client.write(b"".join(b"GET %b HTTP/1.1\r\nHost: gateway\r\n\r\n" % page.encode() for page in PAGES))
            answers = [await client.answer() for _ in PAGES]
        assert [answer.status for answer in answers] == [200] * len(PAGES)
        assert answers[0].body.startswith(b"bullmq-proxy")
        assert b"# TYPE" in answers[3].body

    @pytest.mark.parametrize("head", ["HTTP/1.1\r\nHost: gateway\r\nConnection: close", "HTTP/1.0"])
    async def test_the_connection_ends_with_the_answer_when_the_client_wants_it(
        self, gateway: Proxy, head: str
    ) -> None:
        async with await RawClient.connect(gateway.port) as client:
            client.write(f"GET / {head}\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode())
            answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert answer.body.count(b"bullmq-proxy") == 1

    async def test_a_request_may_come_byte_by_byte(self, gateway: Proxy) -> None:
        async with await RawClient.connect(gateway.port) as client:
            await client.write_in_pieces(b"GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n")
            assert (await client.answer()).status == 200


class TestRefusals:
    @pytest.mark.parametrize("path", ["/nothing", "/queue", "/queue/q/x/y", "/ws/queue/q", "/health/"])
    async def test_an_unknown_path_is_404(self, gateway: Proxy, path: str) -> None:
        for answer in (await get(gateway.port, path), await upgrade(gateway.port, path)):
            assert (answer.status, answer.error["code"]) == (404, "NOT_FOUND")
            assert "/queue/NAME" in answer.error["message"]

    @pytest.mark.parametrize(
        ("path", "allowed"), [*((page, "GET, HEAD, OPTIONS") for page in PAGES), ("/queue/q/events", "GET")]
    )
    async def test_another_method_is_405_with_or_without_a_body(self, gateway: Proxy, path: str, allowed: str) -> None:
        methods = ("POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "GETS", "m-search")
        for method, body in product(methods, ("", "x" * 200_000)):
            request = f"{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            answer = await fetch(gateway.port, request)
            assert (answer.status, answer.headers["allow"]) == (405, allowed), method
            assert answer.error == {"message": f"Only {allowed} can be asked for here", "code": "INVALID_MESSAGE"}

    @pytest.mark.parametrize("path", WEBSOCKET_PATHS)
    async def test_a_websocket_path_without_an_upgrade_is_426(self, gateway: Proxy, path: str) -> None:
        answer = await get(gateway.port, path, "Authorization: Bearer key-1")
        assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
        assert answer.error["code"] == "INVALID_MESSAGE"

    async def test_an_upgrade_to_something_else_is_426(self, gateway: Proxy) -> None:
        for header in ("Upgrade:", "Upgrade: h2c", "Connection: keep-alive"):
            answer = await upgrade(gateway.port, "/queue/q", header)
            assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
            assert answer.error["code"] == "INVALID_MESSAGE"

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("/queue/a%3Ab", "Queue name cannot contain : - at the path"),
            ("/queue//events", "Queue name must be provided - at the path"),
            ("/queue/%ff", "The queue name is not percent-encoded UTF-8 - at the path"),
            (f"/queue/{'x' * 101}", "The queue name has 101 characters, 100 are allowed - at the path"),
            ("/queue/q/process/0", "Expected a whole number from 1 to 1000 as concurrency, got `0` - at the path"),
            ("/queue/q/process/1?ackTimeout=x", "Expected a whole number from 0 to 86400000 - at `?ackTimeout`"),
            ("/queue/q?x=1", "Unknown option - at `?x`; known are token"),
        ],
    )
    async def test_what_cannot_be_asked_for_is_400(self, gateway: Proxy, path: str, message: str) -> None:
        answer = await upgrade(gateway.port, path)
        assert (answer.status, answer.error) == (400, {"message": message, "code": "INVALID_ARGUMENTS"})

    @pytest.mark.parametrize(
        "header",
        [
            "Sec-WebSocket-Key: short",
            "Sec-WebSocket-Key: !!!!",
            "Sec-WebSocket-Key:",
            "Sec-WebSocket-Protocol: ,;,",
        ],
    )
    @pytest.mark.parametrize("path", ["/queue/q", "/queue/q/events", "/queue/q/process/1"])
    async def test_a_broken_handshake_is_400(self, gateway: Proxy, path: str, header: str) -> None:
        answer = await upgrade(gateway.port, path, header)
        assert (answer.status, answer.error["code"]) == (400, "INVALID_MESSAGE")

    @pytest.mark.parametrize(
        "request_text",
        [
            "hello\r\n\r\n",
            "\x16\x03\x01\x02\x00",  # TLS on a port that has none
            "\r\n\r\n",
            "GET\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET /\u00e9 HTTP/1.1\r\n\r\n",
            "POST / FTP/1.1\r\n\r\n",
            "X" * 9000,
        ],
    )
    async def test_what_is_no_request_is_400(self, gateway: Proxy, request_text: str) -> None:
        answer = await fetch(gateway.port, request_text.encode())
        assert (answer.status, answer.error["code"]) == (400, "INVALID_MESSAGE")

    @pytest.mark.parametrize("end", ["", " HTTP/1.1\r\n\r\n"])
    async def test_a_request_line_that_is_too_long_is_414(self, gateway: Proxy, end: str) -> None:
        answer = await fetch(gateway.port, f"GET /{'x' * 9000}{end}")
        assert (answer.status, answer.error["code"]) == (414, "INVALID_MESSAGE")

    @pytest.mark.parametrize(
        "headers", [["X: " + "x" * 9000], ["X: y"] * 200, [f"X{n}: {'y' * 1000}" for n in range(100)]]
    )
    async def test_headers_that_are_too_long_or_too_many_are_431(self, gateway: Proxy, headers: list[str]) -> None:
        answer = await get(gateway.port, "/", *headers)
        assert (answer.status, answer.error["code"]) == (431, "INVALID_MESSAGE")

    async def test_headers_without_an_end_are_431(self, gateway: Proxy) -> None:
        answer = await fetch(gateway.port, "GET / HTTP/1.1\r\n" + "X: y\r\n" * 20_000)
        assert answer.status == 431

    async def test_no_refusal_leaks_a_path_or_a_traceback(self, gateway: Proxy) -> None:
        for request in ("GET / HTTP/9\r\n\r\n", "GET /queue/%ff HTTP/1.1\r\n\r\n", "X\r\n\r\n"):
            answer = await fetch(gateway.port, request)
            assert b"Traceback" not in answer.body
            assert b".py" not in answer.body


class TestUnavailable:
    async def test_ready_is_503_while_redis_is_away_and_health_is_not(
        self, make_gateway: MakeGateway, tmp_path: Path
    ) -> None:
        with ValkeyProcess(tmp_path) as server:
            gateway = await make_gateway(server.url, redis_backlog_timeout=0.1)
            server.stop()
            answer = await becomes(gateway.port, "/ready", 503)
            assert answer.error["code"] == "REDIS_UNAVAILABLE"
            assert (await get(gateway.port, "/health")).status == 200
            server.start()
            await becomes(gateway.port, "/ready", 200)

    async def test_an_events_connection_is_503_while_redis_is_away_and_a_queue_one_says_so_per_request(
        self, make_gateway: MakeGateway, tmp_path: Path
    ) -> None:
        with ValkeyProcess(tmp_path) as server:
            gateway = await make_gateway(server.url, redis_backlog_timeout=0.1)
            server.stop()
            answer = await upgrade(gateway.port, "/queue/q/events")
            assert (answer.status, answer.error["code"]) == (503, "REDIS_UNAVAILABLE")
            assert int(answer.headers["retry-after"]) >= 1
            async with await RawClient.open(gateway.port, "/queue/q") as client:
                assert (await client.ask("count"))["err"]["code"] == "REDIS_UNAVAILABLE"
            server.start()
            await becomes(gateway.port, "/ready", 200)

    async def test_a_handshake_while_the_gateway_drains_is_503(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(drain_timeout=10.0)
        async with (
            await RawClient.open(gateway.port, "/queue/q/process/1") as worker,
            await RawClient.connect(gateway.port) as late,
            await RawClient.connect(gateway.port) as probe,
        ):
            # Both are accepted before the listening socket is gone.
            await late.write_in_pieces(b"GET ")
            await probe.write_in_pieces(b"GET ")
            async with await RawClient.open(gateway.port, "/queue/q") as producer:
                producer.send(call(1, "add", "job"))
                job = await worker.message()
            stopping = asyncio.create_task(gateway.stop())
            assert (await worker.message())["data"]["type"] == "drain"

            late.write(handshake("/queue/q")[4:])
            probe.write(b"/ready HTTP/1.1\r\nHost: gateway\r\n\r\n")

            for answer in (await late.answer(), await probe.answer()):
                assert (answer.status, answer.error["code"]) == (503, "SHUTTING_DOWN")
            worker.send(json.dumps({"id": job["id"], "data": {"result": 1}}))
            assert (await worker.closed())[0] == 1001
            await stopping

    async def test_a_client_that_says_nothing_does_not_delay_the_end(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway()
        async with await RawClient.connect(gateway.port) as silent, await RawClient.connect(gateway.port) as slow:
            await slow.write_in_pieces(b"GET / HT")
            async with asyncio.timeout(3):
                await gateway.stop()
            await silent.gone()
            await slow.gone()
