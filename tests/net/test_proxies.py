"""Proxies in front: who is believed, by headers and by the PROXY protocol; and nginx and HAProxy themselves."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.datastructures import Headers

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.net.proxies import SIGNATURE, TrustedProxies, read_header
from tests.net.conftest import MakeGateway
from tests.net.support import RawClient, get, handshake, open_connections, request
from tests.support.certificates import OPENSSL, make_certificate
from tests.support.ports import free_port
from tests.support.processes import ending_with_us
from tests.support.waiting import eventually

CLIENT = "203.0.113.7"


def header(address: str = CLIENT, *, command: int = 0x21, family: int = 0x11, more: bytes = b"") -> bytes:
    """A PROXY header of version 2, for TCP over IPv4."""
    body = bytes(map(int, address.split("."))) + bytes((127, 0, 0, 1)) + b"\x12\x34\x1f\x90" + more
    return SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body


class TestHeaders:
    @pytest.mark.parametrize(
        ("headers", "client"),
        [
            ([], "10.0.0.1"),
            ([("X-Forwarded-For", CLIENT)], CLIENT),
            ([("X-Forwarded-For", f"8.8.8.8, {CLIENT}")], CLIENT),
            ([("X-Forwarded-For", f"8.8.8.8,{CLIENT}, 10.1.1.1")], CLIENT),
            ([("X-Forwarded-For", CLIENT), ("X-Forwarded-For", "10.1.1.1")], CLIENT),
            ([("X-Forwarded-For", "10.2.2.2, 10.1.1.1")], "10.2.2.2"),
            ([("X-Forwarded-For", f"{CLIENT}, unknown, 10.1.1.1")], "10.1.1.1"),
            ([("X-Forwarded-For", "")], "10.0.0.1"),
            ([("X-Forwarded-For", f"{CLIENT}:4711")], CLIENT),
            ([("X-Forwarded-For", "[2001:db8::1]:4711")], "2001:db8::1"),
            ([("X-Forwarded-For", f"::ffff:{CLIENT}")], CLIENT),
            ([("X-Forwarded-For", ", ".join([CLIENT] + ["10.1.1.1"] * 40))], "10.1.1.1"),
            ([("Forwarded", f"for={CLIENT};proto=https;by=10.0.0.1")], CLIENT),
            ([("Forwarded", 'For="[2001:db8::1]:4711"')], "2001:db8::1"),
            ([("Forwarded", f'for="8.8.8.8, for={CLIENT}')], CLIENT),
            ([("Forwarded", f"for={CLIENT}, for=_hidden")], "10.0.0.1"),
            ([("Forwarded", "proto=https")], "10.0.0.1"),
            ([("Forwarded", f"for={CLIENT}"), ("X-Forwarded-For", CLIENT)], CLIENT),
        ],
    )
    def test_the_last_hop_that_is_no_trusted_proxy_is_the_client(
        self, headers: list[tuple[str, str]], client: str
    ) -> None:
        proxies = TrustedProxies(["10.0.0.0/8"])
        assert proxies.client("10.0.0.1", Headers(headers)) == client
        assert proxies.client("192.0.2.1", Headers(headers)) == "192.0.2.1", "nobody else is believed"

    def test_headers_that_differ_are_refused(self) -> None:
        """A proxy writes one of them, and the client may have written the other one."""
        headers = Headers([("Forwarded", "for=8.8.8.8"), ("X-Forwarded-For", CLIENT)])
        with pytest.raises(GatewayError, match="name different clients"):
            TrustedProxies(["10.0.0.0/8"]).client("10.0.0.1", headers)

    def test_who_uses_a_unix_socket_is_named_so(self) -> None:
        headers = Headers([("X-Forwarded-For", CLIENT)])
        assert TrustedProxies(["unix"]).client("", headers) == CLIENT
        assert TrustedProxies(["::1"]).client("", headers) == ""
        assert TrustedProxies(["127.0.0.1/32"]).client("::ffff:127.0.0.1", headers) == CLIENT
        assert TrustedProxies([]).client("127.0.0.1", headers) == "127.0.0.1"

    async def test_each_request_on_a_connection_counts_for_its_client(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(trusted_proxies=["127.0.0.1"], max_connections_per_address=1)
        async with (
            await RawClient.connect(gateway.port) as one,
            await RawClient.open(gateway.port, "/queue/q", f"X-Forwarded-For: 8.8.8.8, {CLIENT}"),
        ):
            [connection] = open_connections(gateway)
            assert connection.address == CLIENT
            for address, status in (("192.0.2.1", 200), (CLIENT, 429)):
                answer = await one.fetch("GET", "/health", f"X-Forwarded-For: {address}")
                assert answer.status == status
        async with await RawClient.open(gateway.port, "/queue/q", f"X-Forwarded-For: {CLIENT}") as client:
            assert (await client.ask("count"))["ok"] == 0, "none is counted for ever"


class TestProxyProtocol:
    def test_the_bytes_of_a_header(self) -> None:
        whole = header(more=b"\x04\x00\x01x")
        assert read_header(whole + b"more") == (len(whole), CLIENT)
        assert [read_header(whole[:size]) for size in range(len(whole))] == [None] * len(whole)
        assert read_header(header(command=0x20)) == (28, "")
        assert read_header(header(family=0x00)) == (28, "")
        six = SIGNATURE + b"\x21\x21\x00\x24" + bytes(10) + b"\xff\xff" + bytes((203, 0, 113, 7)) + bytes(20)
        assert read_header(six) == (52, CLIENT)

    @pytest.mark.parametrize(
        "head",
        [
            b"PROXY TCP4 203.0.113.7 127.0.0.1 4660 8080\r\n",
            header(command=0x11),
            header(command=0x22),
            header(more=bytes(3000)),
            SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        ],
    )
    def test_what_is_none(self, head: bytes) -> None:
        with pytest.raises(ValueError, match="PROXY header"):
            read_header(head)

    @pytest.mark.parametrize("pieces", [True, False])
    async def test_the_client_is_the_one_of_the_header(self, make_gateway: MakeGateway, pieces: bool) -> None:
        gateway = await make_gateway(trusted_proxies=["127.0.0.1"], proxy_protocol=True)
        async with await RawClient.connect(gateway.port) as client:
            whole = header() + handshake("/queue/q")
            await client.write_in_pieces(whole) if pieces else client.write(whole)
            assert (await client.answer()).status == 101
            [connection] = open_connections(gateway)
            assert connection.address == CLIENT

    @pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
    async def test_it_stands_before_tls(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        certificate = make_certificate(tmp_path, "localhost")
        paths = {"tls_cert": str(certificate), "tls_key": str(certificate.with_suffix(".key"))}
        gateway = await make_gateway(trusted_proxies=["127.0.0.1"], proxy_protocol=True, **paths)
        context = ssl.create_default_context(cafile=str(certificate))
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(header())
        await writer.start_tls(context, server_hostname="localhost")
        client = RawClient(reader, writer)
        assert (await client.upgrade("/queue/q")).status == 101
        [connection] = open_connections(gateway)
        assert connection.address == CLIENT
        await client.close()

    async def test_a_trusted_proxy_must_send_one_and_others_must_not(
        self, make_gateway: MakeGateway, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = await make_gateway(trusted_proxies=["127.0.0.1"], proxy_protocol=True)
        async with await RawClient.connect(gateway.port) as client:
            client.write(request("GET", "/health"))
            await client.gone()
        assert "127.0.0.1 is in trusted_proxies and does not say whose connection it is" in caplog.text
        gateway = await make_gateway(trusted_proxies=["10.0.0.0/8"], proxy_protocol=True)
        assert (await get(gateway.port, "/health")).status == 200
        async with await RawClient.connect(gateway.port) as client:
            client.write(header() + request("GET", "/health"))
            assert (await client.answer()).status == 400

    async def test_one_that_does_not_come_is_given_up(
        self, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.unopened.HEAD_TIMEOUT", 0.05)
        monkeypatch.setattr("bullmq_proxy.gateway.net.shared._LOOK", 0.02)
        gateway = await make_gateway(trusted_proxies=["127.0.0.1"], proxy_protocol=True)
        async with await RawClient.connect(gateway.port) as client:
            client.write(SIGNATURE)
            await client.gone()


# Real ones, with the configurations of the documentation

DOCUMENT = Path(__file__).parents[2] / "docs/proxies.md"


def configuration(kind: str, **places: object) -> str:
    """The example of a kind in the documentation, for these places."""
    text = DOCUMENT.read_text().partition(f"```{kind}\n")[2].partition("```")[0]
    assert text
    for name, value in places.items():
        assert name in text
        text = text.replace(name, str(value))
    return text


@contextmanager
def running(*words: str) -> Iterator[None]:
    process = subprocess.Popen(words, stderr=subprocess.PIPE, preexec_fn=ending_with_us(signal.SIGTERM))  # noqa: PLW1509 - only the main thread starts it
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def judge(gateway: Proxy, port: int) -> None:
    """Speak through a proxy: a large message both ways, silence, a stream of events, and who is shown."""
    await eventually(lambda: _listens(port), "the proxy listens")
    async with asyncio.timeout(15):
        client = await RawClient.connect(port)
        assert (await client.upgrade("/queue/q", "X-Forwarded-For: 8.8.8.8", "Host: gateway.example")).status == 101
        big = "x" * 900_000
        assert (await client.ask("add", "a", big))["ok"]["data"] == big
        [connection] = open_connections(gateway)
        assert (connection.address, connection.peer != "") == ("127.0.0.1", True)
        async with await RawClient.connect(port) as watcher:
            watcher.request("GET", "/queue/q/events?events=added", "Accept: text/event-stream")
            await watcher._reader.readuntil(b"\r\n\r\n")
            await client.ask("add", "b")
            heard = b""
            while b'"event":"added"' not in heard:
                heard += await watcher._reader.read(4096)  # a proxy that buffers would keep it
        async with await RawClient.connect(port) as asking:
            found = await asking.fetch("GET", "/connections")
            addresses = {each["address"] for each in json.loads(found.body)["ok"]["connections"]}
            assert addresses == {"127.0.0.1"}, "not what the client says of itself"
            assert (await asking.upgrade("/queue/q")).status == 101, "on a connection that a proxy may have kept, too"
        await client.close()


NGINX, HAPROXY = shutil.which("nginx", path="/usr/sbin:/usr/bin"), shutil.which("haproxy", path="/usr/sbin:/usr/bin")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_nginx_in_front(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gateway = await make_gateway(trusted_proxies=["127.0.0.1"])
    port = free_port()
    site = configuration(
        "nginx", **{"listen 443 ssl;": f"listen 127.0.0.1:{port};", "127.0.0.1:8080": f"127.0.0.1:{gateway.port}"}
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}; proxy_temp_path {tmp_path};\n{site}}}"
    )
    with running(str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")):
        await judge(gateway, port)


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
async def test_haproxy_in_front(make_gateway: MakeGateway, tmp_path: Path) -> None:
    gateway = await make_gateway(trusted_proxies=["127.0.0.1"], proxy_protocol=True)
    port = free_port()
    places = {
        "bind :443 ssl crt /etc/haproxy/gateway.pem": f"bind 127.0.0.1:{port}",
        "127.0.0.1:8080": f"127.0.0.1:{gateway.port}",
    }
    (tmp_path / "haproxy.cfg").write_text(configuration("haproxy", **places))
    with running(str(HAPROXY), "-db", "-f", str(tmp_path / "haproxy.cfg")):
        await judge(gateway, port)
