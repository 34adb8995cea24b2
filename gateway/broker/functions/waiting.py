"""Waiting for a job to end."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from msgspec import Meta, Raw

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, TABLE, Context
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.ids import JobId

_LONGEST: Final = 2**31 - 1  # ms; with a longer one Node gives up at once

WaitTime = Annotated[int, Meta(ge=0, le=_LONGEST)]


@TABLE.function(OBSERVE, writes=False, waits=True)
async def wait_until_job_finished(queue: Queue, job_id: JobId, ttl: WaitTime | None = None, *, context: Context) -> Raw:
    """Wait until a job is completed and return its return value (Node's `job.waitUntilFinished`).

    When it has failed for good, the error is `CONFLICT` with the reason as its message. With `ttl` it is `TIMEOUT`
    after so many ms; 0 and null wait for as long as the connection lives.
    """
    if not ttl:
        return await context.broker.services(queue).job_waits().wait(job_id)
    name = await queue.link.call("HGET", queue.key(job_id), "name")
    try:
        async with asyncio.timeout(ttl / 1000):
            return await context.broker.services(queue).job_waits().wait(job_id)
    except TimeoutError:
        raise GatewayError(
            ErrorCode.TIMEOUT,
            f"Job wait {name} timed out before finishing, no finish notification arrived after {ttl}ms (id={job_id})",
        ) from None
