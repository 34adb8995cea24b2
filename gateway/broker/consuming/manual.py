"""Consuming by hand: callers that take one job at a time, keep its lock themselves, and move it on by its token.

A job is fetched under a token of the gateway's own, as for a Worker connection, and its lock is then handed over to the
caller's token, which may be the same for many jobs. So a fetch whose reply was lost is found as any other, and what is
given back because the caller has gone can never be somebody else's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from msgspec import Raw

from bullmq_proxy.gateway.broker.consuming.feed import UNREADABLE, Feed
from bullmq_proxy.gateway.broker.consuming.leases import Consumer, Lease, Leases
from bullmq_proxy.gateway.broker.consuming.schedules import Schedules
from bullmq_proxy.gateway.broker.consuming.settling import Settler
from bullmq_proxy.gateway.broker.consuming.stalled import LATE, check_stalled
from bullmq_proxy.gateway.broker.jobs.moves import JobOfToken, Move
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.errors import OUTAGE, unavailable
from bullmq_proxy.gateway.broker.redis.socket import Sink, future_of, resolve
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.rules.jobs import Hash, loaded_job, to_hash
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.rules.stored_options import stored_options
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.answers import Failed
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions

log = logging.getLogger(__name__)

_DEFAULTS: Final = WorkerOptions()
_PAUSE: Final = 0.1  # s between two tries to hand a lock over


class Surroundings(Protocol):
    """What else the shard has for the queue."""

    def feed(self) -> Feed:
        """Return the queue's feed."""

    def job_moved(self, id: str, token: str) -> None:
        """Note that a job has left `active` by its token."""

    def expect_lost_fetch(self) -> None:
        """Remember that the reply to a fetch was lost; whatever it took is given back when Redis can be asked."""


class ManualConsumers:
    """All that this shard's clients consume by hand of one queue."""

    def __init__(
        self,
        queue: Queue,
        leases: Leases,
        surroundings: Surroundings,
        on_idle: Callable[[ManualConsumers], None],
        *,
        stalled_interval: int = _DEFAULTS.stalled_interval,
    ) -> None:
        """Make one for `queue`.

        Args:
            queue: whose jobs they are.
            leases: of the shard.
            surroundings: what else the shard has for the queue.
            on_idle: is told when nobody has consumed by hand for so long that all jobs taken by hand are accounted for.
            stalled_interval: ms between two checks for jobs whose lock has expired.
        """
        self.queue = queue
        self.leases = leases
        self.surroundings = surroundings
        self._on_idle = on_idle
        self._interval = stalled_interval
        self._loop = asyncio.get_running_loop()
        self._settler = Settler(queue)
        self._moves = self._settler.moves
        self._schedules = Schedules(queue)
        self._watched_until = 0.0  # loop time
        self._next_check: asyncio.TimerHandle | None = None
        self._closed = False
        self._watch(0)  # so that it is over one day, whatever is done by hand

    # Taking a job

    async def take(self, token: str, lock_duration: int, block: int) -> Raw | None:
        """Take one job; its lock is the caller's to renew.

        Args:
            token: for the lock.
            lock_duration: of the lock, in ms.
            block: ms to wait for a job when there is none.

        Returns:
            The job's JSON, or None when there was none.

        Raises:
            GatewayError: REDIS_UNAVAILABLE; nothing is taken then.
        """
        self._watch(block)
        options = WorkerOptions(lock_duration=lock_duration)
        job = await self._take(_FetchAttempt(self, token, options), _FetchAttempt.fetch, None)
        if job is None and block:
            job = await self._take(_FetchAttempt(self, token, options), _FetchAttempt.join, block / 1000)
        if job is not None:
            self._watch(lock_duration)
        return job

    async def _take(
        self, attempt: _FetchAttempt, begin: Callable[[_FetchAttempt], None], timeout: float | None
    ) -> Raw | None:
        try:
            begin(attempt)
            await asyncio.wait((attempt.taken,), timeout=timeout)
            if attempt.taken.done():
                return attempt.accept()
        finally:
            attempt.leave()
        if not self.queue.link.is_up:
            raise self.queue.link.last_error
        return None

    # Moving a job on

    async def complete(self, job: JobOfToken, result: Raw, fetch_next: bool) -> Any:
        """Store the return value; gives what `move` gives."""
        return await self._move(job, self._moves.complete(job, bytes(result)), fetch_next)

    async def fail(self, job: JobOfToken, failure: Failed, fetch_next: bool) -> Any:
        """Let the job fail, as BullMQ's attempts and backoff say; gives None when it is back in wait at once."""
        move = self._moves.fail(job, failure)
        reply = await self._move(job, move, fetch_next)
        return None if move.state == "waiting" else reply

    async def delay(self, job: JobOfToken, milliseconds: int) -> Any:
        """Let the job wait for some time."""
        return await self._move(job, self._moves.delay(job, milliseconds))

    async def release(self, job: JobOfToken) -> Any:
        """Give the job back: first in line."""
        reply = await self._move(job, self._moves.release(job))
        if job.priority:
            self.queue.wake()
        return reply

    async def wait_children(self, job: JobOfToken, child: str) -> bool:
        """Let the job wait for its children, or for one of them; False when there is nothing to wait for."""
        return bool(await self._move(job, self._moves.wait_children(job, child)) == 0)

    async def _move(self, job: JobOfToken, move: Move, fetch_next: bool = False) -> Any:
        """Run the script of a move.

        Returns:
            What it said; may hold the next job.

        Raises:
            GatewayError: BullMQ's error for a negative return code.
        """
        reply = await future_of(lambda sink: move.send(fetch_next, partial(self._moved, job, move, sink)))
        if isinstance(reply, int) and reply < 0:
            raise finished_error(reply, command=move.script, job_id=job.id, state="active")
        if isinstance(reply, list) and isinstance(reply[0], list):
            self._watch(_DEFAULTS.lock_duration)
            stands, fields = self._loop.create_future(), to_hash(reply[0])
            self.queue.counts.start(fields, stored_options(fields.get(b"opts")).delay)
            self.advance(text_of(reply[1]), fields, partial(resolve, stands, None))
            await stands
        return reply

    def _moved(self, job: JobOfToken, move: Move, sink: Sink, reply: Any) -> None:
        """Right when the reply comes: a renewal behind it finds no lock any more."""
        stays = move.script == "moveToWaitingChildren" and reply == 1
        try:
            if not isinstance(reply, Exception) and not stays and (isinstance(reply, list) or reply >= 0):
                self.queue.counts.end(move.state)
                self.surroundings.job_moved(job.id, job.token)
        finally:
            sink(reply)

    async def extend(self, id: str, token: str, duration: int) -> int:
        """Let a lock live for `duration` ms from now on: 1, or 0 when it is not under this token."""
        keys = self.queue.keys(f"{id}:lock", "stalled")
        extended = int(await self.queue.scripts["extendLock"].run(keys, [token, duration, id]))
        if extended:
            self._watch(duration)
        return extended

    # What a fetch attempt uses

    def advance(self, id: str, fields: Hash, then: Callable[[], None]) -> None:
        """See to the schedule of a job that has been taken without a feed, if it has one, and then call `then`."""
        if b"rjk" in fields:
            self._schedules.advance(id, fields, then)
        else:
            then()

    def give_back(self, lease: Lease) -> None:
        """Give a fetched job back: first in line, uncharged."""
        self._settler.release(lease, _log_lost(lease))

    def refuse(self, lease: Lease) -> None:
        """Let a job fail that cannot be shown: it must not stay in `active` for ever."""
        self._settler.fail(lease, Failed(UNREADABLE, unrecoverable=True), _log_lost(lease))

    # Jobs whose caller died

    def _watch(self, milliseconds: int) -> None:
        """Look after expired locks for as long as one that lives for `milliseconds` from now may be missed.

        Workers do this for as long as they run. Callers come and go: without it a queue that is only consumed by hand
        would keep the jobs of dead ones in `active` for ever.
        """
        until = self._loop.time() + (milliseconds + 3 * self._interval) / 1000  # two checks find an expired one
        self._watched_until = max(self._watched_until, until)
        if self._next_check is None:
            self._next_check = self._loop.call_later(self._interval / 1000, self._check)

    def _check(self) -> None:
        self._next_check = None
        if self._loop.time() >= self._watched_until:
            self._on_idle(self)
            return
        check_stalled(self.queue, self._interval, _DEFAULTS.max_stalled_count, self._check_later)

    def _check_later(self) -> None:
        """Check again when the interval has passed for Redis, too; it begins to count when it checks."""
        if self._next_check is None and not self._closed:
            self._next_check = self._loop.call_later(self._interval / 1000 + LATE, self._check)

    async def close(self) -> None:
        """End the checks."""
        self._closed = True
        if self._next_check is not None:
            self._next_check.cancel()
        await self._schedules.close()


class _FetchAttempt:
    """One try to take one job."""

    def __init__(self, manual_consumers: ManualConsumers, token: str, options: WorkerOptions) -> None:
        self.taken: asyncio.Future[Raw | None] = asyncio.get_running_loop().create_future()
        self._manual_consumers = manual_consumers
        self._queue = manual_consumers.queue
        self._token = token
        self._options = options
        self._leave: Callable[[], None] = _nothing
        self._lease: Lease | None = None  # fetched, and not yet accepted
        self._job = Raw(b"null")
        self._again: asyncio.TimerHandle | None = None
        self._waits = False
        self._gone = False

    # Two ways to come by a job

    def fetch(self) -> None:
        """Look for a job once."""
        leases = self._manual_consumers.leases
        consumer = Consumer(self._queue.name, self._options, leases, self, None, by_hand=True)
        self._leave = partial(setattr, consumer, "open", False)
        token = consumer.new_token()
        args = [self._queue.base, now_ms(), consumer.scripts.fetch(token)]
        fetched = partial(self._fetched, consumer, token)
        self._queue.scripts["moveToActive"].send(self._queue.active_keys, args, fetched)

    def _fetched(self, consumer: Consumer, token: str, reply: Any) -> None:
        if isinstance(reply, list) and isinstance(reply[0], list):
            self._got(consumer.add_lease(text_of(reply[1]), token, asyncio.get_running_loop().time()), reply[0])
            return
        if isinstance(reply, GatewayError) and reply.code is ErrorCode.OUTCOME_UNKNOWN:
            self._manual_consumers.surroundings.expect_lost_fetch()
            reply = unavailable("the connection was lost")
        if not self._gone:
            resolve(self.taken, reply if isinstance(reply, Exception) else None)

    def _got(self, lease: Lease, flat: list[bytes]) -> None:
        """Take a job, or give it back; one that cannot be read or shown fails, as in `Feed`."""
        try:
            fields = to_hash(flat)
            lease.read(fields)
            self._manual_consumers.advance(lease.id, fields, partial(self._scheduled, lease, fields))
        except Exception:
            self._refuse(lease)

    def _scheduled(self, lease: Lease, fields: Hash) -> None:
        try:
            if self._gone:
                self._manual_consumers.give_back(lease)
            else:
                self._queue.counts.start(fields, lease.options.delay)
                self.take(lease, fields)
        except Exception:
            self._refuse(lease)

    def _refuse(self, lease: Lease) -> None:
        """Let a job fail that has just raised an exception."""
        log.exception("job %s of %s cannot be shown", lease.id, self._queue.name)
        self._manual_consumers.refuse(lease)
        if not self._gone:
            resolve(self.taken, None)

    def join(self) -> None:
        """Wait with the queue's workers."""
        feed = self._manual_consumers.surroundings.feed()
        consumer = feed.join(self._options, self, by_hand=True)
        self._leave = partial(feed.leave, consumer, counted=False)
        self._waits = True

    # Handing over

    def take(self, lease: Lease, fields: Hash) -> None:
        """Let a job that was fetched under a token of ours be locked under the caller's."""
        job = loaded_job(lease.id, fields, self._queue.qualified)
        self._job = Raw(encode({**job, "token": self._token}))
        self._lease = lease
        self._hand_over(lease)

    def cancel(self, lease: Lease, reason: str) -> bool:
        """Wait for another job, or say that there is none: the lock was lost before it could be handed over."""
        if self._lease is lease:
            self._lease = None
            self._stop_trying()
        if not self._waits:
            resolve(self.taken, None)
        return False

    def forget(self, lease: Lease) -> None:
        """Wait for another job: this one was moved by its token."""
        self.cancel(lease, "")

    def _hand_over(self, lease: Lease) -> None:
        self._again = None
        self._swap(lease, lease.token, self._token, partial(self._handed, lease))

    def _swap(self, lease: Lease, old: str, new: str, sink: Callable[[Any], None]) -> None:
        keys = self._queue.keys(f"{lease.id}:lock")
        self._queue.scripts["handOver"].send(keys, [old, new, self._options.lock_duration], sink)

    def _handed(self, lease: Lease, reply: Any) -> None:
        if self._lease is not lease:
            return  # given back or lost meanwhile
        if isinstance(reply, GatewayError) and reply.code in OUTAGE:
            self._again = asyncio.get_running_loop().call_later(_PAUSE, self._hand_over, lease)
        elif isinstance(reply, Exception):
            resolve(self.taken, reply)
        elif reply:
            lease.consumer.end(lease)  # from here on nobody of us renews it
            resolve(self.taken, self._job)
        else:
            lease.consumer.lose(lease, "")

    def _stop_trying(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    # The end

    def accept(self) -> Raw | None:
        """Return what was taken; from here on it is the caller's own."""
        error = self.taken.exception()
        if isinstance(error, GatewayError):
            raise GatewayError(error.code, error.message)  # the traceback of the one that we keep would hold us
        self._lease = None
        return self.taken.result()

    def leave(self) -> None:
        """Stop waiting; a job that was fetched in this moment goes back."""
        self._gone = True
        self._stop_trying()
        lease, self._lease = self._lease, None
        if lease is not None:
            # Whether it was handed over already is not known: this, in order behind it, undoes it.
            self._swap(lease, self._token, lease.token, _ignore)
            self._manual_consumers.give_back(lease)
        if not self.taken.cancel():
            self.taken.exception()  # seen, should it be one that the caller was too late for
        leave, self._leave = self._leave, _nothing  # it knows the consumer, which knows us
        leave()


def _nothing() -> None:
    """Do nothing: no fetch has begun."""


def _ignore(reply: Any) -> None:
    """Expect no reply; BullMQ's stalled check finds what was not swapped back."""


def _log_lost(lease: Lease) -> Callable[[object], None]:
    def done(outcome: object) -> None:
        if isinstance(outcome, GatewayError):
            log.info("job %s, fetched for a caller that has gone: %s", lease.id, outcome.message)

    return done
