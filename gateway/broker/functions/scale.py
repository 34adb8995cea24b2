"""Scale: how much work a queue has, for programs that decide how many workers there should be."""

from __future__ import annotations

from typing import Final

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.queues import look_at
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.rules.shapes import Scale

_WORK: Final = ("waiting", "prioritized", "active")
"""The states of jobs that need a worker now."""


class ScaleQuery(Arguments, frozen=True):
    """Of which queue."""

    queue: str


@FLOWS.function(OBSERVE, writes=False, example=[{"queue": "mails"}])
async def get_scale(producer: Flows, opts: ScaleQuery, *, context: Context) -> Scale:
    """Return how many jobs of a queue need a worker now, those included that have one, and who works on them.

    Delayed jobs and parents that wait for children are not among them; of a paused queue only the active ones are.
    """
    check_queue_name(opts.queue, producer.max_queue_name, "`args[0].queue`")
    context.grant.check_queue(opts.queue)
    found = await look_at(opts.queue, context)
    counts, is_paused = found.get("counts", {}), found.get("paused", False)
    return {
        "queue": opts.queue,
        "value": sum(counts.get(state, 0) for state in (_WORK[-1:] if is_paused else _WORK)),
        "oldest": found.get("oldest"),
        "paused": is_paused,
        "workers": found.get("workers", 0),
    }
