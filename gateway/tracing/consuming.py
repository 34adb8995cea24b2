"""A span for each job that goes out to a worker or an endpoint, until it is settled or lost.

Its own trace headers stand in the pushed job in place of the producer's, so that the client goes on from there.
"""

from __future__ import annotations

from functools import partial

from opentelemetry.trace import Span, SpanKind, StatusCode

from bullmq_proxy.gateway.broker.consuming.leases import ENDED, Holder, Lease
from bullmq_proxy.gateway.broker.consuming.settling import Done, Outcome, Settler
from bullmq_proxy.gateway.broker.jobs.moves import Move
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.rules.trace_context import carried, handed_on
from bullmq_proxy.gateway.tracing.spans import Tracer, headers_of, shown
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.answers import Failed


class TracedHolder:
    """The client's side of a consumer, with a span for each job in its hands."""

    def __init__(self, holder: Holder, tracer: Tracer, queue: str, worker: str | None) -> None:
        """Stand before a holder.

        Args:
            holder: gets the leases.
            tracer: makes the spans.
            queue: the name of the queue.
            worker: the name that the client has given itself.
        """
        self._holder = holder
        self._tracer = tracer
        self._name = f"process {shown(queue)}"
        self._attributes = {"bullmq.queue.name": shown(queue), "bullmq.queue.operation": "process"}
        if worker is not None:
            self._attributes["bullmq.worker.name"] = shown(worker)
        self._spans: dict[Lease, Span] = {}

    def take(self, lease: Lease, fields: Hash) -> None:
        """Begin a span, and hand the job on with its headers."""
        before = carried(fields.get(b"opts", b"{}"))
        attributes = {
            **self._attributes,
            "bullmq.job.id": shown(lease.id),
            "bullmq.job.name": shown(text_of(fields.get(b"name", b""))),
        }
        span = self._tracer.start(self._name, SpanKind.CONSUMER, attributes, before.headers)
        self._spans[lease] = span
        self._holder.take(lease, {**fields, b"opts": handed_on(before, headers_of(span))})

    def cancel(self, lease: Lease, reason: str) -> bool:
        """End the span of a job that is lost."""
        self.note_failure(lease, reason or "the lock has expired")
        self._end(lease)
        return self._holder.cancel(lease, reason)

    def forget(self, lease: Lease) -> None:
        """End the span of a job that somebody has moved by its token: how it ended is not known here."""
        self._end(lease)
        self._holder.forget(lease)

    def note_failure(self, lease: Lease, reason: str) -> None:
        """Let the span say why the job is not completed."""
        if (span := self._spans.get(lease)) is not None:
            span.set_status(StatusCode.ERROR, shown(reason))

    def settled(self, lease: Lease, done: Done, outcome: Outcome) -> None:
        """End the span with what became of the job, unless its client goes on with it."""
        if isinstance(outcome, GatewayError):
            if lease.state is ENDED:
                self.note_failure(lease, outcome.message)
                self._end(lease)
        elif (span := self._spans.get(lease)) is not None:
            _show(span, lease, outcome)
            self._end(lease)
        done(outcome)

    def _end(self, lease: Lease) -> None:
        if (span := self._spans.pop(lease, None)) is not None:
            span.end()


def _show(span: Span, lease: Lease, move: Move) -> None:
    span.set_attribute("bullmq.job.state", move.state)
    span.set_attribute("bullmq.job.attempts.made", lease.attempts_made + move.charges)
    if move.state == "completed":
        span.set_status(StatusCode.OK)


class TracedSettler(Settler):
    """Ends the leases of one queue, and the spans of their jobs."""

    def fail(self, lease: Lease, failure: Failed, done: Done) -> None:
        """Let the job fail, and its span say why."""
        _note_failure(lease, failure.message)
        super().fail(lease, failure, done)

    def _give_back(self, lease: Lease, done: Done) -> None:
        _note_failure(lease, "the worker has vanished, or its answer could not be stored")
        super()._give_back(lease, done)

    def _settle(self, lease: Lease, move: Move, done: Done, *, is_last: bool = False) -> None:
        if isinstance(holder := lease.consumer.holder, TracedHolder):
            done = partial(holder.settled, lease, done)
        super()._settle(lease, move, done, is_last=is_last)


def _note_failure(lease: Lease, reason: str) -> None:
    if isinstance(holder := lease.consumer.holder, TracedHolder):
        holder.note_failure(lease, reason)


class Deliveries:
    """Puts spans around the jobs that a shard hands out; see `broker.consuming.feed.Deliveries`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def holder(self, queue: Queue, holder: Holder, worker: str | None) -> Holder:
        """Return a holder that stands before another one."""
        return TracedHolder(holder, self._tracer, queue.name, worker)

    def settler(self, queue: Queue) -> Settler:
        """Return what ends the leases of a queue."""
        return TracedSettler(queue)
