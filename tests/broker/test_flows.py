"""Rights: a flow reaches many queues, and each of them must be the key's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import EVERYTHING, Grant, Permission, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.functions.base import Context
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.broker.redis.socket import resolve
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

MINE = Grant("shop", frozenset(Permission), ("shop-*", "mails"))


async def ask(broker: Broker, grant: Grant, fn: str, *args: Any) -> Any:
    """Call a function of flows with the rights of a key."""
    row = FLOWS[fn]
    bound = row.bind([Raw(json.dumps(arg).encode()) for arg in args])
    flows, context = Flows(broker.queues, 100), Context(broker, Rights(grant))
    if not row.direct:
        return await row.run(flows, *bound, context=context)
    reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    row.run(flows, *bound, sink=lambda result: resolve(reply, result), context=context)
    return json.loads(b"".join(map(bytes, await reply)))


async def forbidden(broker: Broker, fn: str, *args: Any) -> str:
    with pytest.raises(GatewayError) as refused:
        await ask(broker, MINE, fn, *args)
    assert refused.value.code is ErrorCode.FORBIDDEN
    return refused.value.message


def node(queue: str, *children: Any, **more: Any) -> dict[str, Any]:
    return {"name": "job", "queueName": queue, "children": list(children), **more}


async def test_each_queue_of_a_flow_must_be_allowed(broker: Broker, redis: Redis, prefix: str) -> None:
    assert await forbidden(broker, "add", node("other")) == "The key shop is not for the queue other"
    deep = node("mails", node("shop-1", node("secret")))
    assert await forbidden(broker, "add", deep) == "The key shop is not for the queue secret"
    assert await forbidden(broker, "addBulk", [node("mails"), deep]) == "The key shop is not for the queue secret"
    parent = {"parent": {"id": "1", "queue": f"{prefix}:secret"}}
    assert await forbidden(broker, "add", node("mails", opts=parent)) == "The key shop is not for the queue secret"
    assert [key async for key in redis.scan_iter(match=f"{prefix}:[^{{]*")] == []
    assert (await ask(broker, MINE, "add", node("mails", node("shop-1"))))["children"]


@pytest.mark.parametrize("longer", [False, True])
async def test_queues_of_other_prefixes_are_for_keys_that_may_do_everything(
    broker: Broker, prefix: str, longer: bool
) -> None:
    elsewhere = f"{prefix}:shop-1" if longer else f"{prefix}-2"
    tree = node("mails", node("mails", prefix=elsewhere))
    message = f"The key shop is only for queues with the prefix {prefix}"
    assert await forbidden(broker, "add", tree) == message
    assert await forbidden(broker, "getFlow", {"queueName": "mails", "id": "1", "prefix": elsewhere}) == message
    added = await ask(broker, EVERYTHING, "add", tree)
    assert added["children"][0]["job"]["queueQualifiedName"] == f"{elsewhere}:mails"
    id = added["job"]["id"]
    assert await forbidden(broker, "getFlow", {"queueName": "mails", "id": id}) == message
    assert (await ask(broker, EVERYTHING, "getFlow", {"queueName": "mails", "id": id}))["children"]


async def test_nothing_is_read_of_other_queues(broker: Broker) -> None:
    added = await ask(broker, EVERYTHING, "add", node("mails", node("shop-1", node("secret"))))
    query = {"queueName": "mails", "id": added["job"]["id"]}
    assert await forbidden(broker, "getFlow", query) == "The key shop is not for the queue secret"
    assert (await ask(broker, MINE, "getFlow", {**query, "depth": 2}))["children"]
    secret = {"queueName": "secret", "id": added["children"][0]["children"][0]["job"]["id"]}
    assert await forbidden(broker, "getFlow", secret) == "The key shop is not for the queue secret"


def test_what_the_functions_need() -> None:
    needed = {row.name: (row.permission, row.writes) for row in FLOWS}
    assert needed == {
        "add": (Permission.PRODUCE, True),
        "addBulk": (Permission.PRODUCE, True),
        "getFlow": (Permission.OBSERVE, False),
        "getConnections": (Permission.MANAGE, False),
        "drainConnection": (Permission.MANAGE, True),
        "closeConnection": (Permission.MANAGE, True),
        "getHistory": (Permission.OBSERVE, False),
        "whoami": (None, False),
        "renew": (None, False),
        "getQueues": (Permission.OBSERVE, False),
        "getScale": (Permission.OBSERVE, False),
    }
