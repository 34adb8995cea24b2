"""The broker of one shard: the command link to Redis, the queues, and what the shard has for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.marker import LONGEST_WAIT
from bullmq_proxy.gateway.broker.consuming.recovery import Recovery
from bullmq_proxy.gateway.broker.consuming.renewal import LockRenewer
from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.consuming.stalled import CHECK_PERIOD
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.counters import Counters
from bullmq_proxy.gateway.broker.jobs.queue import Queue, Queues
from bullmq_proxy.gateway.broker.queue_services import QueueServices, ShardParts
from bullmq_proxy.gateway.broker.reach import Reach
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.link import Link, LinkOptions
from bullmq_proxy.gateway.broker.redis.scripts import load_scripts, scripts_on
from bullmq_proxy.gateway.broker.redis.seats import Seats
from bullmq_proxy.gateway.broker.redis.tracker import Tracker

_TELLING: Final = 20e-6  # s for each queue between two reports of all of them, which cost about 1 us for each


class Broker:
    """Everything that a shard has to do with Redis.

    Attributes:
        link: on which all commands go that do not block.
        queues: those in use, of whatever prefix.
        leases: the jobs in clients' hands.
        recovery: finds jobs in `active` that nobody holds.
        counters: of what was done for clients.
        reach: leads to the clients of other shards.
    """

    def __init__(
        self,
        address: Address,
        prefix: str,
        options: LinkOptions,
        identity: Identity,
        *,
        max_len_events: int | None = None,
    ) -> None:
        """Make a broker; `start` connects it.

        Args:
            address: of the Redis server.
            prefix: of all keys, BullMQ's `prefix`.
            options: limits of the links; those are the command link's, and the others derive theirs from it.
            identity: who takes the jobs.
            max_len_events: see `Queues`.
        """
        self.link = Link(address, options, setup=load_scripts)
        self.queues = Queues(prefix, self.link, scripts_on(self.link), max_len_events)
        self.leases = Leases(identity)
        self.recovery = Recovery(self.queue, self.leases)
        self.counters = Counters()
        self._tracker = tracker = Tracker(address, options)
        self.reach = Reach(self.link, tracker, prefix, self.leases)
        self._parts = ShardParts(
            options,
            Seats(options.seats, tracker),
            Seats(options.seats, tracker),
            SafetyNet(self.link, LONGEST_WAIT),
            SafetyNet(self.link, CHECK_PERIOD),
            self.leases,
            LockRenewer(),
            self.recovery,
        )
        self._services: dict[Queue, QueueServices] = {}
        self._on_served: Callable[[list[str]], None] | None = None
        self._served: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._telling: asyncio.TimerHandle | None = None  # while the next report waits
        self._is_told = True
        self.link.on_up.append(self._link_is_up)

    async def start(self, timeout: float | None) -> None:
        """Connect; `timeout` in seconds, None does not wait.

        Raises:
            GatewayError: not connected in time, or not let in.
        """
        await self.link.start(timeout)
        self._tracker.open()

    def queue(self, name: str) -> Queue:
        """Return the queue of this name and the gateway's prefix."""
        return self.queues.get(name)

    def services(self, queue: Queue) -> QueueServices:
        """Return what the shard has for a queue; ask each time, since it goes when nobody uses it."""
        return self._services.get(queue) or QueueServices(queue, self._parts, self._services_changed)

    def _services_changed(self, services: QueueServices) -> None:
        if services.is_idle:
            self._services.pop(services.queue, None)
        else:
            self._services[services.queue] = services
        if self._telling is None:
            self._tell_served()
        else:
            self._is_told = False

    # For the supervisor

    def tell_served(self, on_served: Callable[[list[str]], None]) -> None:
        """Tell `on_served` which queues are consumed, from now on at each change: a successor searches these."""
        self._on_served = on_served
        self._tell_served()

    def _tell_served(self) -> None:
        """Tell at once, and what changes right after that together: a report names all queues."""
        if self._on_served is None:
            return
        self._is_told = True
        self._telling = self._loop.call_later(len(self._services) * _TELLING, self._tell_rest)
        served = [queue.name for queue, services in self._services.items() if services.is_consumed]
        if served != self._served:
            self._served = served
            self._on_served(served)

    def _tell_rest(self) -> None:
        self._telling = None
        if not self._is_told:
            self._tell_served()

    def adopt(self, queues: Iterable[str]) -> None:
        """Give back the jobs that our predecessor in this slot left in `active` of these queues."""
        self.recovery.expect_predecessors(queues)
        if self.link.is_up:  # else as soon as it is
            self.recovery.search()

    def _link_is_up(self) -> None:
        for services in list(self._services.values()):
            services.link_is_up()
        self.recovery.search()

    # The end

    def stop_fetching(self) -> None:
        """Hand out no more jobs; those in hand can still be answered."""
        for services in self._services.values():
            services.stop_fetching()

    async def close(self) -> None:
        """Give everything up: feeds and readers first, the command link last."""
        if self._telling is not None:
            self._telling.cancel()
        self._parts.renewer.close()
        self._parts.sleeping.close()
        self._parts.unchecked.close()
        await asyncio.gather(*(services.close() for services in list(self._services.values())), self.recovery.close())
        await self._tracker.close()
        await self.link.close()
