"""Commands leave together at the end of a turn of the loop, and a burst of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis import Redis

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.link import BURST, Link
from tests.broker.misbehaving import MisbehavingServer
from tests.support.link import OPTIONS
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import wait_for


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Link]:
    link = Link(address, OPTIONS)
    await link.start(5.0)
    try:
        yield link
    finally:
        await link.close()


async def test_what_is_collected_in_one_turn_of_the_loop_leaves_in_one_write() -> None:
    async with (
        MisbehavingServer(lambda command: b":1\r\n") as server,
        connected(Address(host="127.0.0.1", port=server.port)) as link,
    ):
        before = len(server.chunks)
        assert await asyncio.gather(*(link.call("INCR", "x") for _ in range(BURST))) == [1] * BURST
        assert len(server.chunks) - before == 1


async def test_a_burst_is_under_way_before_the_turn_of_the_loop_ends(valkey: ValkeyProcess, prefix: str) -> None:
    async with connected(Address.from_url(valkey.url)) as link:
        calls = [link.call("INCR", prefix) for _ in range(BURST + 1)]
        with Redis.from_url(valkey.url) as outside:
            wait_for(lambda: outside.get(prefix) == b"%d" % BURST, "Redis has the burst, and no more")
        assert await asyncio.gather(*calls) == list(range(1, BURST + 2))


async def test_what_does_not_fit_into_the_socket_follows_in_its_order(valkey: ValkeyProcess, prefix: str) -> None:
    pieces = [bytes([65 + number]) * 1_000_000 for number in range(2 * BURST)]
    async with connected(Address.from_url(valkey.url)) as link:
        calls = [link.call("APPEND", prefix, piece) for piece in pieces]
        assert await asyncio.gather(*calls) == [n * len(pieces[0]) for n in range(1, len(pieces) + 1)]
        assert await link.call("GET", prefix) == b"".join(pieces).decode()
