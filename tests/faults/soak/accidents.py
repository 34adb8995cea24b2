"""The accidents, by name. Each happens, lasts for a moment, and is over when it returns."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.faults.soak.site import GATEWAY_TIMEOUT, KINDS, REDIS_TIMEOUT, SHARD_TIMEOUT, Site
from tests.support.service import lives
from tests.support.waiting import eventually

Strike = Callable[[Site, Random], Awaitable[None]]

_BUSY = "for _ = 1, 5e7 do end"  # half a second or more; the time stands still for a script


class Accident:
    """One kind of accident, and on which kinds of Redis it can happen."""

    def __init__(self, strike: Strike, kinds: tuple[str, ...] = KINDS) -> None:
        self.strike = strike
        self.kinds = kinds


async def _shard_killed(site: Site, random: Random) -> None:
    os.kill(random.choice(site.shards()), signal.SIGKILL)


async def _shard_stopped(site: Site, random: Random) -> None:
    """Stop a shard until its supervisor has put another one in its place."""
    os.kill(random.choice(site.shards()), signal.SIGSTOP)
    await asyncio.sleep(SHARD_TIMEOUT + 3)


async def _shard_suspended(site: Site, random: Random) -> None:
    """Stop a shard for about as long as its supervisor waits since its last sign of life."""
    pid = random.choice(site.shards())
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(SHARD_TIMEOUT - random.uniform(0.5, 2))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def _gateway_killed(site: Site, random: Random) -> None:
    number = random.randrange(len(site.gateways))
    await asyncio.to_thread(site.kill, number)
    await asyncio.sleep(random.choice((0, GATEWAY_TIMEOUT + 2)))
    await asyncio.to_thread(site.restart, number)


async def _gateway_suspended(site: Site, random: Random) -> None:
    gateway = random.choice(site.gateways)
    pids = (gateway.pid, *gateway.shards())
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(GATEWAY_TIMEOUT + 2)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


async def _supervisor_killed(site: Site, random: Random) -> None:
    number = random.randrange(len(site.gateways))
    shards = site.gateways[number].shards()
    os.kill(site.gateways[number].pid, signal.SIGKILL)
    await asyncio.to_thread(site.gateways[number].wait)
    await eventually(lambda: not any(map(lives, shards)), "its shards have drained", 30)
    await asyncio.to_thread(site.restart, number)


async def _redis_killed(site: Site, random: Random) -> None:
    server = site.server
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(random.choice((0, 1)))
    server.start()  # not in a thread, whose end would be the server's, too


async def _redis_frozen(site: Site, random: Random) -> None:
    server = site.server
    server.freeze()
    await asyncio.sleep(random.choice((0.5, 2)) * REDIS_TIMEOUT)
    server.thaw()


async def _failover(site: Site, random: Random) -> None:
    await asyncio.to_thread(site.fail_over)


async def _slot_moves(site: Site, random: Random) -> None:
    await asyncio.to_thread(site.move_slot, random)


async def _links_killed(site: Site, random: Random) -> None:
    async with site.redis() as redis:
        for kind in ("normal", "pubsub"):
            await redis.client_kill_filter(_type=kind, skipme=True)


async def _clients_unblocked(site: Site, random: Random) -> None:
    async with site.redis() as redis:
        for client in await redis.client_list():
            with suppress(RedisError):
                await redis.client_unblock(int(client["id"]), error=random.random() < 0.5)


async def _clients_paused(site: Site, random: Random) -> None:
    async with site.redis() as redis:
        await redis.client_pause(500, all=random.random() < 0.5)
        await asyncio.sleep(0.5)


async def _scripts_flushed(site: Site, random: Random) -> None:
    async with site.redis() as redis:
        await redis.script_flush()
        await redis.execute_command("FUNCTION", "FLUSH")  # type: ignore[no-untyped-call]


async def _busy(site: Site, random: Random) -> None:
    """Let a script keep the server busy, which answers BUSY to everybody else."""
    async with site.redis() as redis:
        await redis.config_set("busy-reply-threshold", 50)
        with suppress(RedisError):
            await redis.eval(_BUSY, 0)


def _refusing(begin: tuple[Any, ...], end: tuple[Any, ...]) -> Strike:
    """Let the server refuse to write for half a second."""

    async def strike(site: Site, random: Random) -> None:
        async with site.redis() as redis:
            await _execute(redis, *begin)
            try:
                await asyncio.sleep(0.5)
            finally:
                await _execute(redis, *end)

    return strike


async def _execute(redis: Redis, *command: Any) -> None:
    await redis.execute_command(*command)  # type: ignore[no-untyped-call]


ACCIDENTS = {
    "a shard is killed": Accident(_shard_killed),
    "a shard is stopped": Accident(_shard_stopped),
    "a shard is suspended": Accident(_shard_suspended),
    "a gateway is killed": Accident(_gateway_killed),
    "a gateway is suspended": Accident(_gateway_suspended),
    "a supervisor is killed": Accident(_supervisor_killed),
    "redis is killed": Accident(_redis_killed, ("single",)),
    # Sentinels would put a replica into its place, which does not have what the frozen one then still confirms.
    "redis is frozen": Accident(_redis_frozen, ("single",)),
    "a slot moves": Accident(_slot_moves, ("cluster",)),
    "the master changes": Accident(_failover, ("sentinel",)),
    "all links are killed": Accident(_links_killed),
    "all who wait are unblocked": Accident(_clients_unblocked),
    "redis pauses": Accident(_clients_paused),
    "redis forgets its scripts": Accident(_scripts_flushed),
    "redis is busy": Accident(_busy),
    "no right to run scripts": Accident(
        _refusing(("ACL", "SETUSER", "default", "-evalsha"), ("ACL", "SETUSER", "default", "+evalsha"))
    ),
    "no right to delete": Accident(
        _refusing(("ACL", "SETUSER", "default", "-del"), ("ACL", "SETUSER", "default", "+del"))
    ),
    "redis is out of memory": Accident(_refusing(("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0))),
    "redis has no replicas": Accident(
        _refusing(("CONFIG", "SET", "min-replicas-to-write", 9), ("CONFIG", "SET", "min-replicas-to-write", 0)),
    ),
}
