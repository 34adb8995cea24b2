"""A look at the Redis of some settings, as a shard will use it, without serving anybody."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Final

from bullmq_proxy.gateway.broker.redis.address import Target
from bullmq_proxy.gateway.broker.redis.check import check
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.deployment import link_to
from bullmq_proxy.gateway.broker.redis.scripts import load_scripts, scripts_on
from bullmq_proxy.gateway.configured import link_options
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.settings import Settings

_PINGS: Final = 20
_SLOT: Final = 0


class CheckupError(Exception):
    """Redis cannot be used as it is; one line that says why."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """The state of one server.

    Attributes:
        shown: the server, for people.
        remarks: what is dangerous, a sentence for each.
        latency: seconds of a round trip, the median.
        ahead: seconds that its clock is before that of this machine.
    """

    shown: str
    remarks: list[str]
    latency: float
    ahead: float


def check_redis(settings: Settings) -> list[Checkup]:
    """Look at each server that has jobs: one, or the masters of a cluster.

    Raises:
        CheckupError: it cannot be reached, or jobs cannot be added and worked there.
    """
    try:
        return asyncio.run(_check_redis(settings))
    except (GatewayError, OSError, ValueError) as error:
        raise CheckupError(str(error)) from error


async def _check_redis(settings: Settings) -> list[Checkup]:
    assert settings.redis_url is not None
    target = Target.from_url(settings.redis_url, settings.redis_password_file)
    link = link_to(target, link_options(settings, _SLOT), load_scripts)
    await link.start(settings.redis_start_timeout)

    async def probe() -> None:
        probed = link.probed(settings.prefix)
        await asyncio.gather(*(scripts_on(each)["probe"].run([key], []) for each, key in probed))

    try:
        found = []
        for node in link.nodes:
            fails_over = node.server.is_found
            remarks = await check(node.call, probe, fails_over=fails_over, min_replicas=settings.min_replicas)
            found.append(Checkup(node.server.shown, remarks, *await _measure(node)))
        return found
    finally:
        await link.close()


async def _measure(node: CommandLink) -> tuple[float, float]:
    trips, aheads = [], []
    for _ in range(_PINGS):
        asked, begun = time.time(), time.perf_counter()
        seconds, microseconds = await node.call("TIME")
        trips.append(trip := time.perf_counter() - begun)
        aheads.append(int(seconds) + int(microseconds) / 1e6 - asked - trip / 2)
    return statistics.median(trips), statistics.median(aheads)
