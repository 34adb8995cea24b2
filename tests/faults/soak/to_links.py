"""Accidents to connections: those between gateways and Redis, and those between clients and gateways."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

from redis.exceptions import RedisError

from tests.faults.soak.site import PING_TIME, REDIS_TIMEOUT, Site
from tests.support.relay import Relay

_DELAY = 0.1  # s each way
_NOISE = b"HTTP/1.1 400 Bad Request\r\n\r\n"
_ODD = (b"+OK\r\n", b":7\r\n", b"$-1\r\n", b"*0\r\n", b"*1\r\n$1\r\nx\r\n", b"-ERR odd\r\n", _NOISE)
_WAITING = (b"BZPOPMIN", b"XREAD", b"SUBSCRIBE")


async def silence_clients(site: Site, random: Random) -> None:
    """Drop the packets between a gateway and its clients, for less than it waits for them or for longer."""
    await _silence(site, random.choice(site.doors), random.choice((0.3, 1.5)) * PING_TIME, random)


async def silence_redis(site: Site, random: Random) -> None:
    """Drop the packets between a server and all others for longer than a link waits."""
    server = random.choice(site.masters)
    assert server.relay is not None
    await _silence(site, server.relay, random.uniform(1.5, 5) * REDIS_TIMEOUT, random)


async def _silence(site: Site, relay: Relay, seconds: float, random: Random) -> None:
    """Let nothing pass a relay for a while; then it arrives, or the connections are gone."""
    assert site.relays is not None
    site.relays.tell(relay.silence)
    try:
        await asyncio.sleep(seconds)
        if random.random() < 0.5:
            site.relays.tell(relay.hang_up)
    finally:
        site.relays.tell(relay.go_on)


async def delay_redis(site: Site, random: Random) -> None:
    """Let each reply of each server take 200 milliseconds and more."""
    relays = [server.relay for server in site.servers if server.relay is not None]
    for relay in relays:
        relay.delay = _DELAY
    try:
        await asyncio.sleep(random.uniform(2, 6))
    finally:
        for relay in relays:
            relay.delay = 0.0


async def say_what_nobody_asked(site: Site, random: Random) -> None:
    """Let each server send its clients what is no reply to anything.

    On connections that wait, a reply of an odd form. Where commands are under way it would be taken for the reply to
    one of them, and nobody could know better: there it is none in Redis' protocol.
    """
    assert site.relays is not None
    odd = random.choice(_ODD)

    def choose(last: bytes) -> bytes:
        if b"REPLCONF" in last:  # a replica's
            return b""
        return odd if any(word in last for word in _WAITING) else _NOISE

    for server in site.masters:
        assert server.relay is not None
        site.relays.tell(server.relay.say, choose)


async def kill_links(site: Site, random: Random) -> None:
    """Let the server close all connections of gateways."""
    async with site.redis() as redis:
        for kind in ("normal", "pubsub"):
            await redis.client_kill_filter(_type=kind, skipme=True)


async def unblock_clients(site: Site, random: Random) -> None:
    """Let the server tell all who wait that they need not."""
    async with site.redis() as redis:
        for client in await redis.client_list():
            with suppress(RedisError):
                await redis.client_unblock(int(client["id"]), error=random.random() < 0.5)
