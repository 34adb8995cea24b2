"""What the ancestor's routes do, as functions that stand on those of the Queue API; each needs a permission, too."""

from __future__ import annotations

import hmac
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

import msgspec
from msgspec import Raw, Struct

from bullmq_proxy.gateway.ancestor.jobs import read_array, read_job, read_json, read_row
from bullmq_proxy.gateway.broker.functions import adding, reading
from bullmq_proxy.gateway.broker.functions.adding import BulkJob
from bullmq_proxy.gateway.broker.functions.base import CONSUME, OBSERVE, PRODUCE, Context, Index, JobType
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import Sink, future_of
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.ids import check_queue_name, is_reserved
from bullmq_proxy.gateway.rules.shapes import Job, JobLogs
from bullmq_proxy.gateway.rules.trace_context import may_carry
from bullmq_proxy.gateway.values.text import bytes_of
from bullmq_proxy.gateway.wire.connection_options import Limits

ANCESTOR: Final = FunctionTable()

Status = Literal["waiting", "active", "completed", "failed", "delayed"]
_AT_ONCE: Final = 50  # jobs that are read in one turn of the loop
_DUPLICATE: Final = b',"duplicate":true'


class NamedQueue(Struct, frozen=True):
    """A queue whose name is still to be checked.

    Attributes:
        queue: of that name.
        limits: of the name.
    """

    queue: Queue
    limits: Limits

    def check_name(self) -> None:
        """Refuse a name that a queue cannot have.

        Raises:
            GatewayError: INVALID_ARGUMENTS.
        """
        limits = self.limits
        check_queue_name(self.queue.name, limits.max_queue_name, "the path", limits.min_queue_name)


class AncestorJob(Job):
    """A job that is read."""

    debounceId: NotRequired[str]


class Page(TypedDict):
    """A page of jobs: so many of each state from `start` on."""

    counts: dict[str, int]
    jobs: list[AncestorJob]
    start: int
    length: int


@ANCESTOR.direct(PRODUCE, writes=True, packs=True, result=list[Job])
def add_jobs(named: NamedQueue, body: Raw, *, sink: Sink, context: Context) -> Coroutine[Any, Any, None] | None:
    """Add jobs once all of them have been checked."""
    named.check_name()
    texts = read_array(body)
    sink = partial(_give_in_form, sink)
    if len(texts) > _AT_ONCE:
        return _add_slices(named.queue, texts, sink, context)
    jobs = [_read(text, place, context) for place, text in enumerate(texts)]
    return adding.add_bulk(named.queue, jobs, sink=sink, context=context)


def _read(text: Raw, place: int, context: Context) -> BulkJob:
    job = read_job(text, place)
    return msgspec.structs.replace(job, opts=may_carry(job.opts, context.carries)) if context.carries else job


def _give_in_form(sink: Sink, added: Any) -> None:
    """Give jobs that were added to `sink`, without saying which of them were there already."""
    if isinstance(added, bytes) and _DUPLICATE in added:
        jobs = msgspec.json.decode(added, type=list[dict[str, Raw]])
        added = msgspec.json.encode([{name: job[name] for name in job if name != "duplicate"} for job in jobs])
    sink(added)


async def _add_slices(queue: Queue, texts: list[Raw], sink: Sink, context: Context) -> None:
    jobs = []
    for place, text in enumerate(texts):
        jobs.append(_read(text, place, context))
        if not len(jobs) % _AT_ONCE:
            await queue.turns.wait_for_slice()
    rest = adding.add_bulk(queue, jobs, sink=sink, context=context)
    if rest is not None:
        await rest


@ANCESTOR.function(OBSERVE, writes=False, heavy=True)
async def get_jobs(named: NamedQueue, statuses: list[Status], start: Index, length: Index) -> Page:
    """Return `length` jobs of each state from `start` on, and how many there are; all for 0 and 0.

    Beside those that wait stand those of a paused queue, as old versions of BullMQ store them.
    """
    types: list[JobType] = [*statuses, "paused"] if "waiting" in statuses else [*statuses]
    counts = await reading.get_job_counts(named.queue, *types)
    jobs = await reading.get_jobs(named.queue, types, start, start + length - 1)
    shown = cast("list[AncestorJob]", [_in_form(job) for job in jobs])
    return {"counts": counts, "jobs": shown, "start": start, "length": length}


@ANCESTOR.function(OBSERVE, writes=False)
async def get_job(named: NamedQueue, id: str) -> AncestorJob:
    """Return a job."""
    job = None if is_reserved(id) else await reading.get_job(named.queue, id)
    if job is None:
        raise GatewayError(ErrorCode.NOT_FOUND, "Job not found")
    return cast(AncestorJob, _in_form(job))


def _in_form(job: Job | Raw) -> AncestorJob | Raw:
    """Return a job as BullMQ 5 shows it, which has two names for the id of a deduplication."""
    if isinstance(job, Raw):  # as the jobs of a page are
        if b'"deduplicationId":' not in bytes(job):
            return job
        job = cast(Job, msgspec.json.decode(job, type=dict[str, Raw]))
    if (id := job.get("deduplicationId")) is None:
        return cast(AncestorJob, job)
    return {**job, "debounceId": id}


@ANCESTOR.function(OBSERVE, writes=False, heavy=True)
async def get_logs(named: NamedQueue, id: str, start: Index, length: Index) -> JobLogs:
    """Return `length` rows of a job's log from `start` on, and how many there are; all for 0 and 0."""
    return await reading.get_job_logs(named.queue, id, start, start + length - 1)


@ANCESTOR.function(CONSUME, writes=True)
async def update_progress(named: NamedQueue, id: str, progress: Raw, token: str) -> None:
    """Set the progress of a job for whoever shows the token of its lock."""
    await _check_lock(named, id, token)
    await future_of(partial(named.queue.update_progress, id, read_json(progress)))


@ANCESTOR.function(CONSUME, writes=True)
async def add_log(named: NamedQueue, id: str, row: Raw, token: str) -> None:
    """Add a row to the log of a job for whoever shows the token of its lock; what is no string as its JSON text."""
    await _check_lock(named, id, token)
    await future_of(partial(named.queue.add_log, id, read_row(row), None))


async def _check_lock(named: NamedQueue, id: str, token: str) -> None:
    """Refuse whoever does not hold a job, and a queue or a job that there cannot be.

    Raises:
        GatewayError: UNAUTHORIZED, INVALID_ARGUMENTS.
    """
    queue = named.queue
    lock = await queue.link.call("GET", queue.key(f"{id}:lock"), decode=False)
    if lock is None or not hmac.compare_digest(lock, bytes_of(token)):
        raise GatewayError(ErrorCode.UNAUTHORIZED, "This is not the token of the job's lock")
    named.check_name()
    if is_reserved(id):
        raise invalid_arguments("This is the name of one of BullMQ's own keys, and no job's id")
