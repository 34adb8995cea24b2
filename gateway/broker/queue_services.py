"""All that one shard has for one queue: what brings its jobs, and what watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from msgspec import Struct

from bullmq_proxy.gateway.broker.consuming.feed import Deliveries, Feed
from bullmq_proxy.gateway.broker.consuming.leases import Leases
from bullmq_proxy.gateway.broker.consuming.manual import ManualConsumers
from bullmq_proxy.gateway.broker.consuming.marker import MarkerWait
from bullmq_proxy.gateway.broker.consuming.recovery import Recovery
from bullmq_proxy.gateway.broker.consuming.renewal import LockRenewer
from bullmq_proxy.gateway.broker.consuming.safety_net import SafetyNet
from bullmq_proxy.gateway.broker.consuming.stalled import StalledChecker
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.seats import Seats
from bullmq_proxy.gateway.broker.tasks import Tasks
from bullmq_proxy.gateway.broker.watching.event_reader import EventReader
from bullmq_proxy.gateway.broker.watching.job_waits import JobWaits

_Service = TypeVar("_Service", Feed, ManualConsumers, EventReader, JobWaits)


class ShardParts(Struct, frozen=True):
    """What all queues of a shard share.

    Attributes:
        options: of the command link; blocking links derive theirs from them.
        worker_seats: of those that wait for jobs.
        reader_seats: of those that wait for events.
        sleeping: finds jobs without a marker for those that wait without a seat.
        unchecked: finds queues that a check for stalled jobs may be for.
        leases: of the shard.
        renewer: keeps their locks.
        recovery: finds jobs whose fetch was lost.
        moved: is told of a job, and of its token, that was moved by it although no client of this shard held it.
        deliveries: is told of each job that goes out to a client.
    """

    options: LinkOptions
    worker_seats: Seats
    reader_seats: Seats
    sleeping: SafetyNet
    unchecked: SafetyNet
    leases: Leases
    renewer: LockRenewer
    recovery: Recovery
    moved: Callable[[str, str], None]
    deliveries: Deliveries | None


class QueueServices:
    """The services of one queue. Each is made when it is first asked for, and closed when its last user has left."""

    def __init__(self, queue: Queue, shard: ShardParts, on_change: Callable[[QueueServices], None]) -> None:
        """Make the services of `queue`; `on_change` is told when one of them comes or goes."""
        self.queue = queue
        self._shard = shard
        self._on_change = on_change
        self._services: dict[type[Any], Any] = {}
        self._closing = Tasks()

    def feed(self) -> Feed:
        """Return what brings jobs to the queue's Worker connections."""
        return self._get(Feed, self._make_feed)

    def manual_consumers(self) -> ManualConsumers:
        """Return where jobs are consumed by hand."""
        return self._get(ManualConsumers, self._make_manual_consumers)

    def event_reader(self) -> EventReader:
        """Return the reader of the queue's events."""
        return self._get(EventReader, self._make_event_reader)

    def job_waits(self) -> JobWaits:
        """Return where the ends of jobs are waited for."""
        return self._get(JobWaits, lambda: JobWaits(self.queue, self.event_reader, self._retire))

    @property
    def is_consumed(self) -> bool:
        """Whether anybody here takes jobs of the queue."""
        return Feed in self._services or ManualConsumers in self._services

    @property
    def users(self) -> tuple[int, int]:
        """How many work on the queue here, callers who want one job not among them; and how many watch it."""
        feed, reader = self._services.get(Feed), self._services.get(EventReader)
        workers = 0 if feed is None else sum(not consumer.by_hand for consumer in feed.consumers)
        return workers, 0 if reader is None else reader.watchers

    @property
    def is_idle(self) -> bool:
        """Whether nothing is here."""
        return not self._services and not self._closing

    def _make_feed(self) -> Feed:
        shard = self._shard
        waiter = MarkerWait(self.queue, shard.options, shard.worker_seats, shard.sleeping)
        stalled = StalledChecker(self.queue, shard.unchecked)
        return Feed(self.queue, waiter, stalled, shard.renewer, shard.leases, self._retire, shard.deliveries)

    def _make_manual_consumers(self) -> ManualConsumers:
        return ManualConsumers(self.queue, self._shard.leases, self, self._retire)

    def _make_event_reader(self) -> EventReader:
        return EventReader(self.queue, self._shard.options, self._shard.reader_seats, self._retire)

    def _get(self, kind: type[_Service], make: Callable[[], _Service]) -> _Service:
        service = self._services.get(kind)
        if service is None:
            service = self._services[kind] = make()
            self._on_change(self)
        return cast(_Service, service)

    def _retire(self, service: _Service) -> None:
        if self._services.get(type(service)) is service:
            del self._services[type(service)]
        self._closing.spawn(service.close(), then=lambda: self._on_change(self))
        self._on_change(self)

    # What concerns several of them

    def stop_fetching(self) -> None:
        """Hand out no more jobs; those in hand can still be answered."""
        if (feed := self._services.get(Feed)) is not None:
            feed.stop()

    def link_is_up(self) -> None:
        """Go on after the command link was down."""
        if (feed := self._services.get(Feed)) is not None:
            feed.poke()
        if (job_waits := self._services.get(JobWaits)) is not None:
            job_waits.ask_again()

    def look_again(self) -> None:
        """Let those who wait look for what they wait for: something has changed of which Redis tells nobody."""
        if (feed := self._services.get(Feed)) is not None:
            feed.look_again()
        if (job_waits := self._services.get(JobWaits)) is not None:
            job_waits.look_again()

    def job_moved(self, id: str, token: str) -> None:
        """End the lease of a job that was moved by its token, if a Worker connection holds it, on whatever shard."""
        lease = self._shard.leases.find(token, id)
        if lease is not None:
            lease.consumer.overtake(lease)
            return
        self._shard.moved(id, token)
        if (feed := self._services.get(Feed)) is not None:
            feed.fetch_again()

    def expect_lost_fetch(self) -> None:
        """Remember that the reply to a fetch may have been lost."""
        self._shard.recovery.expect_lost_fetches((self.queue.name,))

    async def close(self) -> None:
        """Close all of them."""
        await asyncio.gather(*(service.close() for service in self._services.values()), return_exceptions=True)
        await self._closing.wait()
