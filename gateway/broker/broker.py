"""The broker of one shard: the command link, and one Queue, Feed and EventReader for each queue that is in use."""

from __future__ import annotations

import asyncio
import itertools
import logging
import weakref
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bullmq_proxy.gateway.broker.consuming.feed import Feed
from bullmq_proxy.gateway.broker.consuming.leases import Consumer, Lease
from bullmq_proxy.gateway.broker.consuming.manual import ManualConsumers
from bullmq_proxy.gateway.broker.consuming.marker import MarkerWait
from bullmq_proxy.gateway.broker.consuming.recovery import give_back
from bullmq_proxy.gateway.broker.consuming.renewal import LockRenewer
from bullmq_proxy.gateway.broker.counters import Counters
from bullmq_proxy.gateway.broker.gate import Gate
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.link import Link, LinkOptions
from bullmq_proxy.gateway.broker.redis.scripts import load_scripts, scripts_on
from bullmq_proxy.gateway.broker.watching.event_reader import EventReader
from bullmq_proxy.gateway.broker.watching.job_waits import JobWaits
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions

log = logging.getLogger(__name__)

_PLACES: Final = 32  # for the heavy calls of all connections
_MAX_STALLED_COUNT: Final = WorkerOptions().max_stalled_count  # nobody knows what a predecessor's clients asked for


@dataclass(frozen=True, slots=True)
class Identity:
    """Who takes jobs: written into every lock, so that a successor in the same slot knows its predecessor's.

    Attributes:
        gateway: of one run of the gateway; no two runs share it.
        slot: the shard's place in it.
        incarnation: counts the processes that served this slot.
    """

    gateway: str
    slot: int = 0
    incarnation: int = 0

    def token(self, number: int) -> str:
        """The token of the shard's `number`th consumer."""
        return f"{self.gateway}:{self.slot}:{self.incarnation}:{number}"

    def is_predecessor(self, token: str) -> bool:
        """Whether a token is of an earlier process in our slot."""
        gateway, _, rest = token.partition(":")
        slot, incarnation, *_ = [*rest.split(":"), ""]
        return (
            gateway == self.gateway
            and slot == str(self.slot)
            and incarnation.isdigit()
            and int(incarnation) < self.incarnation
        )


class Broker:
    """Everything that a shard has to do with Redis."""

    def __init__(self, address: Address, prefix: str, options: LinkOptions, identity: Identity) -> None:
        """Make a broker; `start` connects it.

        Args:
            address: of the Redis server.
            prefix: of all keys, BullMQ's `prefix`.
            options: limits of the command link; the blocking links derive theirs from it.
            identity: who takes the jobs.
        """
        self.link = Link(address, options, setup=load_scripts)
        self.identity = identity
        self.counters = Counters()
        self.on_served: Callable[[list[str]], None] = _nobody_asks  # is told the queues with consumers, on each change
        self.prefix = prefix
        self.gate = Gate(_PLACES)  # for the calls that may need many commands, and much memory
        self._options = options
        self._scripts = scripts_on(self.link)
        self._renewer = LockRenewer()
        self._queues: weakref.WeakValueDictionary[tuple[str, str], Queue] = weakref.WeakValueDictionary()
        self._feeds: dict[str, Feed] = {}
        self._readers: dict[str, EventReader] = {}
        self._manual_consumers: dict[str, ManualConsumers] = {}
        self._job_waits: dict[str, JobWaits] = {}
        self._consumers: dict[str, Consumer] = {}  # by token; those that left, until their last lease is over
        self._abandoned: set[str] = set()  # queues of our predecessor in which its orphans are still to be found
        self._doubtful: set[str] = set()  # queues without a feed in which the reply to a fetch was lost
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self.link.on_up.append(self._link_is_up)

    async def start(self, timeout: float | None) -> None:
        """Connect; `timeout` in seconds, None does not wait.

        Raises:
            GatewayError: not connected in time, or not let in.
        """
        await self.link.start(timeout)

    def queue(self, name: str, prefix: str | None = None) -> Queue:
        """The queue of this name, by default of the gateway's own prefix; shared by all who use it at the same time."""
        key = (prefix or self.prefix, name)
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = Queue(*key, self.link, self._scripts)
        return queue

    # Workers

    def join(
        self,
        queue: Queue,
        options: WorkerOptions,
        take: Callable[[Lease, Hash], None],
        cancel: Callable[[Lease, str], None],
        forget: Callable[[Lease], None] | None = None,
        *,
        by_hand: bool = False,
    ) -> tuple[Feed, Consumer]:
        """Register a worker connection; it gets jobs as soon as it is `wake`d by its feed.

        Args:
            queue: where it takes jobs from.
            options: of the connection.
            take: gets each new lease with the job's hash.
            cancel: is told when a lease is lost, and why.
            forget: is told that a lease is over because somebody has moved the job by its token.
            by_hand: no connection, but a caller who waits for one job.
        """
        feed = self._feeds.get(queue.name)
        if feed is None:
            feed = Feed(queue, MarkerWait(queue, self._options), self._renewer, self._feed_is_empty)
            self._feeds[queue.name] = feed
            self._tell_served()
        consumer = self._register(Consumer(options, self._new_token(), take, cancel, forget, by_hand=by_hand))
        feed.join(consumer)
        return feed, consumer

    def _new_token(self) -> str:
        return self.identity.token(next(self._numbers))

    def _register(self, consumer: Consumer) -> Consumer:
        self._consumers[consumer.token] = consumer
        consumer.on_gone = partial(self._forget, consumer)
        return consumer

    def _tell_served(self) -> None:
        self.on_served(list(self._feeds.keys() | self._manual_consumers.keys()))

    def _forget(self, consumer: Consumer) -> None:
        self._consumers.pop(consumer.token, None)

    def leave(self, feed: Feed, consumer: Consumer, *, counted: bool = True) -> None:
        """A worker connection is gone: its jobs go back. `counted` as in `Feed.leave`."""
        feed.leave(consumer, counted=counted)
        if not consumer.leases:
            consumer.on_gone()

    def _feed_is_empty(self, feed: Feed) -> None:
        if self._feeds.get(feed.queue.name) is feed:
            del self._feeds[feed.queue.name]
            self._tell_served()
        self._spawn(feed.close())

    def stop_fetching(self) -> None:
        """Hand out no more jobs; those in hand can still be answered."""
        for feed in self._feeds.values():
            feed.stop()

    @property
    def leases(self) -> int:
        """How many jobs are in clients' hands."""
        return sum(feed.leases for feed in self._feeds.values())

    # Consuming by hand

    def manual_consumers(self, queue: Queue) -> ManualConsumers:
        """Where jobs of a queue are consumed by hand."""
        manual_consumers = self._manual_consumers.get(queue.name)
        if manual_consumers is None:
            manual_consumers = self._manual_consumers[queue.name] = ManualConsumers(queue, self, self._hands_are_idle)
            self._tell_served()
        return manual_consumers

    def _hands_are_idle(self, manual_consumers: ManualConsumers) -> None:
        if self._manual_consumers.get(manual_consumers.queue.name) is manual_consumers:
            del self._manual_consumers[manual_consumers.queue.name]
            self._tell_served()
        self._spawn(manual_consumers.close())

    def visit(
        self, options: WorkerOptions, take: Callable[[Lease, Hash], None], cancel: Callable[[Lease, str], None]
    ) -> Consumer:
        """A consumer without a feed, for one fetch."""
        return self._register(Consumer(options, self._new_token(), take, cancel, by_hand=True))

    def doubt(self, name: str) -> None:
        """The reply to a fetch from this queue was lost: look for the job once Redis can be asked."""
        self._doubtful.add(name)

    def is_own(self, token: str) -> bool:
        """Whether a token is, or could be, of a lease of this gateway."""
        return token.startswith(f"{self.identity.gateway}:")

    def moved(self, queue: Queue, id: str, token: str) -> None:
        """A job has been moved by its token: if a worker connection of this shard holds it, that is over."""
        consumer = self._consumers.get(token.rpartition(":")[0])
        if consumer is not None:
            for lease in [lease for lease in consumer.leases if (lease.id, lease.token) == (id, token)]:
                consumer.on_moved(lease)
        elif feed := self._feeds.get(queue.name):
            feed.look()

    # Events

    def reader(self, queue: Queue) -> EventReader:
        """The reader of a queue's events."""
        reader = self._readers.get(queue.name)
        if reader is None:
            reader = self._readers[queue.name] = EventReader(queue, self._options, self._reader_is_empty)
        return reader

    def _reader_is_empty(self, reader: EventReader) -> None:
        if self._readers.get(reader.queue.name) is reader:
            del self._readers[reader.queue.name]
        self._spawn(reader.close())

    def job_waits(self, queue: Queue) -> JobWaits:
        """Where the ends of a queue's jobs are waited for."""
        job_waits = self._job_waits.get(queue.name)
        if job_waits is None:
            job_waits = self._job_waits[queue.name] = JobWaits(queue, self.reader, self._nobody_waits)
        return job_waits

    def _nobody_waits(self, job_waits: JobWaits) -> None:
        if self._job_waits.get(job_waits.queue.name) is job_waits:
            del self._job_waits[job_waits.queue.name]

    # Orphans

    def adopt(self, queues: Iterable[str]) -> None:
        """Give back the jobs that our predecessor in this slot left in `active` of these queues."""
        self._abandoned.update(queues)
        if self.link.is_up:  # else as soon as it is
            while self._abandoned:
                self._spawn(self._adopt(self._abandoned.pop()))

    async def _adopt(self, name: str) -> None:
        try:
            await give_back(
                self.queue(name), lambda token, id: self.identity.is_predecessor(token), limit=_MAX_STALLED_COUNT
            )
        except GatewayError:
            self._abandoned.add(name)  # the link broke: the next time that it is up

    def _link_is_up(self) -> None:
        self.adopt(())
        for feed in self._feeds.values():
            self._doubtful.add(feed.queue.name)
            feed.poke()
        while self._doubtful:
            self._spawn(self._find_lost_fetches(self._doubtful.pop()))
        for job_waits in self._job_waits.values():
            job_waits.look_again()

    async def _find_lost_fetches(self, name: str) -> None:
        try:
            await give_back(self.queue(name), self._is_orphan)
        except GatewayError:
            self._doubtful.add(name)  # the link broke again: the next time that it is up

    def _is_orphan(self, token: str, id: str) -> bool:
        """A fetch whose reply was lost: the lock is a consumer's of ours, but the consumer knows nothing of the job.

        A predecessor's are not: it may still be draining.
        """
        if not token.startswith(self.identity.token(0)[:-1]):
            return False
        consumer = self._consumers.get(token.rpartition(":")[0])
        return consumer is None or all((lease.id, lease.token) != (id, token) for lease in consumer.leases)

    # The end

    async def close(self) -> None:
        """Give everything up: feeds and readers first, the command link last."""
        self._renewer.close()
        await asyncio.gather(
            *(feed.close() for feed in self._feeds.values()),
            *(manual_consumers.close() for manual_consumers in self._manual_consumers.values()),
            *(reader.close() for reader in self._readers.values()),
            *self._tasks,
            return_exceptions=True,
        )
        await self.link.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nobody_asks(queues: list[str]) -> None:
    """Embedded in somebody's own program there is no supervisor to tell."""
