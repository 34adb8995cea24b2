"""Job schedulers: what makes a queue's jobs by the clock."""

from __future__ import annotations

from typing import Annotated, Final, cast

from msgspec import Meta, Raw

from bullmq_proxy.gateway.broker.functions.base import MANAGE, OBSERVE, TABLE, Arguments, Context, Index
from bullmq_proxy.gateway.broker.jobs.pages import BY_RANGE, window
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.jobs.replies import Reply
from bullmq_proxy.gateway.errors import GatewayError, finished_error
from bullmq_proxy.gateway.rules.jobs import EMPTY_OBJECT, to_hash
from bullmq_proxy.gateway.rules.options import now_ms, pack_given
from bullmq_proxy.gateway.rules.repeat import (
    RepeatOptions,
    TemplateOptions,
    check_end_date,
    check_repeat,
    check_template,
    created_iteration,
    given_repeat,
    given_template,
    next_iteration,
    scheduler_options,
    stored_options,
    template_data,
)
from bullmq_proxy.gateway.rules.schedulers import scheduler_json
from bullmq_proxy.gateway.rules.shapes import AddedJob, JobScheduler
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.text import as_argument_of_node, text_of

_PAGE: Final = 1000  # schedulers whose times are read by one command

# KEYS of addJobScheduler-11.lua.
_ADD: Final = (
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
    "active",
)


class JobTemplate(Arguments, frozen=True):
    """What the jobs of a scheduler are made of; the name is the scheduler's id unless it is given."""

    name: str | None = None
    data: Raw = EMPTY_OBJECT
    opts: TemplateOptions | None = None


@TABLE.function(
    MANAGE,
    writes=True,
    packs=True,
    example=["nightly", {"pattern": "0 0 3 * * *", "tz": "Europe/Berlin"}, {"name": "report"}],
)
async def upsert_job_scheduler(
    queue: Queue,
    job_scheduler_id: Annotated[str, Meta(min_length=1)],
    repeat_opts: RepeatOptions,
    job_template: JobTemplate | None = None,
    *,
    context: Context,
) -> AddedJob | None:
    """Create a job scheduler, or change the one with this id; return its next job.

    Null where there is none: the limit is reached, or the pattern does not fire before the end date.
    """
    template = job_template or JobTemplate()
    repeat = given_repeat(repeat_opts, "args[1]")
    options = given_template(template.opts, "args[2].opts")
    if parent := options.get("parent"):
        context.grant.check_reach(queue.prefix, [parent["queue"]])
    now = now_ms()
    check_end_date(repeat, now)
    check_repeat(repeat, options)
    check_template(options)
    iteration = next_iteration(job_scheduler_id, repeat, options, now)
    if iteration is None:
        return None
    if context.carries and not options.get("telemetry"):  # for the job alone, as in Node: the template stays as it is
        iteration.options["telemetry"] = {"metadata": context.carries}
    name = job_scheduler_id if template.name is None else template.name
    data = template_data(template.data)
    queue.introduce()
    reply = await queue.scripts["addJobScheduler"].run(
        queue.keys(*_ADD),
        [
            "" if iteration.due is None else iteration.due,
            pack_given(scheduler_options(name, repeat, iteration)),
            as_argument_of_node(job_scheduler_id),
            memoryview(data),
            pack_given(stored_options(options)),
            pack_given(stored_options(iteration.options)),
            now_ms(),
            queue.base,
            "",  # the job that asked for it: workers have a script of their own
        ],
    )
    if isinstance(reply, int):
        raise finished_error(reply, command="addJobScheduler")
    queue.counts.add()
    id, delay = reply
    return created_iteration(id, name, data, iteration, int(delay), queue.qualified)


@TABLE.function(MANAGE, writes=True, example=["nightly"])
async def remove_job_scheduler(queue: Queue, job_scheduler_id: str) -> bool:
    """Remove a job scheduler, and its next job unless that has started; return whether there was one."""
    return await _remove(queue, job_scheduler_id)


@TABLE.function(OBSERVE, writes=False, example=["nightly"])
async def get_job_scheduler(queue: Queue, id: str) -> JobScheduler | None:
    """Return a job scheduler, or null."""
    found = await queue.scripts["getJobScheduler"].run(queue.keys("repeat"), [id])
    fields, due = found if len(found) == 2 else ((), None)  # its hash, and when its next job is due
    return scheduler_json(id, to_hash(fields), due)


@TABLE.function(OBSERVE, writes=True, heavy=True, example=[0, 9, True])
async def get_job_schedulers(queue: Queue, start: Index = 0, end: Index = -1, asc: bool = False) -> list[JobScheduler]:
    """Return the job schedulers by the time of their next jobs, the latest first unless `asc`.

    Leftovers of schedulers whose data is gone are removed. Schedulers that are larger than 16 MiB together are refused:
    ask for them in pages.
    """
    order, key = "ZRANGE" if asc else "ZREVRANGE", queue.key("repeat")
    shown = window(start, end, await queue.link.call("ZCARD", key))
    found: list[Raw] = []
    missing: list[str] = []
    refused: list[GatewayError] = []
    async with Reply(queue, BY_RANGE) as reply:
        for first in range(shown.first, shown.stop, _PAGE):
            last = min(first + _PAGE, shown.stop) - 1
            due = to_hash(await queue.link.call(order, key, first, last, "WITHSCORES", decode=False))
            async for id, flat in reply.read("readJobs", f"{key}:", list(due)):
                try:
                    scheduler = scheduler_json(text_of(id), to_hash(flat), due[id])
                except GatewayError as error:
                    refused.append(error)
                    continue
                if scheduler is not None:
                    found.append(Raw(encode(scheduler)))
                else:
                    missing.append(text_of(id))
    for id in missing:
        await _remove(queue, id)
    if refused:
        raise refused[0]
    return cast("list[JobScheduler]", found)


@TABLE.function(OBSERVE, writes=False)
async def get_job_schedulers_count(queue: Queue) -> int:
    """Return the number of job schedulers."""
    count: int = await queue.link.call("ZCARD", queue.key("repeat"))
    return count


async def _remove(queue: Queue, id: str) -> bool:
    missing: int = await queue.scripts["removeJobScheduler"].run(
        queue.keys("repeat", "delayed", "events"), [id, queue.base]
    )
    return not missing
