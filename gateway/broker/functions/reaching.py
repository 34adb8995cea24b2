"""Reaching workers: those who hold jobs, on whatever shard or host they are connected."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, cast

from msgspec import Meta

from bullmq_proxy.gateway.broker.consuming.tokens import parse_token
from bullmq_proxy.gateway.broker.functions.base import MANAGE, OBSERVE, TABLE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.reading import get_job_state
from bullmq_proxy.gateway.broker.jobs.moves import Move, Moves, load_job
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.questions import Retire, SendAway
from bullmq_proxy.gateway.broker.redis.socket import future_of
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.shapes import CancelledJob, Consumers, ShownConsumer
from bullmq_proxy.gateway.wire.answers import Failed

LONGEST_REASON: Final = 1000
_TRIES: Final = 5  # to take a job away that changes hands meanwhile
_MISSING: Final = -1  # as in `finished_error`

EXAMPLE_CONSUMER: Final = "9f3b61c0d2a84e57:0:0:12"
"""An id as `getConsumers` shows it, for the documents."""

Reason = Annotated[str, Meta(max_length=LONGEST_REASON)]
ConsumerId = Annotated[str, Meta(min_length=1, max_length=200)]


class CancelOptions(Arguments, frozen=True):
    """Options of `cancelJob`."""

    fail: bool = True


@TABLE.function(MANAGE, writes=True, example=["active-1", "the order was withdrawn"])
async def cancel_job(
    queue: Queue,
    job_id: JobId,
    reason: Reason = "The job was cancelled",
    opts: CancelOptions | None = None,
    *,
    context: Context,
) -> CancelledJob:
    """Take a job from whoever holds it: it fails for good with `reason`, whatever attempts it has left.

    With `fail` false it goes back instead: first in line, no attempt charged. Its worker gets `cancel` with the reason,
    on whatever shard or host it is connected; `delivered` says whether that was sent. Else it learns of it when its
    lock is to be renewed, or by its answer, which is not stored. A job that nobody holds is a `CONFLICT`.
    """
    fail = opts is None or opts.fail
    moves = Moves(queue)
    for _ in range(_TRIES):
        token = await queue.link.call("GET", queue.key(f"{job_id}:lock"))
        if token is None:
            break
        job = await load_job(queue, job_id, token)
        move = moves.fail(job, Failed(reason, unrecoverable=True)) if fail else moves.release(job)
        if await _has_moved(job_id, move):
            queue.counts.end(move.state)
            if job.priority and not fail:
                queue.wake()
            if parse_token(token) is None:  # no shard has a lease of it that would make room
                context.broker.services(queue).job_moved(job_id, token)
            delivered = await context.broker.reach.tell_holder(job_id, token, reason)
            return {"delivered": delivered, "state": "failed" if fail else "waiting"}
    state = await get_job_state(queue, job_id)
    if state == "unknown":
        raise finished_error(_MISSING, command="cancelJob", job_id=job_id)
    raise GatewayError(ErrorCode.CONFLICT, f"Job {job_id} is in nobody's hands: it is {state}")


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_consumers(queue: Queue, *, context: Context) -> Consumers:
    """Return who works on the queue over Worker connections, and its webhook workers, on all shards and hosts.

    The others of its workers, of BullMQ's own libraries, are among those of `getWorkers`.
    """
    workers, omitted, silent = await context.broker.reach.workers(queue.name)
    return {"consumers": cast("list[ShownConsumer]", workers), "omitted": omitted, "silent": silent}


@TABLE.function(MANAGE, writes=True, example=[EXAMPLE_CONSUMER])
async def drain_consumer(queue: Queue, id: ConsumerId, *, context: Context) -> None:
    """Give a Worker connection no new jobs any more; `id` is that of `getConsumers`.

    Its client gets `drain`, without a deadline, and can finish what it has in hand. This lasts until it connects again.
    """
    await context.broker.reach.act_on(Retire(queue.name, id))


@TABLE.function(MANAGE, writes=True, example=[EXAMPLE_CONSUMER])
async def disconnect_consumer(queue: Queue, id: ConsumerId, *, context: Context) -> None:
    """Close a Worker connection with the code 4001; `id` is that of `getConsumers`.

    The jobs that it has not answered go back, first in line, with no attempt charged and no loss counted.
    """
    await context.broker.reach.act_on(SendAway(queue.name, id))


async def _has_moved(job_id: str, move: Move) -> bool:
    """Run a move; return False when the lock was another one by then, or the job gone."""
    reply = await future_of(partial(move.send, False))
    if not isinstance(reply, int) or reply >= 0:
        return True
    error = finished_error(reply, command=move.script, job_id=job_id, state="active")
    if error.code is ErrorCode.INTERNAL:
        raise error
    return False
