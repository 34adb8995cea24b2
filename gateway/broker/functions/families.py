"""A job's family, by its id: the children that it waits for and what came of them, and its bond to its own parent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Raw

from bullmq_proxy.gateway.broker.functions.base import MANAGE, OBSERVE, TABLE, Arguments, BatchSize, Context
from bullmq_proxy.gateway.broker.jobs.pages import count_bytes
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import finished_error
from bullmq_proxy.gateway.rules.ids import JobId
from bullmq_proxy.gateway.rules.jobs import raw_job, to_hash
from bullmq_proxy.gateway.rules.shapes import Dependencies, Dependency, JobDependencies, JobDependenciesCount
from bullmq_proxy.gateway.values.json_text import encode, json_text
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER, Count
from bullmq_proxy.gateway.values.text import text_of


class Page(Arguments, frozen=True):
    """Where to go on reading, and about how many entries to read."""

    cursor: Count = 0
    count: BatchSize = 20


class DependenciesOptions(Arguments, frozen=True):
    """Options of `getJobDependencies`: the kinds of children to read, page by page."""

    processed: Page | None = None
    unprocessed: Page | None = None
    ignored: Page | None = None
    failed: Page | None = None


class DependenciesCountOptions(Arguments, frozen=True):
    """Options of `getJobDependenciesCount`: the kinds of children to count."""

    processed: bool = False
    unprocessed: bool = False
    ignored: bool = False
    failed: bool = False


# Reading


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1"])
async def get_job_children_values(queue: Queue, job_id: JobId) -> dict[str, Raw]:
    """Return the results of a job's completed children, by the children's keys (Node's `job.getChildrenValues`)."""
    return _values(await _read(queue, "HGETALL", f"{job_id}:processed"))


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1"])
async def get_job_ignored_children_failures(queue: Queue, job_id: JobId) -> dict[str, str]:
    """Return why children failed whose failure the job ignores (Node's `job.getIgnoredChildrenFailures`)."""
    return _texts(await _read(queue, "HGETALL", f"{job_id}:failed"))


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1", {"processed": {"count": 10}}])
async def get_job_dependencies(queue: Queue, job_id: JobId, opts: DependenciesOptions | None = None) -> JobDependencies:
    """Return the keys of a job's children: completed, unfinished, failed, ignored (Node's `job.getDependencies`).

    Without options all of them; with options only the named kinds, a page of each, and beside it the cursor of the
    next page: 0 after the last. A page may hold more than `count`. For `failed`, as in Node, `count` is the number at
    which the page ends, counted from the first child of all, and the next cursor is `cursor + count`.
    """
    if opts is None or opts == DependenciesOptions():
        return await _all_dependencies(queue, job_id)
    found: dict[str, Any] = {}
    pages = await asyncio.gather(
        *(
            _scan(queue, command, f"{job_id}:{key}", page)
            for command, key, page in (
                ("HSCAN", "processed", opts.processed),
                ("HSCAN", "failed", opts.ignored),
                ("ZRANGE", "unsuccessful", opts.failed),
                ("SSCAN", "dependencies", opts.unprocessed),
            )
        )
    )
    for name, shown, page in zip(
        ("Processed", "Ignored", "Failed", "Unprocessed"), (_values, _texts, _strings, _strings), pages, strict=True
    ):
        if page is not None:
            cursor, entries = page
            found[name.lower()] = shown(entries)
            found[f"next{name}Cursor"] = cursor
    return found  # type: ignore[return-value]


async def _all_dependencies(queue: Queue, job_id: str) -> JobDependencies:
    processed, unprocessed, ignored, failed = await asyncio.gather(
        _read(queue, "HGETALL", f"{job_id}:processed"),
        _read(queue, "SMEMBERS", f"{job_id}:dependencies"),
        _read(queue, "HGETALL", f"{job_id}:failed"),
        _read(queue, "ZRANGE", f"{job_id}:unsuccessful", 0, -1),
    )
    return {
        "processed": _values(processed),
        "unprocessed": _strings(unprocessed),
        "failed": _strings(failed),
        "ignored": _texts(ignored),
    }


async def _scan(queue: Queue, command: str, key: str, page: Page | None) -> tuple[int, list[bytes]] | None:
    """Return one page and the cursor of the next."""
    if page is None:
        return None
    if command == "ZRANGE":
        return page.cursor + page.count, await _read(queue, command, key, page.cursor, page.count - 1)
    cursor, entries = await _read(queue, command, key, page.cursor, "COUNT", page.count)
    return int(cursor), entries


@TABLE.function(OBSERVE, writes=False, example=["parent-1", {"unprocessed": True}])
async def get_job_dependencies_count(
    queue: Queue, job_id: JobId, opts: DependenciesCountOptions | None = None
) -> JobDependenciesCount:
    """Return the number of a job's children of each kind, or of the named kinds (Node's `job.getDependenciesCount`)."""
    kinds = [kind for kind in _KINDS if opts is not None and getattr(opts, kind)] or list(_KINDS)
    keys = queue.keys(*(f"{job_id}:{key}" for key in ("processed", "dependencies", "failed", "unsuccessful")))
    counts = await queue.scripts["getDependencyCounts"].run(keys, kinds)
    return dict(zip(kinds, counts, strict=True))  # type: ignore[return-value]


_KINDS: Final = ("processed", "unprocessed", "ignored", "failed")


def _read(queue: Queue, command: str, key: str, *args: Any) -> asyncio.Future[Any]:
    return queue.link.call(command, queue.key(key), *args, decode=False)


def _values(flat: list[bytes]) -> dict[str, Raw]:
    return {text_of(key): _value(value) for key, value in to_hash(flat).items()}


def _value(text: bytes) -> Raw:
    """Return a return value as its worker wrote it; a text that is no JSON goes out as a string."""
    return json_text(text) or Raw(encode(text_of(text)))


def _texts(flat: list[bytes]) -> dict[str, str]:
    return dict(zip(_strings(flat[::2]), _strings(flat[1::2]), strict=True))


def _strings(texts: list[bytes]) -> list[str]:
    return [text_of(text) for text in texts]


# Changing


@TABLE.function(MANAGE, writes=True, example=["child-1"])
async def remove_job_child_dependency(queue: Queue, job_id: JobId, *, context: Context) -> bool:
    """Detach a job from its parent, which then does not wait for it (Node's `job.removeChildDependency`).

    Returns whether the parent was waiting for it. A parent that has no other child to wait for moves to wait.
    """
    parent = await queue.link.call("HGET", queue.key(job_id), "parentKey")
    if parent:
        _check_reach(queue, [parent.rpartition(":")[0] + ":"], context)
    code = await queue.scripts["removeChildDependency"].run(queue.keys(""), [queue.key(job_id), parent or ""])
    if code < 0:
        raise finished_error(code, command="removeChildDependency", job_id=job_id, parent_key=parent or "undefined")
    return bool(code == 0)


@TABLE.function(MANAGE, writes=True, heavy=True, example=["parent-1"])
async def remove_job_unprocessed_children(queue: Queue, job_id: JobId, *, context: Context) -> None:
    """Remove a job's unfinished children, and theirs (Node's `job.removeUnprocessedChildren`).

    Children that a worker holds stay. A job that has nothing more to wait for moves to wait.
    """
    await check_children(queue, job_id, context, unfinished=True)
    await queue.scripts["removeUnprocessedChildren"].run(queue.keys(job_id, "meta"), [queue.base, job_id])


async def check_children(queue: Queue, job_id: str, context: Context, *, unfinished: bool = False) -> None:
    """Refuse to remove a job's children, and theirs, where some are in queues that the caller's key is not for.

    Args:
        queue: of the job.
        job_id: the job whose children are to be removed.
        context: of the call.
        unfinished: only those that are not finished are to be removed.

    Raises:
        GatewayError: FORBIDDEN.
    """
    if context.grant.everything:
        return
    bases = await queue.scripts["familyQueues"].run(queue.keys(job_id), ["1" if unfinished else "0"])
    _check_reach(queue, [text_of(base) for base in bases], context)


def _check_reach(queue: Queue, bases: list[str], context: Context) -> None:
    """Check queues by their base keys; those that begin as our own can be reached by job ids with colons anyway."""
    context.grant.check_reach(queue.prefix, [base[:-1] for base in bases if not base.startswith(queue.base)])


# Pages of a parent's children

_MAX_ITERATIONS: Final = 5  # paginate-1.lua: looks of a hundred children each, before others get their turn
_FETCH_JOBS: Final = "1"

ChildKind = Literal["processed", "pending"]
Last = Annotated[int, Meta(ge=-1, le=MAX_SAFE_INTEGER)]


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1", "pending", 0, 9])
async def get_dependencies(
    queue: Queue, parent_id: JobId, type: ChildKind, start: Count, end: Last, *, context: Context
) -> Dependencies:
    """Return a page of a job's children, completed or pending; `jobs` has their hashes, in no order.

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
    """Return the bytes of a child's key, of a key with its result, or of a hash."""
    return len(part) if isinstance(part, bytes) else sum(map(len, part))


def _item(item: Any) -> Dependency:
    """Return a child's key; in the hash of the processed ones its result stands beside it."""
    if isinstance(item, bytes):
        return {"id": text_of(item)}
    id, value = (text_of(part) for part in item)
    result = json_text(item[1])
    return {"id": id, "err": f'"{value}" is not valid JSON'} if result is None else {"id": id, "v": result}


def _queues(prefix: str, items: list[Dependency], hashes: list[Sequence[bytes]]) -> Iterator[str]:
    """Return the qualified names of the queues of those children whose jobs are shown."""
    for item, flat in zip(items, hashes, strict=True):
        if flat:
            key, head = item["id"], f"{prefix}:"
            # A queue's name has no colon, an id may have some; another prefix is none of ours however it goes on.
            name = key.removeprefix(head).partition(":")[0]
            yield head + name if key.startswith(head) else key
