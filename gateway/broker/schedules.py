"""Job schedulers on the consuming side: whoever takes a scheduler's job creates the job of its next iteration.

Without it a schedule that a producer set up would end with its first iteration.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from bullmq.backends.redis_backend import RedisBackend
from bullmq.job_scheduler import JobScheduler

from gateway.broker.errors import OUTAGE
from gateway.broker.queue import Queue
from gateway.wire.cron import next_fire
from gateway.wire.errors import GatewayError
from gateway.wire.jobs import Hash, read_options
from gateway.wire.options import LONG_NAMES

log = logging.getLogger(__name__)

_PAUSE: Final = 0.5  # s between two tries


class Schedules:
    """The job schedulers of one queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def advance(self, job_id: str, fields: Hash) -> None:
        """Create the job of the next iteration; `job_id` and `fields` are of the one that has just been taken."""
        task = asyncio.create_task(self._advance(job_id, fields), name=f"schedule {job_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what is under way; Redis being away ends it."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _advance(self, job_id: str, fields: Hash) -> None:
        """Until it has succeeded: an outage must not end the schedule, and the script does it only once."""
        while True:
            try:
                await self._upsert(job_id, fields)
                return
            except GatewayError as error:
                if self._closed or error.code not in OUTAGE:
                    log.warning("the iteration after %s of %s is not created: %s", job_id, self._queue.name, error)
                    return
            except Exception:
                # As in BullMQ: the job itself is processed all the same. Its parsers raise all kinds of errors.
                log.exception("the iteration after %s of %s is not created", job_id, self._queue.name)
                return
            await asyncio.sleep(_PAUSE)

    async def _upsert(self, job_id: str, fields: Hash) -> None:
        scheduler_id = fields[b"rjk"].decode(errors="replace")
        stored = read_options(fields.get(b"opts"))
        options = {LONG_NAMES.get(name, name): value for name, value in stored.items()}
        await JobScheduler(_Host(self._queue), _next_iteration).upsertJobScheduler(
            scheduler_id,
            options.get("repeat") or {},
            fields.get(b"name", b"").decode(errors="replace"),
            {},  # the template's data stands in the scheduler itself
            options,
            override=False,
            producer_id=job_id,
        )


def _next_iteration(now: int, repeat: dict[str, Any]) -> int | None:
    """When a pattern fires next, as Node's BullMQ has it: the package's own engine often disagrees (docs/cron.md).

    Args:
        now: milliseconds since 1970, or those of the iteration before if that is later.
        repeat: the scheduler's options; its dates are milliseconds.
    """
    start, end = (int(repeat.get(name) or 0) or None for name in ("startDate", "endDate"))
    return next_fire(str(repeat["pattern"]), now, tz=repeat.get("tz"), start_date=start, end_date=end)


class _Host:
    """What BullMQ's JobScheduler needs of a Queue."""

    def __init__(self, queue: Queue) -> None:
        self.qualifiedName = queue.qualified
        self.backend: Any = RedisBackend(queue.name, connection=queue.book, prefix=queue.prefix, owns_connection=False)
