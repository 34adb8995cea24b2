"""Requests over HTTP/1.1: bodies, keep-alive and pipelining, what is refused, and who may ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.net import http_connection, request_reader, responding_connection
from tests.net.conftest import MakeGateway
from tests.net.support import Answer, RawClient, open_connections, request
from tests.support.keys import entry, write_keys
from tests.support.waiting import eventually

ADD = '["mail",{"to":"ann"}]'


@pytest_asyncio.fixture
async def client(gateway: Proxy) -> AsyncIterator[RawClient]:
    """A connection on which nothing has been said."""
    async with await RawClient.connect(gateway.port) as client:
        yield client


async def has_called(gateway: Proxy) -> None:
    """Wait until a call is under way."""
    assert gateway._app is not None
    counters = gateway._app.broker.counters
    await eventually(lambda: counters.begun_calls == 1, "the call is under way")


def ok(body: bytes) -> Any:
    return json.loads(body)["ok"]


class TestBodies:
    async def test_a_call_is_a_request(self, client: RawClient) -> None:
        added = await client.fetch("POST", "/queue/q/add", body=ADD)
        assert (added.status, added.headers["content-type"]) == (200, "application/json; charset=utf-8")
        assert ok(added.body)["id"] == "1"
        assert ok((await client.fetch("POST", "/queue/q/count")).body) == 1
        assert ok((await client.fetch("GET", "/queue/q/getJob?args=%5B%221%22%5D")).body)["data"] == {"to": "ann"}
        assert (await client.fetch("HEAD", "/queue/q/count")).headers["content-length"] == "8"
        flow = await client.fetch("POST", "/flows/add", body='[{"name":"order","queueName":"q"}]')
        assert ok(flow.body)["job"]["name"] == "order"

    async def test_several_calls_can_be_one_request(self, client: RawClient) -> None:
        calls = [{"fn": "add", "args": ["a"]}, {"fn": "nothing"}, {"fn": "count"}, {"fn": "getJob", "args": ["1"]}]
        answer = await client.fetch("POST", "/queue/q", body=json.dumps(calls))
        assert answer.status == 200
        added, refused, count, job = json.loads(answer.body)
        assert (added["ok"]["id"], refused["err"]["code"], count) == ("1", "UNKNOWN_FUNCTION", {"ok": 1})
        assert job["ok"]["name"] == "a"
        assert json.loads((await client.fetch("POST", "/queue/q", body="[]")).body) == []
        assert ok((await client.fetch("POST", "/queue/q", body='{"fn":"count"}')).body) == 1
        many = await client.fetch("POST", "/queue/q", body=json.dumps([{"fn": "count"}] * 1001))
        assert (many.status, many.error["message"]) == (400, "Expected at most 1000 calls, got 1001 - at `body`")

    async def test_a_body_may_come_in_chunks_and_byte_by_byte(self, client: RawClient) -> None:
        head = request("POST", "/queue/q/add", "Transfer-Encoding: chunked")
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (b'["mail",', b'{"to":', b'"ann"}]'))
        client.write(head + chunks + b"0\r\n\r\n")
        assert ok((await client.answer()).body)["id"] == "1"
        await client.write_in_pieces(head + chunks + b"0\r\nTrailer: x\r\n\r\n")
        assert ok((await client.answer()).body)["id"] == "2"
        await client.write_in_pieces(request("POST", "/queue/q/add", body=ADD))
        assert ok((await client.answer()).body)["id"] == "3"

    async def test_a_client_that_asks_first_is_told_to_go_ahead(self, client: RawClient) -> None:
        """RFC 9110 §10.1.1."""
        expect = f"Content-Length: {len(ADD)}", "Expect: 100-continue"
        client.request("POST", "/queue/q/add", *expect)
        assert (await client.answer()).status == 100
        client.write(ADD.encode())
        assert (await client.answer()).status == 200
        client.request("POST", "/queue/q/add", *expect, "Authorization: Bearer wrong")
        assert (await client.answer()).status == 401  # and the body is not waited for

    async def test_a_long_body_is_taken_whole_up_to_the_limit(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_message_size=600_000)
        async with await RawClient.connect(gateway.port) as client:
            data = "x" * 500_000
            added = await client.fetch("POST", "/queue/q/add", body=json.dumps(["mail", data]))
            assert ok(added.body)["data"] == data
            for body in ("y" * 600_001, b"%x\r\n%b" % (700_000, b"y" * 600_001)):
                async with await RawClient.connect(gateway.port) as other:
                    coding = ["Transfer-Encoding: chunked"] if isinstance(body, bytes) else []
                    answer = await other.fetch("POST", "/queue/q/add", *coding, body=body)
                    assert (answer.status, answer.error["code"]) == (413, "INVALID_MESSAGE")
                    assert "max_message_size" in answer.error["message"]

    @pytest.mark.parametrize(
        ("target", "body", "code", "message"),
        [
            ("/queue/q/add", "[", "INVALID_MESSAGE", "at `args`"),
            ("/queue/q/add", '{"a":1}', "INVALID_ARGUMENTS", "Expected an array, got an object - at `args`"),
            ("/queue/q/add", '["a",1,{"delay":-1}]', "INVALID_ARGUMENTS", "at `args[2].delay`"),
            ("/queue/q/add", b'["\xff"]', "INVALID_MESSAGE", "The message is not UTF-8"),
            ("/queue/q/add?args=[]", "[]", "INVALID_ARGUMENTS", "at `?args`"),
            ("/queue/q/add?x=1", "[]", "INVALID_ARGUMENTS", "at `?x`"),
            ("/queue/q/nothing", "[]", "UNKNOWN_FUNCTION", "Unknown function `nothing`"),
            ("/queue/q", "1", "INVALID_ARGUMENTS", "at `body`"),
            ("/queue/q", "", "INVALID_MESSAGE", "at `body`"),
            ("/queue/a%3Ab/add", "", "INVALID_ARGUMENTS", "Queue name cannot contain :"),
            ("/queue/q/process", "", "UNKNOWN_FUNCTION", "process"),
        ],
    )
    async def test_what_cannot_be_read_is_refused_with_its_place(
        self, client: RawClient, target: str, body: bytes | str, code: str, message: str
    ) -> None:
        answer = await client.fetch("POST", target, body=body)
        assert (answer.status, answer.error["code"]) == (404 if code == "UNKNOWN_FUNCTION" else 400, code)
        assert message in answer.error["message"]

    async def test_what_writes_is_not_asked_for_by_get(self, client: RawClient) -> None:
        for method in ("GET", "HEAD"):
            answer = await client.fetch(method, "/queue/q/pause")
            assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
        assert ok((await client.fetch("GET", "/queue/q/isPaused")).body) is False


class TestConnections:
    async def test_responses_come_in_the_order_of_the_requests(self, client: RawClient) -> None:
        targets = [
            "/queue/q/getJobs",
            "/queue/q/count",
            "/health",
            "/queue/other/count",
            "/queue/q/getWorkers",
            "/none",
        ]
        client.write(b"".join(request("GET", target) for target in targets * 20))
        answers = [await client.answer() for _ in targets * 20]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 200, 404] * 20
        assert [answer.body[:3] for answer in answers[:3]] == [b'{"o', b'{"o', b'{"s']

    async def test_many_pipelined_calls_are_all_carried_out_once(self, client: RawClient) -> None:
        one = request("POST", "/queue/q/add", body=ADD)
        client.write(one * 500)
        ids = [ok((await client.answer()).body)["id"] for _ in range(500)]
        assert ids == [str(number) for number in range(1, 501)]

    async def test_a_client_that_closes_its_half_is_answered(self, client: RawClient) -> None:
        client.write(request("POST", "/queue/q/add", body=ADD) * 3)
        client.writer.write_eof()
        assert [ok((await client.answer()).body)["id"] for _ in range(3)] == ["1", "2", "3"]
        await client.gone()

    async def test_a_client_that_goes_away_while_it_waits_leaves_no_job_behind(
        self, client: RawClient, gateway: Proxy
    ) -> None:
        client.request("POST", "/queue/q/getNextJob", body='["token-1",{"block":60000}]')
        async with await RawClient.connect(gateway.port) as other:

            async def state(target: str) -> Any:
                return ok((await other.fetch("GET", target)).body)

            await has_called(gateway)
            await client.close()
            assert gateway._app is not None
            http = gateway._app.listener._shared.http
            await eventually(lambda: len(http) == 1, "the gateway has noticed")
            await other.fetch("POST", "/queue/q/add", body=ADD)
            assert await state("/queue/q/getJobState?args=%5B%221%22%5D") == "waiting"

    async def test_consuming_by_hand_works_as_a_whole(self, client: RawClient) -> None:
        await client.fetch("POST", "/queue/q/add", body=ADD)
        job = ok((await client.fetch("POST", "/queue/q/getNextJob", body='["t",{"block":1000}]')).body)
        assert (job["id"], job["data"]) == ("1", {"to": "ann"})
        assert (await client.fetch("POST", "/queue/q/extendJobLock", body='["1","t",5000]')).status == 200
        wrong = await client.fetch("POST", "/queue/q/moveJobToCompleted", body='["1",null,"other"]')
        assert (wrong.status, wrong.error["code"]) == (409, "NOT_LOCKED")
        assert (await client.fetch("POST", "/queue/q/moveJobToCompleted", body='["1",{"sent":true},"t"]')).status == 200
        done = ok((await client.fetch("GET", "/queue/q/getJob?args=%5B%221%22%5D")).body)
        assert done["returnvalue"] == {"sent": True}

    async def test_who_does_nothing_or_is_slow_is_given_up(
        self, gateway: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_connection, "IDLE_TIMEOUT", 0.1)
        monkeypatch.setattr(request_reader, "_HEAD_TIMEOUT", 0.1)
        monkeypatch.setattr(request_reader, "_BODY_TIMEOUT", 0.1)
        monkeypatch.setattr(responding_connection, "LINGER", 0.1)
        beginnings = [b"", b"POST /que", request("POST", "/queue/q/add", body=ADD)[:-3]]
        clients = [await RawClient.connect(gateway.port) for _ in beginnings]
        for client, beginning in zip(clients, beginnings, strict=True):
            assert (await client.fetch("GET", "/health")).status == 200
            client.write(beginning)
        await clients[0].gone()
        for client in clients[1:]:
            answer = await client.answer()
            assert (answer.status, answer.error["code"]) == (408, "INVALID_MESSAGE")
            await client.gone()
        for client in clients:
            await client.close()

    async def test_who_does_not_read_is_not_read_either(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_write_buffer=200_000)
        async with await RawClient.connect(gateway.port) as client, await RawClient.connect(gateway.port) as other:
            await client.fetch("POST", "/queue/q/add", body=json.dumps(["mail", "x" * 50_000]))
            client.stop_reading()
            client.write(request("GET", "/queue/q/getJob?args=%5B%221%22%5D") * 300)
            assert ok((await other.fetch("GET", "/queue/q/count")).body) == 1
            client.read_again()
            for _ in range(300):
                assert len(ok((await client.answer()).body)["data"]) == 50_000

    async def test_too_many_refused_calls_end_the_connection(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(bad_messages_per_second=1)
        async with await RawClient.connect(gateway.port) as client:
            client.write(request("POST", "/queue/q/nothing") * 100)
            answers: list[Answer] = []
            async with asyncio.timeout(5):
                while not answers or answers[-1].headers.get("connection") != "close":
                    answers.append(await client.answer())
        assert {answer.status for answer in answers} == {404}
        assert len(answers) < 20

    async def test_a_drain_answers_what_is_under_way(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(drain_timeout=5.0)
        async with await RawClient.connect(gateway.port) as client:
            client.request("POST", "/queue/q/getNextJob", body='["t",{"block":60000}]')
            async with await RawClient.connect(gateway.port) as other:
                assert (await other.fetch("GET", "/health")).status == 200
                await has_called(gateway)
                await gateway.stop()
                answer = await client.answer()
                assert (answer.status, answer.error["code"]) == (503, "SHUTTING_DOWN")
                await other.gone()


class TestSmuggling:
    """Whoever stands in front may see the end of a request elsewhere: what is ambiguous is refused, and ends it all."""

    @pytest.mark.parametrize(
        "fields",
        [
            ["Content-Length: 5", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: chunked", "Content-Length: 5"],
            ["Content-Length: 5", "Content-Length: 6"],
            ["Content-Length: 5, 5"],
            ["Content-Length: +5"],
            ["Content-Length: 5 5"],
            ["Content-Length: 0x5"],
            ["Content-Length: -5"],
            ["Content-Length: 99999999999999999999"],
            ["Transfer-Encoding: gzip, chunked"],
            ["Transfer-Encoding: chunked, identity"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
            ["Transfer-Encoding: xchunked"],
            ["Transfer-Encoding : chunked"],
            ["Transfer-Encoding:\x0bchunked"],
            ["X: y\rContent-Length: 5"],
        ],
    )
    @pytest.mark.parametrize("first", [True, False])
    async def test_a_doubtful_length_is_refused(self, gateway: Proxy, fields: list[str], first: bool) -> None:
        head = "\r\n".join(["POST /queue/q/add HTTP/1.1", "Host: a", "Authorization: Bearer key-1", *fields, "", ""])
        async with await RawClient.connect(gateway.port) as client:
            if not first:
                assert (await client.fetch("GET", "/health")).status == 200
            client.write(head.encode("latin-1") + b"0\r\n\r\n" + request("POST", "/queue/q/add", body=ADD))
            answer = await client.answer()
            assert answer.status in (400, 413)
            assert answer.headers["connection"] == "close"
            await client.gone()
            async with await RawClient.connect(gateway.port) as other:
                assert ok((await other.fetch("GET", "/queue/q/count")).body) == 0

    @pytest.mark.parametrize(
        "length",
        [
            "5 5",
            "+5",
            "-5",
            "0x5",
            "5, 5",
            "5;",
            "",
            "9" * 20,
            "5\r\nContent-Length: 6",
            "5\r\nTransfer-Encoding: chunked",
        ],
    )
    async def test_a_head_that_comes_again_with_a_doubtful_length_is_refused(
        self, client: RawClient, length: str
    ) -> None:
        fields = ["Host: a", "Content-Length: {}", "Authorization: Bearer key-1", "", ""]
        head = "\r\n".join(["POST /queue/q/getJobCounts HTTP/1.1", *fields])
        for blanks in (0, 3, 20, 5):
            client.write((head.format(2 + blanks) + "[" + " " * blanks + "]").encode())
            assert (await client.answer()).status == 200
        client.write((head.format(length) + "0\r\n\r\n").encode())
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")

    async def test_a_body_behind_a_head_that_comes_again_has_the_limit_of_all(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_message_size=1024)
        async with await RawClient.connect(gateway.port) as client:
            for size, status in ((10, 200), (20, 200), (30, 200), (2000, 413)):
                answer = await client.fetch("POST", "/queue/q/getJobCounts", body="[" + " " * size + "]")
                assert answer.status == status

    async def test_heads_that_come_again_may_be_cut_anywhere(self, client: RawClient) -> None:
        bodies = [f'["job",{{"n":"{"x" * (7 * number % 23)}"}}]' for number in range(40)]
        whole = b"".join(request("POST", "/queue/q/add", body=body) for body in bodies)
        sent = 0
        for number in range(len(bodies)):
            size = [1, 17, 150, 400, 3, 999][number % 6]
            client.write(whole[sent : sent + size])
            sent += size
            await asyncio.sleep(0)
        client.write(whole[sent:])
        shown = [ok((await client.answer()).body) for _ in bodies]
        assert [[job["name"], job["data"]] for job in shown] == [json.loads(body) for body in bodies]
        assert [job["id"] for job in shown] == [str(number) for number in range(1, len(bodies) + 1)]

    @pytest.mark.parametrize(
        "chunks", ["x\r\n", "5\nhello\r\n0\r\n\r\n", "-1\r\n", "5\r\nhelloX\r\n", "fffffffffffffffff\r\n"]
    )
    async def test_broken_chunks_are_refused(self, client: RawClient, chunks: str) -> None:
        client.write(request("POST", "/queue/q/add", "Transfer-Encoding: chunked") + chunks.encode() + b"0\r\n\r\n")
        answer = await client.answer()
        assert answer.status in (400, 413)
        assert answer.headers["connection"] == "close"

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            ("GET /health HTTP/1.1\r\n\r\n", 400),  # no Host
            ("GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /health HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400),
            (f"GET /{'x' * 9000} HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            (f"GET /health HTTP/1.1\r\nHost: a\r\nX: {'x' * 9000}\r\n\r\n", 431),
            ("GET /health HTTP/1.1\r\nHost: a\r\n" + "X: y\r\n" * 200 + "\r\n", 431),
            ("GET /health HTTP/1.1\r\nHost: a\r\n" + "X: y\r\n" * 30_000, 431),
        ],
    )
    async def test_the_rules_of_a_head_are_those_of_the_first_one(
        self, client: RawClient, head: str, status: int
    ) -> None:
        assert (await client.fetch("GET", "/health")).status == 200
        client.write(head.encode())
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")


class TestWhoMayAsk:
    async def test_each_request_shows_its_key(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        shop = entry("shop", "produce", queues=["mails"])
        gateway = await make_gateway(keys_file=write_keys(path, shop, entry("watch", "observe")))
        async with await RawClient.connect(gateway.port) as client:

            async def status(target: str, key: str, method: str = "POST") -> int:
                header = f"Authorization: Bearer {key}"
                return (await client.fetch(method, target, header, body=ADD if "add" in target else b"")).status

            assert await status("/queue/mails/add", "shop") == 200
            assert await status("/queue/mails/add", "watch") == 403
            assert await status("/queue/mails/count", "watch", "GET") == 200
            assert await status("/queue/mails/count", "shop", "GET") == 403
            assert await status("/queue/orders/count", "shop", "GET") == 403
            assert await status("/queue/mails/add", "") == 401

    async def test_a_key_in_the_query_string_will_do(self, client: RawClient) -> None:
        assert (await client.fetch("GET", "/queue/q/count?token=key-1", "Authorization:")).status == 200
        answer = await client.fetch("GET", "/queue/q/count?token=wrong", "Authorization:")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_a_key_that_is_removed_may_do_no_more(
        self, make_gateway: MakeGateway, tmp_path: Path, method: str
    ) -> None:
        path = tmp_path / "keys.toml"
        gateway = await make_gateway(keys_file=write_keys(path, entry("shop", "observe", connections=1)))
        shop, body = "Authorization: Bearer shop", "[]" if method == "POST" else ""
        async with await RawClient.connect(gateway.port) as client, await RawClient.connect(gateway.port) as other:
            for _ in range(3):
                assert (await client.fetch(method, "/queue/q/count", shop, body=body)).status == 200
            full = await other.fetch("GET", "/queue/q/count", shop)
            assert (full.status, full.headers["retry-after"]) == (429, "1")
            write_keys(path)
            gateway.reload_keys()
            assert (await client.fetch(method, "/queue/q/count", shop, body=body)).status == 401
        assert not open_connections(gateway)

    async def test_the_rate_of_a_key_is_that_of_all_its_calls(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        keys = write_keys(tmp_path / "keys.toml", entry("shop", "observe", messages_per_second=3))
        gateway = await make_gateway(keys_file=keys)
        async with await RawClient.connect(gateway.port) as client:
            client.write(request("GET", "/queue/q/count", "Authorization: Bearer shop") * 10)
            statuses = [(await client.answer()).status for _ in range(10)]
        assert statuses[:3] == [200] * 3
        assert 429 in statuses


class TestPages:
    """Pages of other origins, which browsers ask for (CORS)."""

    async def test_a_page_that_is_allowed_may_read(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(allowed_origins=("https://shop.example",))
        async with await RawClient.connect(gateway.port) as client:
            asks = ("Origin: https://shop.example", "Access-Control-Request-Method: POST", "Authorization:")
            preflight = await client.fetch("OPTIONS", "/queue/q/add", *asks)
            assert preflight.status == 204
            assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "Authorization" in preflight.headers["access-control-allow-headers"]
            for key, status in (("key-1", 200), ("wrong", 401)):
                answer = await client.fetch("GET", "/queue/q/count", asks[0], f"Authorization: Bearer {key}")
                assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, asks[0][8:])
                assert answer.headers["vary"] == "Origin"

    async def test_any_other_page_may_not(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(allowed_origins=("https://shop.example",))
        for origin in ("https://evil.example", "null"):
            async with await RawClient.connect(gateway.port) as client:
                asked = await client.fetch(
                    "OPTIONS", "/queue/q/add", f"Origin: {origin}", "Access-Control-Request-Method: POST"
                )
                answer = await client.fetch("POST", "/queue/q/add", f"Origin: {origin}", body=ADD)
            for each in (asked, answer):
                assert (each.status, each.error["code"]) == (403, "FORBIDDEN")
                assert "access-control-allow-origin" not in each.headers
