"""The runner of one registration: takes the jobs of its queue as a worker does, and sends each to the endpoint.

Leases, the renewal of locks, and how a job ends are those of all consumers; here is only what an endpoint is asked
and what follows from its answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, assert_never

from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.consuming.leases import HELD, Consumer, Lease
from bullmq_proxy.gateway.broker.consuming.settling import Outcome as Settled
from bullmq_proxy.gateway.broker.consuming.tokens import ANY_KEY
from bullmq_proxy.gateway.broker.redis.socket import pack_command
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.jobs import Hash, loaded_job
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.rules.shapes import ShownConsumer
from bullmq_proxy.gateway.rules.trace_context import carried
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.webhooks import signing
from bullmq_proxy.gateway.webhooks.answers import (
    Accepted,
    Answer,
    Busy,
    Completed,
    Down,
    Refused,
    Verdict,
    judge,
)
from bullmq_proxy.gateway.webhooks.breaker import CLOSED, HALF_OPEN, Breaker
from bullmq_proxy.gateway.webhooks.clock import clock
from bullmq_proxy.gateway.webhooks.guard import Guard
from bullmq_proxy.gateway.webhooks.registration import Registration
from bullmq_proxy.gateway.webhooks.sender import Outcome, Request, Sender
from bullmq_proxy.gateway.wire.answers import Failed
from bullmq_proxy.gateway.wire.connection_options import LONGEST_LOCK

log = logging.getLogger(__name__)

_AGAIN: Final = 1.0  # s until a lock is looked at once more
_LATE: Final = 0.02  # s behind the time at which a lock expires
_OURS: Final = "The endpoint's answer could not be used; the gateway's log has the details"


class Runner:
    """One registration that this shard owns.

    Attributes:
        ident: of the registration, `QUEUE:NAME`.
        name: of the registration.
        registration: that it was made for.
        text: the same as it stands in Redis.
        owned_until: the time by `clock` until which no other shard can have taken the registration over.
    """

    def __init__(self, ident: str, text: bytes, registration: Registration, broker: Broker, guard: Guard) -> None:
        """Make a runner; `start` lets it take jobs."""
        self.ident = ident
        self.name = ident.partition(":")[2]
        self.text = text
        self.registration = registration
        self._broker = broker
        self._queue = broker.queue(registration.queue)
        self._keys = registration.keys
        self._sender = Sender(registration.endpoint, guard, self._is_ours)
        self._breaker = Breaker()
        self._loop = asyncio.get_running_loop()
        self._requests: dict[Lease, Request] = {}
        self._accepted: dict[Lease, asyncio.TimerHandle] = {}  # jobs that the endpoint ends later, with the next look
        self._busy_until = 0.0  # loop time; the endpoint has asked for it
        self._timer: asyncio.TimerHandle | None = None
        self._retired: Callable[[Runner], None] | None = None
        self._successor: Runner | None = None
        self.owned_until = 0.0
        self._in_doubt = False  # whether it is ours
        self._since = self._heard_at = now_ms()
        self._closed = False

    def start(self, before: Iterable[Runner] = ()) -> None:
        """Take jobs from now on.

        Args:
            before: those of the same registration that still have jobs in hand, which count to its concurrency.
        """
        self._feed = self._broker.services(self._queue).feed()
        options = self.registration.worker_options(self.name)
        self._consumer = self._feed.join(options, self, self, taking=False, key=ANY_KEY)
        for runner in before:
            runner._successor = self
            self._consumer.free -= len(runner._consumer.leases)
        self._id = self._broker.roster.enter_shown(self._queue, self)
        self._broker.counters.webhooks += 1
        self._set_taking()

    def own(self, until: float) -> None:
        """Send jobs until this time: the registration is ours for so long."""
        self.owned_until = until
        if self._in_doubt:
            self._in_doubt = False
            self._set_taking()

    def _is_ours(self) -> bool:
        """Return whether the registration is certainly ours: it is not when this process stood still.

        The jobs of the registration may be another shard's business then, which sends as many as it allows; Redis
        says so soon.
        """
        if clock() < self.owned_until:
            return True
        if not self._in_doubt:
            self._in_doubt = True
            log.debug("webhook %s: sends nothing until it is known whether another shard runs it", self.ident)
            self._set_taking()
        return False

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._requests

    @property
    def breaker(self) -> str:
        """The state of the breaker."""
        return self._breaker.state.name.lower()

    def show(self, id: str) -> ShownConsumer:
        """Return who works here, and what it does now; `id` is that of the roster."""
        return {
            "id": id,
            "key": "",
            "name": self.name,
            "connectedSince": self._since,
            "concurrency": self.registration.concurrency,
            "inHand": len(self._consumer.leases),
            "takesJobs": self._consumer.taking,
            "connected": True,
            "lastHeard": self._heard_at,
            "webhook": True,
        }

    # Jobs out

    def take(self, lease: Lease, fields: Hash) -> None:
        """Send a job to the endpoint."""
        is_tried = self._breaker.state is HALF_OPEN and self._requests  # one request is enough to find out
        if is_tried or not self._is_ours():
            self._feed.settler.release(lease, partial(_log_lost, lease))
            return
        job = loaded_job(lease.id, fields, self._queue.qualified)
        body = encode({"job": {**job, "token": lease.token}, "token": lease.token})
        id = signing.message_id(self._queue.qualified, lease.id, parse_int(fields.get(b"timestamp")) or 0)
        headers = {
            **signing.headers(self._keys, id, int(time.time()), body),
            **carried(fields.get(b"opts", b"")).headers,
        }
        self._broker.counters.pushed_jobs += 1
        self._requests[lease] = self._sender.send(headers, body, partial(self._answered, lease))
        if self._breaker.state is HALF_OPEN:
            self._set_taking()

    def _answered(self, lease: Lease, outcome: Outcome) -> None:
        try:
            self._requests.pop(lease, None)
            if isinstance(outcome, Answer):
                self._heard_at = now_ms()
            if outcome is not None:
                self._judged(lease, judge(outcome, time.time()))
            elif lease.state is HELD:
                self._feed.settler.release(lease, partial(_log_lost, lease))
        except Exception:
            if lease.state is HELD:
                self._feed.give_up(lease, "has an answer that cannot be used", Failed(_OURS))
            else:
                log.exception("webhook %s: the answer for job %s", self.ident, lease.id)
            self._set_taking()
        self._leave_if_done()

    def _judged(self, lease: Lease, verdict: Verdict) -> None:
        """Do what an answer says."""
        is_charged = self._note_health(verdict)
        if not self._consumer.taking or self._breaker.state is not CLOSED or isinstance(verdict, Busy):
            self._set_taking()  # before the answer is stored, which can bring the next job
        if lease.state is HELD:
            self._settle(lease, verdict, is_charged=is_charged)

    def _settle(self, lease: Lease, verdict: Verdict, *, is_charged: bool) -> None:
        settler, done = self._feed.settler, partial(self._settled, lease)
        match verdict:
            case Completed(result):
                self._count("completed")
                settler.complete(lease, result, done)
            case Accepted():
                self._count("accepted")
                self._accept(lease)
            case Refused(failure):
                self._count("failed")
                settler.fail(lease, failure, done)
            case Busy(delay):
                self._count("busy")
                settler.delay(lease, delay, done)
            case Down(failure, _) if is_charged:
                self._count("failed")
                settler.fail(lease, failure, done)
            case Down():
                self._count("postponed")
                settler.delay(lease, int(self._breaker.pause * 1000), done)
            case _:
                assert_never(verdict)

    def _count(self, outcome: str) -> None:
        self._broker.counters.deliveries[outcome] += 1

    def _settled(self, lease: Lease, outcome: Settled) -> None:
        if isinstance(outcome, GatewayError):
            log.info("webhook %s: the answer for job %s: %s", self.ident, lease.id, outcome.message)
        else:
            self._broker.counters.answered_jobs[outcome.state] += 1
            self._broker.queues.counts.running.add(asyncio.get_running_loop().time() - lease.since)

    # The endpoint's health

    def _note_health(self, verdict: Verdict) -> bool:
        """Tell the breaker; return whether a failure counts as an attempt: not while the endpoint is left alone."""
        breaker = self._breaker
        if isinstance(verdict, Busy):
            self._busy_until = max(self._busy_until, self._loop.time() + verdict.delay / 1000)
        if not isinstance(verdict, Down):
            if breaker.answered():
                self._broker.counters.open_breakers -= 1
                log.warning("webhook %s: the endpoint at %s answers again", self.ident, self.registration.place)
            return True
        was_closed = breaker.state is CLOSED
        if breaker.failed(self._loop.time()):
            self._broker.counters.open_breakers += was_closed
            log.warning(
                "webhook %s: the endpoint at %s is down (%s): its jobs wait, the next try is in %g s",
                *(self.ident, self.registration.place, verdict.cause, breaker.pause),
            )
        return was_closed

    def _set_taking(self) -> None:
        """Take jobs while the endpoint is to be asked; else do so again when that may change."""
        now, breaker = self._loop.time(), self._breaker
        breaker.is_due(now)
        is_tried = breaker.state is HALF_OPEN and not self._requests
        asks = breaker.state is CLOSED or is_tried
        self._consumer.taking = asks and now >= self._busy_until and self._retired is None and not self._in_doubt
        until = max(self._busy_until, breaker.until)
        if until > now and not self._closed:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(until + _LATE, self._look_again)
        self._feed.wake(self._consumer)

    def _look_again(self) -> None:
        """Take jobs again, if that may be by now; nobody else would look, should that fail."""
        try:
            self._set_taking()
        except Exception:
            log.exception("webhook %s: whether it takes jobs", self.ident)
            self._timer = self._loop.call_later(_LATE, self._look_again)

    # Between the consumer and its feed

    def may_fetch(self, consumer: Consumer) -> bool:
        """Return whether the end of a job should bring the next one."""
        return self._is_ours() and self._feed.may_fetch(consumer)

    def ended(self, lease: Lease, reply: Any, *, fetched: bool) -> None:
        """Make room for the next job: here, and where the registration was put again."""
        self._feed.ended(lease, reply, fetched=fetched)
        if self._successor is not None:
            self._successor.get_room()
        self._forget_accepted(lease)
        self._leave_if_done()

    def get_room(self) -> None:
        """Take one job more: a request has ended that was sent for what the registration said before."""
        self._consumer.free += 1
        self._feed.wake(self._consumer)

    # Jobs that the endpoint ends itself

    def _accept(self, lease: Lease) -> None:
        """Renew the lock once more, and then leave the job to the endpoint."""
        duration = self.registration.lock_duration
        self._look_in(lease, duration / 1000)
        lease.leave_alone()
        keys = self._queue.keys(f"{lease.id}:lock", f"{lease.id}:accepted", "stalled")
        args = [lease.token, duration, LONGEST_LOCK, lease.id]
        self._queue.scripts["acceptJob"].send(keys, args, partial(self._left, lease))

    def _left(self, lease: Lease, reply: Any) -> None:
        """Leave a job to the endpoint, unless its lock is another one's; an outage is waited for by looking again."""
        if reply == 0 and lease in self._accepted:
            lease.consumer.lose(lease, "")

    def _look_in(self, lease: Lease, seconds: float) -> None:
        if (timer := self._accepted.get(lease)) is not None:
            timer.cancel()
        self._accepted[lease] = self._loop.call_later(seconds + _LATE, self._look, lease)

    def _look(self, lease: Lease) -> None:
        """Look whether the endpoint has had the lock extended, when it would have expired."""
        self._look_in(lease, _AGAIN)  # should no reply say when
        lock = self._queue.key(f"{lease.id}:lock")
        answers: list[Any] = []

        def replied(reply: Any) -> None:
            answers.append(reply)
            if len(answers) == 2:
                self._looked(lease, *answers)

        self._queue.link.send(pack_command("GET", lock), replied)
        self._queue.link.send(pack_command("PTTL", lock), replied)

    def _looked(self, lease: Lease, token: Any, left: Any) -> None:
        if lease not in self._accepted:
            return
        if isinstance(token, Exception) or isinstance(left, Exception):
            return
        if token is not None and text_of(token) == lease.token and left > 0:
            self._look_in(lease, left / 1000)
        else:
            if token is None:
                log.info("webhook %s: job %s was accepted and not ended in time", self.ident, lease.id)
            lease.consumer.lose(lease, "")

    def _forget_accepted(self, lease: Lease) -> None:
        if (timer := self._accepted.pop(lease, None)) is not None:
            timer.cancel()
            keys = self._queue.keys(f"{lease.id}:accepted")
            self._queue.scripts["deleteOwn"].send(keys, [lease.token], _ignore)

    # Leases that end otherwise

    def cancel(self, lease: Lease, reason: str) -> bool:
        """End the request for a job that is not ours any more; return whether one was under way."""
        request = self._requests.pop(lease, None)
        if request is not None:
            self._count("lost")
            self._sender.cancel(request)
            self._set_taking()  # it may have been the one that tries an endpoint that is down
        return request is not None

    def forget(self, lease: Lease) -> None:
        """Note that the endpoint has moved a job by its token; a request under way may go on."""

    # The end

    def retire(self, then: Callable[[Runner], None]) -> None:
        """Take nothing new; call `then` when no request is under way any more and no job is left."""
        self._retired = then
        self._set_taking()
        self._loop.call_soon(self._leave_if_done)

    def _leave_if_done(self) -> None:
        if self._retired is not None and not self._requests and not self._consumer.leases:
            then, self._retired = self._retired, _nothing
            if then is not _nothing:
                then(self)

    async def close(self) -> None:
        """Leave: what the endpoint has accepted stays its own, and everything else goes back."""
        if self._closed:
            return
        self._closed = True
        self._retired = _nothing
        for timer in (self._timer, *self._accepted.values()):
            if timer is not None:
                timer.cancel()
        for lease in list(self._accepted):
            self._consumer.end(lease)
            self._consumer.holder.forget(lease)
        self._accepted.clear()
        self._consumer.taking = False
        self._broker.roster.leave(self._id)
        self._feed.leave(self._consumer, counted=False)
        self._requests.clear()
        self._broker.counters.webhooks -= 1
        self._broker.counters.open_breakers -= self._breaker.state is not CLOSED
        await self._sender.close()


def _nothing(runner: Runner) -> None:
    """Do nothing: whoever waited for the end has been told."""


def _log_lost(lease: Lease, outcome: Settled) -> None:
    if isinstance(outcome, GatewayError):
        log.info("job %s, given back unsent: %s", lease.id, outcome.message)


def _ignore(reply: Any) -> None:
    """Expect no reply: a lock that was not extended expires, and the job goes back."""
