"""One job by its id: what Node's BullMQ has as methods of a `Job`."""

from __future__ import annotations

from msgspec import Raw

from gateway.broker.functions.base import CONSUME, MANAGE, PRODUCE, TABLE, Arguments, Count, FinishedState, JobId
from gateway.broker.functions.managing import RemoveOptions, remove
from gateway.broker.queue import Queue
from gateway.wire.errors import ErrorCode, GatewayError, finished_error


class RetryOptions(Arguments, frozen=True):
    """Options of `retryJob`."""

    reset_attempts_made: bool = False
    reset_attempts_started: bool = False


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
