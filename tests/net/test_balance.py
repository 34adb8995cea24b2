"""Sockets that shards hand on to each other, so that each has as much to do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest
import pytest_asyncio

from bullmq_proxy.gateway import loads
from bullmq_proxy.gateway.loads import Lines, Loads
from bullmq_proxy.gateway.net.balance import Balance


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines.create(3)
    yield made
    made.close()


class Echo(asyncio.Protocol):
    """Answers with the name of its shard, and counts as its connection."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._shard.balance.loads.weigh(1)

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"%d:%b" % (self._shard.slot, data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._shard.balance.loads.weigh(-1)


class Shard:
    """The part of a shard that accepts, on a port of its own: so the test chooses who accepts."""

    def __init__(self, lines: Lines, slot: int) -> None:
        self.slot = slot
        self.balance = Balance(lines, slot)
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> Shard:
        make = self.balance.accepted_by(lambda: Echo(self))
        self._server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.balance.join(lambda: Echo(self))
        return self

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self.balance.close()


@pytest_asyncio.fixture
async def shards(lines: Lines) -> AsyncIterator[list[Shard]]:
    made = [await Shard(lines, slot).start() for slot in (0, 1)]
    yield made
    for shard in made:
        shard.close()


@pytest.fixture
def clients() -> Iterator[list[asyncio.StreamWriter]]:
    """Connections, which end with the test."""
    opened: list[asyncio.StreamWriter] = []
    yield opened
    for client in opened:
        client.close()


async def served_by(shard: Shard, clients: list[asyncio.StreamWriter]) -> int:
    """Connect to a shard; the slot of the one that answers, and what was sent at once is not lost."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shard.port)
    clients.append(writer)
    writer.write(b"hello")
    async with asyncio.timeout(5):
        slot, _, rest = (await reader.readexactly(7)).partition(b":")
    assert rest == b"hello"
    return int(slot)


async def test_the_shard_that_has_less_to_do_gets_what_another_one_accepts(
    shards: list[Shard], clients: list[asyncio.StreamWriter]
) -> None:
    assert [await served_by(shards[0], clients) for _ in range(6)] == [0, 1] * 3
    shards[1].balance.loads.weigh(5)  # as a worker with many jobs at a time does
    assert [await served_by(shards[0], clients) for _ in range(5)] == [0] * 5
    assert await served_by(shards[1], clients) == 1
    assert await served_by(shards[1], clients) == 0


@pytest.mark.parametrize("hops", [1, 3])
async def test_a_shard_that_got_too_much_hands_on_what_was_handed_to_it(shards: list[Shard], hops: int) -> None:
    shards[0].balance.loads.weigh(1)  # at the same moment it has accepted one itself
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        socket.send_fds(shards[1].balance._outlets[0], [bytes((hops,))], [theirs.fileno()])
        shards[1].balance.loads.count_given(0)
        theirs.close()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, b"hello")
        async with asyncio.timeout(5):
            answer = await loop.sock_recv(ours, 100)
    assert answer == (b"1:hello" if hops == 1 else b"0:hello")


async def test_nobody_gets_anything_who_leaves_is_dead_or_stands_still(
    shards: list[Shard], clients: list[asyncio.StreamWriter]
) -> None:
    shards[0].balance.loads.weigh(100)
    assert await served_by(shards[0], clients) == 1
    shards[1].balance.leave()
    assert await served_by(shards[0], clients) == 0
    shards[1].balance.loads.show_life()
    assert await served_by(shards[0], clients) == 1
    shards[1].close()  # what it was, and the sockets that it has not taken, are forgotten
    assert await served_by(shards[0], clients) == 0


def test_a_shard_that_shows_no_life_or_does_not_take_is_left_alone(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = Loads(lines, 0), Loads(lines, 1)
    own.weigh(1000)
    assert own.lighter() is None
    other.show_life()
    assert own.lighter() == 1
    for _ in range(64):
        own.count_given(1)
    assert own.lighter() is None
    other.count_taken()
    assert own.lighter() == 1
    now = loads._now()
    monkeypatch.setattr(loads, "_now", lambda: now + 2000)
    assert own.lighter() is None


def test_a_few_more_of_many_are_no_reason(lines: Lines) -> None:
    own, other = Loads(lines, 0), Loads(lines, 1)
    other.show_life()
    own.weigh(100)
    other.weigh(95)
    assert own.lighter() is None
    own.weigh(1)
    assert own.lighter() == 1


def test_sockets_wait_for_the_next_shard_of_a_slot_or_are_closed(lines: Lines) -> None:
    for closes in (False, True):
        ours, theirs = socket.socketpair()
        outlet = socket.socket(fileno=lines.outlets[1])
        socket.send_fds(outlet, [b"\1"], [theirs.fileno()])
        outlet.detach()
        theirs.close()
        loads_of = Loads(lines, 1)
        loads_of.weigh(7)
        lines.forget(1, closes=closes)
        assert loads_of.weight == 0
        taken = lines.take(1, loads_of)
        assert len(taken) == (0 if closes else 1)
        ours.settimeout(5)
        if closes:
            assert ours.recv(1) == b""
        for each in (*(each for each, _ in taken), ours):
            each.close()
