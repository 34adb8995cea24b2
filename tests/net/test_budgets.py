"""Budgets: what a client may send that is no successful call, and what all clients together may hold in a shard."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import force_setattr

from bullmq_proxy.gateway.sessions.budget import MESSAGE_OVERHEAD, Budget
from bullmq_proxy.gateway.sessions.interfaces import Client
from bullmq_proxy.gateway.sessions.under_way import CallLimits, UnderWay
from tests.net.conftest import MakeGateway
from tests.net.support import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    RawClient,
    call,
    frame,
    handshake,
    open_connections,
    request,
    upgrade,
)
from tests.sessions.peer import until
from tests.support.keys import entry, write_keys

BAD = {
    "broken": frame('{"id":1,"data":'),
    "empty": frame(""),
    "unknown": frame(call(1, "gteJob", "1")),
    "refused": frame(call(1, "add", 7)),
    "pings": frame("", PING),
    "pongs": frame("", PONG),
    "fragments": frame(call(1, "count")[:3], fin=False) + frame(call(1, "count")[3:] + " " * 200, CONT),
}
FEW = 20  # a second


class TestMessagesThatAreNoSuccessfulCalls:
    @pytest.fixture(autouse=True)
    def _wait_for_nobody_for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.connection._POLICY_TIMEOUT", 0.1)

    @pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
    async def test_ten_seconds_worth_at_once_is_let_through(self, make_gateway: MakeGateway, bad: bytes) -> None:
        gateway = await make_gateway(bad_messages_per_second=FEW)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(bad * (FEW * 10))
            client.write(frame(call(0, "count")))
            while b'"id":0' not in (await client.read())[1]:
                pass

    @pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
    async def test_more_close_the_connection(self, make_gateway: MakeGateway, bad: bytes) -> None:
        gateway = await make_gateway(bad_messages_per_second=FEW)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(bad * (FEW * 11))
            assert await client.closed() == (1008, "too many messages that are no successful calls")

    async def test_long_ones_count_more(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway()
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(frame('{"id":1,"data":"%s"}' % ("x" * 1_000_000)) * 5)
            assert (await client.closed())[0] == 1008

    @pytest.mark.parametrize("data", [{"type": "pause"}, {"type": "ack"}, {"result": 1}, {"type": "nonsense"}])
    async def test_workers_too(self, make_gateway: MakeGateway, data: dict[str, Any]) -> None:
        gateway = await make_gateway(bad_messages_per_second=FEW)
        async with await RawClient.open(gateway.port, "/queue/q/process/1") as client:
            client.write(frame(json.dumps({"id": 9, "data": data})) * (FEW * 11))
            assert (await client.closed())[0] == 1008

    async def test_watchers_too(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(bad_messages_per_second=FEW)
        async with await RawClient.open(gateway.port, "/queue/q/events") as client:
            client.write(frame(call(1, "on", "failed")) * (FEW * 11))
            assert (await client.closed())[0] == 1008

    async def test_calls_are_not_counted(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(bad_messages_per_second=1)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(b"".join(frame(call(n, "getJob", "none")) for n in range(500)))
            assert len(await client.messages(500)) == 500


SENT = (frame("x" * 1000) * 2**14, frame("x" * 100) * 2**17)
"""Long frames, and short ones, with which what is read at once is more than one turn's work."""


async def is_read_slowly(client: RawClient, sent: bytes) -> None:
    """Send more than the kernel keeps, and see that the gateway does not take it."""
    client.write(sent)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.writer.drain()
    client.abort()


class TestAClientThatIsNotHeardAnyMore:
    """One that sends on is read slowly: else it would keep the shard and the kernel busy until its time has come."""

    async def test_after_a_close_frame(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(bad_messages_per_second=FEW, max_message_size=1024)
        for what, code in (
            (frame("{", TEXT) * (FEW * 11), 1008),
            (frame("x", BINARY), 1003),
            (frame(b"\xff", TEXT), 1007),
            (frame("x" * 2048, TEXT), 1009),
        ):
            async with await RawClient.open(gateway.port, "/queue/q") as client:
                client.write(what)
                frames = [await client.read()]
                while frames[-1][0] != CLOSE:
                    frames.append(await client.read())
                assert int.from_bytes(frames[-1][1][:2], "big") == code
                await is_read_slowly(client, SENT[code % 2])

    async def test_after_a_response_or_while_it_listens(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway()
        for asked, status in (
            (handshake("/nowhere"), 404),
            (request("GET", "/health", "Connection: close"), 200),
            (request("GET", "/queue/q/events", "Accept: text/event-stream"), 200),
            (b"\0", 400),
        ):
            async with await RawClient.connect(gateway.port) as client:
                client.write(asked)
                assert await client.status() == status
                await is_read_slowly(client, SENT[0] * 2)

    async def test_but_who_sends_a_body_before_it_reads_gets_its_refusal_at_once(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = await make_gateway()
        async with await RawClient.connect(gateway.port) as client, asyncio.timeout(2):
            client.request("POST", "/queue/q/add", body=b"x" * 15 * 2**20)
            await client.writer.drain()
            assert (await client.answer()).status == 413


class _Socket:
    """A client whose socket is read, or not."""

    def __init__(self) -> None:
        self.is_read = True
        self.write_buffer_size = 0

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True


class TestBytesOfAShard:
    @staticmethod
    def under_way(budget: Budget) -> tuple[UnderWay, _Socket]:
        socket = _Socket()
        client: Client = socket  # type: ignore[assignment]
        return UnderWay(client, CallLimits(1000, 2**30, asyncio.Semaphore(1), budget)), socket

    async def test_beyond_the_limit_those_who_hold_more_than_an_equal_part_are_not_read(self) -> None:
        budget = Budget(10 * MESSAGE_OVERHEAD)
        many, of_many = self.under_way(budget)
        few, of_few = self.under_way(budget)
        few.begin(0)
        for _ in range(9):
            assert of_many.is_read
            many.begin(0)
        assert (of_many.is_read, of_few.is_read) == (False, True)
        few.begin(0)
        assert of_few.is_read
        for _ in range(9):
            many.end(0)
        assert of_many.is_read
        for _ in range(2):
            few.end(0)
        assert (budget.size, budget.busy) == (0, 0)

    async def test_calls_that_may_take_long_leave_the_others_their_room(self) -> None:
        budget = Budget(10 * MESSAGE_OVERHEAD)
        patient, socket = self.under_way(budget)
        for _ in range(30):
            patient.begin(0)
            patient.begin_patience(0)
        assert socket.is_read
        assert budget.size == 0
        for _ in range(30):
            patient.end(0)
            patient.end_patience(0)
        assert (budget.size, budget.busy, budget.messages, patient.patient) == (0, 0, 0, 0)

    def test_who_waits_for_room_goes_on_in_order_as_far_as_there_is_some(self) -> None:
        budget, went_on = Budget(10), []

        def go_on(name: str) -> None:
            went_on.append(name)
            budget.take(10)

        first, second, third = (lambda: go_on("first")), (lambda: go_on("second")), (lambda: go_on("third"))
        budget.take(20)
        for each in (first, second, third):
            budget.wait(each)
        budget.give_back(15)
        assert went_on == ["first"]
        budget.forget(second)
        budget.give_back(10)
        assert went_on == ["first", "third"]
        assert not budget.is_waited_for


class TestLongMessages:
    async def test_they_count_while_they_come_and_no_more_when_their_client_goes(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = await make_gateway()
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            whole = frame(call(1, "add", "a", "x" * 500_000))
            client.write(whole[:300_000])
            [connection] = open_connections(gateway)
            budget = connection._shared.budget

            async def counted() -> bool:
                return budget.size >= 300_000

            await until(counted, "the first part is counted")

        async def gone() -> bool:
            return budget.size == 0 and not connection._shared.partial

        await until(gone, "it is counted no more")

    async def test_one_that_does_not_get_on_makes_room_for_those_that_wait(
        self, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.shared._STALE", 0.0)
        monkeypatch.setattr("bullmq_proxy.gateway.net.shared._LOOK", 0.02)
        monkeypatch.setattr("bullmq_proxy.gateway.net.sending_connection._CLOSE_TIMEOUT", 0.1)
        gateway = await make_gateway()
        whole = frame(call(1, "add", "a", "x" * 500_000))
        async with (
            await RawClient.open(gateway.port, "/queue/q") as slow,
            await RawClient.open(gateway.port, "/queue/q") as other,
        ):
            budget = next(iter(open_connections(gateway)))._shared.budget
            budget.limit = 200_000
            slow.write(whole[:300_000])

            async def full() -> bool:
                return budget.is_out_of_bytes

            await until(full, "the budget is full")
            other.write(whole)
            assert (await slow.closed())[0] == 1013
            assert (await other.message())["id"] == 1
            assert budget.size == 0


class TestUnreadOutput:
    async def test_beyond_the_limit_the_slowest_client_is_closed(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway()
        async with (
            await RawClient.open(gateway.port, "/queue/q") as filler,
            await RawClient.open(gateway.port, "/queue/q") as slow,
        ):
            await filler.ask("add", "a", "x" * 900_000)
            shared = next(iter(open_connections(gateway)))._shared
            force_setattr(shared, "max_unread", 2_000_000)
            slow.stop_reading()
            for _ in range(30):
                slow.write(frame(call(1, "getJob", "1")))
            connections = list(open_connections(gateway))

            async def given_up() -> bool:
                return any(each._close_code == 4002 for each in connections)

            await until(given_up, "the client is given up")
            slow.read_again()
            assert (await slow.closed())[0] == 4002
            assert not shared.unread
            assert (await filler.ask("count"))["ok"] == 1


class TestBeforeTheKey:
    async def test_a_connection_too_many_is_told_so(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_connections=2)
        async with await RawClient.open(gateway.port, "/queue/q") as first:
            async with await RawClient.open(gateway.port, "/queue/q"):
                refused = await upgrade(gateway.port, "/queue/q")
                assert (refused.status, refused.error["code"]) == (429, "TOO_MANY_REQUESTS")
                assert "max_connections = 2" in refused.error["message"]
            assert (await first.ask("count"))["ok"] == 0

    async def test_one_too_many_of_an_address_is_told_so(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_connections_per_address=1)
        async with await RawClient.open(gateway.port, "/queue/q"):
            refused = await upgrade(gateway.port, "/queue/q")
            assert (refused.status, refused.error["code"]) == (429, "TOO_MANY_REQUESTS")

    async def test_of_too_many_that_say_nothing_the_oldest_goes(
        self, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.unopened.UNOPENED", 3)
        gateway = await make_gateway()
        silent = [await RawClient.connect(gateway.port) for _ in range(5)]
        for oldest in silent[:2]:
            await oldest.gone()
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            assert (await client.ask("count"))["ok"] == 0
        await silent[2].gone()
        for client in silent:
            client.abort()

    async def test_a_head_that_does_not_come_is_given_up(
        self, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.unopened.HEAD_TIMEOUT", 0.05)
        monkeypatch.setattr("bullmq_proxy.gateway.net.shared._LOOK", 0.02)
        gateway = await make_gateway()
        client = await RawClient.connect(gateway.port)
        client.write(b"GET /queue/q HTTP/1.1\r\nHost: ")
        await client.gone()
        await client.close()

    async def test_being_out_of_descriptors_is_logged(
        self, make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.unopened._RESERVED", 10**9)
        gateway = await make_gateway()
        async with await RawClient.open(gateway.port, "/queue/q"):
            refused = await RawClient.connect(gateway.port)
            await refused.gone()
            await refused.close()
        assert "no descriptors are left: 2 connections are open" in caplog.text


@pytest.mark.parametrize("fn", ["addBulk", "flows"])
async def test_each_job_of_a_call_counts_for_its_key(make_gateway: MakeGateway, tmp_path: Path, fn: str) -> None:
    keys = [entry(name, "produce", messages_per_second=5) for name in ("one", "other")]
    gateway = await make_gateway(keys_file=write_keys(tmp_path / "keys.toml", *keys))
    jobs = [{"name": "a", "queueName": "q"} if fn == "flows" else {"name": "a"}] * 6
    where = "/flows" if fn == "flows" else "/queue/q"
    async with await RawClient.open(gateway.port, where, "Authorization: Bearer one") as client:
        refused = (await client.ask("addBulk", jobs))["err"]
        assert refused["code"] == "TOO_MANY_REQUESTS"
        assert "no room for 6 jobs" in refused["message"]
    async with await RawClient.open(gateway.port, where, "Authorization: Bearer other") as client:
        assert len((await client.ask("addBulk", jobs[:5]))["ok"]) == 5
