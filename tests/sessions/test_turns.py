"""Turns before Redis: those who send much share a small window while others, who send little, are heard."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from bullmq_proxy.gateway.flushing import flush_soon
from bullmq_proxy.gateway.net.http_connection import HttpConnection
from bullmq_proxy.gateway.net.listener import Listener
from bullmq_proxy.gateway.turns import COMMAND_SIZE, LARGEST_WINDOW, LONGEST_REST, REST, ROUND_TRIPS, WINDOW, Turns
from tests.net.support import RawClient, call, frame, handshake, request
from tests.sessions.peer import Gateway, Peer, until
from tests.support.relay import Relay
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import TIMEOUT

MANY = 200  # messages of a client that sends much


class TestTheWindow:
    async def test_nobody_waits_while_nobody_quiet_is_heard(self) -> None:
        turns = Turns()
        for _ in range(10):
            await turns.take(WINDOW)
        assert turns.running == 10 * WINDOW

    async def test_who_waits_goes_on_in_order_as_the_others_give_back(self) -> None:
        turns = Turns()
        turns.hear_quiet(self)
        await turns.take(WINDOW)
        order: list[int] = []

        async def take(name: int, commands: int) -> None:
            await turns.take(commands)
            order.append(name)

        waiting = [asyncio.create_task(take(*each)) for each in ((1, WINDOW), (2, 1), (3, 1))]
        await asyncio.sleep(0)
        assert order == []
        turns.give_back(WINDOW)
        await waiting[0]
        assert order == [1]
        turns.give_back(WINDOW)
        await asyncio.gather(*waiting)
        assert (order, turns.running) == ([1, 2, 3], 2)

    async def test_what_is_larger_than_the_window_goes_alone(self) -> None:
        turns = Turns()
        turns.hear_quiet(self)
        await turns.take(100 * WINDOW)
        second = asyncio.create_task(turns.take(1))
        await asyncio.sleep(0)
        assert not second.done()
        turns.give_back(100 * WINDOW)
        await second

    async def test_who_is_gone_keeps_nobody_waiting(self) -> None:
        turns = Turns()
        turns.hear_quiet(self)
        await turns.take(WINDOW)
        gone, granted, last = (asyncio.create_task(turns.take(WINDOW)) for _ in range(3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait((gone,))
        turns.give_back(WINDOW)
        granted.cancel()  # when its turn has come, and before it knows
        await asyncio.wait((granted,))
        await last
        assert turns.running == WINDOW

    async def test_the_window_grows_with_the_way_to_redis(self) -> None:
        turns = Turns()
        for milliseconds, times, window in (
            (0.05, 1, 5),
            (2, ROUND_TRIPS - 1, 5),
            (2, 1, 25),
            (30, 1, 25),
            (1, 1, 15),
            (30, ROUND_TRIPS, LARGEST_WINDOW),
        ):
            for _ in range(times):
                turns.note_round_trip(milliseconds / 1000 + 1e-6)
            assert turns.window == window, milliseconds

    async def test_what_is_sent_at_once_fits_into_the_window(self) -> None:
        turns = Turns()
        assert (turns.share(50), turns.share(50, 2)) == (50, 50)
        turns.hear_quiet(self)
        assert (turns.share(50), turns.share(50, 2), turns.share(3)) == (WINDOW, 2 * WINDOW, 3)

    async def test_after_a_long_call_others_are_alone_for_longer_than_it_took(self) -> None:
        turns = Turns()
        turns.hear_quiet(self)
        began = time.perf_counter()
        await turns.take(LARGEST_WINDOW + 1)
        next_one = asyncio.create_task(turns.take(1))
        _, pending = await asyncio.wait((next_one,), timeout=0.01)
        assert pending
        turns.give_back(LARGEST_WINDOW + 1)
        ended = time.perf_counter()
        took = ended - began
        await next_one
        rest = min(REST * took, LONGEST_REST)
        assert time.perf_counter() - ended > rest - 0.003  # uvloop's timers have whole milliseconds
        turns.give_back(1)
        assert turns.running == 0

    async def test_a_rest_has_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.turns.LONGEST_REST", 0.0)
        monkeypatch.setattr("bullmq_proxy.gateway.turns.perf_counter", iter((0.0, 600.0)).__next__)
        turns = Turns()
        turns.hear_quiet(self)
        await turns.take(LARGEST_WINDOW + 1)
        turns.give_back(LARGEST_WINDOW + 1)
        async with asyncio.timeout(TIMEOUT):
            await turns.take(1)

    async def test_one_that_sends_much_all_at_once_ends_no_turns_of_others(self) -> None:
        turns = Turns()
        for who in ("a", "b", "b"):
            turns.hear_quiet(who)
        turns.forget_quiet()
        assert turns.are_taken
        for _ in range(2):
            turns.tick()
        turns.hear_quiet("b")
        turns.forget_quiet()
        assert not turns.are_taken

    async def test_turns_end_when_nobody_quiet_was_heard_for_a_period(self) -> None:
        turns = Turns()
        turns.tick()
        assert not turns.are_taken
        turns.hear_quiet(self)
        turns.tick()
        await turns.take(WINDOW)
        waiting = asyncio.create_task(turns.take(WINDOW))
        await asyncio.sleep(0)
        turns.tick()
        await waiting
        assert not turns.are_taken


async def test_a_gateway_far_from_its_redis_has_a_larger_window(valkey: ValkeyProcess, prefix: str) -> None:
    async with Relay(valkey) as relay:
        relay.delay = 0.005
        async with Gateway(relay.url, prefix=prefix) as gateway:
            turns, _ = await one_who_is_quiet(gateway)

            async def is_larger() -> bool:
                return turns.window == LARGEST_WINDOW

            await until(is_larger, "the first sign of life has its answer")


class TestTheLoop:
    async def test_one_goes_on_in_each_turn_and_what_was_sent_before_leaves_first(self) -> None:
        turns, loop, order = Turns(), asyncio.get_running_loop(), list[str]()
        turns.hear_quiet(self)
        sent, flushed = list[int](), list[int]()

        async def go_on(name: str) -> None:
            await turns.wait_for_slice()
            assert flushed == sent
            order.append(name)

        tasks = [asyncio.create_task(go_on(name)) for name in "abc"]
        while not all(task.done() for task in tasks):
            sent.append(len(sent))
            flush_soon(loop, partial(flushed.append, sent[-1]))
            before = len(order)
            await asyncio.sleep(0)
            assert len(order) <= before + 1
        await asyncio.gather(*tasks)
        assert order == ["a", "b", "c"]

    async def test_who_is_gone_holds_nobody_up(self) -> None:
        turns = Turns()
        turns.hear_quiet(self)
        gone, waiting = (asyncio.create_task(turns.wait_for_slice()) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await waiting

    async def test_a_flush_that_fails_is_reported_and_holds_up_no_other(self) -> None:
        loop, reported, done = asyncio.get_running_loop(), list[Any](), list[int]()
        loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        flush_soon(loop, lambda: done.append(1 // 0))
        flush_soon(loop, lambda: done.append(1))
        await asyncio.sleep(0)
        loop.set_exception_handler(None)
        assert (done, [type(each) for each in reported]) == ([1], [ZeroDivisionError])


async def one_who_is_quiet(proxy: Gateway) -> tuple[Turns, Peer]:
    """The turns of a shard, and a client that has made one call."""
    assert proxy._proxy._app is not None
    turns, peer = proxy._proxy._app.broker.queues.turns, await proxy.queue()
    await peer.call("getJobState", "none")
    assert turns.are_taken
    return turns, peer


@pytest.fixture
async def turns(proxy: Gateway) -> AsyncIterator[Turns]:
    """The turns of a shard on which somebody quiet makes one call after the other."""
    turns, quiet = await one_who_is_quiet(proxy)

    async def call_on() -> None:
        while True:
            await quiet.call("getJobState", "none")

    calling = asyncio.create_task(call_on())
    yield turns
    assert turns.are_taken
    calling.cancel()
    await asyncio.wait((calling,))


async def replies(peer: Peer, count: int) -> list[dict[str, Any]]:
    return [json.loads(await peer.socket.recv()) for _ in range(count)]


class TestAConnection:
    async def test_one_that_was_quiet_itself_takes_no_turns(self, proxy: Gateway) -> None:
        turns, peer = await one_who_is_quiet(proxy)
        peer.socket.transport.write(b"".join(frame(call(n, "add", "a")) for n in range(MANY)))
        await replies(peer, MANY)
        assert not turns.are_taken

    async def test_one_that_is_gone_takes_no_turns(self, proxy: Gateway) -> None:
        turns, peer = await one_who_is_quiet(proxy)
        await peer.socket.close()

        async def are_over() -> bool:
            return not turns.are_taken

        await until(are_over, "nobody takes turns any more", 0.5)

    async def test_calls_keep_their_order(self, proxy: Gateway, turns: Turns) -> None:
        peer = await proxy.queue()
        calls = [("add", str(n)) if n % 50 else ("count",) for n in range(MANY)]
        peer.socket.transport.write(b"".join(frame(call(n, *each)) for n, each in enumerate(calls)))
        answers = {reply["id"]: reply["data"]["ok"] for reply in await replies(peer, MANY)}
        added = [answers[n] for n in range(MANY) if n % 50]
        assert [int(job["id"]) for job in added] == list(range(1, len(added) + 1))
        assert [job["name"] for job in added] == [str(n) for n in range(MANY) if n % 50]
        assert [answers[n] for n in range(0, MANY, 50)] == [n - n // 50 for n in range(0, MANY, 50)]
        assert turns.running == 0

    async def test_refused_calls_and_long_ones_give_their_turns_back(self, proxy: Gateway, turns: Turns) -> None:
        peer = await proxy.queue()
        long = "x" * (40 * COMMAND_SIZE)
        calls: list[tuple[Any, ...]] = [
            ("add", "a", {"d": long}),
            ("add", "a", {}, {"attempts": "x"}),
            ("add", "b", {}, {"parent": {}}),
        ] * 5
        bulk = [{"name": "c"}] * 120
        calls += [("addBulk", bulk), ("add", "last")]
        peer.socket.transport.write(b"".join(frame(call(n, *each)) for n, each in enumerate(calls)))
        answers = {reply["id"]: reply["data"] for reply in await replies(peer, len(calls))}
        assert len(answers[len(calls) - 2]["ok"]) == 120
        assert answers[len(calls) - 1]["ok"]["id"] == str(5 + 120 + 1)
        assert turns.running == 0

    async def test_what_waits_for_its_turn_is_sent_when_the_client_goes(self, proxy: Gateway, turns: Turns) -> None:
        peer, other = await proxy.queue(), await proxy.queue()
        peer.socket.transport.write(b"".join(frame(call(n, "add", "a")) for n in range(MANY)))
        await peer.socket.close()

        async def all_are_there() -> bool:
            return bool((await other.call("count")) == MANY)

        await until(all_are_there, "all jobs are added")
        await until(lambda: _is(turns.running == 0), "all turns are given back")

    async def test_a_workers_rows_and_answers_keep_their_order(self, proxy: Gateway, turns: Turns) -> None:
        queue = await proxy.queue()
        await queue.call("add", "a")
        worker = await proxy.worker()
        job = await worker.job()
        rows = [frame(json.dumps({"id": job.number, "data": {"type": "log", "row": str(n)}})) for n in range(MANY)]
        last = frame(json.dumps({"id": job.number, "data": {"result": 1}}))
        worker.socket.transport.write(b"".join([*rows, last]))

        async def is_completed() -> bool:
            return bool(await queue.call("getJobState", job.id) == "completed")

        await until(is_completed, "the job is completed")
        assert (await queue.call("getJobLogs", job.id))["logs"] == [str(n) for n in range(MANY)]

    async def test_long_messages_are_read_in_turns(self, proxy: Gateway, turns: Turns) -> None:
        peers = [await proxy.queue() for _ in range(40)]  # together they want more than the budget of a shard
        jobs = await asyncio.gather(*(peer.call("add", "a", "x" * 900_000) for peer in peers))
        assert {job["name"] for job in jobs} == {"a"}
        assert turns.running == 0


class TestClientsThatBegin:
    async def test_one_begins_in_each_turn_of_the_loop(self, proxy: Gateway, turns: Turns) -> None:
        listener = listener_of(proxy)
        shared = listener.shared
        ways: list[tuple[bytes, Callable[[], int]]] = [
            (handshake("/queue/q"), lambda: listener.accepted),
            (request("GET", "/health"), lambda: len(shared.http)),
            (b"\0", lambda: shared.refusals.counts[400]),
        ]
        for head, begun in ways:
            clients = [await RawClient.connect(proxy.port) for _ in range(20)]
            counts = [begun()]
            for client in clients:
                client.write(head)
            async with asyncio.timeout(TIMEOUT):
                while counts[-1] < counts[0] + len(clients):
                    await asyncio.sleep(0)
                    counts.append(begun())
            assert {after - before for before, after in pairwise(counts)} == {0, 1}
            for client in clients:
                client.abort()

    async def test_its_head_may_come_in_parts_and_it_may_go_while_it_waits(self, proxy: Gateway, turns: Turns) -> None:
        head = handshake("/queue/q")
        async with await RawClient.connect(proxy.port) as client:
            for _ in range(20):
                gone = await RawClient.connect(proxy.port)
                gone.write(head)
                gone.abort()
            await client.write_in_pieces(head + frame(call(1, "count")))
            assert (await client.answer()).status == 101
            assert json.loads((await client.read())[1])["data"] == {"ok": 0}

    async def test_one_with_many_requests_gets_few_responses_in_each_turn(self, proxy: Gateway, turns: Turns) -> None:
        async with await RawClient.connect(proxy.port) as client:
            client.write(request("GET", "/health"))
            assert await client.status() == 200
            [connection] = listener_of(proxy).shared.http
            assert isinstance(connection, HttpConnection)
            call = request("POST", "/queue/q/count", body="[]" + " " * 200)
            for many in (request("GET", "/health") * MANY, call * MANY):
                client.write(many)
                left = [0]
                async with asyncio.timeout(TIMEOUT):
                    while left[-1] or not any(left):
                        await asyncio.sleep(0)
                        left.append(len(connection._rest))
                assert max(before - after for before, after in pairwise(left)) < 4096


def listener_of(proxy: Gateway) -> Listener:
    assert proxy._proxy._app is not None
    return proxy._proxy._app.listener


async def _is(truth: bool) -> bool:
    return truth
