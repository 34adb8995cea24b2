"""Functions of one queue that show what lies in others, under keys that are not for everything."""

from __future__ import annotations

import msgspec
import pytest

from bullmq_proxy.gateway.access.grants import EVERYTHING, Grant, Permission, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.families import get_dependencies
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.json_text import encode


def under(broker: Broker, *queues: str) -> Context:
    return Context(broker, Rights(Grant("reader", frozenset((Permission.OBSERVE,)), queues)))


async def pages(queue: Queue, context: Context) -> list[int]:
    """How many jobs each kind of children shows."""
    shown = [
        await get_dependencies(queue, "mother", "pending", 0, -1, context=context),
        await get_dependencies(queue, "mother", "processed", 0, -1, context=context),
    ]
    return [sum("name" in msgspec.json.decode(encode(job)) for job in page["jobs"]) for page in shown]


async def put(queue: Queue, key: str, kind: str) -> None:
    """A child of `mother`, by its whole key."""
    await queue.link.call("HSET", key, "name", "x")
    if kind == "pending":
        await queue.link.call("SADD", queue.key("mother:dependencies"), key)
    else:
        await queue.link.call("HSET", queue.key("mother:processed"), key, "null")


@pytest.mark.parametrize("kind", ["pending", "processed"])
async def test_children_are_shown_to_keys_that_are_for_their_queues(broker: Broker, prefix: str, kind: str) -> None:
    queue = broker.queue("q")
    await put(queue, queue.key("repeat:with:colons"), kind)
    assert sum(await pages(queue, under(broker, "q"))) == 1
    await put(queue, f"{prefix}:other:1", kind)
    assert sum(await pages(queue, under(broker, "q", "oth*"))) == 2
    with pytest.raises(GatewayError, match="The key reader is not for the queue other") as refused:
        await pages(queue, under(broker, "q"))
    assert refused.value.code is ErrorCode.FORBIDDEN


async def test_children_with_another_prefix_are_for_keys_that_may_do_everything(broker: Broker, prefix: str) -> None:
    queue = broker.queue("q")
    await put(queue, f"{prefix}x:q:1", "pending")
    assert sum(await pages(queue, Context(broker, Rights(EVERYTHING)))) == 1
    with pytest.raises(GatewayError, match=f"The key reader is only for queues with the prefix {prefix}"):
        await pages(queue, under(broker, "*"))


async def test_a_child_that_is_gone_shows_nothing_that_a_key_could_be_refused(broker: Broker, prefix: str) -> None:
    queue = broker.queue("q")
    await put(queue, f"{prefix}:other:1", "processed")
    await queue.link.call("DEL", f"{prefix}:other:1")
    assert sum(await pages(queue, under(broker, "q"))) == 0
