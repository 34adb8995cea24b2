"""A span for each call that adds jobs, whose headers the jobs carry to their workers.

The functions stand in tables of their own: without tracing nothing of this is on the way of a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from itertools import islice
from typing import Any, Final, overload

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import asdict, replace
from opentelemetry.trace import Span, SpanKind, StatusCode

from bullmq_proxy.gateway.ancestor.functions import ANCESTOR, NamedQueue
from bullmq_proxy.gateway.broker.functions import FLOWS, TABLE, Tables
from bullmq_proxy.gateway.broker.functions.adding import BulkJob
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.flows import FlowOptions
from bullmq_proxy.gateway.broker.functions.schedulers import JobTemplate
from bullmq_proxy.gateway.broker.functions.table import Function, FunctionTable
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.flow import MOST_ADDED, FlowNode
from bullmq_proxy.gateway.rules.repeat import RepeatOptions
from bullmq_proxy.gateway.rules.shapes import AddedJob
from bullmq_proxy.gateway.rules.trace_context import (
    NO_HEADERS,
    Headers,
    carrying,
    may_carry,
    metadata,
    own_telemetry,
)
from bullmq_proxy.gateway.tracing.spans import Attributes, Tracer, headers_of, shown
from bullmq_proxy.gateway.values.json_text import read_json

MOST_NAMES: Final = 20
"""Names of jobs that the span of a bulk shows."""

ASKED: Final[ContextVar[Headers]] = ContextVar("asked", default=NO_HEADERS)
"""The trace headers of the request that is being taken."""

Rest = Coroutine[Any, Any, None] | None
Note = Callable[[Span, Any], None]


class Began(Struct, frozen=True):
    """The time at which a call was taken, in ns since 1970, and the trace of its request."""

    at: int
    parent: Headers


class TracedFunction(Function, frozen=True):
    """A function of the table whose `run` gets one argument more, behind the bound ones: how the call began."""

    def bind(self, args: Sequence[Raw]) -> list[Any]:
        """Check and convert the arguments, right when the call is taken."""
        return [*Function.bind(self, args), Began(time.time_ns(), ASKED.get())]


class Producers:
    """The functions that add jobs, with spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def tables(self) -> Tables:
        """Return all functions, those that add jobs with spans."""
        queue = TABLE.with_rows(
            traced(TABLE["add"], self._add),
            traced(TABLE["addBulk"], self._add_bulk),
            traced(TABLE["addAndWait"], self._add_and_wait),
            traced(TABLE["upsertJobScheduler"], self._upsert_job_scheduler),
        )
        flows = FLOWS.with_rows(traced(FLOWS["add"], self._add_flow), traced(FLOWS["addBulk"], self._add_bulk_flows))
        return Tables(queue, flows)

    def ancestor(self) -> FunctionTable:
        """Return the functions of the ancestor's routes, the one that adds jobs with spans."""
        return ANCESTOR.with_rows(traced(ANCESTOR["addJobs"], self._add_jobs))

    def _add_jobs(self, named: NamedQueue, body: Raw, began: Began, *, sink: Sink, context: Context) -> Rest:
        name = named.queue.name
        span = self._start("addBulk", name, name, began, NO_HEADERS, {})
        context = replace(context, carries=metadata(headers_of(span)))
        return _run(ANCESTOR["addJobs"], span, _note_nothing, named, body, sink=sink, context=context)

    def _add(
        self, queue: Queue, name: str, data: Raw, opts: Raw, began: Began, *, sink: Sink, context: Context
    ) -> Rest:
        span, opts = self._add_one(queue, name, opts, began)
        return _run(TABLE["add"], span, _note_id, queue, name, data, opts, sink=sink, context=context)

    async def _add_and_wait(
        self, queue: Queue, name: str, data: Raw, opts: Raw, ttl: int | None, began: Began, *, context: Context
    ) -> Raw:
        span, opts = self._add_one(queue, name, opts, began)
        call = TABLE["addAndWait"].run(queue, name, data, opts, ttl, context=context)
        result: Raw = await _wait(span, call, _note_nothing)
        return result

    def _add_one(self, queue: Queue, name: str, opts: Raw, began: Began) -> tuple[Span, Raw]:
        """Return the span of a job, and its options with the span's headers unless it has its own."""
        own, carries = own_telemetry(opts)
        destination = f"{queue.name}.{name}"
        span = self._start("add", destination, queue.name, began, own, {"bullmq.job.name": shown(name)})
        return span, carrying(opts, metadata(headers_of(span))) if carries else opts

    def _add_bulk(self, queue: Queue, jobs: Sequence[BulkJob], began: Began, *, sink: Sink, context: Context) -> Rest:
        span = self._start("addBulk", queue.name, queue.name, began, NO_HEADERS, _many([job.name for job in jobs]))
        with_headers = _WithHeaders(jobs, metadata(headers_of(span)))
        return _run(TABLE["addBulk"], span, _note_nothing, queue, with_headers, sink=sink, context=context)

    async def _upsert_job_scheduler(
        self,
        queue: Queue,
        id: str,
        repeat: RepeatOptions,
        template: JobTemplate | None,
        began: Began,
        *,
        context: Context,
    ) -> Any:
        name = id if template is None or template.name is None else template.name
        destination = f"{queue.name}.{name}"
        span = self._start("add", destination, queue.name, began, NO_HEADERS, {"bullmq.job.scheduler.id": shown(id)})
        context = replace(context, carries=metadata(headers_of(span)))
        call = TABLE["upsertJobScheduler"].run(queue, id, repeat, template, context=context)
        return await _wait(span, call, _note_id_of)

    def _add_flow(
        self,
        producer: Flows,
        flow: FlowNode,
        opts: FlowOptions | None,
        began: Began,
        *,
        sink: Sink,
        context: Context,
    ) -> Rest:
        span = self._start(
            "addFlow", flow.queue_name, flow.queue_name, began, NO_HEADERS, {"bullmq.flow.name": shown(flow.name)}
        )
        _give_headers([flow], metadata(headers_of(span)))
        return _run(FLOWS["add"], span, _note_nothing, producer, flow, opts, sink=sink, context=context)

    def _add_bulk_flows(
        self, producer: Flows, flows: list[FlowNode], began: Began, *, sink: Sink, context: Context
    ) -> Rest:
        span = self._start("addBulkFlows", "", "", began, NO_HEADERS, _many([flow.name for flow in flows]))
        _give_headers(flows, metadata(headers_of(span)))
        return _run(FLOWS["addBulk"], span, _note_nothing, producer, flows, sink=sink, context=context)

    def _start(
        self, operation: str, destination: str, queue: str, began: Began, own: Headers, more: Attributes
    ) -> Span:
        """Begin a span behind the trace that the options name, or that the request belongs to."""
        attributes = {"bullmq.queue.name": shown(queue), "bullmq.queue.operation": operation, **more}
        name = f"{operation} {shown(destination)}".rstrip()
        return self._tracer.start(name, SpanKind.PRODUCER, attributes, own or began.parent, began.at)


def traced(row: Function, run: Callable[..., Any]) -> Function:
    """Return a row of the table with another way to run it."""
    values = asdict(row)
    return TracedFunction(**{**values, "run": run})


def _many(names: list[str]) -> Attributes:
    return {
        "bullmq.job.bulk.count": len(names),
        "bullmq.job.bulk.names": [shown(name) for name in names[:MOST_NAMES]],
    }


class _WithHeaders(Sequence[BulkJob]):
    """Jobs of a bulk, each of which gets the headers when it is looked at: there may be very many."""

    def __init__(self, jobs: Sequence[BulkJob], metadata: str) -> None:
        self._jobs = jobs
        self._metadata = metadata

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, place: int) -> BulkJob: ...

    @overload
    def __getitem__(self, place: slice) -> list[BulkJob]: ...

    def __getitem__(self, place: int | slice) -> BulkJob | list[BulkJob]:
        if isinstance(place, slice):
            return [self._with_headers(job) for job in self._jobs[place]]
        return self._with_headers(self._jobs[place])

    def _with_headers(self, job: BulkJob) -> BulkJob:
        return msgspec.structs.replace(job, opts=may_carry(job.opts, self._metadata))


def _give_headers(flows: Sequence[FlowNode], metadata: str) -> None:
    """Let the jobs of flows carry headers; of more than may be added at a time, which is refused, only the first."""
    for node in islice(_nodes(flows), MOST_ADDED):
        msgspec.structs.force_setattr(node, "opts", may_carry(node.opts, metadata))


def _nodes(flows: Sequence[FlowNode]) -> Iterator[FlowNode]:
    waiting = [iter(flows)]
    while waiting:
        if (node := next(waiting[-1], None)) is None:
            waiting.pop()
            continue
        yield node
        waiting.append(iter(node.children or ()))


# How a call ends


def _run(row: Function, span: Span, note: Note, target: Any, *bound: Any, sink: Sink, context: Context) -> Rest:
    """Run a function that gives its result to a sink, and end the span with that."""
    try:
        rest = row.run(target, *bound, sink=partial(_replied, span, note, sink), context=context)
    except BaseException as error:
        _fail(span, error)
        raise
    return None if rest is None else _finish(span, rest)


async def _finish(span: Span, rest: Coroutine[Any, Any, None]) -> None:
    try:
        await rest
    except BaseException as error:
        _fail(span, error)
        raise


def _replied(span: Span, note: Note, sink: Sink, result: Any) -> None:
    if isinstance(result, BaseException):
        _fail(span, result)
    else:
        note(span, result)
        span.end()
    sink(result)


async def _wait(span: Span, call: Coroutine[Any, Any, Any], note: Note) -> Any:
    try:
        result = await call
    except BaseException as error:
        _fail(span, error)
        raise
    note(span, result)
    span.end()
    return result


def _fail(span: Span, error: BaseException) -> None:
    message = error.message if isinstance(error, GatewayError) else type(error).__name__
    span.set_status(StatusCode.ERROR, shown(message))
    span.end()


def _note_nothing(span: Span, result: Any) -> None:
    """Note nothing: there are many jobs."""


def _note_id(span: Span, result: tuple[bytes, ...]) -> None:
    """Note the id of a job that was added; its text begins with it, see `created_job`."""
    if not span.is_recording():
        return
    head = bytes(result[0])
    span.set_attribute("bullmq.job.id", shown(read_json(head[len(b'{"id":') : head.index(b',"name":')])))


def _note_id_of(span: Span, job: AddedJob | None) -> None:
    if job is not None:
        span.set_attribute("bullmq.job.id", shown(str(job["id"])))
