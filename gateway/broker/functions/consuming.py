"""Consuming by hand, for clients that cannot hold a Worker connection: take a job, keep its lock, move it on."""

from __future__ import annotations

from typing import Annotated, Any, Final, cast

from msgspec import Meta, Raw

from bullmq_proxy.gateway.broker.consuming.tokens import parse_token, usable_token
from bullmq_proxy.gateway.broker.functions.base import CONSUME, TABLE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.table import JobToken
from bullmq_proxy.gateway.broker.jobs.moves import load_job
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.jobs import raw_job, to_hash
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.rules.shapes import LockedJob, NextJob
from bullmq_proxy.gateway.values.numbers import Milliseconds
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.answers import read_failure
from bullmq_proxy.gateway.wire.connection_options import LONGEST_LOCK, SHORTEST_LOCK, WorkerOptions

_LONGEST_BLOCK: Final = 3_600_000  # ms; a client that waits longer asks again

LockDuration = Annotated[int, Meta(ge=SHORTEST_LOCK, le=LONGEST_LOCK)]
_NO_CHECK: Final = "0"  # the scripts' word for: do not look at the lock


class NextJobOptions(Arguments, frozen=True):
    """Options of `getNextJob`."""

    block: Annotated[int, Meta(ge=0, le=_LONGEST_BLOCK)] = 0
    lock_duration: LockDuration = WorkerOptions().lock_duration


class ChildKey(Arguments, frozen=True):
    """A child of a job. `queue` is the qualified name, `<prefix>:<queue>`."""

    id: Annotated[str, Meta(min_length=1)]
    queue: Annotated[str, Meta(min_length=1)]


class WaitingChildrenOptions(Arguments, frozen=True):
    """Options of `moveJobToWaitingChildren`."""

    child: ChildKey | None = None


@TABLE.function(CONSUME, writes=True, waits=True, example=["token-2", {"block": 1000}])
async def get_next_job(
    queue: Queue, token: JobToken, opts: NextJobOptions | None = None, *, context: Context
) -> LockedJob | None:
    """Take one job and lock it under `token`; return null when there is none (Node's `worker.getNextJob`).

    With `block` it waits for one, as many ms as that says. The lock lives for `lockDuration` ms and is the caller's to
    renew, by `extendJobLock`; the job is the caller's to move on.
    """
    _check_token(token, 0)
    if parse_token(token) is not None:
        raise invalid_arguments("A token of the gateway's own is no token for another job - at `args[0]`")
    options = opts or NextJobOptions()
    job = await context.broker.services(queue).manual_consumers().take(token, options.lock_duration, options.block)
    return cast("LockedJob | None", job)


@TABLE.function(CONSUME, writes=True, example=["active-1", {"sent": True}, "token-1"])
async def move_job_to_completed(
    queue: Queue, job_id: JobId, result: Raw, token: JobToken, fetch_next: bool = False, *, context: Context
) -> NextJob:
    """Complete a job with its return value, which is any JSON (Node's `job.moveToCompleted`).

    With `fetchNext` the next job, if there is one, is taken in the same step and locked under the same token for 30 s:
    `[job, id, 0, 0]`. Without, or when there is none, the list is empty, or has null for the job.
    """
    token = _usable(token, 2, context)
    _check_fetch(token, fetch_next)
    manual_consumers = context.broker.services(queue).manual_consumers()
    return _next_job(await manual_consumers.complete(await load_job(queue, job_id, token), result, fetch_next))


@TABLE.function(
    CONSUME, writes=True, example=["active-1", {"message": "no such address", "unrecoverable": True}, "token-1"]
)
async def move_job_to_failed(
    queue: Queue, job_id: JobId, err: Raw, token: JobToken, fetch_next: bool = False, *, context: Context
) -> NextJob | None:
    """Fail a job: it is tried again if its attempts allow it (Node's `job.moveToFailed`).

    `err` is a text, or an object with `message` and perhaps `stack` and `unrecoverable`, which fails the job for good.
    The result is as that of `moveJobToCompleted`, or null when the job is back in wait at once.
    """
    token = _usable(token, 2, context)
    _check_fetch(token, fetch_next)
    manual_consumers = context.broker.services(queue).manual_consumers()
    reply = await manual_consumers.fail(await load_job(queue, job_id, token), read_failure(err), fetch_next)
    return None if reply is None else _next_job(reply)


@TABLE.function(CONSUME, writes=True, example=["active-1", 1893456000000, "token-1"])
async def move_job_to_delayed(
    queue: Queue, job_id: JobId, timestamp: Milliseconds, token: JobToken, *, context: Context
) -> None:
    """Give a job back until `timestamp`, in ms since 1970; no attempt is charged (Node's `job.moveToDelayed`)."""
    token = _usable(token, 2, context)
    manual_consumers = context.broker.services(queue).manual_consumers()
    await manual_consumers.delay(await load_job(queue, job_id, token), max(0, timestamp - now_ms()))


@TABLE.function(CONSUME, writes=True, example=["active-1", "token-1"])
async def move_job_to_wait(queue: Queue, job_id: JobId, token: JobToken, *, context: Context) -> int:
    """Give a job back as the first in line; no attempt is charged (Node's `job.moveToWait`).

    Returns for how many ms the queue's rate limit lets nobody take jobs, 0 for none.
    """
    token = _usable(token, 1, context)
    manual_consumers = context.broker.services(queue).manual_consumers()
    limited: int = await manual_consumers.release(await load_job(queue, job_id, token))
    return limited


@TABLE.function(CONSUME, writes=True, example=["active-1", "token-1"])
async def move_job_to_waiting_children(
    queue: Queue, job_id: JobId, token: JobToken, opts: WaitingChildrenOptions | None = None, *, context: Context
) -> bool:
    """Make a job wait for its children, or for `opts.child` alone (Node's `job.moveToWaitingChildren`).

    False when there is nothing to wait for: the job is then the caller's as before. When a child has failed it is, too,
    with a `CONFLICT`: fail the job with that message and `unrecoverable`, as Node's worker does.
    """
    token = _usable(token, 1, context)
    manual_consumers = context.broker.services(queue).manual_consumers()
    child = opts.child if opts is not None else None
    job = await load_job(queue, job_id, token)
    return await manual_consumers.wait_children(job, f"{child.queue}:{child.id}" if child is not None else "")


@TABLE.function(CONSUME, writes=True, example=["active-1", "token-1", 30000])
async def extend_job_lock(
    queue: Queue,
    job_id: JobId,
    token: JobToken,
    duration: Annotated[int, Meta(ge=1, le=LONGEST_LOCK)],
    *,
    context: Context,
) -> int:
    """Extend a job's lock to `duration` ms from now; return 1, or 0 when the lock is not under this token.

    Node's `job.extendLock`.
    """
    token = usable_token(token, context.grant.key)
    return await context.broker.services(queue).manual_consumers().extend(job_id, token, duration)


def _check_token(token: str, place: int) -> None:
    if token == _NO_CHECK:
        raise invalid_arguments(f"`0` is no token: BullMQ would not check the job's lock - at `args[{place}]`")


def _usable(token: str, place: int, context: Context) -> str:
    """Return a token under which a job is to be moved, as the scripts may see it."""
    _check_token(token, place)
    return usable_token(token, context.grant.key)


def _check_fetch(token: str, fetch_next: bool) -> None:
    if fetch_next and parse_token(token) is not None:
        raise invalid_arguments("The next job of a Worker connection is pushed to it, not fetched - at `args[3]`")


def _next_job(reply: Any) -> NextJob:
    """Return what a script says of the next job, in the form that Node has it."""
    if not isinstance(reply, list):
        return []
    flat, id, limit, due = reply
    if not isinstance(flat, list):
        return [None, id, limit, due]
    return [raw_job(to_hash(flat)), text_of(id), limit, due]
