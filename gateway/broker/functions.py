"""The Queue API: every function that a client may call, as BullMQ's Node API has it.

A row's signature is its validation and its documentation (see `gateway.wire.functions`). What a function returns is
encoded as JSON: dicts, lists, numbers, `Raw` for text that goes out as it is stored; None where Node has undefined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Raw, Struct

from gateway.broker.connection import Sink
from gateway.broker.queue import Queue
from gateway.wire.errors import ErrorCode, GatewayError, finished_error
from gateway.wire.functions import FunctionTable, Permission
from gateway.wire.jobs import EMPTY_OBJECT, loaded_job, to_hash
from gateway.wire.options import NO_OPTIONS, now_ms

TABLE: Final = FunctionTable()

PRODUCE, CONSUME, OBSERVE, MANAGE = Permission

JobId = Annotated[str, Meta(min_length=1)]
JobType = Literal[
    "active",
    "completed",
    "delayed",
    "failed",
    "prioritized",
    "repeat",
    "wait",
    "waiting",
    "waiting-children",
]
FinishedState = Literal["completed", "failed"]
CleanableState = Literal["completed", "wait", "waiting", "active", "paused", "prioritized", "delayed", "failed"]
# Whole numbers that JavaScript and Redis scores hold exactly; Redis refuses those beyond 64 bits.
_MOST: Final = 2**53
Index = Annotated[int, Meta(ge=-_MOST, le=_MOST)]
Count = Annotated[int, Meta(ge=0, le=_MOST)]
# Counts of 0 make Node's loops over `retryJobs`, `promoteJobs` and `obliterate` run for ever.
BatchSize = Annotated[int, Meta(ge=1, le=_MOST)]
Milliseconds = Annotated[int, Meta(ge=0, le=_MOST)]

_ALL_TYPES: Final[tuple[JobType, ...]] = (
    "active",
    "completed",
    "delayed",
    "failed",
    "prioritized",
    "waiting",
    "waiting-children",
)
_BACKFILL: Final = 5  # getJobs-1.lua: rounds in which it replaces ids whose hash is gone


class _Arguments(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """The base of option objects; unknown names are refused."""


class BulkJob(_Arguments, frozen=True):
    """One entry of `addBulk`."""

    name: str
    data: Raw = EMPTY_OBJECT
    opts: Raw = NO_OPTIONS


class RemoveOptions(_Arguments, frozen=True):
    """Options of `remove`."""

    remove_children: bool = True


class ObliterateOptions(_Arguments, frozen=True):
    """Options of `obliterate`."""

    force: bool = False
    count: BatchSize = 1000


class RetryJobsOptions(_Arguments, frozen=True):
    """Options of `retryJobs`."""

    count: BatchSize = 1000
    state: FinishedState = "failed"
    timestamp: Milliseconds | None = None


class PromoteJobsOptions(_Arguments, frozen=True):
    """Options of `promoteJobs`."""

    count: BatchSize = 1000


class RetryOptions(_Arguments, frozen=True):
    """Options of `retryJob`."""

    reset_attempts_made: bool = False
    reset_attempts_started: bool = False


# Adding


@TABLE.direct(PRODUCE, writes=True)
def add(queue: Queue, name: str, data: Raw = EMPTY_OBJECT, opts: Raw = NO_OPTIONS, *, sink: Sink) -> None:
    """Add a job; returns it. `duplicate` is true beside its fields when it was there already."""
    queue.add((name, data, queue.options.prepare(opts, name=name, data=data)), sink)


@TABLE.direct(PRODUCE, writes=True)
def add_bulk(queue: Queue, jobs: list[BulkJob], *, sink: Sink) -> None:
    """Add many jobs in one go, in their order; returns them. All are checked before the first one is stored."""
    checked = []
    for index, job in enumerate(jobs):
        place = f"args[0][{index}].opts"
        options = queue.options.prepare(job.opts, place, name=job.name, data=job.data, bulk=True)
        checked.append((job.name, job.data, options))
    queue.add_bulk(checked, sink)


# Reading


@TABLE.function(OBSERVE, writes=False)
async def get_job(queue: Queue, job_id: str | int) -> dict[str, Any] | None:
    """The job, or null."""
    if not job_id:
        return None
    flat = await queue.link.call("HGETALL", queue.key(str(job_id)), writes=False, decode=False)
    return {**loaded_job(str(job_id), to_hash(flat), queue.qualified), "id": job_id} if flat else None


@TABLE.function(OBSERVE, writes=False)
async def get_jobs(
    queue: Queue,
    types: JobType | list[JobType] | None = None,
    start: Index = 0,
    end: Index = -1,
    asc: bool = False,
) -> list[dict[str, Any]]:
    """The jobs of some types, in the order of the types; `start` and `end` count within each type."""
    wanted = _distinct([types] if isinstance(types, str) else types or _ALL_TYPES)
    args = [start, end, "1" if asc else "0", _BACKFILL, *map(_stored_type, wanted)]
    seen: dict[bytes, list[bytes]] = {}
    for jobs in await queue.eval("getJobs", queue.keys(""), args):
        for id, flat in jobs or ():
            if flat:
                seen.setdefault(id, flat)
    return [loaded_job(id.decode(errors="replace"), to_hash(flat), queue.qualified) for id, flat in seen.items()]


def _getter(name: str, type: JobType, *, asc: bool) -> None:
    async def get(queue: Queue, start: Index = 0, end: Index = -1) -> list[dict[str, Any]]:
        jobs: list[dict[str, Any]] = await get_jobs(queue, type, start, end, asc)
        return jobs

    get.__doc__ = f"The {type} jobs, {'oldest' if asc else 'newest'} first."
    TABLE.function(OBSERVE, writes=False, name=name)(get)


for _name, _type, _asc in (
    ("getWaiting", "waiting", True),
    ("getActive", "active", True),
    ("getDelayed", "delayed", True),
    ("getPrioritized", "prioritized", True),
    ("getCompleted", "completed", False),
    ("getFailed", "failed", False),
):
    _getter(_name, _type, asc=_asc)  # type: ignore[arg-type]


@TABLE.function(OBSERVE, writes=False)
async def get_job_counts(queue: Queue, *types: JobType) -> dict[str, int]:
    """How many jobs there are of each type; of all types when none is named."""
    wanted = _distinct(types or _ALL_TYPES)
    counts = await queue.scripts.getCounts(wanted)
    return dict(zip(wanted, (count or 0 for count in counts), strict=True))


@TABLE.function(OBSERVE, writes=False)
async def get_job_count_by_types(queue: Queue, *types: JobType) -> int:
    """How many jobs there are of these types together."""
    return sum((await get_job_counts(queue, *types)).values())


@TABLE.function(OBSERVE, writes=False)
async def count(queue: Queue) -> int:
    """How many jobs wait to be processed: waiting, delayed, prioritized, waiting for children."""
    total: int = await get_job_count_by_types(queue, "waiting", "delayed", "prioritized", "waiting-children")
    return total


@TABLE.function(OBSERVE, writes=False)
async def get_job_state(queue: Queue, job_id: str) -> str:
    """The job's state, or `unknown`."""
    state: str = await queue.scripts.getState(job_id)
    return state


@TABLE.function(OBSERVE, writes=False)
async def get_job_logs(
    queue: Queue, job_id: str, start: Index = 0, end: Index = -1, asc: bool = True
) -> dict[str, Any]:
    """The rows that were logged for a job, and how many there are."""
    key = queue.key(f"{job_id}:logs")
    first, last = (start, end) if asc else (-(end + 1), -(start + 1))
    rows, total = await asyncio.gather(
        queue.link.call("LRANGE", key, first, last, writes=False), queue.link.call("LLEN", key, writes=False)
    )
    return {"logs": rows if asc else rows[::-1], "count": total}


@TABLE.function(OBSERVE, writes=False)
async def is_paused(queue: Queue) -> bool:
    """Whether the queue is paused."""
    return bool(await queue.client.hexists(queue.key("meta"), "paused"))


@TABLE.function(OBSERVE, writes=False)
async def get_workers(queue: Queue) -> list[dict[str, str]]:
    """The Redis connections of the queue's workers; a gateway shard is one worker, however many clients it serves."""
    name = queue.client_name
    text: str = await queue.link.call("CLIENT", "LIST", writes=False)
    clients = [dict(pair.partition("=")[::2] for pair in line.split(" ")) for line in text.splitlines()]
    return [
        {**client, "name": queue.name, "rawname": client["name"]}
        for client in clients
        if client.get("name") == name or client.get("name", "").startswith(f"{name}:w:")
    ]


@TABLE.function(OBSERVE, writes=False)
async def get_workers_count(queue: Queue) -> int:
    """How many rows `getWorkers` has."""
    return len(await get_workers(queue))


# Managing the queue


@TABLE.function(MANAGE, writes=True)
async def pause(queue: Queue) -> None:
    """No worker of any kind takes new jobs until `resume`."""
    await queue.scripts.pause(True)


@TABLE.function(MANAGE, writes=True)
async def resume(queue: Queue) -> None:
    """Workers take jobs again."""
    await queue.scripts.pause(False)


@TABLE.function(MANAGE, writes=True)
async def drain(queue: Queue, delayed: bool | None = False) -> None:
    """Remove all waiting jobs, delayed ones too if asked."""
    await queue.scripts.drain(bool(delayed))


@TABLE.function(MANAGE, writes=True)
async def clean(queue: Queue, grace: Milliseconds, limit: Count, type: CleanableState = "completed") -> list[str]:
    """Remove jobs of a type that are older than `grace` ms, at most `limit` (0: all); returns their ids."""
    before, state = now_ms() - grace, _stored_type(type)
    removed: list[str] = []
    while True:
        batch = min(10_000, limit - len(removed)) if limit else 10_000  # one blocking script per 10,000, as Node
        ids = await queue.commands["cleanJobsInSet"](
            queue.keys(state, "events", "repeat"), [queue.base, before, batch, state]
        )
        removed.extend(ids)
        if len(ids) < batch or (limit and len(removed) >= limit):
            return removed


@TABLE.function(MANAGE, writes=True)
async def obliterate(queue: Queue, opts: ObliterateOptions | None = None) -> None:
    """Pause the queue and remove it whole; with `force` even while jobs are active."""
    options = opts or ObliterateOptions()
    await queue.scripts.pause(True)
    keys, args = queue.keys("meta", ""), [options.count, "force" if options.force else ""]
    while cursor := await queue.commands["obliterate"](keys, args):
        if cursor < 0:
            raise GatewayError(ErrorCode.CONFLICT, _OBLITERATE_ERRORS[cursor])


_OBLITERATE_ERRORS: Final = {
    -1: "Cannot obliterate non-paused queue",
    -2: "Cannot obliterate queue with active jobs",
}


@TABLE.function(MANAGE, writes=True)
async def retry_jobs(queue: Queue, opts: RetryJobsOptions | None = None) -> None:
    """Move all failed (or completed) jobs back to wait."""
    options = opts or RetryJobsOptions()
    while await queue.scripts.retryJobs(options.state, options.count, options.timestamp or now_ms()):
        pass


@TABLE.function(MANAGE, writes=True)
async def promote_jobs(queue: Queue, opts: PromoteJobsOptions | None = None) -> None:
    """Move all delayed jobs to wait."""
    options = opts or PromoteJobsOptions()
    while await queue.scripts.promoteJobs(options.count):
        pass


@TABLE.function(MANAGE, writes=True)
async def trim_events(queue: Queue, max_length: Count) -> int:
    """Trim the event stream to about `maxLength` entries; returns how many went."""
    trimmed: int = await queue.client.xtrim(queue.key("events"), max_length, approximate=True)
    return trimmed


@TABLE.function(MANAGE, writes=True)
async def remove(queue: Queue, job_id: JobId, opts: RemoveOptions | None = None) -> int:
    """Remove a job: 1 when it is gone (or never was), 0 when it is locked by a worker."""
    code: int = await queue.scripts.remove(job_id, opts is None or opts.remove_children)
    if code < 0:
        raise finished_error(code, command="removeJob", job_id=job_id)
    return code


# One job


@TABLE.function(MANAGE, writes=True)
async def remove_job(queue: Queue, job_id: JobId, opts: RemoveOptions | None = None) -> None:
    """Remove a job; an error when it is locked (Node's `job.remove`)."""
    if not await remove(queue, job_id, opts):
        raise GatewayError(
            ErrorCode.CONFLICT, f"Job {job_id} could not be removed because it is locked by another worker"
        )


@TABLE.function(MANAGE, writes=True)
async def retry_job(
    queue: Queue,
    job_id: JobId,
    state: FinishedState = "failed",
    opts: RetryOptions | None = None,
) -> None:
    """Move a failed (or completed) job back to wait (Node's `job.retry`)."""
    options = opts or RetryOptions()
    stored = await queue.link.call("HGET", queue.key(job_id), "opts", writes=False, decode=False)
    code = await queue.commands["reprocessJob"](
        [
            *queue.keys(job_id, "events", state, "wait", "meta", "active", "marker", "prioritized", "pc"),
        ],
        [
            job_id,
            "RPUSH" if b'"lifo":true' in (stored or b"") else "LPUSH",
            "failedReason" if state == "failed" else "returnvalue",
            state,
            "1" if options.reset_attempts_made else "0",
            "1" if options.reset_attempts_started else "0",
        ],
    )
    if code != 1:
        raise finished_error(code, command="reprocessJob", job_id=job_id, state=state)


@TABLE.function(MANAGE, writes=True)
async def promote_job(queue: Queue, job_id: JobId) -> None:
    """Move a delayed job to wait (Node's `job.promote`)."""
    await queue.scripts.promote(job_id)


@TABLE.function(PRODUCE, writes=True)
async def update_job_data(queue: Queue, job_id: JobId, data: Raw) -> None:
    """Replace a job's data (Node's `job.updateData`)."""
    code = await queue.commands["updateData"](queue.keys(job_id), [bytes(data)])
    if code < 0:
        raise finished_error(code, command="updateData", job_id=job_id)


@TABLE.function(CONSUME, writes=True)
async def update_job_progress(queue: Queue, job_id: JobId, progress: Raw) -> None:
    """Record how far a job is: any JSON."""
    code = await queue.commands["updateProgress"](queue.keys(job_id, "events", "meta"), [job_id, bytes(progress)])
    if code < 0:
        raise finished_error(code, command="updateProgress", job_id=job_id)


@TABLE.function(CONSUME, writes=True)
async def add_job_log(queue: Queue, job_id: JobId, log_row: str, keep_logs: Count | None = None) -> int:
    """Log a row for a job, keeping the last `keepLogs`; returns how many rows there are."""
    code: int = await queue.commands["addLog"](queue.keys(job_id, f"{job_id}:logs"), [job_id, log_row, keep_logs or ""])
    if code < 0:
        raise finished_error(code, command="addLog", job_id=job_id)
    return code


def _distinct(types: Iterable[JobType]) -> list[JobType]:
    return list(dict.fromkeys(types))


def _stored_type(type: str) -> str:
    """`waiting` is the list `wait`."""
    return "wait" if type == "waiting" else type
