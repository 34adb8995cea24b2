"""Accidents to Redis: servers that die, freeze, forget, refuse, or change their part."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.faults.soak.auditor import note_missing
from tests.faults.soak.site import REDIS_TIMEOUT, USER, Site

_BUSY = "for _ = 1, 5e7 do end"  # half a second or more; the time stands still for a script


async def kill(site: Site, random: Random) -> None:
    """Kill the server; it comes back with its file."""
    server = site.server
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(random.choice((0, 1, 7)))
    server.start()  # not in a thread, whose end would be the server's, too


async def lose_file(site: Site, random: Random) -> None:
    """Kill the server; it comes back with nothing."""
    server = site.server
    await _count_all(site)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.lose_file)
    server.start()
    _void_all(site)


async def freeze(site: Site, random: Random) -> None:
    """Let the server answer nothing, rarely until locks have run out."""
    server = site.server
    server.freeze()
    await asyncio.sleep(40 if random.random() < 0.2 else random.choice((0.5, 2)) * REDIS_TIMEOUT)
    server.thaw()


async def remove_node(site: Site, random: Random) -> None:
    """Kill one node of the cluster; it comes back with its file."""
    node = random.choice(site.masters)
    await asyncio.to_thread(node.kill)
    await asyncio.sleep(random.uniform(1, 6))
    node.start()


async def kill_master(site: Site, random: Random) -> None:
    """Kill the master; when another one has its place it comes back as a replica."""
    before = site.server
    await asyncio.to_thread(before.kill)
    await asyncio.to_thread(site.wait_for_another, before)
    before.start()


async def fail_over(site: Site, random: Random) -> None:
    """Let a replica take the master's place while the master lives."""
    await asyncio.to_thread(site.fail_over)


async def move_slot(site: Site, random: Random) -> None:
    """Let another node have the slot of the queue with the load."""
    await asyncio.to_thread(site.move_slot, random)


async def pause(site: Site, random: Random) -> None:
    """Let the server take no commands, or no writes, for half a second."""
    async with site.redis() as redis:
        await redis.client_pause(500, all=random.random() < 0.5)
        await asyncio.sleep(0.5)


async def flush_scripts(site: Site, random: Random) -> None:
    """Let the server forget all scripts."""
    async with site.redis() as redis:
        await redis.script_flush()
        await _execute(redis, "FUNCTION", "FLUSH")


async def flush_all(site: Site, random: Random) -> None:
    """Let all servers forget everything, once what was confirmed has been seen there."""
    await _count_all(site)
    for server in site.masters:
        async with Redis.from_url(server.url) as redis:
            await redis.flushall()
    _void_all(site)


async def _count_all(site: Site) -> None:
    for ledger in site.ledgers:
        await note_missing(site, ledger)


def _void_all(site: Site) -> None:
    for ledger in site.ledgers:
        ledger.void()


async def keep_busy(site: Site, random: Random) -> None:
    """Let a script keep the server busy, which answers BUSY to everybody else."""
    async with site.redis() as redis:
        await redis.config_set("busy-reply-threshold", 50)
        with suppress(RedisError):
            await redis.eval(_BUSY, 0)


async def change_password(site: Site, random: Random) -> None:
    """Give the gateways another password while the old one still counts, then take the old one away."""
    new = secrets.token_hex(8)
    await _set_user(site, "ON", f">{new}")
    too_late = random.random() < 0.3
    if not too_late:
        site.set_password(new)
    await _set_user(site, "RESETPASS", f">{new}")
    for server in site.servers:
        async with Redis.from_url(server.url) as redis:
            await _execute(redis, "ACL", "SAVE")
            await _execute(redis, "CLIENT", "KILL", "USER", USER)
    if too_late:
        await asyncio.sleep(random.uniform(0, 3))
        site.set_password(new)


async def _set_user(site: Site, *rules: str) -> None:
    for server in site.servers:
        async with Redis.from_url(server.url) as redis:
            await _execute(redis, "ACL", "SETUSER", USER, *rules)


def refusing_right(begin: str, end: str, longest: float = 0.5) -> Callable[[Site, Random], Awaitable[None]]:
    """Return an accident: the server refuses a command to the gateways, for half a second or for longer."""

    async def strike(site: Site, random: Random) -> None:
        async with site.redis() as redis:
            await _execute(redis, "ACL", "SETUSER", USER, begin)
            try:
                await asyncio.sleep(random.choice((0.5, longest)))
            finally:
                await _execute(redis, "ACL", "SETUSER", USER, end)

    return strike


def refusing(parameter: str, value: int) -> Callable[[Site, Random], Awaitable[None]]:
    """Return an accident: a parameter lets the server refuse to write for half a second; else it is 0."""

    async def strike(site: Site, random: Random) -> None:
        async with site.redis() as redis:
            await redis.config_set(parameter, value)
            try:
                await asyncio.sleep(0.5)
            finally:
                await redis.config_set(parameter, 0)

    return strike


async def _execute(redis: Redis, *command: Any) -> None:
    await redis.execute_command(*command)  # type: ignore[no-untyped-call]
