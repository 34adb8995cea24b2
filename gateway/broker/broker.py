"""The broker of one shard: the command link to Redis, the queues, and what the shard has for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bullmq_proxy.gateway.broker.consuming.feed import Deliveries
from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.marker import LONGEST_WAIT
from bullmq_proxy.gateway.broker.consuming.presence import Presence
from bullmq_proxy.gateway.broker.consuming.recovery import Recovery
from bullmq_proxy.gateway.broker.consuming.renewal import LockRenewer
from bullmq_proxy.gateway.broker.consuming.roster import Roster
from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.consuming.stalled import CHECK_PERIOD
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.counters import Counters
from bullmq_proxy.gateway.broker.jobs.queue import Queue, Queues
from bullmq_proxy.gateway.broker.queue_services import QueueServices, ShardParts
from bullmq_proxy.gateway.broker.reach import Reach
from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.broker.redis.check import check
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.deployment import link_to
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.replicas import Replicas
from bullmq_proxy.gateway.broker.redis.scripts import load_scripts, scripts_on
from bullmq_proxy.gateway.broker.redis.seats import Seats
from bullmq_proxy.gateway.broker.redis.tracker import Tracker, Trackers
from bullmq_proxy.gateway.rules.shapes import History


class Broker:
    """Everything that a shard has to do with Redis.

    Attributes:
        link: on which all commands go that do not block.
        queues: those in use, of whatever prefix.
        replicas: of the masters, where what is written is to be in some of them.
        leases: the jobs in clients' hands.
        recovery: finds jobs in `active` that nobody holds.
        presence: shows others that this shard lives, and acts for those that do not.
        counters: of what was done for clients.
        roster: who works on the queues.
        reach: leads to the clients of other shards.
        remarks: what was found dangerous about the servers by a `start` that waits, a sentence for each.
        history: returns that of a queue by its name, or of all for None; whoever has the memory for it sets this.
    """

    def __init__(
        self,
        where: Address | Target,
        prefix: str,
        options: LinkOptions,
        identity: Identity,
        *,
        max_len_events: int | None = None,
        gateway_timeout: float = 5.0,
        deliveries: Deliveries | None = None,
    ) -> None:
        """Make a broker; `start` connects it.

        Args:
            where: Redis is.
            prefix: of all keys, BullMQ's `prefix`.
            options: limits of the links; those are the command link's, and the others derive theirs from it.
            identity: who takes the jobs.
            max_len_events: see `Queues`.
            gateway_timeout: seconds without a sign of life after which another gateway is taken for dead; 0 for never.
            deliveries: is told of each job that goes out to a client.
        """
        target = Target.of(where) if isinstance(where, Address) else where
        self.link = link_to(target, options, load_scripts)
        # What gateways tell each other of a prefix is in one place, wherever its queues are.
        own = self.link.of(f"{prefix}:{{gateways}}:")
        self.replicas = Replicas(self.link, options) if options.min_replicas else None
        self.queues = Queues(prefix, self.link, max_len_events, self.replicas)
        self.leases = Leases(identity)
        self.recovery = Recovery(self.queue, self.leases)
        self.counters = Counters()
        self.remarks: list[str] = []
        self.history: Callable[[str | None], History]
        renewer = LockRenewer()
        self.presence = Presence(
            prefix,
            own,
            scripts_on(own)["showLife"],
            self.leases,
            renewer,
            self.queue,
            self.queues.turns,
            gateway_timeout,
        )
        self._tracker = tracker = Tracker(own, options, tracks=isinstance(self.link, Link))
        trackers = Trackers(self.link, options, tracker)
        self.roster = Roster(identity.address)
        self.reach = Reach(own, tracker, prefix, self.leases, self.roster, self._look_again, self._users)
        self._parts = ShardParts(
            options,
            Seats(options.seats, trackers.of),
            Seats(options.seats, trackers.of),
            SafetyNet(LONGEST_WAIT),
            SafetyNet(CHECK_PERIOD),
            self.leases,
            renewer,
            self.recovery,
            self.reach.moved,
            deliveries,
        )
        self._services: dict[Queue, QueueServices] = {}
        self.link.on_up.append(self._link_is_up)

    async def start(self, timeout: float | None) -> None:
        """Connect; `timeout` in seconds, None does not wait.

        Raises:
            GatewayError: not connected in time, or not let in.
        """
        await self.link.start(timeout)
        self._tracker.open()
        if timeout is not None:
            try:
                await self._check()
            except BaseException:
                await self._tracker.close()
                await self.link.close()
                raise

    async def _check(self) -> None:
        for link in self.link.nodes:
            remarks = await check(
                link.call, self._probe, fails_over=link.server.is_found, min_replicas=self._parts.options.min_replicas
            )
            self.remarks += [f"redis at {link.server.shown}: {remark}" for remark in remarks]

    async def probe(self) -> None:
        """Make sure that jobs can be added and worked now.

        Raises:
            GatewayError: they cannot; the text says why.
        """
        if not self.link.is_up:
            raise self.link.last_error
        for node in self.link.nodes:
            if (link := node.server.failing()) is not None:
                raise link.last_error
        await self._probe()

    async def _probe(self) -> None:
        probed = self.link.probed(self.queues.prefix)
        await asyncio.gather(*(scripts_on(link)["probe"].run([key], []) for link, key in probed))
        if self.replicas is not None:
            await self.replicas.probe(self.queues.prefix)

    def queue(self, name: str) -> Queue:
        """Return the queue of this name and the gateway's prefix."""
        return self.queues.get(name)

    def services(self, queue: Queue) -> QueueServices:
        """Return what the shard has for a queue; ask each time, since it goes when nobody uses it."""
        return self._services.get(queue) or QueueServices(queue, self._parts, self._services_changed)

    def _look_again(self, name: str) -> None:
        if (services := self._services.get(self.queue(name))) is not None:
            services.look_again()

    def _users(self, name: str) -> tuple[int, int]:
        """Return how many work on a queue here, and how many watch it."""
        queue = self.queues.find(name)
        services = None if queue is None else self._services.get(queue)
        return (0, 0) if services is None else services.users

    def _services_changed(self, services: QueueServices) -> None:
        if services.is_idle:
            self._services.pop(services.queue, None)
            services.queue.troubles.forget(services.queue.name)
        else:
            self._services[services.queue] = services
        if services.is_consumed:
            self.presence.serve(services.queue.name)
        else:
            self.presence.retire(services.queue.name)

    def _link_is_up(self) -> None:
        self.presence.link_is_up()
        self.recovery.expect_lost_fetches(self.presence.served)
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
        self.roster.stop_waiting()
        self._parts.renewer.close()
        self._parts.sleeping.close()
        self._parts.unchecked.close()
        await asyncio.gather(*(services.close() for services in list(self._services.values())), self.recovery.close())
        await self.presence.close()
        await self._tracker.close()
        await self.link.close()
