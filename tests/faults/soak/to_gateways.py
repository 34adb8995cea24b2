"""Accidents to processes: shards, supervisors, whole gateways and clients."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import ExitStack, suppress
from random import Random

from tests.faults.soak.site import DESCRIPTORS, GATEWAY_TIMEOUT, PING_TIME, SHARD_TIMEOUT, Site
from tests.faults.soak.to_links import kill_links
from tests.support.service import lives
from tests.support.waiting import eventually

_HOUR = 3600  # s
_ORPHANED = "the supervisor has ended"
_CLOCK_IS_READ = 1.5  # s


async def kill_shard(site: Site, random: Random) -> None:
    """Kill a shard."""
    os.kill(random.choice(site.shards()), signal.SIGKILL)


async def stop_shard(site: Site, random: Random) -> None:
    """Stop a shard until its supervisor has put another one in its place."""
    os.kill(random.choice(site.shards()), signal.SIGSTOP)
    await asyncio.sleep(SHARD_TIMEOUT + 3)


async def suspend_shard(site: Site, random: Random) -> None:
    """Stop a shard for about as long as its supervisor waits since its last sign of life."""
    await _suspend([random.choice(site.shards())], SHARD_TIMEOUT - random.uniform(0.5, 2))


async def kill_gateway(site: Site, random: Random) -> None:
    """Kill all processes of a gateway, which is started again at once or later."""
    number = random.randrange(len(site.gateways))
    await asyncio.to_thread(site.kill, number)
    await asyncio.sleep(random.choice((0, GATEWAY_TIMEOUT + 2)))
    await asyncio.to_thread(site.restart, number)


async def suspend_gateway(site: Site, random: Random) -> None:
    """Stop a gateway until the other one has taken it for dead."""
    gateway = random.choice(site.gateways)
    await _suspend([gateway.pid, *gateway.shards()], GATEWAY_TIMEOUT + 2)


async def kill_supervisor(site: Site, random: Random) -> None:
    """Kill a supervisor, and stop its shards before or after that or not at all; start the gateway again."""
    number = random.randrange(len(site.gateways))
    gateway, shards = site.gateways[number], site.gateways[number].shards()
    # libfaketime locks itself when a timer is set: a process that is stopped in that moment is not ended by its own.
    has_own_clock = site.clock is not None and gateway is site.gateways[-1]
    when = random.choice(("never", "before") if has_own_clock else ("never", "before", "after"))
    if when == "before":
        _signal(shards, signal.SIGSTOP)
    os.kill(gateway.pid, signal.SIGKILL)
    await asyncio.to_thread(gateway.wait)
    if when == "after":
        await eventually(lambda: gateway.errors.count(_ORPHANED) == len(shards), "the shards know", 10)
        await asyncio.sleep(0.5)  # they have a timer by then; one that is stopped sooner stays so
        _signal(shards, signal.SIGSTOP)
    await eventually(lambda: not any(map(lives, shards)), "its shards have ended", 30)
    await asyncio.to_thread(site.restart, number)


async def set_clock(site: Site, random: Random) -> None:
    """Set the clock of a gateway's machine by an hour, and back."""
    assert site.clock is not None
    site.clock.set(random.choice((-_HOUR, _HOUR)))
    await asyncio.sleep(_CLOCK_IS_READ + random.uniform(0, 4))
    site.clock.set(0)
    await asyncio.sleep(_CLOCK_IS_READ)


async def kill_client(site: Site, random: Random) -> None:
    """Kill a process that works."""
    if site.clients:
        _signal([random.choice(sorted(site.clients))], signal.SIGKILL)


async def stop_client(site: Site, random: Random) -> None:
    """Stop a process that works, until it has missed its pings or for less."""
    if site.clients:
        await _suspend([random.choice(sorted(site.clients))], random.choice((0.2, 1.5)) * PING_TIME)


async def use_up_descriptors(site: Site, random: Random) -> None:
    """Connect to a gateway until it has no room for more, and break its links meanwhile."""
    port = site.port(random.randrange(len(site.gateways)))
    with ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            with suppress(OSError):
                stack.enter_context(await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port), 1))
        await kill_links(site, random)
        await asyncio.sleep(2)


async def _suspend(pids: list[int], seconds: float) -> None:
    _signal(pids, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _signal(pids[::-1], signal.SIGCONT)


def _signal(pids: list[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
