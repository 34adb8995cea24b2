"""Job schedulers on the consuming side: whoever takes a scheduler's job creates the job of its next iteration.

Without it a schedule that a producer set up would end with its first iteration. What Redis holds afterwards is what a
Node Worker leaves (`rules/repeat.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.errors import will_pass
from bullmq_proxy.gateway.errors import GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.rules.options import now_ms, pack
from bullmq_proxy.gateway.rules.repeat import (
    check_repeat,
    next_iteration,
    stored_options,
    taken_options,
)
from bullmq_proxy.gateway.rules.schedulers import is_legacy_key, legacy_error
from bullmq_proxy.gateway.values.text import text_of

log = logging.getLogger(__name__)

_PAUSE: Final = 0.5  # s between two tries
# KEYS of updateJobScheduler-12.lua, without the job that has been taken, which stands before `active`.
_UPDATE: Final = (
    "repeat",
    "delayed",
    "wait",
    "paused",
    "meta",
    "prioritized",
    "marker",
    "id",
    "events",
    "pc",
)


class Schedules:
    """The job schedulers of one queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def advance(self, job_id: str, fields: Hash, then: Callable[[], None]) -> None:
        """Create the job of the next iteration.

        Args:
            job_id: of the one that has just been taken.
            fields: its hash.
            then: is called when the new job stands, or cannot be created: a broken schedule keeps no job from its
                worker. While Redis is away that takes as long as it is.
        """
        task = asyncio.create_task(self._advance(job_id, fields), name=f"schedule {job_id}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._advanced, then))

    def _advanced(self, then: Callable[[], None], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        then()

    async def close(self) -> None:
        """Wait for what is under way; Redis being away ends it."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _advance(self, job_id: str, fields: Hash) -> None:
        """Until it has succeeded: an outage must not end the schedule, and the script does it only once."""
        while True:
            try:
                await self._create_next(job_id, fields)
                return
            except GatewayError as error:
                if self._closed or not will_pass(error):
                    log.warning("the iteration after %s of %s is not created: %s", job_id, self._queue.name, error)
                    return
            except Exception:
                # Anything can be in its options. The job itself is processed all the same; Node's worker would leave it
                # in `active`, from where the stalled check brings it back for ever.
                log.exception("the iteration after %s of %s is not created", job_id, self._queue.name)
                return
            await asyncio.sleep(_PAUSE)

    async def _create_next(self, job_id: str, fields: Hash) -> None:
        queue = self._queue
        scheduler_id = text_of(fields[b"rjk"])
        if not scheduler_id:
            return
        if is_legacy_key(scheduler_id) and not await self._exists(scheduler_id):
            raise legacy_error(scheduler_id)
        options = taken_options(fields.get(b"opts"))
        repeat = options.get("repeat")
        if not isinstance(repeat, dict):
            raise invalid_arguments("the job has no repeat options")
        check_repeat(repeat, options)
        iteration = next_iteration(scheduler_id, repeat, options, now_ms())
        if iteration is None:
            return
        added = await queue.scripts["updateJobScheduler"].run(
            queue.keys(*_UPDATE, job_id, "active"),
            [
                "" if iteration.due is None else iteration.due,
                scheduler_id,
                "",  # the template's data stands in the scheduler itself
                pack(stored_options(iteration.options)),
                now_ms(),
                queue.base,
                job_id,
            ],
        )
        if added:
            queue.counts.add()

    async def _exists(self, scheduler_id: str) -> bool:
        key = self._queue.key(f"repeat:{scheduler_id}")
        return bool(await self._queue.link.call("HEXISTS", key, "ic"))
