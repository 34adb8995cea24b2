"""The queues that there are: all of the prefix that have BullMQ's `meta`, whatever program has made them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Final
from zlib import crc32

from msgspec import Meta

from bullmq_proxy.gateway.broker.functions.base import OBSERVE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.reading import get_job_counts
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.broker.jobs.queue import Queues
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.shapes import FoundQueue, FoundQueues
from bullmq_proxy.gateway.values.slots import hash_tag
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.queues_options import LARGEST_PAGE, PAGE, Cursor

_SLICE: Final = 1000  # keys that one command goes through: Redis needs some 0.2 ms
_SLICE_COMMANDS: Final = 16  # that take Redis as long
SLICES: Final = 100
"""Commands of one call: then it returns what it has found, with a cursor."""

_COUNTED: Final = 20  # queues whose jobs are counted in one round trip
_CURSORS: Final = 2**64  # of Redis
_END: Final = b":meta"


class QueuesQuery(Arguments, frozen=True):
    """Which queues: about `limit` of them, behind `cursor`; with `counts` also how many jobs each has, by state."""

    cursor: Cursor | None = None
    limit: Annotated[int, Meta(ge=1, le=LARGEST_PAGE)] = PAGE
    counts: bool = False


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
        await _count(queues, context.broker.queues)
    return {"queues": queues, "cursor": cursor}


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


async def _count(found: Sequence[FoundQueue], queues: Queues) -> None:
    for first in range(0, len(found), _COUNTED):
        some = found[first : first + _COUNTED]
        async with queues.turns.of(len(some)):
            asked = (get_job_counts(queues.get(each["name"])) for each in some)
            counts = await asyncio.gather(*asked, return_exceptions=True)
        for queue, each in zip(some, counts, strict=True):
            if isinstance(each, dict):
                queue["counts"] = each
            elif not (isinstance(each, GatewayError) and each.code is ErrorCode.CONFLICT):  # some key is no queue's
                raise each
