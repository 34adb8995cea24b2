"""Adding jobs to a queue."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Final

from msgspec import Raw

from bullmq_proxy.gateway.broker.functions.base import PRODUCE, TABLE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.held import GIVE_CHILD, check_all_held, check_options
from bullmq_proxy.gateway.broker.jobs.queue import Bulk, NewJob, Queue
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.rules.jobs import EMPTY_OBJECT
from bullmq_proxy.gateway.rules.options import NO_OPTIONS, OptionsText
from bullmq_proxy.gateway.rules.shapes import AddedJob, RefusedJob

_AT_ONCE: Final = 50  # jobs of an `addBulk` in one turn of the loop: others have their turns in between


class BulkJob(Arguments, frozen=True):
    """One entry of `addBulk`."""

    name: str
    data: Raw = EMPTY_OBJECT
    opts: OptionsText = NO_OPTIONS


@TABLE.direct(
    PRODUCE,
    writes=True,
    packs=True,
    result=AddedJob,
    example=["welcome", {"to": "ada@example.com"}, {"jobId": "welcome-7", "attempts": 3}],
)
def add(
    queue: Queue, name: str, data: Raw = EMPTY_OBJECT, opts: OptionsText = NO_OPTIONS, *, sink: Sink, context: Context
) -> Coroutine[Any, Any, None] | None:
    """Add a job and return it. `duplicate: true` stands beside its fields when the job was there already."""
    options = queue.options.prepare(opts, name=name, data=data)
    if options.effects or options.parent is not None:
        parents = check_options(options, "args[2]", queue.prefix, context.grant, queue.link)
        if parents:
            return _add_child(queue, (name, data, options), parents, sink, context)
    queue.add((name, data, options), sink)
    return None


async def _add_child(queue: Queue, job: NewJob, parents: list[str], sink: Sink, context: Context) -> None:
    await check_all_held(queue.link, parents, context.grant, GIVE_CHILD)
    queue.add(job, sink)


@TABLE.direct(
    PRODUCE,
    writes=True,
    packs=True,
    result=list[AddedJob | RefusedJob],
    example=[
        [{"name": "welcome", "data": {"to": "ada@example.com"}}, {"name": "welcome", "data": {"to": "bob@example.com"}}]
    ],
)
def add_bulk(queue: Queue, jobs: list[BulkJob], *, sink: Sink, context: Context) -> Coroutine[Any, Any, None] | None:
    """Add many jobs at once, in their order, and return them. All are checked before the first one is stored.

    One that BullMQ still refuses, as its parent is missing, shows as an object with `err` in its place.
    """
    if len(jobs) > 1:
        context.rights.check_rate(jobs=len(jobs) - 1)
    if len(jobs) > queue.turns.share(_AT_ONCE):
        return _add_slices(queue, jobs, sink, context)
    checked, parents = _checked(queue, jobs, 0, context)
    if parents:
        return _add_slices(queue, jobs, sink, context)
    queue.add_bulk(checked, sink)
    return None


async def _add_slices(queue: Queue, jobs: list[BulkJob], sink: Sink, context: Context) -> None:
    checked, parents = list[NewJob](), dict[str, None]()
    while len(checked) < len(jobs):
        first = len(checked)
        some, theirs = _checked(queue, jobs[first : first + queue.turns.share(_AT_ONCE)], first, context)
        checked += some
        parents.update(dict.fromkeys(theirs))
        await queue.turns.wait_for_slice()
    await check_all_held(queue.link, list(parents), context.grant, GIVE_CHILD)
    bulk, first = Bulk(queue, len(jobs), sink, queue.turns), 0
    while first < len(jobs):
        size = queue.turns.share(_AT_ONCE)
        some, first = checked[first : first + size], first + size
        await queue.turns.wait_for_slice()
        await bulk.wait_for(size)  # Redis has one slice to do while the next one is made, and no more
        await queue.turns.take(len(some))
        bulk.add(some)


def _checked(queue: Queue, jobs: Sequence[BulkJob], first: int, context: Context) -> tuple[list[NewJob], list[str]]:
    """Return the jobs, checked, and the keys of the parents that the caller must hold."""
    checked = []
    parents: list[str] = []
    for index, job in enumerate(jobs, first):
        place = f"args[0][{index}].opts"
        options = queue.options.prepare(job.opts, place, name=job.name, data=job.data, bulk=True)
        if options.effects or options.parent is not None:
            parents += check_options(options, place, queue.prefix, context.grant, queue.link)
        checked.append((job.name, job.data, options))
    return checked, parents
