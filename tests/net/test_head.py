"""The head of a request, by what RFC 9110 and RFC 9112 ask of a server: one test for each rule that it can break."""

from __future__ import annotations

import asyncio
import time

import pytest

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.net import opening
from tests.net.support import RawClient, fetch, get, upgrade
from tests.support.waiting import stretched

PAGES = ["/", "/health", "/ready", "/metrics"]


def head(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


async def status(gateway: Proxy, line: str, *fields: str) -> int:
    return (await fetch(gateway.port, head(line, *fields))).status


class TestMethods:
    @pytest.mark.parametrize("path", PAGES)
    async def test_head_is_get_without_the_body(self, gateway: Proxy, path: str) -> None:
        """RFC 9110 §9.3.2: the same header fields, and no content."""
        page = await get(gateway.port, path)
        answer = await fetch(gateway.port, head(f"HEAD {path} HTTP/1.1", "Host: gateway"))
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers.keys() == page.headers.keys()
        assert answer.headers["content-type"] == page.headers["content-type"]
        assert int(answer.headers["content-length"]) > 0

    @pytest.mark.parametrize(
        ("path", "fields", "expected"),
        [
            ("/nothing", ["Host: gateway"], 404),
            ("/queue/q", ["Host: gateway"], 405),
            ("/health", ["Host: gateway", "broken"], 400),
            ("/health", [], 400),
            ("/health", ["Host: gateway", "X: " + "x" * 9000], 431),
        ],
    )
    async def test_no_answer_to_head_has_a_body(
        self, gateway: Proxy, path: str, fields: list[str], expected: int
    ) -> None:
        answer = await fetch(gateway.port, head(f"HEAD {path} HTTP/1.1", *fields))
        assert (answer.status, answer.body) == (expected, b"")

    @pytest.mark.parametrize("target", [*PAGES, "*", "/ready?x=1"])
    async def test_options_says_what_is_allowed(self, gateway: Proxy, target: str) -> None:
        """RFC 9110 §9.3.7; `*` asks for the server as a whole."""
        answer = await fetch(gateway.port, head(f"OPTIONS {target} HTTP/1.1", "Host: gateway"))
        assert (answer.status, answer.headers["allow"], answer.body) == (200, "GET, HEAD, OPTIONS", b"")
        assert answer.headers["content-length"] == "0"

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "BREW"])
    async def test_an_unknown_path_is_404_whatever_the_method(self, gateway: Proxy, method: str) -> None:
        assert await status(gateway, f"{method} /nothing HTTP/1.1", "Host: gateway") == 404

    async def test_a_405_names_what_is_allowed(self, gateway: Proxy) -> None:
        """RFC 9110 §15.5.6: the server MUST generate an Allow header field."""
        answer = await fetch(gateway.port, head("POST /health HTTP/1.1", "Host: gateway"))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


class TestRequestLine:
    @pytest.mark.parametrize(
        "line",
        [
            "GET  /health HTTP/1.1",
            "GET /health  HTTP/1.1",
            " GET /health HTTP/1.1",
            "GET\t/health HTTP/1.1",
            "GET /health HTTP/1.1 ",
            "GET /health http/1.1",
            "GET /health HTTP/11",
            "GET /health HTTP/1.",
            "GET /hea lth HTTP/1.1",
            "GET /health",
            "G(T /health HTTP/1.1",
        ],
    )
    async def test_a_line_of_another_form_is_400(self, gateway: Proxy, line: str) -> None:
        """RFC 9112 §3: SHOULD be 400; the version is case-sensitive (§2.3)."""
        assert await status(gateway, line, "Host: gateway") == 400

    async def test_an_empty_line_in_front_is_ignored(self, gateway: Proxy) -> None:
        """RFC 9112 §2.2: SHOULD."""
        assert await status(gateway, "\r\nGET /health HTTP/1.1", "Host: gateway") == 200
        async with await RawClient.connect(gateway.port) as client:
            await client.write_in_pieces(head("\r\nGET /health HTTP/1.1", "Host: gateway"))
            assert (await client.answer()).status == 200

    @pytest.mark.parametrize("text", [b"GET /health HTTP/1.1\nHost: gateway\n\n", b"GET /health\rHTTP/1.1\r\n"])
    async def test_a_line_that_ends_otherwise_is_400_at_once(self, gateway: Proxy, text: bytes) -> None:
        """RFC 9112 §2.2: a bare CR MUST be considered invalid, a bare LF MAY end a line."""
        assert (await fetch(gateway.port, text)).status == 400

    @pytest.mark.parametrize(("version", "expected"), [("1.0", 200), ("1.1", 200), ("1.2", 200), ("1.9", 200)])
    async def test_a_later_minor_version_is_read_as_the_one_that_we_know(
        self, gateway: Proxy, version: str, expected: int
    ) -> None:
        """RFC 9110 §2.5: SHOULD."""
        assert await status(gateway, f"GET /health HTTP/{version}", "Host: gateway") == expected

    @pytest.mark.parametrize("line", ["GET / HTTP/2.0", "GET / HTTP/0.9", "PRI * HTTP/2.0"])
    async def test_another_major_version_is_505(self, gateway: Proxy, line: str) -> None:
        """RFC 9110 §15.6.6."""
        assert await status(gateway, line, "Host: gateway") == 505

    @pytest.mark.parametrize(
        "target",
        [
            "http://gateway/health",
            "HTTP://gateway:3000/health?x=1",
            "https://user-agent.example/health",
            "ws://[::1]:3000/health",
        ],
    )
    async def test_a_whole_url_is_accepted_as_the_target(self, gateway: Proxy, target: str) -> None:
        """RFC 9112 §3.2.2: a server MUST accept the absolute-form in requests."""
        assert await status(gateway, f"GET {target} HTTP/1.1", "Host: other") == 200

    @pytest.mark.parametrize("target", ["http://gateway", "http://gateway?x=1"])
    async def test_a_url_without_a_path_is_the_root(self, gateway: Proxy, target: str) -> None:
        answer = await fetch(gateway.port, head(f"GET {target} HTTP/1.1", "Host: gateway"))
        assert answer.body.startswith(b"bullmq-proxy")

    async def test_the_host_of_a_whole_url_takes_the_place_of_the_header(self, gateway: Proxy) -> None:
        """RFC 9112 §3.2.2: an origin server MUST ignore the received Host header field."""
        for host, expected in (("evil.example", 403), ("gateway", 101)):
            answer = await upgrade(
                gateway.port, f"http://{host}/queue/q", f"Host: {'gateway' if expected == 403 else 'evil.example'}",
                "Origin: http://gateway",
            )  # fmt: skip
            assert answer.status == expected

    @pytest.mark.parametrize("target", ["health", "*", "gateway:80", "ftp://gateway/health", "http:///health", "?x"])
    async def test_any_other_target_is_400(self, gateway: Proxy, target: str) -> None:
        assert await status(gateway, f"GET {target} HTTP/1.1", "Host: gateway") == 400


class TestHost:
    async def test_a_request_of_http_1_1_without_one_is_400(self, gateway: Proxy) -> None:
        """RFC 9112 §3.2: a server MUST respond with 400."""
        for target in ("/health", "http://gateway/health"):
            answer = await fetch(gateway.port, head(f"GET {target} HTTP/1.1"))
            assert (answer.status, answer.error["code"]) == (400, "INVALID_MESSAGE")
            assert "Host" in answer.error["message"]
        assert (await upgrade(gateway.port, "/queue/q", "Host:")).status == 400
        assert await status(gateway, "GET /health HTTP/1.0") == 200

    async def test_a_second_one_is_400(self, gateway: Proxy) -> None:
        """RFC 9112 §3.2: MUST, even when both are the same."""
        for second in ("gateway", "other"):
            assert await status(gateway, "GET /health HTTP/1.1", "Host: gateway", f"hOST: {second}") == 400
            assert (await upgrade(gateway.port, "/queue/q", "Host: gateway", f"host: {second}")).status == 400

    @pytest.mark.parametrize(
        "host",
        ["a b", "a/b", "http://a", "user@a", "a:b", "a:80:80", "::1", "[::1", "a,b", "a?b", "\xe9", "a\\b", '"a"'],
    )
    async def test_an_invalid_one_is_400(self, gateway: Proxy, host: str) -> None:
        """RFC 9112 §3.2: MUST; the grammar is that of RFC 3986 §3.2.2, where a comma is a letter of a name."""
        expected = 200 if host == "a,b" else 400
        assert await status(gateway, "GET /health HTTP/1.1", f"Host: {host}") == expected

    @pytest.mark.parametrize(
        "host",
        ["", "a", "A.example:80", "a_b", "127.0.0.1:3000", "[::1]:3000", "[fe80::1%25eth0]", "a:", "a%20b", "x."],
    )
    async def test_a_valid_one_is_fine(self, gateway: Proxy, host: str) -> None:
        assert await status(gateway, "GET /health HTTP/1.1", f"Host: {host}") == 200


class TestFields:
    @pytest.mark.parametrize("field", ["Accept : x", "Accept\t: x", " Accept: x", ": x", "no colon", "A(b): x", "é: x"])
    async def test_a_field_of_another_form_is_400(self, gateway: Proxy, field: str) -> None:
        """RFC 9112 §5.1: white space before the colon MUST be 400; §2.2: so must it be before the first field."""
        assert await status(gateway, "GET /health HTTP/1.1", field, "Host: gateway") == 400

    @pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "a\x7fb"])
    async def test_a_control_character_in_a_value_is_400(self, gateway: Proxy, value: str) -> None:
        """RFC 9110 §5.5: CR, LF and NUL MUST be rejected or replaced."""
        assert await status(gateway, "GET /health HTTP/1.1", "Host: gateway", f"X: {value}") == 400

    @pytest.mark.parametrize("value", ["", "   ", "\t x \t", "caf\xe9", "a:b", ",,"])
    async def test_any_other_value_is_fine(self, gateway: Proxy, value: str) -> None:
        assert await status(gateway, "GET /health HTTP/1.1", "Host: gateway", f"X: {value}", f"Y:{value}") == 200

    async def test_a_folded_value_is_one_value(self, gateway: Proxy) -> None:
        """RFC 9112 §5.2: a server MUST reject it or replace the fold with spaces."""
        folded = "Authorization: Bearer\r\n\tkey-1"
        assert (await upgrade(gateway.port, "/queue/q", folded)).status == 101
        assert await status(gateway, "GET /health HTTP/1.1", "Host: gateway", "X: " + "x\r\n " * 5000) == 431

    @pytest.mark.parametrize(
        "field",
        [
            "Content-Length: 5",
            "Content-Length: -1",
            "Content-Length: 0, 5",
            "Content-Length: +0",
            "Content-Length: x",
            "Content-Length:",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    async def test_a_body_or_a_length_that_is_none_is_400(self, gateway: Proxy, method: str, field: str) -> None:
        """RFC 9112 §6.3: an invalid length MUST be 400, and the connection closed."""
        answer = await fetch(gateway.port, head(f"{method} /health HTTP/1.1", "Host: gateway", field) + b"hello")
        assert (answer.status, answer.headers["connection"]) == (400, "close")

    @pytest.mark.parametrize("field", ["Content-Length: 0", "Content-Length: 00", "Content-Length: 0, 0"])
    async def test_a_length_of_zero_is_none(self, gateway: Proxy, field: str) -> None:
        assert await status(gateway, "GET /health HTTP/1.1", "Host: gateway", field, field) == 200
        assert (await upgrade(gateway.port, "/queue/q", field)).status == 101

    @pytest.mark.parametrize("count", [127, 128])
    async def test_there_may_be_128_of_them(self, gateway: Proxy, count: int) -> None:
        fields = [f"X{number}: y" for number in range(count)]
        assert await status(gateway, "GET /health HTTP/1.1", "Host: gateway", *fields) == (200 if count < 128 else 431)


class TestConnections:
    async def test_a_client_that_closes_its_half_behind_the_request_is_answered(self, gateway: Proxy) -> None:
        """RFC 9112 §9.6: it may still read; `printf … | nc` does so."""
        for path in PAGES:
            async with await RawClient.connect(gateway.port) as client:
                client.write(head(f"GET {path} HTTP/1.1", "Host: gateway"))
                client.writer.write_eof()
                assert (await client.answer()).status == 200
                await client.gone()

    async def test_half_a_head_and_its_end_are_no_request(self, gateway: Proxy) -> None:
        async with await RawClient.connect(gateway.port) as client:
            client.write(b"GET /health HTTP/1.1\r\n")
            client.writer.write_eof()
            await asyncio.wait_for(client.gone(), stretched(1))


def test_each_byte_of_a_head_is_looked_at_once() -> None:
    """A client that sends byte by byte costs by the bytes that it sends, and not by their square."""
    for text in (
        b"GET /" + b"x" * 8000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000,
        b"GET / HTTP/1.1\r\nX:" + b"x" * 15_000,
    ):
        head, begin = bytearray(), time.process_time()
        for byte in text:
            head.append(byte)
            assert opening.judge(head, 1) is None
        assert time.process_time() - begin < 2
