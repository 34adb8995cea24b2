"""The queues that there are: all of the prefix that have BullMQ's `meta`, whatever program has made them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, Final
from zlib import crc32

from msgspec import Meta

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.reading import get_job_counts
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.broker.jobs.queue import Queue, Queues
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.rules.shapes import FoundQueue, FoundQueues
from bullmq_proxy.gateway.values.slots import hash_tag
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.queues_options import LARGEST_PAGE, PAGE, Cursor

_SLICE: Final = 1000  # keys that one command goes through: Redis needs some 0.2 ms
_SLICE_COMMANDS: Final = 16  # that take Redis as long
SLICES: Final = 100
"""Commands of one call: then it returns what it has found, with a cursor."""

_COUNTED: Final = 20  # queues that are asked about in one round trip
_CURSORS: Final = 2**64  # of Redis
_END: Final = b":meta"


class QueuesQuery(Arguments, frozen=True):
    """Which queues: about `limit` of them, behind `cursor`; and what of each.

    With `counts` how many jobs it has, by state; with `oldest` how long the job next in line has waited, and whether
    the queue is paused; with `connected` how many workers and watchers it has on all gateways.
    """

    cursor: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=LARGEST_PAGE)] = PAGE
    counts: bool = False
    oldest: bool = False
    connected: bool = False


@FLOWS.function(OBSERVE, writes=False, heavy=True, example=[{"counts": True}])
async def get_queues(producer: Flows, opts: QueuesQuery | None = None, *, context: Context) -> FoundQueues:
    """Return the queues that the key is for, in no order, and a `cursor` for the next page while there may be more.

    One call goes through 100,000 of Redis' keys at most, so that a page may have fewer queues than `limit`, or none. A
    queue that is there all the time is in one of the pages, or seldom in two; one that comes meanwhile may be missing.
    """
    query = opts or QueuesQuery()
    names, cursor = await _find(producer.prefix, query, context)
    queues: list[FoundQueue] = [{"name": name} for name in names]
    if query.counts:
        await _ask(queues, context.broker.queues, _count)
    if query.oldest:
        await _ask(queues, context.broker.queues, _look)
    if query.connected:
        return {"queues": queues, "cursor": cursor, "silent": await _find_users(queues, context)}
    return {"queues": queues, "cursor": cursor}


async def look_at(name: str, context: Context) -> FoundQueue:
    """Return what is in one queue, and who is connected to it; one that is not there is empty."""
    found: FoundQueue = {"name": name}
    for ask in (_count, _look):
        await _ask([found], context.broker.queues, ask)
    await _find_users([found], context)
    return found


async def _find(prefix: str, query: QueuesQuery, context: Context) -> tuple[Sequence[str], str | None]:
    """Return the names of a page, and where it ends."""
    link = context.broker.link
    nodes = sorted(link.nodes, key=_tag)
    if not nodes:
        raise link.last_error
    at, cursor = _position(query.cursor, nodes)
    needs_tag = not isinstance(link, Link)
    start = f"{prefix}:".encode()
    pattern = re.sub(r"([*?\[\]\\])", r"\\\1", prefix).encode() + b":*" + _END
    found: dict[str, None] = {}
    for _ in range(SLICES):
        async with context.broker.queues.turns.of(_SLICE_COMMANDS):
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", _SLICE)
            cursor, keys = await nodes[at].call(*command, decode=False)
        grant = context.grant  # which can change meanwhile
        grant.check_permission(OBSERVE, "go on with getQueues")
        for name in (text_of(key[len(start) : -len(_END)]) for key in keys):
            if ":" not in name and grant.covers(name) and (hash_tag(f"{prefix}:{name}:") or not needs_tag):
                found[name] = None
        if int(cursor) == 0:
            at += 1
        if at == len(nodes):
            return list(found), None
        if len(found) >= query.limit:
            break
    return list(found), f"{_tag(nodes[at])}-{int(cursor)}"


def _tag(node: Link) -> str:
    """Return what stands for a node in a cursor: clients are not told where Redis is."""
    address = node.server.address
    return f"{crc32(f'{address.host}:{address.port}'.encode()):08x}"


def _position(cursor: str | None, nodes: Sequence[Link]) -> tuple[int, bytes]:
    """Return the place of the node that a cursor is of, and its cursor there."""
    if cursor is None:
        return 0, b"0"
    tag, _, there = cursor.partition("-")
    for at, node in enumerate(nodes):
        if _tag(node) == tag and int(there) < _CURSORS:
            return at, there.encode()
    raise GatewayError(ErrorCode.CONFLICT, "The queues are on another server now: begin again, without `cursor`")


async def _ask(
    found: Sequence[FoundQueue], queues: Queues, ask: Callable[[Queue, FoundQueue], Coroutine[Any, Any, None]]
) -> None:
    """Ask something about each queue, about some at a time; a key of another type than a queue's is left out."""
    for first in range(0, len(found), _COUNTED):
        some = found[first : first + _COUNTED]
        async with queues.turns.of(len(some)):
            asked = (ask(queues.get(each["name"]), each) for each in some)
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        for outcome in outcomes:
            is_no_queue = isinstance(outcome, GatewayError) and outcome.code is ErrorCode.CONFLICT
            if outcome is not None and not is_no_queue:
                raise outcome


async def _count(queue: Queue, found: FoundQueue) -> None:
    found["counts"] = await get_job_counts(queue)


async def _look(queue: Queue, found: FoundQueue) -> None:
    keys = queue.keys("wait", "paused", "prioritized", "meta")
    since, is_paused = await queue.scripts["nextInLine"].run(keys, [queue.base])
    found["oldest"] = None if since < 0 else max(0, now_ms() - since)
    found["paused"] = is_paused == 1


async def _find_users(found: Sequence[FoundQueue], context: Context) -> int:
    """Find who is connected to each queue; return how many shards have not answered in time."""
    users, silent = await context.broker.reach.users([each["name"] for each in found])
    for each in found:
        each["workers"], each["watchers"] = users.get(each["name"], (0, 0))
    return silent
