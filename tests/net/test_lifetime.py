"""The life of a session: begun once, ended once, whatever the client does meanwhile; and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from websockets.http11 import Response

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.access.grants import Rights
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net import http
from bullmq_proxy.gateway.net.connection import Connection
from bullmq_proxy.gateway.net.listener import Listener
from bullmq_proxy.gateway.sessions.budget import Budget
from bullmq_proxy.gateway.sessions.interfaces import CallSession, Client, Session, Work
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint
from bullmq_proxy.gateway.wire.routes import RouteParameters, Target
from tests.net.support import (
    BINARY,
    CLOSE,
    PING,
    TIMEOUT,
    RawClient,
    admission,
    call,
    frame,
    handshake,
    open_connections,
)
from tests.support.waiting import eventually


class Probe:
    """A session that writes down what happens to it, and echoes what it receives."""

    def __init__(self, outlet: Client) -> None:
        self.outlet = outlet
        self.story: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.refusal: Exception | None = None
        self.is_idle = True

    async def prepare(self) -> None:
        self.story.append("prepare")
        await self.go_on.wait()
        if self.refusal is not None:
            raise self.refusal

    def start(self) -> None:
        self.story.append("start")

    def message_received(self, message: bytes) -> None:
        self.story.append(message.decode())
        if message == b"fail":
            raise RuntimeError("a bug of ours")
        self.outlet.send(message)

    def late_message_received(self, message: bytes) -> None:
        self.story.append(f"late {message.decode()}")

    def connection_lost(self) -> None:
        self.story.append("closed")

    def drain(self, deadline: float) -> None:
        self.story.append("drain")

    def retire(self) -> bool:
        return False

    @property
    def work(self) -> Work:
        return Work(0, None, 0)


class House:
    """A listener whose sessions are probes."""

    def __init__(self) -> None:
        self.probes: list[Probe] = []
        self.furnish: Callable[[Probe], None] = lambda probe: None
        self.listener = Listener(
            admission(no_auth=True, allowed_hosts=("gateway",)),
            Budget(),
            self._open,
            self._events,
            self._calls,
            self._page,
        )

    def _open(self, endpoint: SessionEndpoint, parameters: RouteParameters, rights: Rights, outlet: Client) -> Session:
        probe = Probe(outlet)
        self.furnish(probe)
        self.probes.append(probe)
        return probe

    def _events(self, *_: object) -> Session:
        raise AssertionError("nobody asks for a stream")

    def _calls(self, *_: object) -> CallSession:
        raise AssertionError("nobody calls a function")

    async def _page(self, target: Target) -> Response:
        return http.text("page")

    @property
    def port(self) -> int:
        return self.listener.port

    async def first(self) -> Probe:
        """The first session, once it is being prepared."""
        await eventually(lambda: self.probes and self.probes[0].story, "a session is prepared")
        return self.probes[0]

    async def ended(self) -> None:
        """Wait until every session has ended."""
        await eventually(lambda: all("closed" in probe.story for probe in self.probes), "all sessions are closed")


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    """A listener on a free port."""
    async with AsyncExitStack() as stack:
        house = House()
        await house.listener.start(("127.0.0.1", 0))
        stack.push_async_callback(house.listener.close, CloseCode.GOING_AWAY)
        yield house


def wait_in_prepare(probe: Probe) -> None:
    probe.go_on.clear()


async def shake_hands(house: House) -> RawClient:
    client = await RawClient.connect(house.port)
    client.write(handshake("/queue/q"))
    return client


class TestOnceAndOnlyOnce:
    async def test_a_session_begins_after_the_handshake_and_ends_with_the_connection(self, house: House) -> None:
        async with await RawClient.open(house.port, "/queue/q") as client:
            client.send("hello")
            assert await client.read() == (1, b"hello")
        await house.ended()
        assert house.probes[0].story == ["prepare", "start", "hello", "closed"]

    @pytest.mark.parametrize(
        "leave",
        [
            pytest.param(lambda client: client.send(b"\x03\xe8", CLOSE), id="close frame"),
            pytest.param(lambda client: client.writer.write_eof(), id="half-closed"),
            pytest.param(lambda client: client.writer.close(), id="closed"),
            pytest.param(lambda client: client.abort(), id="reset"),
            pytest.param(lambda client: client.send(b"x", BINARY), id="binary frame"),
            pytest.param(lambda client: client.write(b"\xff\xff"), id="garbage"),
            pytest.param(lambda client: client.send("fail"), id="our own bug"),
        ],
    )
    async def test_however_the_connection_ends(self, house: House, leave: Callable[[RawClient], None]) -> None:
        client = await RawClient.open(house.port, "/queue/q")
        leave(client)
        probe = await house.first()
        await client.close()
        await house.ended()
        assert probe.story.count("closed") == 1
        assert probe.story[-1] == "closed"

    @pytest.mark.parametrize(
        "leave",
        [
            pytest.param(lambda client: client.writer.close(), id="closed"),
            pytest.param(lambda client: client.abort(), id="reset"),
        ],
    )
    async def test_a_client_that_leaves_while_its_session_is_prepared(
        self, house: House, leave: Callable[[RawClient], None]
    ) -> None:
        house.furnish = wait_in_prepare
        client = await shake_hands(house)
        probe = await house.first()
        connection = probe.outlet
        assert isinstance(connection, Connection)
        leave(client)
        await eventually(lambda: connection.is_lost, "the gateway sees it")
        assert probe.story == ["prepare"]
        probe.go_on.set()
        await house.ended()
        assert probe.story == ["prepare", "closed"]
        await client.close()

    @pytest.mark.parametrize(
        ("refusal", "status"),
        [(GatewayError(ErrorCode.REDIS_UNAVAILABLE, "away"), 503), (RuntimeError("a bug of ours"), 500)],
    )
    async def test_a_session_that_cannot_be_prepared(self, house: House, refusal: Exception, status: int) -> None:
        house.furnish = lambda probe: setattr(probe, "refusal", refusal)
        async with await RawClient.connect(house.port) as client:
            answer = await client.upgrade("/queue/q")
        assert answer.status == status
        assert "bug of ours" not in answer.error["message"]
        await house.ended()
        assert house.probes[0].story == ["prepare", "closed"]

    async def test_a_handshake_that_is_broken_has_no_session(self, house: House) -> None:
        async with await RawClient.connect(house.port) as client:
            assert (await client.upgrade("/queue/q", "Sec-WebSocket-Key: broken")).status == 400
        assert not house.probes

    async def test_what_comes_before_the_handshake_is_over_waits_and_does_not_pile_up(self, house: House) -> None:
        house.furnish = wait_in_prepare
        async with await shake_hands(house) as client:
            probe = await house.first()
            early = [b"%d" % number + b"x" * 1000 for number in range(20_000)]  # more than sockets can hold
            client.write(b"".join(map(frame, early)))
            connection = probe.outlet
            assert isinstance(connection, Connection)
            await eventually(lambda: not connection.transport.is_reading(), "the socket is not read any more")
            probe.go_on.set()
            assert (await client.answer()).status == 101
            for message in early:
                assert await client.read() == (1, message)

    async def test_a_listener_that_begins_to_drain_while_a_session_is_prepared(self, house: House) -> None:
        house.furnish = wait_in_prepare
        async with await shake_hands(house) as client:
            probe = await house.first()
            house.listener.drain()
            probe.go_on.set()
            answer = await client.answer()
        assert (answer.status, answer.error["code"]) == (503, "SHUTTING_DOWN")
        await house.ended()
        assert probe.story == ["prepare", "closed"]

    async def test_a_listener_that_closes_while_a_session_is_prepared(self, house: House) -> None:
        house.furnish = wait_in_prepare
        async with await shake_hands(house) as client:
            probe = await house.first()
            closing = asyncio.create_task(house.listener.close(CloseCode.GOING_AWAY))
            await client.gone()
            probe.go_on.set()
            await closing
        assert probe.story == ["prepare", "closed"]


@pytest.mark.parametrize("turns", range(4))
async def test_clients_that_connect_while_a_listener_closes_do_not_hold_it_up(turns: int) -> None:
    house = House()
    await house.listener.start(("127.0.0.1", 0))
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.create_connection(("127.0.0.1", house.port))) for _ in range(5)]
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(TIMEOUT):
            await house.listener.close(CloseCode.GOING_AWAY)
        for client in clients:
            client.setblocking(False)
            with suppress(ConnectionError):
                async with asyncio.timeout(TIMEOUT):
                    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


class TestEnds:
    async def test_our_own_bug_closes_with_1011_and_is_logged(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with await RawClient.open(house.port, "/queue/q") as client:
            client.write(frame("fail") + frame("after"))
            assert await client.closed() == (1011, "internal error")
        await house.ended()
        assert "after" not in house.probes[0].story
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    async def test_a_session_that_cannot_start_closes_with_1011(self, house: House) -> None:
        def break_start(probe: Probe) -> None:
            probe.start = lambda: 1 / 0  # type: ignore[method-assign, assignment]

        house.furnish = break_start
        async with await RawClient.open(house.port, "/queue/q") as client:
            assert (await client.closed())[0] == 1011
        await house.ended()

    async def test_the_outlet_may_be_closed_without_waiting_for_the_end(self, house: House) -> None:
        async with await RawClient.open(house.port, "/queue/q") as client:
            probe = await house.first()
            await eventually(lambda: "start" in probe.story, "it is open")
            probe.outlet.send(b"last words")
            probe.outlet.close(CloseCode.SLOW_CONSUMER, "é" * 100)
            probe.outlet.send(b"too late")
            probe.outlet.close(CloseCode.NORMAL)
            assert await client.read() == (1, b"last words")
            assert await client.closed() == (4002, "é" * 61)
        await house.ended()

    async def test_a_connection_that_is_held_can_be_closed(self, house: House) -> None:
        async with await RawClient.open(house.port, "/queue/q") as client:
            probe = await house.first()
            await eventually(lambda: "start" in probe.story, "it is open")
            probe.outlet.pause_reading()
            client.write(frame("not read") + frame("", PING))
            probe.outlet.close(CloseCode.GOING_AWAY)
            assert (await client.closed())[0] == 1001
        await house.ended()
        probe.outlet.pause_reading()  # a late call changes nothing
        probe.outlet.resume_reading()
        probe.outlet.send(b"nobody is there")

    @pytest.mark.parametrize(
        "last",
        [
            pytest.param(frame(b"\x03\xe8", CLOSE), id="its own close"),
            pytest.param(b"\xff\xff", id="a protocol error"),
            pytest.param(frame(b"x", BINARY), id="a binary frame"),
        ],
    )
    async def test_a_peer_that_never_closes_its_socket_is_cut_off(
        self, house: House, monkeypatch: pytest.MonkeyPatch, last: bytes
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.sending_connection._CLOSE_TIMEOUT", 0.2)
        client = await RawClient.open(house.port, "/queue/q")
        client.write(last)
        while (await client.read())[0] != CLOSE:
            pass
        await house.ended()  # although this end of the socket is still open
        await client.close()

    async def test_a_peer_that_half_closes_and_does_not_read_is_cut_off(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.sending_connection._CLOSE_TIMEOUT", 0.2)
        client = await RawClient.open(house.port, "/queue/q")
        client.stop_reading()
        probe = await house.first()
        await eventually(lambda: "start" in probe.story, "it is open")
        for _ in range(10):
            probe.outlet.send(b"x" * 1_000_000)
        client.writer.write_eof()
        await house.ended()
        await client.close()

    async def test_requests_that_wait_die_with_a_connection_that_is_reset(self, house: House) -> None:
        client = await RawClient.open(house.port, "/queue/q")
        probe = await house.first()
        await eventually(lambda: "start" in probe.story, "it is open")
        probe.outlet.pause_reading()
        client.send("waits")
        await client.writer.drain()
        probe.outlet.resume_reading()
        await eventually(lambda: "waits" in probe.story, "read after all")
        client.abort()
        await house.ended()
        assert probe.story == ["prepare", "start", "waits", "closed"]


@pytest.mark.parametrize("target", ["/queue/q", "/queue/q/events"])
async def test_closed_connections_leave_nothing_behind_without_a_collection_of_garbage(
    gateway: Proxy, target: str
) -> None:
    """A cycle of references would keep connections, with their buffers, until the collector finds them."""
    gc.collect()
    gc.disable()
    try:
        for leave in (RawClient.abort, _say_goodbye):
            client = await RawClient.open(gateway.port, target)
            client.send(call(1, "on"))
            await client.message()
            connection = next(iter(open_connections(gateway)))
            there: list[weakref.ref[Any]] = [weakref.ref(connection), weakref.ref(connection.protocol)]
            del connection
            leave(client)
            await client.gone()
            await client.close()
            await eventually(partial(_all_gone, there), "the connection is gone, and so is its parser")
    finally:
        gc.enable()


def _all_gone(there: list[weakref.ref[Any]]) -> bool:
    return not any(reference() for reference in there)


def _say_goodbye(client: RawClient) -> None:
    client.send(b"\x03\xe8", CLOSE)


async def test_an_open_connection_keeps_nothing_of_its_handshake(gateway: Proxy) -> None:
    async with await RawClient.open(gateway.port, "/queue/q"):
        [connection] = open_connections(gateway)
        assert connection.request is None
        names = [name for kind in type(connection).__mro__ for name in getattr(kind, "__slots__", ())]
        assert len(names) > 30
        assert "key-1" not in json.dumps({name: getattr(connection, name) for name in names}, default=repr)
