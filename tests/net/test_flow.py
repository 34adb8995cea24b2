"""Backpressure: requests that come faster than they are answered, replies that are not read, peers that are gone."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.net.conftest import MakeGateway, Open
from tests.net.support import CLOSE, CONT, PING, PONG, RawClient, call, frame, open_connections
from tests.support.waiting import eventually


class TestRequests:
    async def test_more_than_may_be_in_flight_are_all_answered_and_added_in_order(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = await make_gateway(max_in_flight=16)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(b"".join(frame(call(n, "add", str(n))) for n in range(500)))
            replies = await client.messages(500)
            assert [reply["id"] for reply in replies] == list(range(500))
            assert [reply["data"]["ok"]["id"] for reply in replies] == [str(n + 1) for n in range(500)]
            jobs = (await client.ask("getWaiting", 0, -1))["ok"]
        assert [job["name"] for job in jobs] == [str(n) for n in range(500)]

    async def test_so_they_are_with_the_default_limit(self, open_socket: Open) -> None:
        client = await open_socket()
        client.write(b"".join(frame(call(n, "add", str(n))) for n in range(3000)))
        assert [reply["id"] for reply in await client.messages(3000)] == list(range(3000))

    async def test_requests_of_every_kind_are_all_answered(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_in_flight=8)
        calls = [("add", "a"), ("count",), ("getJob", "1"), ("nonsense",), ("add",), ("getJobCounts",)]
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            sent = [call(n, *calls[n % len(calls)]) for n in range(300)]
            client.write(b"".join(frame(text) for text in sent) + frame("garbage"))
            replies = await client.messages(301)
        assert sorted(str(reply["id"]) for reply in replies) == sorted([*map(str, range(300)), "None"])

    async def test_a_client_that_is_held_back_is_not_taken_for_dead(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_in_flight=2, ping_interval=0.05, ping_timeout=0.05)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(b"".join(frame(call(n, "add", "a")) for n in range(2000)))
            answered = 0
            while answered < 2000:
                opcode, payload = await client.read()
                if opcode == PING:
                    client.send(payload, PONG)
                else:
                    assert opcode == 1, payload
                    answered += 1


class TestTurns:
    """What a client sends in one go is taken in turns with the others."""

    @pytest.mark.parametrize(
        "flood",
        [
            frame(call(1, "gteJob", "1")) * 1000,
            frame('{"id":1,"data":') * 1000,
            frame(call(1, "add", 7)) * 1000,
            frame("", PING) * 50_000,  # more than one read, each of which cuts a frame
            frame("12345", PONG) * 5000,
            (frame("", fin=False) + frame("", CONT)) * 2000,
        ],
        ids=["unknown", "broken", "refused", "pings", "pongs", "fragments"],
    )
    async def test_a_flood_does_not_keep_the_loop_from_others(
        self, open_socket: Open, flood: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.shared._TURN", 0.0)
        monkeypatch.setattr("bullmq_proxy.gateway.net.shared._SHORTEST_TURN", 0.0)
        monkeypatch.setattr("bullmq_proxy.gateway.net.penalties._TIME", 10_000.0)
        turns = 0

        def count_turn() -> None:
            nonlocal turns
            turns += 1
            ticking.append(loop.call_soon(count_turn))
            del ticking[:-1]

        loop, ticking = asyncio.get_running_loop(), list[asyncio.Handle]()
        client = await open_socket()
        client.write(flood + frame(call(0, "count")))
        loop.call_soon(count_turn)
        while b'"id":0' not in (await client.read())[1]:
            pass
        ticking[-1].cancel()
        assert turns > 20  # of at most 32 frames each

    async def test_the_last_ping_of_each_turn_is_answered(self, open_socket: Open) -> None:
        client = await open_socket()
        client.write(b"".join(frame(str(number), PING) for number in range(1000)))
        answers = [await client.read()]
        while answers[-1] != (PONG, b"999"):
            answers.append(await client.read())
        assert {opcode for opcode, _ in answers} == {PONG}
        assert len(answers) < 500

    async def test_calls_of_one_read_keep_their_order_over_turns(self, open_socket: Open) -> None:
        client = await open_socket()
        calls = [("add", str(n)) if n % 3 else ("gteJob", str(n)) for n in range(900)]
        client.write(b"".join(frame(call(n, *each)) for n, each in enumerate(calls)))
        replies = await client.messages(900)
        assert sorted(reply["id"] for reply in replies) == list(range(900))
        added = [reply["data"]["ok"] for reply in replies if "ok" in reply["data"]]
        assert [job["name"] for job in added] == [str(n) for n in range(900) if n % 3]

    async def test_a_client_that_closes_behind_a_flood_is_heard_to_the_end(self, open_socket: Open) -> None:
        client = await open_socket()
        client.write(frame(call(1, "add", "a")) * 1000 + frame(b"\x03\xe8", CLOSE))
        while (got := await client.read())[0] != CLOSE:
            pass
        assert got[1][:2] == b"\x03\xe8"
        other = await open_socket()
        assert (await other.ask("count"))["ok"] == 1000


class TestReplies:
    async def test_a_client_that_does_not_read_is_closed_with_4002(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_write_buffer=64 * 1024)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            await client.ask("add", "a", "x" * 200_000)
            client.stop_reading()
            client.write(b"".join(frame(call(n, "getJob", "1")) for n in range(200)))
            await eventually(lambda: not open_connections(gateway), "the gateway gives the connection up")
            client.read_again()
            while (got := await client.read())[0] != 8:
                assert got[0] == 1
            assert int.from_bytes(got[1][:2], "big") == 4002

    async def test_a_client_that_reads_may_have_more_under_way_than_the_buffer_holds(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = await make_gateway(max_write_buffer=256 * 1024)
        big = frame(json.dumps({"id": 1, "data": {"fn": "add", "args": ["a", "x" * 100_000]}}))
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(big * 40)
            replies = await client.messages(40)
        assert {reply["data"].keys() == {"ok"} for reply in replies} == {True}

    async def test_one_that_is_held_back_and_still_reads_nothing_is_closed_with_4002(
        self, make_gateway: MakeGateway
    ) -> None:
        gateway = await make_gateway(max_write_buffer=8 * 1024 * 1024, ping_interval=0.4)
        big = frame(json.dumps({"id": 1, "data": {"fn": "add", "args": ["a", "x" * 900_000]}}))
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.stop_reading()
            client.write(big * 12)
            await eventually(lambda: not open_connections(gateway), "the gateway gives the connection up")

    async def test_one_that_reads_nothing_and_pings_gets_few_pongs(
        self, open_socket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.penalties._TIME", 10_000.0)
        client = await open_socket()
        client.stop_reading()
        for _ in range(20):
            client.write(frame("x" * 125, PING) * 1000)
            await client.writer.drain()
        client.send(call(1, "count"))
        client.read_again()
        pongs = 0
        while (got := await client.read())[0] == PONG:
            pongs += 1
        assert b'"ok":0' in got[1]
        assert pongs < 5000

    async def test_one_reply_may_be_longer_than_the_limit(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_write_buffer=64 * 1024)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            big = "x" * 1_000_000
            assert (await client.ask("add", "a", big))["ok"]["data"] == big
            assert (await client.ask("getJob", "1"))["ok"]["data"] == big

    async def test_a_slow_consumer_of_events_is_given_up_and_the_others_go_on(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_write_buffer=64 * 1024)
        async with (
            await RawClient.open(gateway.port, "/queue/q/events") as events,
            await RawClient.open(gateway.port, "/queue/q") as producer,
        ):
            await producer.ask("add", "a")
            events.stop_reading()
            while len(open_connections(gateway)) == 2:
                for _ in range(20):
                    producer.send(
                        json.dumps({"id": 1, "data": {"fn": "updateJobProgress", "args": ["1", "x" * 100_000]}})
                    )
                await producer.messages(20)


class TestPeersThatAreGone:
    async def test_a_client_that_answers_no_ping_is_closed_with_4003(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(ping_interval=0.1, ping_timeout=0.1)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            opcode, payload = await client.read()
            assert (opcode, len(payload)) == (PING, 4)
            assert (await client.read())[0] == PING, "once more half-way there"
            assert (await client.read())[0] == CLOSE

    async def test_an_answer_to_the_second_ping_is_enough(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(ping_interval=0.1, ping_timeout=0.2)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            for _ in range(3):
                first, second = await client.read(), await client.read()
                assert first[0] == second[0] == PING
                assert first[1] != second[1]
                client.send(second[1], PONG)
            assert await client.ask("count") == {"ok": 0}

    async def test_one_that_answers_stays(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(ping_interval=0.05, ping_timeout=0.2)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            for _ in range(12):
                opcode, payload = await client.read()
                assert opcode == PING
                client.send(payload, PONG)
            assert await client.ask("count") == {"ok": 0}

    async def test_one_with_a_call_under_way_is_pinged_twice_as_often(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(ping_interval=0.1, ping_timeout=0.5)
        async with (
            await RawClient.open(gateway.port, "/queue/q") as idle,
            await RawClient.open(gateway.port, "/queue/q") as busy,
        ):
            busy.send(call(1, "addAndWait", "job", {}))
            pings = 0

            async def answer() -> None:
                nonlocal pings
                while True:
                    opcode, payload = await busy.read()
                    if opcode == PING:
                        pings += 1
                        busy.send(payload, PONG)

            async with asyncio.TaskGroup() as group:
                answering = group.create_task(answer())
                for _ in range(4):
                    _, payload = await idle.read()
                    idle.send(payload, PONG)
                answering.cancel()
            assert pings >= 6

    async def test_a_pong_counts_for_its_own_ping_only(self, make_gateway: MakeGateway) -> None:
        """With a timeout longer than the interval, the end of an older ping's time must not judge a younger ping."""
        gateway = await make_gateway(ping_interval=0.1, ping_timeout=0.5)
        loop = asyncio.get_running_loop()
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            for _ in range(5):
                assert (await client.read())[0] == PING
                client.send("", PONG)
            assert (await client.read())[0] == PING
            last = loop.time()
            assert (await client.closed())[0] == 4003
            assert loop.time() - last > 0.4

    async def test_a_client_that_speaks_needs_no_pings(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(ping_interval=0.2, ping_timeout=0.5)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            loop = asyncio.get_running_loop()
            spoke, end = loop.time(), loop.time() + 0.9  # four times the interval, and more
            while loop.time() < end:
                silence, spoke = loop.time() - spoke, loop.time()
                client.send(call(1, "count"))
                while (await client.read())[0] == PING:
                    assert max(silence, loop.time() - spoke) > 0.05, "a ping although the client has just spoken"
