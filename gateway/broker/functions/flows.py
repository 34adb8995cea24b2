"""The functions of a Flows connection: BullMQ's FlowProducer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from msgspec import Meta

from bullmq_proxy.gateway.access.grants import MANAGERS
from bullmq_proxy.gateway.broker.functions.base import MANAGE, OBSERVE, PRODUCE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.held import GIVE_CHILD, check_all_held, check_options
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.broker.jobs.flows import MOST_JOBS, Flows, JobRef
from bullmq_proxy.gateway.broker.redis.socket import Sink
from bullmq_proxy.gateway.rules.flow import MAX_DEPTH, FlowJob, FlowNode, Prefix, plan
from bullmq_proxy.gateway.rules.ids import JobIdText, check_queue_name
from bullmq_proxy.gateway.rules.options import JobOptions
from bullmq_proxy.gateway.rules.shapes import AddedFlow, Flow
from bullmq_proxy.gateway.values.text import as_argument_of_node

FLOWS: Final = FunctionTable()


class QueueOptions(Arguments, frozen=True):
    """Of one queue, for the jobs of a flow that go there."""

    default_job_options: JobOptions | None = None


class FlowOptions(Arguments, frozen=True):
    """Of a flow: options by queue name."""

    queues_options: dict[str, QueueOptions | None] | None = None


class FlowQuery(Arguments, frozen=True):
    """Which flow, and how much of it. `depth` counts levels; `maxChildren` is for each kind of children, about."""

    queue_name: str
    id: JobIdText | int
    prefix: Prefix | None = None
    depth: Annotated[int, Meta(ge=1, le=MAX_DEPTH)] = 10
    max_children: Annotated[int, Meta(ge=1, le=MOST_JOBS)] = 20


@FLOWS.direct(
    PRODUCE,
    writes=True,
    packs=True,
    result=AddedFlow,
    example=[
        {
            "name": "order",
            "queueName": "mails",
            "children": [{"name": "charge", "queueName": "mails", "data": {"amount": 5}}],
        }
    ],
)
def add(
    producer: Flows, flow: FlowNode, opts: FlowOptions | None = None, *, sink: Sink, context: Context
) -> Coroutine[Any, Any, None] | None:
    """Add a flow, which is a job with the jobs that it waits for, and return it in the same form.

    All are checked before the first one is stored, and stored at once. `opts` has default job options by queue:
    `{"queuesOptions": {"mails": {"defaultJobOptions": {"attempts": 3}}}}`.
    """
    queues = (opts.queues_options if opts is not None else None) or {}
    defaults = {
        as_argument_of_node(name): options.default_job_options
        for name, options in queues.items()
        if options is not None and options.default_job_options is not None
    }
    jobs = plan([(flow, "args[0]")], prefix=producer.prefix, max_queue_name=producer.max_queue_name, defaults=defaults)
    return _store(producer, jobs, producer.add, sink, context)


@FLOWS.direct(
    PRODUCE,
    writes=True,
    packs=True,
    result=list[AddedFlow],
    example=[[{"name": "order", "queueName": "mails"}, {"name": "order", "queueName": "mails"}]],
)
def add_bulk(
    producer: Flows, flows: list[FlowNode], *, sink: Sink, context: Context
) -> Coroutine[Any, Any, None] | None:
    """Add several flows at once and return them. One whose root BullMQ refuses shows `err` beside it."""
    roots = [(flow, f"args[0][{index}]") for index, flow in enumerate(flows)]
    jobs = plan(roots, prefix=producer.prefix, max_queue_name=producer.max_queue_name)
    return _store(producer, jobs, producer.add_bulk, sink, context)


@FLOWS.function(OBSERVE, writes=False, heavy=True, example=[{"queueName": "mails", "id": "parent-1"}])
async def get_flow(producer: Flows, opts: FlowQuery, *, context: Context) -> Flow | None:
    """Return a job with its children, down to `depth` levels, or null where there is no such job.

    The children are in this order: completed, pending, failed, and those whose failure the parent ignores. null stands
    for one that was removed.
    """
    check_queue_name(opts.queue_name, producer.max_queue_name, "`args[0].queueName`")
    root = JobRef(opts.prefix or producer.prefix, opts.queue_name, opts.id)
    return await producer.read(root, opts.depth, opts.max_children, context.grant)


Store = Callable[[list[FlowJob], Sink], None]


def _store(
    producer: Flows, jobs: list[FlowJob], store: Store, sink: Sink, context: Context
) -> Coroutine[Any, Any, None] | None:
    """Store the jobs once it is certain that they take nothing of others."""
    if len(jobs) > 1:
        context.rights.check_rate(jobs=len(jobs) - 1)
    grant = context.grant
    grant.check_reach(producer.prefix, {job.qualified for job in jobs})
    parents: list[str] = []
    for job in jobs:
        if job.parent is None:
            parents += check_options(
                job.options, f"{job.place}.opts", producer.prefix, grant, producer.link.of(f"{job.qualified}:")
            )
        elif job.options.effects:
            grant.check_effects(job.options.effects, f"{job.place}.opts.")
    if not grant.allows(MANAGE):
        known = [job for job in jobs if job.is_own_id and (job.children or job.options.parent is not None)]
        if parents or known:
            return _store_checked(producer, jobs, parents, known, store, sink, context)
    store(jobs, sink)
    return None


async def _store_checked(
    producer: Flows,
    jobs: list[FlowJob],
    parents: list[str],
    known: list[FlowJob],
    store: Store,
    sink: Sink,
    context: Context,
) -> None:
    """Store the jobs unless they would change the family of one that was there before: it may be anybody's.

    The same flow may come a second time.

    Args:
        producer: stores them.
        jobs: of the flows.
        parents: the keys of jobs that the caller must hold, since they get children.
        known: those that may have been there before.
        store: the way to store them.
        sink: takes the reply.
        context: of the call.
    """
    await check_all_held(producer.link, parents, context.grant, GIVE_CHILD)
    changed = await producer.first_changed(known)
    if changed is not None:
        context.grant.check_any_permission(
            MANAGERS, f"take the job {changed.id[:100]}, which is there already, into a flow - at `{changed.place}`"
        )
    store(jobs, sink)
