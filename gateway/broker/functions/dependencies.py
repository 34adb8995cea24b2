"""The children of a job, page by page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, TABLE, Context
from bullmq_proxy.gateway.broker.jobs.pages import count_bytes
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.jobs import raw_job, to_hash
from bullmq_proxy.gateway.rules.shapes import Dependencies, Dependency
from bullmq_proxy.gateway.values.json_text import json_text
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER, Count

_MAX_ITERATIONS: Final = 5  # paginate-1.lua: looks of a hundred children each, before others get their turn
_FETCH_JOBS: Final = "1"

ChildKind = Literal["processed", "pending"]
Last = Annotated[int, Meta(ge=-1, le=MAX_SAFE_INTEGER)]


@TABLE.function(OBSERVE, writes=False, heavy=True)
async def get_dependencies(
    queue: Queue, parent_id: JobId, type: ChildKind, start: Count, end: Last, *, context: Context
) -> Dependencies:
    """The children of a job with their results, or those that it waits for; `jobs` has their hashes, in no order.

    `items[].id` is a child's key, `<prefix>:<queue>:<id>`. Children that are larger than 64 MiB together are refused:
    ask for them in pages.
    """
    key = queue.key(f"{parent_id}:{'processed' if type == 'processed' else 'dependencies'}")
    size = end - start + 1 if end >= 0 else math.inf
    cursor: Any = b"0"
    offset, total, read = 0, 0, 0
    items: list[Any] = []
    hashes: list[Sequence[bytes]] = []
    while True:
        reply = await queue.scripts["paginate"].run(
            [key], [start + len(items), end, cursor, offset, _MAX_ITERATIONS, _FETCH_JOBS]
        )
        cursor, offset, page, total, *jobs = reply
        items.extend(page)
        more = jobs[0] if jobs else ()
        hashes.extend(more)
        read = count_bytes(read, sum(_size(part) for part in (*page, *more)))
        if cursor in (0, b"0") or len(items) >= size:
            break
    shown = [_item(item) for item in items]
    context.grant.check_reach(queue.prefix, _queues(queue.prefix, shown, hashes))
    return {"items": shown, "jobs": [raw_job(to_hash(flat)) for flat in hashes], "total": total}


def _size(part: Any) -> int:
    """Bytes of a child's key, of a key with its result, or of a hash."""
    return len(part) if isinstance(part, bytes) else sum(map(len, part))


def _item(item: Any) -> Dependency:
    """A child's key; in the hash of the processed ones its result stands beside it."""
    if isinstance(item, bytes):
        return {"id": item.decode(errors="replace")}
    id, value = (part.decode(errors="replace") for part in item)
    result = json_text(item[1])
    return {"id": id, "err": f'"{value}" is not valid JSON'} if result is None else {"id": id, "v": result}


def _queues(prefix: str, items: list[Dependency], hashes: list[Sequence[bytes]]) -> Iterator[str]:
    """The qualified names of the queues of those children whose jobs are shown."""
    for item, flat in zip(items, hashes, strict=True):
        if flat:
            key, head = item["id"], f"{prefix}:"
            # A queue's name has no colon, an id may have some; another prefix is none of ours however it goes on.
            name = key.removeprefix(head).partition(":")[0]
            yield head + name if key.startswith(head) else key
