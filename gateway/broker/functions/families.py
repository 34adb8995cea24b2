"""A job's family, by its id: the children that it waits for and what came of them, and its bond to its own parent."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Raw

from bullmq_proxy.gateway.broker.functions.base import MANAGE, OBSERVE, TABLE, Arguments, BatchSize, Context
from bullmq_proxy.gateway.broker.jobs.pages import BY_RANGE, window
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.jobs.replies import Reply, scan
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

_SCANNED: Final = 1000  # entries of a set or hash that one command reads


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1"])
async def get_job_children_values(queue: Queue, job_id: JobId) -> dict[str, Raw]:
    """Return the results of a job's completed children, by the children's keys (Node's `job.getChildrenValues`).

    Results that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
    """
    async with Reply(queue, "ask for pages of `processed`, by `getJobDependencies`") as reply:
        return _values(await _all(reply, queue, f"{job_id}:processed"))


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1"])
async def get_job_ignored_children_failures(queue: Queue, job_id: JobId) -> dict[str, str]:
    """Return why children failed whose failure the job ignores (Node's `job.getIgnoredChildrenFailures`).

    Reasons that are larger than 16 MiB together are refused: `getJobDependencies` has pages of them.
    """
    async with Reply(queue, "ask for pages of `ignored`, by `getJobDependencies`") as reply:
        return _texts(await _all(reply, queue, f"{job_id}:failed"))


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1", {"processed": {"count": 10}}])
async def get_job_dependencies(queue: Queue, job_id: JobId, opts: DependenciesOptions | None = None) -> JobDependencies:
    """Return the keys of a job's children: completed, unfinished, failed, ignored (Node's `job.getDependencies`).

    Without options all of them; with options only the named kinds, a page of each, and beside it the cursor of the
    next page: 0 after the last. A page may hold more than `count`. For `failed`, as in Node, `count` is the number at
    which the page ends, counted from the first child of all, and the next cursor is `cursor + count`. What is larger
    than 16 MiB together is refused.
    """
    async with Reply(queue, "ask for pages, or for smaller ones, by `count`") as reply:
        if opts is None or opts == DependenciesOptions():
            return {
                "processed": _values(await _all(reply, queue, f"{job_id}:processed")),
                "unprocessed": _strings(await _all(reply, queue, f"{job_id}:dependencies", "SSCAN")),
                "failed": _strings(await _ranked(reply, queue, queue.key(f"{job_id}:unsuccessful"), 0, -1)),
                "ignored": _texts(await _all(reply, queue, f"{job_id}:failed")),
            }
        found: dict[str, Any] = {}
        for name, key, command, shown, page in (
            ("Processed", "processed", "HSCAN", _values, opts.processed),
            ("Ignored", "failed", "HSCAN", _texts, opts.ignored),
            ("Failed", "unsuccessful", "ZRANGE", _strings, opts.failed),
            ("Unprocessed", "dependencies", "SSCAN", _strings, opts.unprocessed),
        ):
            if page is not None:
                found[f"next{name}Cursor"], entries = await _page(reply, queue, command, f"{job_id}:{key}", page)
                found[name.lower()] = shown(entries)
        return found  # type: ignore[return-value]


async def _all(reply: Reply, queue: Queue, key: str, command: str = "HSCAN") -> list[Any]:
    """Return what HGETALL does, or SMEMBERS, read in pages."""
    _, entries = await _page(reply, queue, command, key, Page(0, MAX_SAFE_INTEGER))
    return entries


async def _page(reply: Reply, queue: Queue, command: str, key: str, page: Page) -> tuple[int, list[Any]]:
    """Return the cursor of the next page, and one page: names and values in turn for HSCAN."""
    key = queue.key(key)
    if command == "ZRANGE":
        return page.cursor + page.count, await _ranked(reply, queue, key, page.cursor, page.count - 1)
    names: dict[bytes, None] = {}
    cursor: Any = page.cursor
    while True:
        cursor, more = await scan(queue, command, key, cursor, min(page.count - len(names), _SCANNED))
        await reply.grow(sum(map(len, more)), len(more))
        names.update(dict.fromkeys(more))
        if cursor == b"0" or len(names) >= page.count:
            break
    if command == "SSCAN":
        return int(cursor), list(names)
    pairs = [pair async for pair in reply.read("readEntries", key, list(names))]
    return int(cursor), [part for pair in pairs if pair[1] is not None for part in pair]


async def _ranked(reply: Reply, queue: Queue, key: str, start: int, end: int) -> list[bytes]:
    """Return what ZRANGE does, read in pages."""
    found: list[bytes] = []
    shown = window(start, end, await queue.link.call("ZCARD", key))
    for first in range(shown.first, shown.stop, _SCANNED):
        last = min(first + _SCANNED, shown.stop) - 1
        more = await queue.link.call("ZRANGE", key, first, last, decode=False)
        await reply.grow(sum(map(len, more)), len(more))
        found += more
    return found


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

    Children that a worker holds stay. A job that has nothing more to wait for moves to wait. Many children are removed
    some at a time.
    """
    await remove_family(queue, job_id, context, "removeJobUnprocessedChildren", unfinished=True)


_BUDGET: Final = 500_000  # entries of lists that one script searches for the jobs that it removes
_LOOKED: Final = 500  # children that one script looks at
_PLACES: Final = (
    ("processed", "HSCAN"),
    ("failed", "HSCAN"),
    ("unsuccessful", "ZSCAN"),
    ("dependencies", "SSCAN"),
)
"""Where the children of a job stand; the last one is where those stand that it waits for."""


_TOO_LARGE: Final = -100  # removeFamily.lua


async def remove_family(
    queue: Queue,
    job_id: str,
    context: Context,
    function: str,
    *,
    with_children: bool = True,
    unfinished: bool = False,
) -> int:
    """Remove a job, with its children and theirs; a small family by one script, a large one some at a time.

    Args:
        queue: of the job.
        job_id: the job.
        context: of the call.
        function: its name.
        with_children: whether they are to be removed.
        unfinished: only unfinished children are to be removed, and not the job.

    Returns:
        1; 0 when a worker holds the job or one of those that it waits for; or a code of removeJob's below 0.

    Raises:
        GatewayError: FORBIDDEN, some are in queues that the caller's key is not for, or it has lost its rights.
    """
    script, keys = queue.scripts["removeFamily"], queue.keys(job_id, "repeat")
    args = [job_id, int(with_children), queue.base, int(unfinished)]
    if with_children and not context.grant.everything:
        await _look_at_family(queue, job_id, context, function, unfinished=unfinished)
    code: int = await script.run(keys, [*args, _BUDGET])
    if code != _TOO_LARGE:
        return code
    is_held = await _look_at_family(queue, job_id, context, function, unfinished=unfinished)
    if is_held and not unfinished:
        return 0
    code = await _remove_children(queue, job_id, context, function, unfinished=unfinished)
    if code != 1 or unfinished:
        return code
    code = await script.run(keys, [*args, _BUDGET])
    return await _remove_chain(queue, job_id) if code == _TOO_LARGE else code


async def _remove_chain(queue: Queue, job_id: str) -> int:
    """Remove a job and those that it waits for, one each, from above: who waits for nobody does not move to wait."""
    chain = [queue.key(job_id).encode()]
    while True:
        child = await queue.link.call("SRANDMEMBER", chain[-1] + b":dependencies", decode=False)
        if not child or child in chain:
            break
        chain.append(child)
    for key in chain:
        base = _base(key)
        code: int = await queue.scripts["removeFamily"].run(
            [key, base + b"repeat"], [key.removeprefix(base), 0, base, 0, 0]
        )
        if code != 1:
            return code
    return 1


async def _remove_children(queue: Queue, job_id: str, context: Context, function: str, *, unfinished: bool) -> int:
    """Remove nearly all children of a job, and theirs; return a code as `remove_family`."""
    script, keys = queue.scripts["removeChildren"], queue.keys(job_id, "repeat")
    check = partial(context.check_still, MANAGE, function, queue)
    for place, command in _PLACES[3:] if unfinished else _PLACES:
        async for children in _scanned(queue, command, queue.key(f"{job_id}:{place}").encode(), check):
            at = 0
            while at < len(children):
                args = [job_id, place, int(unfinished), _BUDGET, *children[at : at + _LOOKED]]
                done = await script.run(keys, args)
                if done < 0:
                    return 0 if done == -1 else int(done)
                at += done
                check()
    return 1


async def _look_at_family(queue: Queue, job_id: str, context: Context, function: str, *, unfinished: bool) -> bool:
    """Return whether a worker holds a job or one of those that it waits for, and these wait for.

    Raises:
        GatewayError: FORBIDDEN, some are in queues that the caller's key is not for, or it has lost its rights.
    """
    look, check = queue.scripts["lookAtFamily"], partial(context.check_still, MANAGE, function, queue)
    held, first = await look.run([queue.key(job_id)], [int(unfinished)])
    is_held, bases, seen = bool(held), {_base(queue.key(job_id).encode())}, set(first)
    parents = dict.fromkeys(first, True)  # to go through, and whether the job waits for them
    while parents:
        parent, is_awaited = parents.popitem()
        for place, command in _PLACES[3:] if unfinished else _PLACES:
            async for children in _scanned(queue, command, parent + b":" + place.encode(), check):
                bases.update(map(_base, children))
                for at in range(0, len(children), _LOOKED):
                    held, more = await look.run(children[at : at + _LOOKED], [int(unfinished)])
                    is_pending = is_awaited and place == "dependencies"
                    is_held |= bool(held) and is_pending
                    parents.update({key: is_pending for key in more if key not in seen})
                    seen.update(more)
    _check_reach(queue, [text_of(base) for base in bases], context)
    return is_held


async def _scanned(queue: Queue, command: str, key: bytes, check: Callable[[], None]) -> AsyncIterator[list[bytes]]:
    """Yield the members of a set or sorted set, or names of a hash's fields, some at a time, with checks between."""
    cursor = b"0"
    while True:
        cursor, found = await scan(queue, command, key, cursor, _SCANNED)
        yield found[::2] if command == "ZSCAN" else found
        if cursor == b"0":
            return
        check()


def _base(key: bytes) -> bytes:
    """Return the base key of a job's queue, as "bull:mails:": the id begins after the last colon, as in the scripts."""
    return key.rpartition(b":")[0] + b":"


def _check_reach(queue: Queue, bases: list[str], context: Context) -> None:
    """Check queues by their base keys; those that begin as our own can be reached by job ids with colons anyway."""
    context.grant.check_reach(queue.prefix, [base[:-1] for base in bases if not base.startswith(queue.base)])


# Pages of a parent's children

ChildKind = Literal["processed", "pending"]
Last = Annotated[int, Meta(ge=-1, le=MAX_SAFE_INTEGER)]


@TABLE.function(OBSERVE, writes=False, heavy=True, example=["parent-1", "pending", 0, 9])
async def get_dependencies(
    queue: Queue, parent_id: JobId, type: ChildKind, start: Count, end: Last, *, context: Context
) -> Dependencies:
    """Return a page of a job's children, completed or pending; `jobs` has their hashes, in no order.

    `items[].id` is a child's key, `<prefix>:<queue>:<id>`. Children that are larger than 16 MiB together are refused:
    ask for them in pages.
    """
    command, key = ("HSCAN", "processed") if type == "processed" else ("SSCAN", "dependencies")
    key = queue.key(f"{parent_id}:{key}")
    total: int = await queue.link.call("HLEN" if type == "processed" else "SCARD", key)
    stop = end + 1 if end >= 0 else math.inf
    async with Reply(queue, BY_RANGE) as reply:
        keys: list[bytes] = []
        seen, cursor = 0, b"0"
        while seen < stop:  # paginate-1.lua goes the same way, from the first one on
            cursor, more = await scan(queue, command, key, cursor, _SCANNED)
            some = more[max(start - seen, 0) : None if end < 0 else max(end + 1 - seen, 0)]
            seen += len(more)
            await reply.grow(sum(map(len, some)), len(some))
            keys += some
            if cursor == b"0":
                break
        values = [value async for _, value in reply.read("readEntries", key, keys)] if type == "processed" else None
        shown = [_item(*pair) for pair in zip(keys, values or [None] * len(keys), strict=True)]
        jobs: list[Any] = []
        queues: list[str] = []
        async for child, flat in reply.read("readJobs", "", keys):
            if flat:
                queues.append(_queue_of(queue.prefix, text_of(child)))
            jobs.append(Raw(encode(raw_job(to_hash(flat)))))
    context.grant.check_reach(queue.prefix, queues)
    return {"items": shown, "jobs": jobs, "total": total}


def _item(key: bytes, value: bytes | None) -> Dependency:
    """Return a child's key, with its result if it is processed."""
    id = text_of(key)
    if value is None:
        return {"id": id}
    result = json_text(value)
    return {"id": id, "err": f'"{text_of(value)}" is not valid JSON'} if result is None else {"id": id, "v": result}


def _queue_of(prefix: str, key: str) -> str:
    """Return the qualified name of a child's queue."""
    head = f"{prefix}:"
    # A queue's name has no colon, an id may have some; another prefix is none of ours however it goes on.
    return head + key.removeprefix(head).partition(":")[0] if key.startswith(head) else key
