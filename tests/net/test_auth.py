"""Who may come in: keys in their three forms on every path, and the origins of browsers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import redis

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.access.keys_file import digest
from bullmq_proxy.gateway.wire.closing import Refusal
from tests.net.conftest import MakeGateway
from tests.net.refusing import Request, refused
from tests.net.support import KEY, RawClient, fetch, get, handshake, upgrade
from tests.net.test_http import WEBSOCKET_PATHS
from tests.support.commands import executed
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

NO_KEY = "Authorization:"
RIGHT = [
    (f"Authorization: Bearer {KEY}",),
    (f"authorization: bearer   {KEY} ",),
    (NO_KEY, f"Sec-WebSocket-Protocol: bullmq-proxy.v1, bearer.{KEY}"),
    (NO_KEY, "Sec-WebSocket-Protocol: bullmq-proxy.v1", f"Sec-WebSocket-Protocol: bearer.{KEY}"),
    ("Authorization: Basic dXNlcjpwYXNz", f"Sec-WebSocket-Protocol: bearer.{KEY}"),
]
WRONG = [
    (NO_KEY,),
    ("Authorization: Bearer",),
    ("Authorization: Bearer wrong",),
    (f"Authorization: Bearer {KEY}x",),
    (f"Authorization: Bearer {KEY[:-1]}",),
    (f"Authorization: Basic {KEY}",),
    (f"Authorization: {KEY}",),
    ("Authorization: Bearer k\u00e9y",),
    (NO_KEY, "Sec-WebSocket-Protocol: bearer.wrong"),
    (NO_KEY, f"Sec-WebSocket-Protocol: {KEY}"),
]


def with_token(path: str, token: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}token={token}"


class TestKeys:
    @pytest.mark.parametrize("path", WEBSOCKET_PATHS)
    async def test_the_right_key_opens_every_path_in_each_of_its_forms(self, gateway: Proxy, path: str) -> None:
        for headers in RIGHT:
            assert (await upgrade(gateway.port, path, *headers)).status == 101
        assert (await upgrade(gateway.port, with_token(path, KEY), NO_KEY)).status == 101

    @pytest.mark.parametrize("path", WEBSOCKET_PATHS)
    async def test_no_wrong_key_reaches_redis(
        self, gateway: Proxy, valkey: ValkeyProcess, prefix: str, path: str
    ) -> None:
        with redis.Redis.from_url(valkey.url) as client, executed(client, prefix) as commands:
            answers = [await upgrade(gateway.port, path, *headers) for headers in WRONG]
            answers.append(await upgrade(gateway.port, with_token(path, "wrong"), NO_KEY))
            answers.append(await upgrade(gateway.port, with_token(path, KEY), "Authorization: Bearer wrong"))
            answers.append(await get(gateway.port, path))
            assert (await refused(Request(gateway.port, path, "wrong")))[0] == Refusal.UNAUTHORIZED
        assert commands == []
        for answer in answers:
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.error["code"] == "UNAUTHORIZED"

    @pytest.mark.parametrize("path", ["/queue/a:b", "/queue/q/process/0", "/queue/q?nonsense=1"])
    async def test_without_a_key_nothing_is_said_about_the_rest(self, gateway: Proxy, path: str) -> None:
        assert (await upgrade(gateway.port, path, NO_KEY)).status == 401

    async def test_every_one_of_several_keys_is_right(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(keys=["a", "b"])
        for key, status in (("a", 101), ("b", 101), ("c", 401), ("a,b", 401)):
            assert (await upgrade(gateway.port, "/queue/q", f"Authorization: Bearer {key}")).status == status

    async def test_keys_of_a_file_come_in_the_same_forms(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        path = write_keys(tmp_path / "keys.toml", entry("shop", *Permission, secret=KEY))
        gateway = await make_gateway(keys=["another"], keys_file=path)
        for target in WEBSOCKET_PATHS:
            for headers in RIGHT:
                assert (await upgrade(gateway.port, target, *headers)).status == 101
            for headers in WRONG:
                assert (await upgrade(gateway.port, target, *headers)).status == 401
            assert (await upgrade(gateway.port, with_token(target, KEY), NO_KEY)).status == 101
            assert (await upgrade(gateway.port, with_token(target, "another"), NO_KEY)).status == 101
            assert (await upgrade(gateway.port, with_token(target, digest(KEY).hex()), NO_KEY)).status == 401

    async def test_an_expired_key_is_refused_by_name(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        path = write_keys(tmp_path / "keys.toml", entry("shop", *Permission, expires="2020-01-01", secret=KEY))
        gateway = await make_gateway(keys=["another"], keys_file=path)
        answer = await upgrade(gateway.port, "/queue/q")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.error == {"code": "UNAUTHORIZED", "message": "The key shop has expired"}

    async def test_without_keys_everybody_may_come_in(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(keys=[], no_auth=True, allowed_hosts=("gateway",))
        for headers in (NO_KEY,), ("Authorization: Bearer anything",):
            assert (await upgrade(gateway.port, "/queue/q", *headers)).status == 101

    async def test_no_key_is_ever_logged(self, make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.DEBUG, "websockets")
        gateway = await make_gateway()
        for path in WEBSOCKET_PATHS[:4]:
            for headers in RIGHT:
                await upgrade(gateway.port, path, *headers)
            await upgrade(gateway.port, with_token(path, KEY), NO_KEY)
            await upgrade(gateway.port, with_token(path, "wrong-secret"), "Authorization: Bearer wrong-secret")
            await upgrade(gateway.port, with_token(path, KEY), "Sec-WebSocket-Key: broken")
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.send('{"id":1,"data":{"fn":"nonsense"}}')
            await client.message()
            client.write(b"\xff\xff\xff")
            await client.closed()
        written = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records)
        assert KEY not in written
        assert "wrong-secret" not in written
        assert "token" not in written


class TestSubprotocols:
    async def test_the_first_of_the_pair_is_selected_and_the_key_not_sent_back(self, gateway: Proxy) -> None:
        for pair in (f"bullmq-proxy.v1, bearer.{KEY}", f"bearer.{KEY}, bullmq-proxy.v1"):
            answer = await upgrade(gateway.port, "/queue/q", NO_KEY, f"Sec-WebSocket-Protocol: {pair}")
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "bullmq-proxy.v1")
            assert KEY not in str(answer.headers)

    async def test_other_subprotocols_are_not_selected(self, gateway: Proxy) -> None:
        answer = await upgrade(gateway.port, "/queue/q", "Sec-WebSocket-Protocol: chat, bullmq-proxy.x")
        assert answer.status == 101
        assert "sec-websocket-protocol" not in answer.headers


class TestOrigins:
    @pytest.mark.parametrize("origin", ["http://gateway", "https://GATEWAY"])
    async def test_a_page_of_this_host_may_connect(self, gateway: Proxy, origin: str) -> None:
        assert (await upgrade(gateway.port, "/queue/q", f"Origin: {origin}")).status == 101

    @pytest.mark.parametrize(
        "origin",
        ["http://elsewhere", "http://gateway:81", "http://gateway.elsewhere", "null", "http://[::1", "gateway"],
    )
    async def test_a_page_of_another_host_may_not(self, gateway: Proxy, origin: str) -> None:
        for path in WEBSOCKET_PATHS[:3]:
            answer = await upgrade(gateway.port, path, f"Origin: {origin}")
            assert (answer.status, answer.error["code"]) == (403, "FORBIDDEN")

    async def test_an_origin_needs_a_host_to_compare_with(self, gateway: Proxy) -> None:
        assert (await upgrade(gateway.port, "/queue/q", "Origin: null")).status == 403

    async def test_two_origins_are_none_that_is_allowed(self, gateway: Proxy) -> None:
        answer = await upgrade(gateway.port, "/queue/q", "Origin: http://gateway", "origin: http://gateway")
        assert answer.status == 403

    async def test_the_port_is_part_of_the_host(self, gateway: Proxy) -> None:
        for origin, status in (("http://gateway:8080", 101), ("http://gateway", 403)):
            answer = await upgrade(gateway.port, "/queue/q", f"Origin: {origin}", "Host: gateway:8080")
            assert answer.status == status

    @pytest.mark.parametrize(
        ("origin", "host", "status"),
        [
            ("http://gateway:80", "gateway", 101),
            ("http://gateway", "gateway:80", 101),
            ("https://gateway", "gateway:443", 101),
            ("HTTP://gateway/", "gateway:80", 101),
            ("ws://gateway:80", "gateway", 101),
            ("https://gateway", "gateway:80", 403),
            ("http://gateway", "gateway:443", 403),
            ("http://", "", 403),
            ("http://:80", ":80", 403),
        ],
    )
    async def test_the_port_of_its_scheme_may_be_left_out(
        self, gateway: Proxy, origin: str, host: str, status: int
    ) -> None:
        request = handshake("/queue/q", f"Origin: {origin}").replace(b"Host: gateway", f"Host: {host}".encode())
        assert (await fetch(gateway.port, request)).status == status

    async def test_a_list_replaces_the_rule_of_the_same_host(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(allowed_origins=("https://app.example.org",))
        assert (await upgrade(gateway.port, "/queue/q", "Origin: https://app.example.org")).status == 101
        assert (await upgrade(gateway.port, "/queue/q", "Origin: http://gateway")).status == 403
        assert (await upgrade(gateway.port, "/queue/q")).status == 101

    async def test_the_key_is_asked_for_first(self, gateway: Proxy) -> None:
        assert (await upgrade(gateway.port, "/queue/q", NO_KEY, "Origin: http://elsewhere")).status == 401


class TestHosts:
    """A page in a browser can make its own host name lead to a loopback address."""

    PATHS = (
        "/",
        "/health",
        "/ready",
        "/metrics",
        "/none",
        "/flows",
        "/queue/q",
        "/queue/q/events",
        "/queue/q/process/1",
    )

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"]
    )
    async def test_without_a_key_a_foreign_name_is_refused_everywhere(
        self, make_gateway: MakeGateway, host: str
    ) -> None:
        gateway = await make_gateway(keys=[], no_auth=True)
        for path in self.PATHS:
            for answer in (
                await upgrade(gateway.port, path, NO_KEY, f"Host: {host}", f"Origin: http://{host}"),
                await fetch(gateway.port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                await fetch(gateway.port, f"OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                await fetch(gateway.port, f"GET http://{host}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            ):
                assert (answer.status, answer.error["code"]) == (403, "FORBIDDEN")
        assert "name it in allowed_hosts" in answer.error["message"]

    @pytest.mark.parametrize(
        "host",
        [
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:80",
            "[::ffff:127.0.0.1]",
            "My.Host:80",
        ],
    )
    async def test_this_machine_and_names_of_the_setting_are_let_in(self, make_gateway: MakeGateway, host: str) -> None:
        gateway = await make_gateway(keys=[], no_auth=True, allowed_hosts=("my.HOST",))
        assert (await upgrade(gateway.port, "/queue/q", NO_KEY, f"Host: {host}")).status == 101
        assert (await fetch(gateway.port, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n")).status == 200

    async def test_with_keys_any_name_will_do(self, gateway: Proxy) -> None:
        assert (await upgrade(gateway.port, "/queue/q", "Host: elsewhere")).status == 101
        assert (await get(gateway.port, "/health")).status == 200

    async def test_a_program_that_sends_no_name_is_no_browser(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(keys=[], no_auth=True)
        assert (await fetch(gateway.port, "GET /health HTTP/1.0\r\n\r\n")).status == 200
