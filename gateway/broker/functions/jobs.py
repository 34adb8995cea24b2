"""One job by its id: what Node's BullMQ has as methods of a `Job`; its family is in `families`."""

from __future__ import annotations

import asyncio
from functools import partial

from msgspec import Raw

from bullmq_proxy.gateway.broker.functions.base import (
    CONSUME,
    MANAGE,
    OBSERVE,
    TABLE,
    Arguments,
    Context,
    FinishedState,
)
from bullmq_proxy.gateway.broker.functions.managing import RemoveOptions, remove
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import future_of
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error, invalid_arguments
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.jobs import deduplication_id
from bullmq_proxy.gateway.rules.options import PRIORITY_LIMIT, now_ms
from bullmq_proxy.gateway.rules.stored_options import stored_options
from bullmq_proxy.gateway.values.numbers import Count, Milliseconds
from bullmq_proxy.gateway.values.text import text_of


class RetryOptions(Arguments, frozen=True):
    """Options of `retryJob`."""

    reset_attempts_made: bool = False
    reset_attempts_started: bool = False


class PriorityOptions(Arguments, frozen=True):
    """Options of `changeJobPriority`."""

    priority: float = 0.0
    lifo: bool = False


@TABLE.function(MANAGE, writes=True, example=["waiting-1"])
async def remove_job(queue: Queue, job_id: JobId, opts: RemoveOptions | None = None, *, context: Context) -> None:
    """Remove a job and its children, and theirs; a job that a worker holds is an error (Node's `job.remove`).

    With `removeChildren` false only the job. Children may be in other queues: the key must be for these, too.
    """
    if not await remove(queue, job_id, opts, context=context):
        raise GatewayError(
            ErrorCode.CONFLICT, f"Job {job_id} could not be removed because it is locked by another worker"
        )


@TABLE.function(MANAGE, writes=True, example=["failed-1", "failed"])
async def retry_job(
    queue: Queue,
    job_id: JobId,
    state: FinishedState = "failed",
    opts: RetryOptions | None = None,
) -> None:
    """Move a failed or completed job back to wait (Node's `job.retry`)."""
    options = opts or RetryOptions()
    stored = await queue.link.call("HGET", queue.key(job_id), "opts", decode=False)
    code = await queue.scripts["reprocessJob"].run(
        queue.keys(job_id, "events", state, "wait", "meta", "active", "marker", "prioritized", "pc"),
        [
            job_id,
            "RPUSH" if stored_options(stored).lifo else "LPUSH",
            "failedReason" if state == "failed" else "returnvalue",
            state,
            "1" if options.reset_attempts_made else "0",
            "1" if options.reset_attempts_started else "0",
        ],
    )
    if code != 1:
        raise finished_error(code, command="reprocessJob", job_id=job_id, state=state)


@TABLE.function(MANAGE, writes=True, example=["delayed-1"])
async def promote_job(queue: Queue, job_id: JobId) -> None:
    """Move a delayed job to wait (Node's `job.promote`)."""
    keys = queue.keys(
        "delayed",
        "wait",
        "paused",
        "meta",
        "prioritized",
        "active",
        "pc",
        "events",
        "marker",
    )
    code = await queue.scripts["promote"].run(keys, [queue.base, job_id])
    if code < 0:
        raise finished_error(code, command="promote", job_id=job_id, state="delayed")


@TABLE.function(MANAGE, writes=True, example=["delayed-1", 60000])
async def change_job_delay(queue: Queue, job_id: JobId, delay: Milliseconds) -> None:
    """Change how long a delayed job waits: `delay` ms from now (Node's `job.changeDelay`)."""
    code = await queue.scripts["changeDelay"].run(
        queue.keys("delayed", "meta", "marker", "events"), [delay, now_ms(), job_id, queue.key(job_id)]
    )
    if code < 0:
        raise finished_error(code, command="changeDelay", job_id=job_id, state="delayed")


@TABLE.function(MANAGE, writes=True, example=["waiting-1", {"priority": 10}])
async def change_job_priority(queue: Queue, job_id: JobId, opts: PriorityOptions) -> None:
    """Change a job's priority, 0 to 2097151; none if it is left out (Node's `job.changePriority`).

    It moves behind the jobs of that priority, or with `lifo` before them. A job that does not wait has its new
    priority for when it does.
    """
    priority = opts.priority
    if not priority.is_integer():
        raise invalid_arguments("Priority should not be float")
    if not 0 <= priority <= PRIORITY_LIMIT:
        raise invalid_arguments(f"Priority should be between 0 and {PRIORITY_LIMIT}")
    code = await queue.scripts["changePriority"].run(
        queue.keys("wait", "paused", "meta", "prioritized", "active", "pc", "marker"),
        [int(priority), queue.base, job_id, int(opts.lifo)],
    )
    if code < 0:
        raise finished_error(code, command="changePriority", job_id=job_id)


@TABLE.function(MANAGE, writes=True, example=["deduplicated-1"])
async def remove_job_deduplication_key(queue: Queue, job_id: JobId) -> bool:
    """Free a job's deduplication id, so that another job can have it (Node's `job.removeDeduplicationKey`).

    Returns false when the job has none, or another job holds it.
    """
    stored, options = await queue.link.call("HMGET", queue.key(job_id), "deid", "opts", decode=False)
    id = text_of(stored) if stored else deduplication_id(options)
    if not id:
        return False
    removed: int = await queue.scripts["removeDeduplicationKey"].run(queue.keys(f"de:{id}"), [job_id])
    return removed > 0


@TABLE.function(CONSUME, writes=True, held=True, example=["waiting-1", {"to": "bob@example.com"}])
async def update_job_data(queue: Queue, job_id: JobId, data: Raw) -> None:
    """Replace a job's data (Node's `job.updateData`)."""
    code = await queue.scripts["updateData"].run(queue.keys(job_id), [bytes(data)])
    if code < 0:
        raise finished_error(code, command="updateData", job_id=job_id)


@TABLE.function(CONSUME, writes=True, held=True, example=["active-1", {"percent": 50}])
async def update_job_progress(queue: Queue, job_id: JobId, progress: Raw) -> None:
    """Set a job's progress, which is any JSON (Node's `job.updateProgress`)."""
    await future_of(partial(queue.update_progress, job_id, bytes(progress)))


@TABLE.function(CONSUME, writes=True, held=True, example=["active-1", "sending", 100])
async def add_job_log(queue: Queue, job_id: JobId, log_row: str, keep_logs: Count | None = None) -> int:
    """Add a row to a job's log and return the number of rows; only the last `keepLogs` stay (Node's `job.log`)."""
    rows: int = await future_of(partial(queue.add_log, job_id, log_row, keep_logs))
    return rows


@TABLE.function(CONSUME, writes=True, held=True, example=["active-1", 10])
async def clear_job_logs(queue: Queue, job_id: JobId, keep_logs: Count | None = None) -> None:
    """Clear a job's log, except for its last `keepLogs` rows (Node's `job.clearLogs`)."""
    key = queue.key(f"{job_id}:logs")
    if keep_logs:
        await queue.link.call("LTRIM", key, -keep_logs, -1)
    else:
        await queue.link.call("DEL", key)


# States


def _state_checker(name: str, kind: str, *keys: str, command: str) -> None:
    async def check(queue: Queue, job_id: JobId) -> bool:
        places = [queue.link.call(command, queue.key(key), job_id) for key in keys]
        return any(place is not None for place in await asyncio.gather(*places))

    check.__doc__ = f"Return whether a job is {kind} (Node's `job.{name.replace('Job', '')}`)."
    TABLE.function(OBSERVE, writes=False, name=name, example=["waiting-1"])(check)


_state_checker("isJobActive", "active", "active", command="LPOS")
_state_checker("isJobCompleted", "completed", "completed", command="ZSCORE")
_state_checker("isJobDelayed", "delayed", "delayed", command="ZSCORE")
_state_checker("isJobFailed", "failed", "failed", command="ZSCORE")
_state_checker("isJobWaiting", "waiting, without a priority", "wait", "paused", command="LPOS")
_state_checker("isJobWaitingChildren", "waiting for its children", "waiting-children", command="ZSCORE")
