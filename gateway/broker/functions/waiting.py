"""Waiting for a job's end: for one that is there, or for one that the same call adds."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions.base import OBSERVE, PRODUCE, TABLE, Context
from bullmq_proxy.gateway.broker.functions.held import GIVE_CHILD, check_all_held, check_options
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import future_of
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.jobs import EMPTY_OBJECT
from bullmq_proxy.gateway.rules.options import NO_OPTIONS, OptionsText

_LONGEST_WAIT: Final = 2**31 - 1  # ms; with a longer one Node gives up at once

WaitTime = Annotated[int, Meta(ge=0, le=_LONGEST_WAIT)]


@TABLE.function(OBSERVE, writes=False, waits=True, example=["completed-1", 30000])
async def wait_until_job_finished(queue: Queue, job_id: JobId, ttl: WaitTime | None = None, *, context: Context) -> Raw:
    """Wait until a job is completed and return its return value (Node's `job.waitUntilFinished`).

    When it has failed for good, the error is `CONFLICT` with the reason as its message; when it is gone, `NOT_FOUND`.
    With `ttl` it is `TIMEOUT` after so many ms; 0 and null wait for as long as the connection lives.
    """
    if not ttl:
        return await context.broker.services(queue).job_waits().wait(job_id)
    name = await queue.link.call("HGET", queue.key(job_id), "name")
    try:
        async with asyncio.timeout(ttl / 1000):
            return await context.broker.services(queue).job_waits().wait(job_id)
    except TimeoutError:
        raise _timed_out(name, job_id, ttl) from None


@TABLE.function(PRODUCE, writes=True, waits=True, packs=True, example=["welcome", {}, {"jobId": "completed-1"}, 30000])
async def add_and_wait(
    queue: Queue,
    name: str,
    data: Raw = EMPTY_OBJECT,
    opts: OptionsText = NO_OPTIONS,
    ttl: WaitTime | None = None,
    *,
    context: Context,
) -> Raw:
    """Add a job, wait until it is completed, and return its return value: `add` and `waitUntilJobFinished` in one.

    No end is missed, also with `removeOnComplete`. When the wait ends otherwise, as after `ttl` ms, the job stays. One
    that is there already is waited for as well; that needs the permission `observe`, too.
    """
    options = queue.options.prepare(opts, name=name, data=data)
    parents = check_options(options, "args[2]", queue.prefix, context.grant, queue.link)
    await check_all_held(queue.link, parents, context.grant, GIVE_CHILD)
    added = _Added("")

    async def add() -> tuple[str, bool]:
        nonlocal added
        added = _reader.decode(b"".join(await future_of(partial(queue.add, (name, data, options)))))
        if added.duplicate:
            context.grant.check_permission(Permission.OBSERVE, "wait for a job that is there already")
        if ttl:
            limit.reschedule(asyncio.get_running_loop().time() + ttl / 1000)
        return added.id, not added.duplicate

    try:
        async with asyncio.timeout(None) as limit:
            return await context.broker.services(queue).job_waits().wait_for_new(add)
    except TimeoutError:
        raise _timed_out(name, added.id, ttl) from None


class _Added(Struct):
    """What matters of the reply to an `add`."""

    id: str
    duplicate: bool = False


_reader: Final = msgspec.json.Decoder(_Added)


def _timed_out(name: str | None, id: str, ttl: int | None) -> GatewayError:
    return GatewayError(
        ErrorCode.TIMEOUT,
        f"Job wait {name} timed out before finishing, no finish notification arrived after {ttl}ms (id={id})",
    )
