"""Adding jobs to a queue."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from gateway.broker.connection import Sink
from gateway.broker.functions.base import PRODUCE, TABLE, Arguments, Context
from gateway.broker.queue import Queue
from gateway.wire.jobs import EMPTY_OBJECT
from gateway.wire.options import NO_OPTIONS, OptionsText
from gateway.wire.shapes import AddedJob, RefusedJob


class BulkJob(Arguments, frozen=True):
    """One entry of `addBulk`."""

    name: str
    data: Raw = EMPTY_OBJECT
    opts: OptionsText = NO_OPTIONS


@TABLE.direct(PRODUCE, writes=True, result=AddedJob)
def add(
    queue: Queue, name: str, data: Raw = EMPTY_OBJECT, opts: OptionsText = NO_OPTIONS, *, sink: Sink, context: Context
) -> None:
    """Add a job; returns it. `duplicate` is true beside its fields when it was there already."""
    options = queue.options.prepare(opts, name=name, data=data)
    if options.parent is not None:
        _check_parent(queue, options.parent, context)
    queue.add((name, data, options), sink)


@TABLE.direct(PRODUCE, writes=True, result=list[AddedJob | RefusedJob])
def add_bulk(queue: Queue, jobs: list[BulkJob], *, sink: Sink, context: Context) -> None:
    """Add many jobs in one go, in their order; returns them. All are checked before the first one is stored.

    One that BullMQ still refuses, as its parent is missing, shows as an object with `err` in its place.
    """
    checked = []
    for index, job in enumerate(jobs):
        place = f"args[0][{index}].opts"
        options = queue.options.prepare(job.opts, place, name=job.name, data=job.data, bulk=True)
        if options.parent is not None:
            _check_parent(queue, options.parent, context)
        checked.append((job.name, job.data, options))
    queue.add_bulk(checked, sink)


def _check_parent(queue: Queue, parent: dict[str, Any], context: Context) -> None:
    context.grant.check_reach(queue.prefix, [parent["queueKey"]])
