"""History: what has become of jobs in the last hour."""

from __future__ import annotations

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.rules.shapes import History


class HistoryQuery(Arguments, frozen=True):
    """Of which queue; of all, where none is named."""

    queue: str | None = None


@FLOWS.function(OBSERVE, writes=False, example=[{"queue": "mails"}])
async def get_history(producer: Flows, opts: HistoryQuery | None = None, *, context: Context) -> History:
    """Return what has become of jobs in the last hour over the shards of this gateway, in steps of 10 seconds.

    What other programs add and finish is not seen, nor what other gateways do; `getMetrics` counts the finished jobs of
    all where workers keep metrics. A job waits from when it was added, or from the end of the delay that it was added
    with, until it goes to a worker for the first time. Without a queue the key must be for all: its pattern is `*`.
    """
    queue = None if opts is None else opts.queue
    if queue is None:
        context.grant.check_all_queues("name one, as `queue`")
    else:
        check_queue_name(queue, producer.max_queue_name, "`args[0].queue`")
        context.grant.check_queue(queue)
    return context.broker.history(queue)
