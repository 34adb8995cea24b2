"""The accidents, by name. Each happens, lasts for a moment, and is over when it returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple

from tests.faults.soak import to_gateways, to_links, to_redis
from tests.faults.soak.site import KINDS, Site

Strike = Callable[[Site, Random], Awaitable[None]]


class Accident(NamedTuple):
    """One kind of accident.

    Attributes:
        strike: lets it happen.
        kinds: of Redis on which it can happen.
        needs_clock: whether a gateway needs a clock of its own for it.
    """

    strike: Strike
    kinds: tuple[str, ...] = KINDS
    needs_clock: bool = False


ACCIDENTS = {
    "a shard is killed": Accident(to_gateways.kill_shard),
    "a shard is stopped": Accident(to_gateways.stop_shard),
    "a shard is suspended": Accident(to_gateways.suspend_shard),
    "a gateway is killed": Accident(to_gateways.kill_gateway),
    "a gateway is suspended": Accident(to_gateways.suspend_gateway),
    "a supervisor is killed": Accident(to_gateways.kill_supervisor),
    "a clock is set": Accident(to_gateways.set_clock, needs_clock=True),
    "a client is killed": Accident(to_gateways.kill_client),
    "a client is stopped": Accident(to_gateways.stop_client),
    "clients use up the descriptors": Accident(to_gateways.use_up_descriptors),
    "packets to clients are dropped": Accident(to_links.silence_clients),
    "packets to redis are dropped": Accident(to_links.silence_redis),
    "redis is far away": Accident(to_links.delay_redis),
    "redis says what nobody has asked": Accident(to_links.say_what_nobody_asked),
    "all links are killed": Accident(to_links.kill_links),
    "all who wait are unblocked": Accident(to_links.unblock_clients),
    "redis is killed": Accident(to_redis.kill, ("single",)),
    "redis loses its file": Accident(to_redis.lose_file, ("single",)),
    "redis is frozen": Accident(to_redis.freeze),
    "a node is gone": Accident(to_redis.remove_node, ("cluster",)),
    "a slot moves": Accident(to_redis.move_slot, ("cluster",)),
    "the master changes": Accident(to_redis.fail_over, ("sentinel", "replicated")),
    "the master dies": Accident(to_redis.kill_master, ("sentinel", "replicated")),
    "redis pauses": Accident(to_redis.pause),
    "redis forgets its scripts": Accident(to_redis.flush_scripts),
    "redis forgets everything": Accident(to_redis.flush_all),
    "redis is busy": Accident(to_redis.keep_busy),
    "the password changes": Accident(to_redis.change_password),
    "no right to run scripts": Accident(to_redis.refusing_right("-evalsha", "+evalsha")),
    "no right to delete": Accident(to_redis.refusing_right("-del", "+del")),
    "no right to anything": Accident(to_redis.refusing_right("-@all", "+@all", 8.0)),
    "redis is out of memory": Accident(to_redis.refusing("maxmemory", 1)),
    "redis has no replicas": Accident(to_redis.refusing("min-replicas-to-write", 9)),
}


def possible(site: Site) -> list[str]:
    """Return the names of the accidents that can happen on a site."""
    return [
        name
        for name, accident in ACCIDENTS.items()
        if site.kind in accident.kinds and (site.clock is not None or not accident.needs_clock)
    ]
