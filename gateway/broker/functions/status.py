"""How a queue is set up, who works on it, and its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, Final, cast

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, TABLE, FinishedState, Index
from bullmq_proxy.gateway.broker.functions.reading import get_job_counts
from bullmq_proxy.gateway.broker.jobs.pages import BY_RANGE, window
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.jobs.replies import Reply
from bullmq_proxy.gateway.broker.redis import tracker
from bullmq_proxy.gateway.broker.redis.errors import OUTAGE
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.rules.shapes import Metrics, MetricsMeta, QueueMeta
from bullmq_proxy.gateway.values.numbers import parse_int, to_number
from bullmq_proxy.gateway.values.validation import matching


@TABLE.function(OBSERVE, writes=False)
async def is_paused(queue: Queue) -> bool:
    """Return whether the queue is paused."""
    return bool(await queue.link.call("HEXISTS", queue.key("meta"), "paused"))


@TABLE.function(OBSERVE, writes=False)
async def get_version(queue: Queue) -> str | None:
    """Return the library and version that introduced themselves to the queue first, or null."""
    version: str | None = await queue.link.call("HGET", queue.key("meta"), "version")
    return version


@TABLE.function(OBSERVE, writes=False)
async def get_meta(queue: Queue) -> QueueMeta:
    """Return the queue's global configuration; unknown fields come as they are stored, as strings."""
    flat: list[str] = await queue.link.call("HGETALL", queue.key("meta"))
    stored = dict(zip(flat[::2], flat[1::2], strict=True))
    numbers = {shown: stored.pop(name, "") for name, shown in _META_NUMBERS}
    paused = stored.pop("paused", None) == "1"
    shown = {**stored, **{name: to_number(text) for name, text in numbers.items() if text}, "paused": paused}
    return cast(QueueMeta, shown)


_META_NUMBERS: Final = (
    ("concurrency", "concurrency"),
    ("opts.maxLenEvents", "maxLenEvents"),
    ("max", "max"),
    ("duration", "duration"),
)


@TABLE.function(OBSERVE, writes=False, example=["once"])
async def get_deduplication_job_id(queue: Queue, id: str) -> str | None:
    """Return the id of the job that has a deduplication id, or null."""
    job_id: str | None = await queue.link.call("GET", queue.key(f"de:{id}"))
    return job_id


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_workers(queue: Queue) -> list[dict[str, str]]:
    """Return the Redis connections of the queue's workers; a shard is one worker, however many clients it serves.

    Where a shard's queues share a connection to wait on, that one stands here.
    """
    workers = [dict(pair.partition("=")[::2] for pair in line.split(" ")) for line in await _worker_lines(queue)]
    return [{**worker, "name": queue.name, "rawname": worker["name"]} for worker in workers]


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_workers_count(queue: Queue) -> int:
    """Return the number of entries that `getWorkers` has."""
    return len(await _worker_lines(queue))


async def _worker_lines(queue: Queue) -> list[str]:
    text: str = await queue.link.call("CLIENT", "LIST")
    name, lines = f" name={queue.client_name}", text.splitlines()
    own = [line for line in lines if f"{name} " in line or f"{name}:w:" in line]
    return own + await _lines_of_sharers(queue, lines)


async def _lines_of_sharers(queue: Queue, lines: list[str]) -> list[str]:
    """Return the lines of the connections on which sleeping workers of the queue wait."""
    trackers = {
        tracker.channel(queue.client_name, line.partition("id=")[2].partition(" ")[0]): line
        for line in lines
        if f"{tracker.NAME} " in line
    }
    if not trackers:
        return []
    try:
        counts: list[Any] = await queue.link.call("PUBSUB", "NUMSUB", *trackers)
    except GatewayError as error:
        if error.code in OUTAGE:
            raise
        return []  # not allowed to ask
    return [trackers[channel] for channel, count in zip(counts[::2], counts[1::2], strict=True) if count]


# Figures

LabelName = Annotated[
    str, matching(r"^[a-zA-Z_][a-zA-Z0-9_]*$(?!\n)", "a label's name: letters, digits and `_`, with no digit first")
]


@TABLE.function(OBSERVE, writes=False, example=["completed", 0, 59])
async def get_metrics(queue: Queue, type: FinishedState, start: Index = 0, end: Index = -1) -> Metrics:
    """Return how many jobs finished in each minute, the newest minute first; for workers that keep metrics."""
    data = queue.key(f"metrics:{type}:data")
    meta, length = await asyncio.gather(_finished(queue, type), queue.link.call("LLEN", data))
    shown = window(start, end, length)
    async with Reply(queue, BY_RANGE) as reply:
        points = [point async for _, point in reply.read("readEntries", data, range(shown.first, shown.stop))]
    return {
        "meta": meta,
        "data": [to_number(point.decode(errors="replace")) or 0 for point in points if point is not None],
        "count": length,
    }


async def _finished(queue: Queue, type: FinishedState) -> MetricsMeta:
    fields = await queue.link.call("HMGET", queue.key(f"metrics:{type}"), "count", "prevTS", "prevCount", decode=False)
    count, since, counted = (parse_int(field or b"0") for field in fields)
    return {"count": count, "prevTS": since, "prevCount": counted}


@TABLE.function(OBSERVE, writes=False, example=[{"env": "prod"}])
async def export_prometheus_metrics(queue: Queue, global_variables: dict[LabelName, str] | None = None) -> str:
    """Return `getJobCounts` and `getMetrics` in Prometheus's text format; the variables become labels of each line."""
    counts, completed, failed = await asyncio.gather(
        get_job_counts(queue), _finished(queue, "completed"), _finished(queue, "failed")
    )
    labels = "".join(f', {name}="{_escaped(value)}"' for name, value in (global_variables or {}).items())
    name = f'queue="{_escaped(queue.name)}"'
    lines = [
        *_head("count", "gauge", "Number of jobs in the queue by state"),
        *(f'bullmq_job_count{{{name}, state="{type}"{labels}}} {count}' for type, count in counts.items()),
    ]
    for state, finished in (("completed", completed), ("failed", failed)):
        lines.extend(_head(f"{state}_total", "counter", f"Total number of {state} jobs"))
        lines.append(f"bullmq_job_{state}_total{{{name}{labels}}} {_shown(finished['count'])}")
    return "\n".join(lines)


def _head(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# HELP bullmq_job_{name} {help}"
    yield f"# TYPE bullmq_job_{name} {kind}"


def _shown(value: int | None) -> str:
    return "NaN" if value is None else str(value)


def _escaped(value: str) -> str:
    """Return a label's value in Prometheus's text format."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
