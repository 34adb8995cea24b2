"""The sender against a server that says and does what no endpoint should."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest

from bullmq_proxy.gateway.webhooks import sender as module
from bullmq_proxy.gateway.webhooks.answers import Answer, NoAnswer
from bullmq_proxy.gateway.webhooks.connection import LARGEST_ANSWER, LONGEST_HEAD, Connection
from bullmq_proxy.gateway.webhooks.guard import Guard
from bullmq_proxy.gateway.webhooks.registration import Endpoint
from bullmq_proxy.gateway.webhooks.sender import Outcome, Request, Sender
from tests.support.background import nothing_fails_in_the_background
from tests.support.certificates import OPENSSL, make_certificate
from tests.support.waiting import eventually

SOON: Final = 5.0
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Act = Callable[["Peer"], Awaitable[None]]


@pytest.fixture(autouse=True)
def background() -> Iterator[list[str]]:
    with nothing_fails_in_the_background() as failures:
        yield failures


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[bytes]) -> None:
        self.reader = reader
        self.writer = writer
        self._requests = requests

    async def request(self) -> bytes:
        """Read a request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        assert length is not None, head
        request = head + await self.reader.readexactly(int(length[1]))
        self._requests.append(request)
        return request

    async def say(self, *pieces: bytes) -> None:
        """Send pieces, each in a write of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """End the connection without a farewell."""
        made: socket.socket = self.writer.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Server:
    """A server that does as it is told on each connection: the last act is that of all further ones."""

    def __init__(self, *acts: Act) -> None:
        self._acts = acts
        self.peers: list[Peer] = []
        self.requests: list[bytes] = []
        self.port = 0
        self.came, self.ended = asyncio.Event(), asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, self.requests)
        act = self._acts[min(len(self.peers), len(self._acts) - 1)]
        self.peers.append(peer)
        self.tasks.append(asyncio.create_task(self._serve(peer, act)))
        self.came.set()

    async def _serve(self, peer: Peer, act: Act) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await act(peer)
        finally:
            peer.writer.close()
            self.ended.set()


@asynccontextmanager
async def serving(*acts: Act, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server(*acts)
    listener = await asyncio.start_server(server.accept, host, 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


@asynccontextmanager
async def sending(server: Server, url: str = "http://127.0.0.1:{}/jobs", **options: Any) -> AsyncIterator[Sender]:
    allowed = options.pop("allowed", ("127.0.0.0/8", "::1"))
    may_send = options.pop("may_send", lambda: True)
    sender = Sender(Endpoint(url=url.format(server.port), **{"timeout": 5000, **options}), Guard(allowed), may_send)
    try:
        yield sender
    finally:
        await sender.close()


class Asked:
    """A request and what comes of it."""

    def __init__(self, sender: Sender, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.request: Request = sender.send(headers or {}, body, self.answer.set_result)


async def ask(sender: Sender, body: bytes = b"{}", **headers: str) -> Outcome:
    async with asyncio.timeout(SOON):
        return await Asked(sender, body, headers).answer


def answering(*answers: bytes, then: Callable[[Peer], object] = lambda peer: None) -> Act:
    """Answer one request after the other, the last ones all alike; then something may follow."""

    async def act(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.say(answer)
        then(peer)
        await peer.reader.read()

    return act


async def forever(peer: Peer) -> None:
    """Answer all requests."""
    while True:
        await peer.request()
        await peer.say(OK)


async def unheard(peer: Peer) -> None:
    """Take a request, and answer nothing."""
    await peer.request()
    await peer.reader.read()


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, "")).encode()


def close(peer: Peer) -> None:
    peer.writer.close()


CHUNKED = "Transfer-Encoding: chunked"


class TestAnswers:
    @pytest.mark.parametrize(
        ("said", "status", "body"),
        [
            (OK, 200, b"ok"),
            (head("Content-Length: 0"), 200, b""),
            (head("content-LENGTH:2", "X-Empty:", "X:  y  ") + b"ok", 200, b"ok"),
            (head("X-Empty:", "Content-Length: 2") + b"ok", 200, b"ok"),
            (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
            (head(CHUNKED) + b"1;a=b\r\no\r\n01\r\nk\r\n0\r\nContent-Type: x/y\r\nA: b\r\n\r\n", 200, b"ok"),
            (head(status="100 Continue") + OK, 200, b"ok"),
            (head("Content-Type: x/y", "Retry-After: 9", status="103 Early Hints") * 3 + OK, 200, b"ok"),
            (head(status="204 No Content"), 204, b""),
            (head("Content-Length: 0", status="204 No Content"), 204, b""),
            (head("Content-Length: 2", status="599 Odd") + b"no", 599, b"no"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 10_000])
    async def test_the_connection_is_kept_for_the_next_one(
        self, said: bytes, status: int, body: bytes, size: int
    ) -> None:
        async def act(peer: Peer) -> None:
            await peer.request()
            await peer.say(*(said[at : at + size] for at in range(0, len(said), size)))
            await forever(peer)

        async with serving(act) as server, sending(server) as sender:
            assert await ask(sender) == Answer(status, "", "", body)
            assert await ask(sender) == Answer(200, "", "", b"ok")
            assert len(server.peers) == 1

    @pytest.mark.parametrize(
        ("said", "status", "body"),
        [
            (head("Connection: close", "Content-Length: 2") + b"ok", 200, b"ok"),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
            (head("Keep-Alive: timeout=5", "Connection: keep-alive, close", "Content-Length: 2") + b"ok", 200, b"ok"),
            (head("Content-Length: 2", status="204 No Content") + b"ok", 204, b""),
            (head("Content-Length: 2", status="204 No Content"), 204, b""),
            (head(CHUNKED, status="204 No Content"), 204, b""),
            (head("Content-Length: 2", status="304 Not Modified"), 304, b""),
            (OK + b"more", 200, b"ok"),
            (OK + b"HTTP/1.1 500 Not Yours\r\nContent-Length: 3\r\n\r\nbad", 200, b"ok"),
            (head(CHUNKED) + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 500 Not Yours\r\n", 200, b"ok"),
            (head("Connection: close", "Content-Length: 2") + b"ok" + OK, 200, b"ok"),
        ],
    )
    async def test_the_next_one_gets_a_connection_of_its_own(self, said: bytes, status: int, body: bytes) -> None:
        async with serving(answering(said), forever) as server, sending(server) as sender:
            assert await ask(sender) == Answer(status, "", "", body)
            assert await ask(sender) == Answer(200, "", "", b"ok")
            assert len(server.peers) == 2

    @pytest.mark.parametrize("lines", [(), ("Connection: keep-alive",), ("Connection: close",)])
    async def test_a_body_may_end_with_the_connection(self, lines: tuple[str, ...]) -> None:
        async with serving(answering(head(*lines) + b"all of it", then=close)) as server, sending(server) as sender:
            assert await ask(sender) == Answer(200, "", "", b"all of it")

    async def test_what_is_needed_of_the_head(self) -> None:
        said = head("CONTENT-TYPE: a/b; c=d", "Retry-After:  7", "Content-Length: 0", status="503 Busy")
        async with serving(answering(said)) as server, sending(server) as sender:
            assert await ask(sender) == Answer(503, "a/b; c=d", "7", b"")

    async def test_of_a_long_answer_that_is_no_result_the_beginning_is_read(self) -> None:
        said = head("Content-Length: 99999999", status="500 Oh") + b"x" * (LARGEST_ANSWER + 1)
        async with serving(answering(said)) as server, sending(server) as sender:
            answer = await ask(sender)
            assert isinstance(answer, Answer)
            assert (answer.status, set(answer.body)) == (500, {ord("x")})
            assert len(answer.body) < LARGEST_ANSWER + 2**19


def without_end(start: bytes, piece: bytes) -> Act:
    async def act(peer: Peer) -> None:
        await peer.request()
        await peer.say(start)
        while not peer.writer.is_closing():
            await peer.say(piece)

    return act


async def asked_once(peer: Peer) -> None:
    await peer.request()


LARGE = LARGEST_ANSWER + 1
CLOSED = "The endpoint cannot be reached: it has closed the connection"


class TestNoAnswers:
    @pytest.mark.parametrize(
        ("act", "reason"),
        [
            *(
                (answering(said), "The endpoint's answer is no HTTP")
                for said in (
                    b"SSH-2.0-OpenSSH_9.6\r\n",
                    b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03",
                    b"HTTP/2.0 200 OK\r\n\r\n",
                    b"HTTP/1.1 OK\r\n\r\n",
                    b"<html>",
                    head("Content-Length: 2", CHUNKED) + b"ok",
                    head("Content-Length: 2", "Content-Length: 3") + b"ok",
                    head("Content-Length: -1"),
                    head("Content-Length: 99999999999999999999999"),
                    head(CHUNKED) + b"xyz\r\n",
                    head(CHUNKED) + b"2\r\nokay\r\n",
                    head("a\x00b: c"),
                    head("Upgrade: websocket", "Connection: Upgrade", status="101 Switching Protocols"),
                    head(status="100 Continue") + b"what?\r\n",
                )
            ),
            (asked_once, f"{CLOSED} before its answer"),
            *(
                (answering(said, then=close), f"{CLOSED} within its answer")
                for said in (
                    b"HTTP/1.1 200 OK\r\nConte",
                    head("Content-Length: 3") + b"ok",
                    head(CHUNKED) + b"2\r\nok\r\n",
                    head("Transfer-Encoding: gzip") + b"ok",
                    head(status="100 Continue"),
                )
            ),
            (answering(head(), then=Peer.reset), "The endpoint cannot be reached: Connection reset by peer"),
            (answering(head() + b"half", then=Peer.reset), "The endpoint cannot be reached: Connection reset by peer"),
            *(
                (without_end(start, piece), f"The head of the endpoint's answer is longer than {LONGEST_HEAD} bytes")
                for start, piece in (
                    (b"HTTP/1.1 200 ", b"O" * 10_000),
                    (b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 100),
                    (b"HTTP/1.1 200 OK\r\nX: ", b"v" * 10_000),
                    (b"HTTP/1.1 200 OK\r\n", b"N" * 10_000),
                    (b"", head(status="103 Early Hints") * 100),
                    (head(CHUNKED) + b"0\r\n", b"Trailer: value\r\n" * 100),
                    (head(CHUNKED) + b"0\r\nTrailer: ", b"v" * 10_000),
                    (head(CHUNKED) + b"1;", b"extension" * 1000),
                )
            ),
            *(
                (without_end(start, piece), f"The endpoint's answer is longer than {LARGEST_ANSWER} bytes")
                for start, piece in (
                    (head(f"Content-Length: {LARGE}"), b"x" * 100_000),
                    (head(), b"x" * 100_000),
                    (head(CHUNKED), b"1\r\nx\r\n" * 20_000),
                )
            ),
        ],
    )
    async def test_the_reason_says_why(self, act: Act, reason: str) -> None:
        async with serving(act) as server, sending(server) as sender:
            answer = await ask(sender)
            assert isinstance(answer, NoAnswer)
            assert answer.reason == reason
            async with asyncio.timeout(SOON):
                await server.ended.wait()  # the connection is closed

    @pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", head("Content-Length: 999"), head(CHUNKED), head()])
    async def test_whoever_is_slow_has_the_time_of_the_endpoint_in_all(self, start: bytes) -> None:
        async def act(peer: Peer) -> None:
            await peer.request()
            with suppress(OSError):
                for byte in start and start + b"1\r\nx\r\n" * 100:
                    await peer.say(bytes((byte,)))
                    await asyncio.sleep(0.004)
            await peer.reader.read()

        async with serving(act) as server, sending(server, timeout=60) as sender:
            answer = await ask(sender)
            assert answer == NoAnswer("The endpoint has not answered within 60 ms")
            async with asyncio.timeout(SOON):
                await server.ended.wait()

    async def test_whoever_cannot_take_it_that_he_is_late_hears_it_again_and_the_others_in_time(
        self, background: list[str]
    ) -> None:
        late, outcomes = NoAnswer("The endpoint has not answered within 60 ms"), list[Outcome]()

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 1:
                raise RuntimeError("not now")

        async with serving(unheard, unheard) as server, sending(server, timeout=60) as sender:
            sender.send({}, b"{}", done)
            assert await ask(sender) == late
            assert outcomes == [late]
            await eventually(lambda: outcomes == [late, late], "it is told again")
            assert not sender._requests
        assert "not now" in background.pop()

    async def test_nobody_listens(self) -> None:
        async with serving(forever) as server:
            pass
        async with sending(server) as sender:
            answer = await ask(sender)
            assert isinstance(answer, NoAnswer)
            assert answer.reason == "The endpoint cannot be reached: Connection refused"
            assert str(server.port) in answer.cause or "refused" in answer.cause

    async def test_the_address_is_in_the_log_alone(self) -> None:
        async with serving(forever) as server, sending(server, allowed=()) as sender:
            answer = await ask(sender)
            assert isinstance(answer, NoAnswer)
            assert answer.reason == "The endpoint cannot be reached: webhook_allow does not name its address"
            assert "127.0.0.1" in answer.cause
            assert not server.peers


class TestKeptConnections:
    async def test_a_request_goes_out_once_more_when_a_kept_connection_ends_without_a_byte(self) -> None:
        async def act(peer: Peer) -> None:
            await peer.request()
            await peer.say(OK)
            await peer.request()

        async with serving(act, forever) as server, sending(server) as sender:
            await ask(sender)
            assert await ask(sender, b'"second"') == Answer(200, "", "", b"ok")
            assert len(server.peers) == 2
            assert server.requests[1] == server.requests[2]

    @pytest.mark.parametrize("end", [close, Peer.reset])
    async def test_it_does_so_once(self, end: Callable[[Peer], None]) -> None:
        async def second(peer: Peer) -> None:
            await peer.request()
            end(peer)

        async def first(peer: Peer) -> None:
            await peer.request()
            await peer.say(OK)
            await second(peer)

        async with serving(first, second) as server, sending(server) as sender:
            await ask(sender)
            answer = await ask(sender)
            assert isinstance(answer, NoAnswer)
            assert len(server.requests) == 3

    async def test_not_when_an_answer_has_begun(self) -> None:
        async with serving(answering(OK, b"H", then=close), forever) as server, sending(server) as sender:
            await ask(sender)
            assert isinstance(await ask(sender), NoAnswer)
            assert len(server.requests) == 2

    async def test_not_when_the_time_is_over(self) -> None:
        async def act(peer: Peer) -> None:
            await peer.request()
            await peer.say(OK)
            await peer.request()
            await peer.reader.read()

        async with serving(act, forever) as server, sending(server, timeout=60) as sender:
            await ask(sender)
            assert isinstance(await ask(sender), NoAnswer)
            assert len(server.requests) == 2

    @pytest.mark.parametrize("extra", [b"HTTP/1.1 500 Not Yours\r\nContent-Length: 0\r\n\r\n", b"\r\n", b"x"])
    async def test_what_comes_unasked_answers_nobody(self, extra: bytes) -> None:
        """It is there, and the event loop has not read it yet, when the next request is to go out."""
        async with serving(answering(OK), forever) as server, sending(server) as sender:
            await ask(sender)
            made: socket.socket = server.peers[0].writer.get_extra_info("socket")
            assert os.write(made.fileno(), extra) == len(extra)
            assert await ask(sender) == Answer(200, "", "", b"ok")
            assert [len(server.requests), len(server.peers)] == [2, 2]

    async def test_what_comes_unasked_while_nothing_is_asked_closes_the_connection(self) -> None:
        async with serving(answering(OK), forever) as server, sending(server) as sender:
            await ask(sender)
            await server.peers[0].say(OK)
            async with asyncio.timeout(SOON):
                await server.ended.wait()
            assert await ask(sender) == Answer(200, "", "", b"ok")

    async def test_one_that_the_endpoint_has_closed_is_not_used(self) -> None:
        async with serving(answering(OK), forever) as server, sending(server) as sender:
            await ask(sender)
            server.peers[0].writer.close()
            assert await ask(sender) == Answer(200, "", "", b"ok")
            assert len(server.requests) == 2

    @pytest.mark.parametrize("said", [(OK,), (OK, b"HTTP/1.1 20"), (b"what?",)])
    async def test_one_that_has_ended_is_freed_at_once(
        self, said: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def opened(connection: Connection, transport: asyncio.BaseTransport) -> None:
            made.append(weakref.ref(connection))
            real(connection, transport)

        made: list[weakref.ref[Connection]] = []
        real = Connection.connection_made
        monkeypatch.setattr(Connection, "connection_made", opened)
        async with serving(answering(*said, then=close)) as server, sending(server) as sender:
            for _ in said:
                await ask(sender)
            gc.disable()
            try:
                await eventually(lambda: made[0]() is None, "it is freed", SOON)
            finally:
                gc.enable()

    async def test_an_answer_that_did_not_wait_for_the_request(self) -> None:
        async def act(peer: Peer) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.say(head("Content-Length: 0", status="413 Too Large"))
            await asyncio.Event().wait()

        async with serving(act, forever) as server, sending(server) as sender:
            answer = await ask(sender, b"x" * 50_000_000)
            assert isinstance(answer, Answer)
            assert answer.status == 413
            await ask(sender)
            assert len(server.peers) == 2

    async def test_they_are_closed_when_they_are_not_needed_or_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_KEPT", 0.05)
        async with serving(forever) as server, sending(server) as sender:
            await asyncio.gather(*(ask(sender) for _ in range(3)))
            assert len(server.peers) == 3
            async with asyncio.timeout(SOON):
                await server.ended.wait()
            monkeypatch.setattr(module, "_KEPT", 4.0)
            monkeypatch.setattr(module, "_OLDEST", 0.0)
            for _ in range(2):
                await ask(sender)
            assert len(server.peers) == 5


class TestRequests:
    async def test_it_is_one_write(self) -> None:
        async def act(peer: Peer) -> None:
            pieces.append(await peer.reader.read(2**16))

        pieces: list[bytes] = []
        url = "http://127.0.0.1:{}/a%20b/{{c}}?d=é|".replace("é", "e") + "&f=%7B#part"
        options = {"method": "PATCH", "headers": {"X-Own": "own", "Content-Type": "a/b", "Trace": "no"}}
        async with serving(act) as server, sending(server, url, **options) as sender:
            await ask(sender, b'{"a":1}', trace="yes", id="7")
        lines = pieces[0].decode().split("\r\n")
        assert lines[0] == "PATCH /a%20b/%7Bc%7D?d=e%7C&f=%7B HTTP/1.1"
        assert lines[1] == f"host: 127.0.0.1:{server.port}"
        assert lines[-2:] == ["", '{"a":1}']
        headers = [line for line in lines[2:-2] if not line.startswith(("user-agent: ", "accept"))]
        assert headers == ["content-type: a/b", "x-own: own", "trace: yes", "id: 7", "content-length: 7"]

    async def test_the_name_is_tried_at_each_of_its_addresses(self) -> None:
        """Of `localhost` one is of IPv6, where nobody listens."""
        async with serving(forever) as server, sending(server, "http://localhost:{}/") as sender:
            assert await asyncio.gather(*(ask(sender) for _ in range(4))) == [Answer(200, "", "", b"ok")] * 4

    async def test_one_that_must_not_be_sent_once_the_connection_stands_is_not(self) -> None:
        async with serving(forever) as server, sending(server, may_send=lambda: False) as sender:
            assert await ask(sender) is None
            assert not server.requests

    async def test_one_that_is_cancelled_is_answered_to_nobody(self) -> None:
        async with serving(answering()) as server, sending(server) as sender:
            connecting, asking = Asked(sender), Asked(sender)
            sender.cancel(connecting.request)
            async with asyncio.timeout(SOON):
                await server.came.wait()
                sender.cancel(asking.request)
                await server.ended.wait()
            assert not connecting.answer.done()
            assert not asking.answer.done()


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """The TLS of an endpoint at localhost, which the sender trusts."""
    certificate = make_certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    module._tls.cache_clear()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    yield context
    module._tls.cache_clear()


@pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")
async def test_the_tickets_behind_a_handshake_are_nothing_that_the_endpoint_says(
    context: ssl.SSLContext,
) -> None:
    server, has_sent_them = Server(), Event()

    def serve() -> None:
        with listener.accept()[0] as accepted, context.wrap_socket(accepted, server_side=True) as peer:
            has_sent_them.set()
            peer.recv(LONGEST_HEAD)
            peer.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SOON)
        server.port = listener.getsockname()[1]
        thread = Thread(target=serve)
        thread.start()
        writes_at_once = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop)  # uvloop does when it turns
        may_send = partial(has_sent_them.wait, SOON) if writes_at_once else lambda: True
        async with sending(server, "https://localhost:{}/", may_send=may_send) as sender:
            assert await ask(sender) == Answer(200, "", "", b"ok")
        thread.join()


@pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")
async def test_a_certificate_is_checked_against_the_name_in_the_url(
    context: ssl.SSLContext,
) -> None:
    async with serving(forever, context=context) as server:
        async with sending(server, "https://localhost:{}/") as sender:
            for _ in range(3):
                assert await ask(sender) == Answer(200, "", "", b"ok")
            assert len(server.peers) == 1
        async with sending(server, "https://127.0.0.1:{}/") as sender:
            answer = await ask(sender)
            assert isinstance(answer, NoAnswer)
            assert answer.reason == "The endpoint cannot be reached: its certificate is not valid"
    async with serving(lambda peer: peer.say(OK)) as plain, sending(plain, "https://localhost:{}/") as sender:
        answer = await ask(sender)
        assert isinstance(answer, NoAnswer)
        assert answer.reason.startswith("The endpoint cannot be reached: TLS fails (")
