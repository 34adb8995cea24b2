"""The feed of one queue: brings jobs from Redis to all the worker connections that this shard has for it.

One fetch loop and one waiter serve them all, so that Redis connections and polling grow with shards and queues, not
with clients. A consumer that finishes a job gets its next one in the same round trip (`fetchNext`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from bullmq_proxy.gateway.broker.consuming.leases import HELD, Consumer, Holder, Lease, Leases, Source
from bullmq_proxy.gateway.broker.consuming.marker import MarkerWait, milliseconds
from bullmq_proxy.gateway.broker.consuming.renewal import LockRenewer
from bullmq_proxy.gateway.broker.consuming.schedules import Schedules
from bullmq_proxy.gateway.broker.consuming.settling import Settler
from bullmq_proxy.gateway.broker.consuming.stalled import StalledChecker
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.scripts import HOLE
from bullmq_proxy.gateway.rules.jobs import Hash, to_hash
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.answers import Failed
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions

log = logging.getLogger(__name__)

_WIDEST: Final = 16  # fetches under way at a time
_LONGEST_LIMIT: Final = 30_000  # ms; BullMQ's maximumRateLimitDelay: delayed jobs are promoted meanwhile
_LINGER: Final = 5.0  # s that a feed stays when the last to leave was a caller who waited for one job: it may ask again
_FETCHING: Final = "fetching from"  # for the log
_RETRY: Final = 0.25  # s after an error that was not the link's

UNREADABLE: Final = "The job cannot be read"

_Limiter = tuple[int, int] | None


class Deliveries(Protocol):
    """Told of each job that goes out to a client, and of its end."""

    def holder(self, queue: Queue, holder: Holder, worker: str | None) -> Holder:
        """Return the holder that is to stand before that of a client, which calls itself `worker`."""

    def settler(self, queue: Queue) -> Settler:
        """Return what is to end the leases of a queue."""


class Feed:
    """Jobs of one queue for all its consumers on this shard."""

    def __init__(
        self,
        queue: Queue,
        waiter: MarkerWait,
        stalled: StalledChecker,
        renewer: LockRenewer,
        leases: Leases,
        on_empty: Callable[[Feed], None],
        deliveries: Deliveries | None = None,
    ) -> None:
        """Make a feed; it starts with its first consumer.

        Args:
            queue: where the jobs come from.
            waiter: on which to wait while there are none.
            stalled: checks for jobs whose workers died.
            renewer: keeps the locks of what has been handed out.
            leases: of the shard.
            on_empty: is told when the last consumer has left.
            deliveries: is told of each job.
        """
        self.queue = queue
        self.settler = Settler(queue) if deliveries is None else deliveries.settler(queue)
        self._deliveries = deliveries
        self._activate = queue.scripts["moveToActive"].template(queue.active_keys, (queue.base, HOLE, HOLE))
        self.consumers: set[Consumer] = set()
        self._renewer = renewer
        self._leases = leases
        self._waiter = waiter
        self._on_empty = on_empty
        self._loop = asyncio.get_running_loop()
        self._schedules = Schedules(queue)
        self._stalled = stalled
        self._line: OrderedDict[Consumer, None] = OrderedDict()  # who may want a job, the next one first
        self._fetching = 0
        self._window = 1  # doubles with each job that a fetch brings, is 1 again when there is none
        self._drained = False  # the last fetch brought nothing: wait for a marker
        self._due = 0  # ms since the epoch of the next delayed job, 0 when none is known
        self._limits: dict[_Limiter, float] = {}  # loop time until which a limiter lets nothing through
        self._waiting: asyncio.Task[None] | None = None
        self._resuming: asyncio.TimerHandle | None = None  # fetching goes on after an error
        self._lingering: asyncio.TimerHandle | None = None
        self._stopped = False

    # Consumers come and go

    def join(
        self,
        options: WorkerOptions,
        holder: Holder,
        source: Source | None = None,
        *,
        by_hand: bool = False,
        taking: bool = True,
        key: str = "",
    ) -> Consumer:
        """Return a new consumer.

        Args:
            options: as in `Consumer`.
            holder: as in `Consumer`.
            source: is asked and told in place of the feed, which it has to pass everything on to; None for the feed.
            by_hand: as in `Consumer`.
            taking: whether it gets jobs from now on.
            key: as in `Consumer`.
        """
        if self._deliveries is not None and not by_hand:
            holder = self._deliveries.holder(self.queue, holder, options.name)
        consumer = Consumer(self.queue.name, options, self._leases, holder, source or self, by_hand=by_hand, key=key)
        consumer.taking = taking
        self.consumers.add(consumer)
        self._waiter.open()
        self._stalled.join(consumer)
        self.wake(consumer)
        return consumer

    def leave(self, consumer: Consumer, *, counted: bool = True) -> None:
        """Let a consumer go and give back what it held.

        Args:
            consumer: one that has joined.
            counted: its jobs lost their holder, which counts towards `maxStalledCount`; not so when we send it away.
        """
        consumer.open = False
        for lease in list(consumer.leases):
            if lease.state is not HELD:
                continue
            if counted:
                self.settler.vanish(lease)
            else:
                self.settler.release(lease, _ignore)
        self.consumers.discard(consumer)
        self._line.pop(consumer, None)
        self._stalled.leave(consumer)
        if self.consumers:
            return
        if consumer.by_hand and not self._stopped:
            self._linger()
        else:
            self._on_empty(self)

    def _linger(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self._lingering = self._loop.call_later(_LINGER, self._end_if_empty)

    def _end_if_empty(self) -> None:
        if not self.consumers and not self._stopped:
            self._on_empty(self)

    def wake(self, consumer: Consumer) -> None:
        """Note that the consumer may have become hungry."""
        if consumer.hungry:
            self._line.setdefault(consumer)
        self.poke()

    def stop(self) -> None:
        """Hand out no more jobs; those in hand can still be answered."""
        self._stopped = True

    async def close(self) -> None:
        """End the waiting and the checks. Leases may still be on their way back; they do not need the feed's loops."""
        self._stopped = True
        self._stalled.close()
        self.queue.troubles.forget(self.queue.name)
        for timer in (self._resuming, self._lingering):
            if timer is not None:
                timer.cancel()
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait((self._waiting,))
        await self._waiter.close()
        await self._schedules.close()

    @property
    def is_stopped(self) -> bool:
        """Whether no more jobs are handed out: the shard goes away."""
        return self._stopped

    @property
    def is_starving(self) -> bool:
        """Whether consumers want jobs although the last fetch found nothing: then all is well when there are none."""
        return bool(self._line) and self._drained

    # Fetching

    def poke(self) -> None:
        """Start what is useful now: fetches while there are jobs, else the waiting."""
        if self._stopped or not self.queue.link.is_up:
            return
        while not self._drained and self._fetching < self._window:
            consumer = self._next()
            if consumer is None:
                return
            self._fetch(consumer)
        if self._drained and self._waiting is None and self._anybody_hungry():
            self._waiting = asyncio.create_task(self._wait(), name=f"wait {self.queue.name}")

    def _next(self) -> Consumer | None:
        """Return the next consumer that wants a job and is not limited, after moving it to the end of the line."""
        for _ in range(len(self._line)):
            consumer, _ = self._line.popitem(last=False)
            if not consumer.hungry:
                continue
            self._line[consumer] = None
            if not self._is_limited(consumer):
                return consumer
        return None

    def _anybody_hungry(self) -> bool:
        return any(consumer.hungry and not self._is_limited(consumer) for consumer in self._line)

    def _fetch(self, consumer: Consumer) -> None:
        token = consumer.new_token()
        args = (b"%d" % now_ms(), consumer.scripts.fetch(token))
        self._activate.send(args, partial(self._fetched, consumer, token))
        consumer.free -= 1
        self._fetching += 1

    def _fetched(self, consumer: Consumer, token: str, reply: Any) -> None:
        self._fetching -= 1
        if isinstance(reply, list) and isinstance(reply[0], list):
            self._window = min(self._window * 2, _WIDEST)
            self._got(consumer, token, reply)
            self._works()
        else:
            consumer.free += 1
            self._window = 1
            if isinstance(reply, Exception):
                self._failed(reply)
            else:
                self._nothing(consumer, reply)
                self._works()
        self.wake(consumer)

    def _works(self) -> None:
        if self.queue.troubles.now:
            self.queue.troubles.end(_FETCHING, self.queue.name)

    def _failed(self, error: Exception) -> None:
        if self._stopped:
            return
        self.queue.troubles.begin(_FETCHING, self.queue.name, error)
        self._drained = True  # no fetch until the pause has ended; the waiter looks after the link
        if self._resuming is None:
            self._resuming = self._loop.call_later(_RETRY, self._resume_fetching)

    def _resume_fetching(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        self._drained = False
        self._due = 0
        self.poke()

    def _nothing(self, consumer: Consumer, reply: Any) -> None:
        """Take note of a limit or an empty queue; `reply` is [0, 0, limit in ms, time of the next delayed job]."""
        limit, due = milliseconds(reply[2]), milliseconds(reply[3])
        if limit > 0:
            self._limit(consumer.options.limiter, min(limit, _LONGEST_LIMIT))
        else:
            self._drained = True
            self._due = due

    def _limit(self, limiter: _Limiter, milliseconds: int) -> None:
        self._limits[limiter] = self._loop.time() + milliseconds / 1000
        # A millisecond late rather than early: Redis must have forgotten its counter.
        self._loop.call_later((milliseconds + 1) / 1000, self._unlimit, limiter)

    def _unlimit(self, limiter: _Limiter) -> None:
        if self._limits.get(limiter, 0.0) <= self._loop.time():
            self._limits.pop(limiter, None)
            self.poke()

    def _is_limited(self, consumer: Consumer) -> bool:
        return bool(self._limits) and consumer.options.limiter in self._limits

    # Waiting

    async def _wait(self) -> None:
        """Wait until there may be a job, then let the fetching go on."""
        failure: Exception | None = None
        try:
            while (due := await self._waiter.wait(self._due)) > now_ms() + 1:
                self._due = due  # a delayed job's marker: it is known now, wait on until its time
        except Exception as error:  # a bug must not leave all workers of the queue without jobs
            log.exception("waiting for jobs of %s", self.queue.name)
            failure = error
        finally:
            self._waiting = None
        if failure is not None:
            self._failed(failure)
            return
        if self._stopped or not self._anybody_hungry():
            self._waiter.pass_on()  # the job that woke us is for somebody else
        self._waiter.popped = False
        self._resume_fetching()

    # Jobs

    def may_fetch(self, consumer: Consumer) -> bool:
        """Return whether the end of a job should bring the consumer its next one."""
        return not self._stopped and not self._is_limited(consumer)

    def ended(self, lease: Lease, reply: Any, *, fetched: bool) -> None:
        """Give the consumer of a lease that has ended its next job; arguments as in `Source.ended`."""
        consumer = lease.consumer
        if isinstance(reply, list) and isinstance(reply[0], list):
            self._got(consumer, lease.token, reply)
            return
        consumer.free += 1
        if isinstance(reply, list):
            self._nothing(consumer, reply)
        elif not fetched and self._line:
            self._drained = False  # see `fetch_again`
        self.wake(consumer)

    def fetch_again(self) -> None:
        """Look for jobs since one has left `active`: under a global concurrency no marker tells of the free place."""
        if self._line:
            self._drained = False
            self.poke()

    def look_again(self) -> None:
        """Look for jobs whatever the last fetch said: a limit may be gone of which no marker tells."""
        self._limits.clear()
        self._resume_fetching()

    def adopt(self, consumer: Consumer, id: str, token: str, fields: Hash) -> Lease:
        """Return the lease of a job that is locked under a new token of `consumer`, whose client knows the job."""
        lease = consumer.add_lease(id, token, self._loop.time())
        consumer.free -= 1
        self._renewer.track(self.queue, lease)
        lease.read(fields)
        return lease

    def _got(self, consumer: Consumer, token: str, reply: list[Any]) -> None:
        """Hand out a job that was moved to active for `consumer` under `token`: [hash, id, 0, 0].

        Anything can be in Redis: a job that cannot be read or shown must not stay in `active` under our lock for ever.
        """
        lease = consumer.add_lease(text_of(reply[1]), token, self._loop.time())
        try:
            self._renewer.track(self.queue, lease)
            fields = to_hash(reply[0])
            lease.read(fields)
            if b"rjk" in fields:
                lease.hold_back()
                self._schedules.advance(lease.id, fields, partial(self._scheduled, lease, fields))
            else:
                self._hand_out(lease, fields)
        except Exception:
            self._refuse(lease)

    def _scheduled(self, lease: Lease, fields: Hash) -> None:
        """Hand out the job of a scheduler; a client that changes the scheduler then finds the next job there."""
        if lease.hand_out():
            self._hand_out(lease, fields)

    def _hand_out(self, lease: Lease, fields: Hash) -> None:
        consumer = lease.consumer
        try:
            if not consumer.open or not consumer.taking or self._stopped:
                self.settler.release(lease, _ignore)  # paused or gone while the fetch was under way
            elif (deferred := fields.get(b"defa")) and not consumer.by_hand:
                failure = Failed(deferred.decode(errors="replace"), unrecoverable=True)
                self.settler.fail(lease, failure, _ignore)
            else:
                self.queue.counts.start(fields, lease.options.delay)
                consumer.holder.take(lease, fields)
        except Exception:
            self._refuse(lease)

    def _refuse(self, lease: Lease) -> None:
        self.give_up(lease, "cannot be handed out", Failed(UNREADABLE, unrecoverable=True))

    def give_up(self, lease: Lease, what: str, failure: Failed) -> None:
        """Let a job fail that has just raised an exception; one that cannot even fail loses its lease.

        Args:
            lease: of the job.
            what: cannot be done with it, for the log.
            failure: that it shows.
        """
        log.exception("job %s of %s %s", lease.id, self.queue.name, what)
        try:
            self.settler.fail(lease, failure, _ignore)
        except Exception:
            log.exception("job %s of %s cannot fail", lease.id, self.queue.name)
            lease.consumer.lose(lease, failure.message)


def _ignore(outcome: object) -> None:
    """Expect no word on what became of a job; BullMQ's stalled check finds what is not settled."""
