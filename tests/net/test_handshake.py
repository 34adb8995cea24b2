"""The opening handshake, by what RFC 6455 §4 asks of a server, and as the libraries of many languages write it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path

import pytest

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.log_events import LogEvent
from tests.net.conftest import MakeGateway
from tests.net.support import (
    CLOSE,
    PING,
    RawClient,
    call,
    fetch,
    frame,
    handshake,
    open_connections,
    request,
    upgrade,
)
from tests.support.node import find_node
from tests.support.waiting import eventually

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class TestAcceptance:
    async def test_it_is_what_the_rfc_says(self, gateway: Proxy) -> None:
        """RFC 6455 §4.2.2 no. 5: 101, Upgrade, Connection, and the digest of the key; nothing unasked for."""
        answer = await upgrade(gateway.port, "/queue/q")
        digest = hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        assert answer.status == 101
        assert answer.headers["upgrade"].lower() == "websocket"
        assert answer.headers["connection"].lower() == "upgrade"
        assert answer.headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
        assert not {"sec-websocket-protocol", "sec-websocket-extensions", "content-length"} & answer.headers.keys()

    @pytest.mark.parametrize(
        "headers",
        [
            pytest.param(["connection: keep-alive, Upgrade"], id="a proxy's Connection"),
            pytest.param(["Connection: keep-alive", "connection: upgrade"], id="two Connections"),
            pytest.param(["Connection: Upgrade,"], id="an empty element"),
            pytest.param(["CONNECTION: UPGRADE", "UPGRADE: WEBSOCKET"], id="capitals"),
            pytest.param(["upgrade: WebSocket"], id="as in RFC 6455 §11.2"),
            pytest.param(["Upgrade: h2c, websocket"], id="a list of upgrades"),
            pytest.param(["Upgrade: h2c", "Upgrade: websocket"], id="two upgrades"),
            pytest.param(["Connection:\r\n Upgrade"], id="a folded header"),
            pytest.param(["Sec-WebSocket-Protocol: \t"], id="an empty subprotocol"),
            pytest.param(["Sec-WebSocket-Protocol: ,"], id="an empty list of subprotocols"),
            pytest.param(["Sec-WebSocket-Protocol: chat, superchat"], id="unknown subprotocols"),
            pytest.param(["Sec-WebSocket-Protocol: chat", "sec-websocket-protocol: x"], id="more subprotocols"),
            pytest.param(["Sec-WebSocket-Extensions: "], id="no extension"),
            pytest.param(["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99"], id="odd window"),
            pytest.param(["Sec-WebSocket-Extensions: permessage-deflate;;=, ,x;y=\"\\\""], id="an odd extension"),
            pytest.param(
                ["Sec-WebSocket-Extensions: permessage-deflate; a=b", "sec-websocket-extensions: x"],
                id="two headers of extensions",
            ),
            pytest.param(["Content-Length: 0"], id="a body of nothing"),
            pytest.param(["User-Agent: \xfcber/1.0"], id="Latin-1"),
            pytest.param(["Cookie: a=b; c=d", "Cookie: e"], id="cookies"),
            pytest.param(["Expect: 100-continue"], id="an expectation"),
            pytest.param(["Pragma: no-cache", "Cache-Control: no-cache"], id="a browser's"),
            pytest.param(["HTTP2-Settings: AAMAAABkAAQAAP__"], id="a curious one"),
            pytest.param(["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="], id="a key of zeros"),
        ],
    )  # fmt: skip
    async def test_what_clients_write_otherwise_is_understood(self, gateway: Proxy, headers: list[str]) -> None:
        async with await RawClient.connect(gateway.port) as client:
            own = {header.partition(":")[0].lower() for header in headers}
            usual = [line for line in handshake("/queue/q").split(b"\r\n")[1:-2]]
            kept = [line for line in usual if line.partition(b":")[0].decode().lower() not in own]
            lines = [b"GET /queue/q HTTP/1.1", *kept, *(header.encode("latin-1") for header in headers), b"", b""]
            client.write(b"\r\n".join(lines))
            answer = await client.answer()
            assert answer.status == 101
            assert "sec-websocket-protocol" not in answer.headers
            assert await client.ask("count") == {"ok": 0}

    async def test_a_url_without_a_path_is_no_websocket_path(self, gateway: Proxy) -> None:
        answer = await upgrade(gateway.port, "/")
        assert answer.status == 200

    async def test_a_later_version_of_http_is_enough(self, gateway: Proxy) -> None:
        """RFC 6455 §4.2.1 no. 1: HTTP/1.1 or higher."""
        answer = await fetch(gateway.port, handshake("/queue/q").replace(b"HTTP/1.1", b"HTTP/1.2", 1))
        assert answer.status == 101


class TestRefusal:
    @pytest.mark.parametrize("version", ["8", "0", "14", "13, 8", "x", "013", "", "13\r\nSec-WebSocket-Version: 13"])
    async def test_another_version_is_told_ours(self, gateway: Proxy, version: str) -> None:
        """RFC 6455 §4.4: the server MUST send a Sec-WebSocket-Version with those that it supports."""
        answer = await upgrade(gateway.port, "/queue/q", f"Sec-WebSocket-Version: {version}")
        assert (answer.status, answer.headers["sec-websocket-version"]) == (400, "13")
        assert "Sec-WebSocket-Version: 13" in answer.error["message"]

    @pytest.mark.parametrize(
        "key", ["", "short", "!!!!", f"{KEY}=", f"{KEY}A", KEY[:-2], "x" * 24, f"{KEY}, {KEY}", "\xe9" * 24]
    )
    async def test_a_key_that_is_not_16_bytes_in_base64_is_400(self, gateway: Proxy, key: str) -> None:
        """RFC 6455 §4.2.1 no. 5."""
        request = handshake("/queue/q", f"Sec-WebSocket-Key: {key}").decode().encode("latin-1")
        assert (await fetch(gateway.port, request)).status == 400

    async def test_two_keys_are_400(self, gateway: Proxy) -> None:
        """RFC 6455 §11.3.1: it MUST NOT appear more than once."""
        answer = await upgrade(gateway.port, "/queue/q", f"Sec-WebSocket-Key: {KEY}", f"sec-websocket-key: {KEY}")
        assert answer.status == 400

    @pytest.mark.parametrize(
        "headers",
        [
            ["Upgrade:"],
            ["Upgrade: h2c"],
            ["Upgrade: websockets"],
            ["Connection:"],
            ["Connection: keep-alive"],
            ["Connection: not-upgrade"],
        ],
    )
    async def test_no_upgrade_is_426(self, gateway: Proxy, headers: list[str]) -> None:
        """RFC 9110 §15.5.22: the server MUST send an Upgrade header field, and (§7.8) `upgrade` in Connection."""
        answer = await upgrade(gateway.port, "/queue/q", *headers)
        assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
        assert answer.headers["connection"].endswith("Upgrade")
        assert answer.error["code"] == "INVALID_MESSAGE"

    async def test_http_1_0_is_505(self, gateway: Proxy) -> None:
        """RFC 6455 §4.2.1 no. 1; RFC 9110 §7.8: an Upgrade in HTTP/1.0 MUST be ignored."""
        answer = await fetch(gateway.port, handshake("/queue/q").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert (answer.status, answer.error["code"]) == (505, "INVALID_MESSAGE")

    @pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
    async def test_another_method_is_405(self, gateway: Proxy, method: str) -> None:
        """RFC 6455 §4.2.1 no. 1: the method MUST be GET."""
        answer = await fetch(gateway.port, handshake("/queue/q/events").replace(b"GET", method.encode(), 1))
        assert (answer.status, answer.headers["allow"]) == (405, "GET")

    @pytest.mark.parametrize("protocol", ["a b", "a;b", "(a)", "a,b c", "\xe9"])
    async def test_a_subprotocol_that_is_no_token_is_400(self, gateway: Proxy, protocol: str) -> None:
        """RFC 6455 §4.2.1 no. 8, §11.3.4."""
        request = handshake("/queue/q", f"Sec-WebSocket-Protocol: {protocol}").decode().encode("latin-1")
        answer = await fetch(gateway.port, request)
        assert answer.status == 400
        assert protocol not in answer.error["message"], "it may be a key"

    async def test_a_key_is_asked_for_before_all_that(self, gateway: Proxy) -> None:
        for header in ("Upgrade:", "Sec-WebSocket-Version: 8", "Sec-WebSocket-Key:"):
            assert (await upgrade(gateway.port, "/queue/q", "Authorization:", header)).status == 401


class TestAfterARefusal:
    @pytest.mark.parametrize(
        "more",
        [
            pytest.param(handshake("/queue/q"), id="another handshake"),
            pytest.param(frame("{}"), id="a message"),
            pytest.param(frame("", PING), id="a ping"),
            pytest.param(frame("", CLOSE), id="a close frame"),
            pytest.param(b"\x81\xff\x00\x00\x00\x00\x7f\xff\xff\xff", id="the header of a long message"),
        ],
    )
    async def test_what_a_client_still_sends_is_not_read(
        self, gateway: Proxy, more: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            async with await RawClient.connect(gateway.port) as client:
                assert (await client.upgrade("/queue/q", "Authorization: Bearer wrong")).status == 401
                client.write(more)
                client.write(more)
                client.writer.write_eof()
                await client.gone()
        assert {getattr(record, "event", record.message) for record in caplog.records} <= {LogEvent.REFUSED.value}
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            assert (await client.ask("count"))["ok"] == 0


class TestAfterOtherRequests:
    """RFC 9110 §7.8: any request may ask for an upgrade; clients and proxies keep connections, and use them again."""

    @pytest.mark.parametrize("logs", [False, True])
    async def test_a_kept_connection_becomes_a_websocket(self, make_gateway: MakeGateway, logs: bool) -> None:
        gateway = await make_gateway(access_log=logs)
        async with await RawClient.connect(gateway.port) as client:
            assert (await client.fetch("GET", "/health")).status == 200
            assert (await client.fetch("POST", "/queue/q/count")).status == 200
            assert (await client.upgrade("/queue/q")).status == 101
            assert (await client.ask("count"))["ok"] == 0
            assert len(open_connections(gateway)) == 1

    async def test_the_responses_before_it_leave_first_and_frames_may_come_with_it(self, gateway: Proxy) -> None:
        before = request("POST", "/queue/q/getJobCounts") + request("GET", "/health")
        for pieces in (1, 7, 100):
            async with await RawClient.connect(gateway.port) as client:
                sent = before + handshake("/queue/q") + frame(call(1, "count")) + frame(call(2, "count"))
                step = -(-len(sent) // pieces)
                for at in range(0, len(sent), step):
                    client.write(sent[at : at + step])
                    await asyncio.sleep(0)
                assert [(await client.answer()).status for _ in range(3)] == [200, 200, 101]
                assert [message["id"] for message in await client.messages(2)] == [1, 2]

    async def test_a_refusal_is_that_of_a_first_request(self, gateway: Proxy) -> None:
        for target, headers, status in (
            ("/queue/q", ["Authorization: Bearer wrong"], 401),
            ("/queue/q/process/0", [], 400),
            ("/queue/q", ["Upgrade: h2c"], 426),
            ("/queue/q", ["Sec-WebSocket-Version: 8"], 400),
            ("/health", [], 200),
        ):
            async with await RawClient.connect(gateway.port) as client:
                await client.fetch("GET", "/health")
                assert (await client.upgrade(target, *headers)).status == status, target
                await client.gone()

    @pytest.mark.skipif(find_node() is None, reason="node is missing")
    async def test_node_opens_its_websockets_on_kept_connections(self, gateway: Proxy) -> None:
        node = find_node()
        assert node is not None
        command = (node, "--experimental-websocket", "--no-warnings", Path(__file__).with_name("kept_connections.mjs"))
        running = await asyncio.create_subprocess_exec(
            *command, f"http://127.0.0.1:{gateway.port}", "key-1", stdout=asyncio.subprocess.PIPE
        )
        opened, _ = await running.communicate()
        assert int(opened) == 20

    async def test_a_client_first_reads_what_was_sent_before(self, gateway: Proxy) -> None:
        """Output that it leaves unread counts to the shard, as long as the HTTP connection has the socket."""
        assert gateway._app is not None
        shared = gateway._app.listener.shared
        async with await RawClient.open(gateway.port, "/queue/q") as producer:
            for _ in range(10):
                await producer.ask("addBulk", [{"name": "a", "data": "x" * 150_000}] * 6)
        reading = request("GET", "/queue/q/getWaiting")
        for asked in (
            handshake("/queue/q"),
            request("GET", "/queue/q/events", "Accept: text/event-stream"),
        ):
            async with await RawClient.connect(gateway.port) as client:
                client.stop_reading()
                client.write(reading + asked)
                await eventually(lambda: sum(shared.unread.values()) > 2**20, "much is unread")
                unread = sum(shared.unread.values())
                async with await RawClient.connect(gateway.port) as other:
                    for _ in range(3):
                        assert (await other.fetch("GET", "/health")).status == 200
                assert sum(shared.unread.values()) == unread
                assert not open_connections(gateway)
                client.read_again()
                assert len((await client.answer()).body) > 9_000_000
                assert await client.status() in (101, 200)

    @pytest.mark.parametrize("connection", ["Upgrade\xa0", "\x85Upgrade", "Upgrade;"])
    async def test_the_reader_of_requests_agrees_about_what_an_upgrade_is(
        self, gateway: Proxy, connection: str
    ) -> None:
        asked = handshake("/queue/q").replace(b"Connection: Upgrade", f"Connection: {connection}".encode("latin-1"))
        for before in (b"", request("GET", "/health")):
            async with await RawClient.connect(gateway.port) as client:
                client.write(before + asked)
                if before:
                    assert (await client.answer()).status == 200
                assert (await client.answer()).status in (400, 426)

    async def test_one_that_goes_before_it_is_answered_leaves_nothing(self, gateway: Proxy) -> None:
        for _ in range(20):
            client = await RawClient.connect(gateway.port)
            client.write(request("GET", "/health") + handshake("/queue/q"))
            client.abort()
        async with await RawClient.open(gateway.port, "/queue/q") as last:
            assert (await last.ask("count"))["ok"] == 0
            assert len(open_connections(gateway)) == 1
