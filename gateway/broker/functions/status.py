"""What a queue is at: paused, by whom it was made, who works on it, what is deduplicated."""

from __future__ import annotations

from typing import Final, cast

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, TABLE
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.shapes import QueueMeta
from bullmq_proxy.gateway.values.numbers import to_number


@TABLE.function(OBSERVE, writes=False)
async def is_paused(queue: Queue) -> bool:
    """Whether the queue is paused."""
    return bool(await queue.link.call("HEXISTS", queue.key("meta"), "paused"))


@TABLE.function(OBSERVE, writes=False)
async def get_version(queue: Queue) -> str | None:
    """The library and version that introduced themselves to the queue first, or null before anybody did."""
    version: str | None = await queue.link.call("HGET", queue.key("meta"), "version")
    return version


@TABLE.function(OBSERVE, writes=False)
async def get_meta(queue: Queue) -> QueueMeta:
    """The queue's global configuration; unknown fields come as they are stored, as strings."""
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


@TABLE.function(OBSERVE, writes=False)
async def get_deduplication_job_id(queue: Queue, id: str) -> str | None:
    """The id of the job that keeps others with this deduplication id out, or null."""
    job_id: str | None = await queue.link.call("GET", queue.key(f"de:{id}"))
    return job_id


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_workers(queue: Queue) -> list[dict[str, str]]:
    """The Redis connections of the queue's workers; a gateway shard is one worker, however many clients it serves."""
    name = queue.client_name
    text: str = await queue.link.call("CLIENT", "LIST")
    clients = [dict(pair.partition("=")[::2] for pair in line.split(" ")) for line in text.splitlines()]
    return [
        {**client, "name": queue.name, "rawname": client["name"]}
        for client in clients
        if client.get("name") == name or client.get("name", "").startswith(f"{name}:w:")
    ]


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_workers_count(queue: Queue) -> int:
    """How many rows `getWorkers` has."""
    return len(await get_workers(queue))
