"""TLS on the port: real handshakes, slow ones and half ones, certificates of clients, and a renewed certificate."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.client import Queue, Worker, WorkerJob
from tests.net.conftest import MakeGateway
from tests.net.support import CLOSE, KEY, TIMEOUT, RawClient, call, frame, handshake, open_connections, request
from tests.support.certificates import OPENSSL, make_certificate
from tests.support.keys import entry, write_keys
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")

MakeSecure = Callable[..., Awaitable[Proxy]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with certificates: the gateway's, its next one, those of clients, and that of a stranger."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("gateway", "next", "shop", "stranger"):
        make_certificate(directory, name, "-nodes", also="DNS:localhost,URI:billing")
    return directory


@pytest.fixture
def make_secure(make_gateway: MakeGateway, certificates: Path) -> MakeSecure:
    """Start gateways that speak TLS with the certificate `gateway`."""

    async def make(**settings: Any) -> Proxy:
        paths = {"tls_cert": str(certificates / "gateway.pem"), "tls_key": str(certificates / "gateway.key")}
        return await make_gateway(**{**paths, **settings})

    return make


@pytest_asyncio.fixture
async def secure(make_secure: MakeSecure) -> Proxy:
    """A gateway that speaks TLS."""
    return await make_secure()


@pytest.fixture
def trusting(certificates: Path) -> Callable[..., ssl.SSLContext]:
    """Make the context of a client that trusts one certificate, and shows another one."""

    def make(trusted: str = "gateway", shown: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(certificates / f"{trusted}.pem"))
        if shown is not None:
            context.load_cert_chain(certificates / f"{shown}.pem", certificates / f"{shown}.key")
        return context

    return make


class Hands:
    """A client that shakes hands by itself, so that it can send any part of it at any time."""

    def __init__(self, client: RawClient, context: ssl.SSLContext) -> None:
        self.client = client
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def shake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send()
                await self.hear()
            else:
                await self.send()
                return

    async def send(self) -> None:
        """Send what there is, each byte in a segment of its own."""
        await self.client.write_in_pieces(self._outgoing.read())

    async def hear(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            data = await self.client._reader.read(2**16)
        self._incoming.write(data) if data else self._incoming.write_eof()

    async def read(self) -> bytes:
        """All until the gateway says that nothing follows."""
        heard = b""
        while True:
            try:
                heard += self.tls.read(2**16)
            except ssl.SSLWantReadError:
                await self.hear()
            except ssl.SSLZeroReturnError:
                return heard


class TestConversation:
    @pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
    async def test_everything_works_as_on_a_plain_port(
        self, secure: Proxy, trusting: Callable[..., ssl.SSLContext], newest: ssl.TLSVersion
    ) -> None:
        assert secure.url.startswith("wss://")
        context = trusting()
        context.maximum_version = newest
        context.set_alpn_protocols(["h2", "http/1.1"])
        big = "x" * 900_000
        async with await RawClient.open(secure.port, "/queue/q", tls=context) as client:
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            assert (await client.ask("count"))["ok"] == 0
            client.send(call(2, "add", "a", big))
            job = (await client.message())["data"]["ok"]
            assert job["data"] == big
            client.send(b"\x03\xe8", CLOSE)
            assert await client.closed() == (1000, "")
        async with await RawClient.connect(secure.port, context) as client:
            for _ in range(2):
                answer = await client.fetch("POST", "/queue/q/getJob", body=json.dumps([job["id"]]))
                assert json.loads(answer.body)["ok"]["data"] == big

    async def test_the_python_client_trusts_what_it_is_told(self, secure: Proxy, certificates: Path) -> None:
        url, ca = f"wss://localhost:{secure.port}", str(certificates / "gateway.pem")
        done = asyncio.Event()

        async def handle(job: WorkerJob) -> None:
            done.set()

        async with Queue("q", url=url, key=KEY, ca=ca) as queue, asyncio.timeout(TIMEOUT):
            worker = Worker("q", handle, url=url, key=KEY, ca=ca)
            worker.start()
            await queue.add("a")
            await done.wait()
            await worker.close()
        async with Queue("q", url=url, key=KEY) as queue, asyncio.timeout(TIMEOUT):
            troubles: asyncio.Queue[object] = asyncio.Queue()
            queue.on("disconnected", troubles.put_nowait)
            asking = asyncio.create_task(queue.count())
            assert "CERTIFICATE_VERIFY_FAILED" in str(await troubles.get())
            asking.cancel()

    async def test_old_versions_and_ciphers_are_refused(
        self, secure: Proxy, trusting: Callable[..., ssl.SSLContext], caplog: pytest.LogCaptureFixture
    ) -> None:
        context = trusting()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES128-GCM-SHA256")  # without forward secrecy
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
                await RawClient.connect(secure.port, context)
        assert caplog.text.count("127.0.0.1 cannot speak TLS here: no shared cipher") == 2

    async def test_byte_by_byte_and_half_closed(self, secure: Proxy, trusting: Callable[..., ssl.SSLContext]) -> None:
        """A client that has said by TLS that it sends no more is still answered (RFC 8446 §6.1)."""
        async with await RawClient.connect(secure.port) as client:
            hands = Hands(client, trusting())
            await hands.shake()
            hands.tls.write(request("GET", "/health"))
            with pytest.raises(ssl.SSLWantReadError):
                hands.tls.unwrap()
            await hands.send()
            assert b'"status":"alive"' in await hands.read()
            await client.gone()

    @pytest.mark.parametrize("in_turns", [False, True])
    async def test_a_client_whose_end_comes_with_its_request_is_answered(
        self, secure: Proxy, trusting: Callable[..., ssl.SSLContext], in_turns: bool
    ) -> None:
        assert secure._app is not None
        turns = secure._app.broker.queues.turns
        page, slow = request("GET", "/health"), request("GET", "/queue/q/getJobCounts")
        for sent, answers in (
            (page, [b"200"]),
            (b"nonsense\r\n\r\n", [b"400"]),
            (page + slow, [b"200", b"200"]),
            (handshake("/queue/q"), []),  # it would hear nothing
            (slow + handshake("/queue/q/process/1"), [b"200"]),
        ):
            async with await RawClient.connect(secure.port) as client:
                hands = Hands(client, trusting())
                await hands.shake()
                hands.tls.write(sent)
                with pytest.raises(ssl.SSLWantReadError):
                    hands.tls.unwrap()
                turns.hear_quiet(self) if in_turns else turns.forget_quiet()
                client.write(hands._outgoing.read())
                statuses = re.findall(rb"HTTP/1\.1 (\d+) ", await hands.read())
                assert statuses == answers or not answers, sent
                await client.gone()
            await eventually(lambda: not open_connections(secure), "no connection is left")

    async def test_what_comes_with_the_end_of_the_handshake_is_read(
        self, secure: Proxy, trusting: Callable[..., ssl.SSLContext]
    ) -> None:
        async with await RawClient.connect(secure.port) as client:
            hands = Hands(client, trusting())
            with pytest.raises(ssl.SSLWantReadError):
                hands.tls.do_handshake()
            await hands.send()
            await hands.hear()
            hands.tls.do_handshake()
            hands.tls.write(handshake("/queue/q") + frame(call(1, "count")))
            client.write(hands._outgoing.read())
            heard = b""
            while not heard.endswith(b'{"id":1,"data":{"ok":0}}'):
                await hands.hear()
                heard += hands.tls.read(2**16)
            assert heard.startswith(b"HTTP/1.1 101 ")

    async def test_a_broken_record_ends_the_connection(
        self, secure: Proxy, trusting: Callable[..., ssl.SSLContext]
    ) -> None:
        async with await RawClient.connect(secure.port) as client:
            hands = Hands(client, trusting())
            await hands.shake()
            hands.tls.write(handshake("/queue/q"))
            await hands.send()
            await eventually(lambda: open_connections(secure), "it is open")
            client.write(b"\x17\x03\x03\x00\x20" + os.urandom(32))
            await client.gone()
            await eventually(lambda: not open_connections(secure), "it is gone")

    async def test_a_client_that_reads_nothing_is_closed(
        self, make_secure: MakeSecure, trusting: Callable[..., ssl.SSLContext]
    ) -> None:
        secure = await make_secure(max_write_buffer=64 * 1024)
        async with await RawClient.open(secure.port, "/queue/q", tls=trusting()) as client:
            job = (await client.ask("add", "a", "x" * 900_000))["ok"]
            client.stop_reading()
            for number in range(60):
                client.send(call(number, "getJob", job["id"]))
            await eventually(lambda: not open_connections(secure), "the gateway gives the connection up")
            client.abort()

    async def test_a_gateway_that_stops_says_so(self, secure: Proxy, trusting: Callable[..., ssl.SSLContext]) -> None:
        async with (
            await RawClient.open(secure.port, "/queue/q", tls=trusting()) as client,
            await RawClient.connect(secure.port) as silent,
        ):
            stopping = asyncio.create_task(secure.stop())
            assert (await client.closed())[0] == 1001
            await silent.gone()
            await stopping


class TestBeforeTheKey:
    async def test_half_handshakes_count_and_the_oldest_go(
        self, make_secure: MakeSecure, monkeypatch: pytest.MonkeyPatch, trusting: Callable[..., ssl.SSLContext]
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.unopened.UNOPENED", 3)
        secure = await make_secure()
        halves = [Hands(await RawClient.connect(secure.port), trusting()) for _ in range(5)]
        for half in halves:
            with pytest.raises(ssl.SSLWantReadError):
                half.tls.do_handshake()
            half.client.write(half._outgoing.read())  # the gateway answers, and waits for the rest
        for oldest in halves[:2]:
            await oldest.client.gone()
        async with await RawClient.open(secure.port, "/queue/q", tls=trusting()) as client:
            assert (await client.ask("count"))["ok"] == 0
        for half in halves:
            half.client.abort()

    @pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00" + bytes(600), b"GET / HTTP"])
    async def test_a_handshake_that_does_not_end_is_given_up(
        self, make_secure: MakeSecure, monkeypatch: pytest.MonkeyPatch, said: bytes
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.unopened.HEAD_TIMEOUT", 0.05)
        monkeypatch.setattr("bullmq_proxy.gateway.net.shared._LOOK", 0.02)
        secure = await make_secure()
        async with await RawClient.connect(secure.port) as client:
            client.write(said)
            await client.gone()

    async def test_the_limit_of_an_address_holds(
        self, make_secure: MakeSecure, trusting: Callable[..., ssl.SSLContext]
    ) -> None:
        secure = await make_secure(max_connections_per_address=1)
        async with await RawClient.connect(secure.port), await RawClient.connect(secure.port, trusting()) as client:
            assert (await client.fetch("GET", "/health")).status == 429

    async def test_a_flood_of_hellos_leaves_others_their_turns(
        self, secure: Proxy, trusting: Callable[..., ssl.SSLContext]
    ) -> None:
        async with await RawClient.open(secure.port, "/queue/q", tls=trusting()) as client:
            flood = [await RawClient.connect(secure.port) for _ in range(60)]
            for each in flood:
                hello = Hands(each, trusting())
                with pytest.raises(ssl.SSLWantReadError):
                    hello.tls.do_handshake()
                each.write(hello._outgoing.read())
            assert (await client.ask("count"))["ok"] == 0
            for each in flood:
                each.abort()

    async def test_plain_http_is_told_so(self, secure: Proxy) -> None:
        async with await RawClient.connect(secure.port) as client:
            client.request("GET", "/health")
            answer = await client.answer()
            assert answer.status == 400
            assert "TLS is spoken on this port" in answer.error["message"]
            client.write(b"more")

    async def test_tls_on_a_plain_port_is_logged(
        self, gateway: Proxy, trusting: Callable[..., ssl.SSLContext], caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(ssl.SSLError):
            await RawClient.connect(gateway.port, trusting())
        assert "127.0.0.1 speaks TLS, which is not spoken on this port (tls_cert)" in caplog.text


class TestClients:
    """Certificates of clients, which stand for keys by their names."""

    @pytest.fixture
    def keys_file(self, tmp_path: Path) -> str:
        return write_keys(tmp_path / "keys.toml", entry("shop", "observe"), entry("billing", "produce"))

    async def test_one_counts_as_the_key_of_its_name(
        self, make_secure: MakeSecure, trusting: Callable[..., ssl.SSLContext], certificates: Path, keys_file: str
    ) -> None:
        secure = await make_secure(tls_client_ca=str(certificates / "shop.pem"), keys_file=keys_file)
        context = trusting(shown="shop")
        async with await RawClient.open(secure.port, "/queue/q", "Authorization:", tls=context) as client:
            assert (await client.ask("count"))["ok"] == 0
            assert (await client.ask("add", "a"))["err"]["code"] == "FORBIDDEN"
            write_keys(Path(keys_file), entry("billing", "produce"))
            secure.reload_keys()
            assert (await client.closed())[0] == 4000, "the key is gone"
        async with await RawClient.open(secure.port, "/queue/q", "Authorization:", tls=context) as client:
            assert "id" in (await client.ask("add", "a"))["ok"], "the next name is a URI"
        async with await RawClient.open(secure.port, "/queue/q", tls=context) as client:
            assert (await client.ask("count"))["ok"] == 1, "a key that is shown counts"

    async def test_one_is_demanded(
        self,
        make_secure: MakeSecure,
        trusting: Callable[..., ssl.SSLContext],
        certificates: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        secure = await make_secure(tls_client_ca=str(certificates / "shop.pem"))
        for context in (trusting(shown="stranger"), trusting()):
            with pytest.raises((ssl.SSLError, asyncio.IncompleteReadError)):
                async with await RawClient.connect(secure.port, context) as client:
                    await client.fetch("GET", "/health")
        assert "127.0.0.1 cannot speak TLS here: self" in caplog.text

    async def test_without_one_a_key_counts_where_it_is_optional(
        self, make_secure: MakeSecure, trusting: Callable[..., ssl.SSLContext], certificates: Path, keys_file: str
    ) -> None:
        ca = str(certificates / "shop.pem")
        secure = await make_secure(tls_client_ca=ca, tls_client_cert="optional", keys_file=keys_file)
        async with await RawClient.open(secure.port, "/queue/q", tls=trusting()) as client:
            assert (await client.ask("count"))["ok"] == 0
        async with await RawClient.connect(secure.port, trusting()) as client:
            assert (await client.upgrade("/queue/q", "Authorization:")).status == 401

    async def test_one_whose_name_is_no_key_needs_a_key(
        self, make_secure: MakeSecure, trusting: Callable[..., ssl.SSLContext], certificates: Path
    ) -> None:
        secure = await make_secure(tls_client_ca=str(certificates / "shop.pem"))
        async with await RawClient.connect(secure.port, trusting(shown="shop")) as client:
            refused = await client.upgrade("/queue/q", "Authorization:")
            assert (refused.status, "No key has the name" in refused.error["message"]) == (401, True)
        async with await RawClient.open(secure.port, "/queue/q", tls=trusting(shown="shop")) as client:
            assert (await client.ask("count"))["ok"] == 0


async def test_a_renewed_certificate_is_for_the_next_handshakes(
    make_secure: MakeSecure, trusting: Callable[..., ssl.SSLContext], certificates: Path, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def become(name: str) -> None:
        cert.write_bytes((certificates / f"{name}.pem").read_bytes())
        key.touch(0o600)
        key.write_bytes((certificates / f"{name}.key").read_bytes())

    become("gateway")
    secure = await make_secure(tls_cert=str(cert), tls_key=str(key))
    async with await RawClient.open(secure.port, "/queue/q", tls=trusting()) as client:
        become("next")
        secure.reload_certificate()
        with pytest.raises(ssl.SSLCertVerificationError):
            await RawClient.connect(secure.port, trusting())
        key.write_bytes((certificates / "gateway.key").read_bytes())
        with pytest.raises(ValueError, match="does not fit the first certificate"):
            secure.reload_certificate()
        async with await RawClient.open(secure.port, "/queue/q", tls=trusting("next")) as other:
            assert (await other.ask("count"))["ok"] == 0
        assert (await client.ask("count"))["ok"] == 0
