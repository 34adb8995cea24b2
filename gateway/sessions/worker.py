"""The session of a Worker connection: jobs out, answers in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, assert_never

from bullmq_proxy.gateway.broker.consuming.feed import Feed
from bullmq_proxy.gateway.broker.consuming.grace import Kept
from bullmq_proxy.gateway.broker.consuming.leases import ENDED, HELD, Consumer, Lease
from bullmq_proxy.gateway.broker.consuming.settling import Outcome
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.rules.jobs import Hash, pushed_job
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.rules.shapes import ShownConsumer
from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.grace import Grace
from bullmq_proxy.gateway.sessions.held import HeldJobs
from bullmq_proxy.gateway.sessions.interfaces import Client, Work
from bullmq_proxy.gateway.sessions.job_clocks import JobClocks
from bullmq_proxy.gateway.sessions.under_way import CallLimits, UnderWay
from bullmq_proxy.gateway.values.json_text import error_json
from bullmq_proxy.gateway.wire.answers import (
    Ack,
    Completed,
    Delay,
    Failed,
    Invoke,
    JobAnswer,
    Log,
    Pause,
    Progress,
    Release,
    Resume,
    WaitChildren,
    cancel,
    decode_answer,
    drain,
    finished,
    lost,
    welcome,
)
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.gateway.wire.connection_options import WorkerOptions
from bullmq_proxy.gateway.wire.envelope import NO_ID, InvalidMessage, err, message, ok

log = logging.getLogger(__name__)


_SHOWN_NAME: Final = 100  # characters
_WINDOW: Final = 8  # progress and log rows under way while others are heard who send little
_FINAL: Final = (Completed, Failed, Release, Delay, WaitChildren)


class WorkerSession:
    """A client that processes the jobs of one queue."""

    def __init__(
        self,
        queue: Queue,
        options: WorkerOptions,
        context: Context,
        client: Client,
        limits: CallLimits,
        table: FunctionTable = TABLE,
    ) -> None:
        """Make a session; `limits` are those of the requests on this connection, for functions of `table`."""
        self._broker = context.broker
        self._key = context.grant.key
        self._queue = queue
        self._options = options
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._rights = context.rights
        self._under_way = UnderWay(client, limits, _WINDOW)
        self._caller = Caller(table, queue, context, client, limits, self._under_way)
        self._feed: Feed
        self._consumer: Consumer | None = None
        self._id = ""  # in the roster, once it has a consumer
        self._grace: Grace | None = None
        self._gone_at = 0  # when something was heard last, once the connection is gone
        self._since = now_ms()
        self._held = HeldJobs()
        self._unconfirmed = 0  # answers that replicas do not have yet
        self._next_number = 0
        self._clocks = JobClocks(
            options.ack_timeout, options.max_runtime, self._take_away_unheard, self._take_away_long
        )
        self._paused = False  # by the client
        self._silent = False  # an `ackTimeout` passed: no new jobs until the client says something
        self._retired = False  # somebody wants the client to finish what it has
        self._draining = False
        self._most_unread = limits.size // 4  # bytes; what is pushed beyond it only waits for a slow client
        self._unchoking: asyncio.Task[None] | None = None  # the client has that much to read: no new jobs meanwhile

    async def prepare(self) -> None:
        """Take up what the client held on an earlier connection, if it shows that this was its."""
        options = self._options
        if not options.grace:
            return
        self._join(taking=False)
        self._grace = Grace(options.grace, self._id, self._key)
        if options.consumer is not None:
            assert self._consumer is not None
            try:
                held = await self._grace.take_up(options.consumer, self._broker.reach, self._feed, self._consumer)
            except BaseException:
                self._broker.services(self._queue).expect_lost_fetch()
                raise
            self._next_number, leases = held
            self._held.update((b"%d" % lease.number, lease) for lease in leases)

    def _join(self, *, taking: bool) -> None:
        self._feed = self._broker.services(self._queue).feed()
        self._consumer = self._feed.join(self._options, self, taking=taking, key=self._key)
        self._id = self._broker.roster.enter(self._queue, self._client.number, self)

    def start(self) -> None:
        """Take jobs from now on, unless the client has paused that or the shard goes away."""
        if self._draining:
            return
        if self._grace is None:
            self._join(taking=not self._paused)
            return
        held = [{"jobId": lease.id, "number": lease.number, "token": lease.token} for lease in self._held.values()]
        self._client.send(message(self._number(), welcome(self._grace.secret, self._options.grace, held)))
        for lease in self._held.values():
            self._clocks.runs(lease)
        self._set_taking()

    def connection_lost(self) -> None:
        """Give back what the client did not answer; it counts as vanished unless we sent it away."""
        self._caller.close()
        if self._consumer is not None:
            if self._unchoking is not None:
                self._unchoking.cancel()
                self._unchoking = None
                self._take_back_unread()
            self._gone_at = self._last_heard()
            grace, is_sent_away = self._grace, self._draining and not self._feed.is_stopped
            if grace is not None and (grace.moved_to or (self._consumer.leases and not is_sent_away)):
                self._consumer.taking = False
                grace.begin(self._leave)
                self._broker.roster.wait_for(self._id, self._key)
            else:
                self._leave()
        self._held.clear()
        self._clocks.close()

    def _leave(self) -> None:
        if self._consumer is not None:
            self._broker.roster.leave(self._id)
            is_lost = not (self._draining or self._retired)
            if is_lost and self._consumer.leases:
                self._broker.counters.lost_workers += 1
                LogEvent.WORKER_LOST.log(queue=self._queue.name, jobs=len(self._consumer.leases))
            self._feed.leave(self._consumer, counted=is_lost)
            self._consumer = None

    def _take_back_unread(self) -> None:
        """Give back, uncounted, what the client may never have seen."""
        for lease in list(self._clocks.unheard):
            if lease.state is HELD:
                self._feed.settler.release(lease, partial(_log_lost, lease))

    def drain(self, deadline: float) -> None:
        """Tell the client to finish what it has."""
        self._draining = True
        self._set_taking()
        self._caller.drain()
        if self._consumer is not None:
            self._client.send(message(self._number(), drain(int(deadline * 1000))))

    @property
    def is_idle(self) -> bool:
        """Whether the client holds no job and no request is under way."""
        return not (self._caller.in_flight or self._unconfirmed or (self._consumer and self._consumer.leases))

    @property
    def work(self) -> Work:
        """The jobs that the client holds, and its calls."""
        leases = self._consumer.leases if self._consumer is not None else ()
        return Work(len(leases), self._options.concurrency, self._caller.in_flight)

    # For those who look after workers

    def show(self, id: str) -> ShownConsumer:
        """Return who works here, and what it does now; `id` is that of the roster."""
        assert self._consumer is not None
        name = self._options.name
        return {
            "id": id,
            "key": self._key,
            "name": None if name is None else name[:_SHOWN_NAME],
            "connectedSince": self._since,
            "concurrency": self._options.concurrency,
            "inHand": len(self._consumer.leases),
            "takesJobs": self._consumer.taking,
            "connected": self._grace is None or not self._grace.has_begun,
            "lastHeard": self._gone_at or self._last_heard(),
            "webhook": False,
        }

    def _last_heard(self) -> int:
        return now_ms() - int((self._loop.time() - self._client.last_heard) * 1000)

    def retire(self) -> bool:
        """Take no new jobs any more, and tell the client so; what it has in hand goes on."""
        if not self._retired:
            self._retired = True
            self._set_taking()
            self._client.send(message(self._number(), drain(None)))
        return True

    def send_away(self) -> None:
        """Close the connection; what its client has not answered goes back, and the loss is not counted."""
        self._draining = True
        self._set_taking()
        self._client.close(CloseCode.SENT_AWAY, "disconnectConsumer was called")
        self.stop_waiting(counted=False)

    def hand_over(self, secret: str, key: str, taker: str) -> Kept | None:
        """Return what is kept for a client that comes back; it can be before its old connection is known to be gone."""
        grace, consumer = self._grace, self._consumer
        if grace is None or consumer is None or not grace.is_for(secret, key):
            return None
        kept = grace.hand_over(consumer, self._next_number, taker)
        if not grace.has_begun:
            self._set_taking()
            self._client.close(CloseCode.SENT_AWAY, "the client has come back on another connection")
        return kept

    def stop_waiting(self, *, counted: bool) -> None:
        """Give back at once what is kept for a client that may come back; `counted` as for `Feed.leave`."""
        if self._grace is not None and self._grace.has_begun:
            self._grace.end()
            self._draining |= not counted
            self._leave()

    # Jobs out

    def take(self, lease: Lease, fields: Hash) -> None:
        """Push a job to the client."""
        number = self._number()
        push = message(number, pushed_job(lease.id, fields, self._queue.name, lease.token))  # can fail: before the rest
        self._broker.counters.pushed_jobs += 1
        lease.number = number
        self._held[b"%d" % lease.number] = lease
        self._clocks.pushed(lease)
        self._client.send(push)
        if self._unchoking is None and self._client.write_buffer_size >= self._most_unread:
            self._unchoking = asyncio.create_task(self._unchoke(), name="unread jobs")
            self._set_taking()

    async def _unchoke(self) -> None:
        """Take jobs again once the client has read those that it has."""
        with suppress(OSError):  # the connection ended while it was waited for
            await self._client.wait_writable()
            self._unchoking = None
            self._set_taking()

    def _number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    def cancel(self, lease: Lease, reason: str) -> bool:
        """Tell the client that a job is not its any more; return whether its connection still takes that."""
        self.forget(lease)
        self._client.send(message(lease.number, cancel(reason)))
        return self._client.is_open

    def forget(self, lease: Lease) -> None:
        """Expect no answer for a job any more."""
        self._held.pop(b"%d" % lease.number, None)
        self._clocks.forget(lease)

    def _take_away_unheard(self, overdue: list[Lease]) -> None:
        """Give back the jobs of which nothing was heard in time, as if their worker had vanished."""
        self._silent = True
        self._set_taking()
        for lease in overdue:
            self.cancel(lease, f"No answer within {self._options.ack_timeout} ms")
            self._feed.settler.vanish(lease, last=True)

    def _take_away_long(self, overdue: list[Lease]) -> None:
        """Take away the jobs that have run for too long, and let them fail or go back, as the client's options say."""
        reason = f"The job has run for more than {self._options.max_runtime} ms"
        for lease in overdue:
            if lease.state is not HELD:  # its answer is under way; should that be refused, it goes on
                self._clocks.runs(lease)
                continue
            self.cancel(lease, reason)
            if self._options.overrun == "release":
                self._feed.settler.vanish(lease, last=True)
            else:
                self._feed.settler.fail(lease, Failed(reason), partial(_log_lost, lease))

    def _set_taking(self) -> None:
        if self._consumer is not None:
            has_moved = self._grace is not None and self._grace.moved_to
            self._consumer.taking = not (
                self._paused or self._silent or self._retired or self._draining or self._unchoking or has_moved
            )
            self._feed.wake(self._consumer)

    # Answers in

    def message_received(self, message: bytes) -> None:
        """Take one answer, or one request."""
        try:
            id, answer = decode_answer(message)
        except InvalidMessage as error:
            self._client.penalize(len(message))
            self._client.send(err(error.id, error))
            if error.id != NO_ID and (lease := self._held.find(error.id)) is not None:
                self._clocks.misread(lease)
            return
        if self._silent:
            self._silent = False
            self._set_taking()
        if isinstance(answer, Invoke):
            self._caller.call(id, answer.fn, answer.args, len(message))
        elif isinstance(answer, Pause | Resume):
            self._client.penalize()
            self._paused = isinstance(answer, Pause)
            self._set_taking()
            self._client.send(*ok(id, b"null"))
        elif (lease := self._held.find(id)) is None:
            self._refuse(id, answer)
        else:
            if isinstance(answer, Ack):
                if lease not in self._clocks.unheard:
                    self._client.penalize()
                self._clocks.acknowledged()
            self._clocks.heard_of(lease)
            self._take_answer(id, lease, answer, len(message))

    def late_message_received(self, message: bytes) -> None:
        """Take a final answer: the work is done, and only the confirmation cannot reach the client any more."""
        try:
            id, answer = decode_answer(message)
        except InvalidMessage:
            return
        lease = self._held.find(id)
        if lease is not None and isinstance(answer, _FINAL):
            self._take_answer(id, lease, answer, len(message))

    def _refuse(self, id: bytes, answer: JobAnswer) -> None:
        """Refuse an answer to a job that is not the client's (any more)."""
        self._client.penalize()
        error = GatewayError(
            ErrorCode.NOT_FOUND,
            f"No job of this connection waits for an answer with id {id[:100].decode(errors='ignore')}",
        )
        if isinstance(answer, Ack | Log | Progress):
            self._client.send(err(id, error))
        else:
            self._client.send(b'{"id":%b,"data":%b}' % (id, lost(error_json(error))))

    def _take_answer(self, id: bytes, lease: Lease, answer: JobAnswer, size: int) -> None:
        """Carry out what a client says about a job, in a message of `size` bytes."""
        if isinstance(answer, Ack):
            return
        # A final answer comes once for each job in hand: those need no other limit.
        self._under_way.begin(size, messages=not isinstance(answer, _FINAL))
        settler = self._feed.settler
        done = partial(self._settled, id, lease, size)
        match answer:
            case Completed(result):
                settler.complete(lease, result, done)
            case Failed():
                settler.fail(lease, answer, done)
            case Release():
                settler.release(lease, done)
            case Delay(milliseconds):
                settler.delay(lease, milliseconds, done)
            case WaitChildren():
                settler.wait_children(lease, done)
            case Progress(value):
                self._record(id, size, partial(self._queue.update_progress, lease.id, bytes(value)))
            case Log(row):
                self._record(id, size, partial(self._queue.add_log, lease.id, row, lease.options.keep_logs))
            case _:
                assert_never(answer)

    def _record(self, id: bytes, size: int, write: Callable[[Sink], None]) -> None:
        """Write down what a client says of a job in hand; it counts as a call of its key."""
        try:
            self._rights.check_rate()
        except GatewayError as error:
            self._client.penalize()
            self._recorded(id, size, error)
        else:
            write(partial(self._recorded, id, size))

    def _recorded(self, id: bytes, size: int, result: object) -> None:
        """Tell the client of a failure only."""
        self._under_way.end(size)
        if isinstance(result, GatewayError):
            self._client.send(err(id, result))

    def _settled(self, id: bytes, lease: Lease, size: int, outcome: Outcome) -> None:
        """Tell the client that its final answer is in Redis, or why it could not be stored."""
        self._under_way.end(size, messages=0)
        if lease.state is ENDED:
            self.forget(lease)
        if not isinstance(outcome, GatewayError):
            self._broker.counters.answered_jobs[outcome.state] += 1
            self._broker.queues.counts.running.add(asyncio.get_running_loop().time() - lease.since)
            if self._options.confirm:
                confirmation = finished(lease.id, outcome.state, outcome.delay)
                if (replicas := self._queue.replicas) is None:
                    self._client.send(b'{"id":%b,"data":%b}' % (id, confirmation))
                else:
                    self._unconfirmed += 1
                    replicas.hold(self._queue.link, self._queue.prefix, partial(self._confirmed, id), confirmation)
        elif lease.state is ENDED:
            self._client.send(b'{"id":%b,"data":%b}' % (id, lost(error_json(outcome))))
        else:
            self._client.send(err(id, outcome))  # the lease goes on: nothing to wait for

    def _confirmed(self, id: bytes, result: bytes | GatewayError) -> None:
        """Tell the client that its final answer is in the replicas, or that a failover may lose it."""
        self._unconfirmed -= 1
        data = lost(error_json(result)) if isinstance(result, GatewayError) else result
        self._client.send(b'{"id":%b,"data":%b}' % (id, data))


def _log_lost(lease: Lease, outcome: Outcome) -> None:
    if isinstance(outcome, GatewayError):
        log.info("job %s, given back after no answer: %s", lease.id, outcome.message)
