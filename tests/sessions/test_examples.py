"""Every function's example in the documents is a call that works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.reaching import EXAMPLE_CONSUMER
from tests.sessions.peer import Gateway, Peer

_CONSUMED = {
    "completed-1": ("moveJobToCompleted", {"sent": True}),
    "failed-1": ("moveJobToFailed", {"message": "no such address", "unrecoverable": True}),
    "active-1": None,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "waiting-1": {},
    "delayed-1": {"delay": 3_600_000},
    "deduplicated-1": {"deduplication": {"id": "once"}},
}

_REFUSED = {"renew": "CONFLICT"}  # here, where nobody has shown a token


async def prepare(queue: Peer, flows: Peer, name: str) -> None:
    """Add the jobs that the examples speak of."""
    for id, move in _CONSUMED.items():
        await queue.call("add", "welcome", {}, {"jobId": id})
        assert (await queue.call("getNextJob", "token-1"))["id"] == id
        if move is not None:
            function, outcome = move
            await queue.call(function, id, outcome, "token-1")
    for id, options in _OPTIONS.items():
        await queue.call("add", "welcome", {}, {"jobId": id, **options})
    child = {"name": "charge", "queueName": name, "opts": {"jobId": "child-1"}}
    await flows.call("add", {"name": "order", "queueName": name, "opts": {"jobId": "parent-1"}, "children": [child]})
    await queue.call("upsertJobScheduler", "nightly", {"pattern": "0 0 3 * * *"})


async def real(example: Sequence[Any], proxy: Gateway, queue: Peer, name: str) -> list[Any]:
    """The arguments of an example, with the id of a consumer that is there."""
    if EXAMPLE_CONSUMER not in example:
        return list(example)
    await (await proxy.worker(name)).pause()
    consumers = (await queue.call("getConsumers"))["consumers"]
    consumer = max(consumers, key=lambda each: each["connectedSince"])
    return [consumer["id"] if argument == EXAMPLE_CONSUMER else argument for argument in example]


async def test_the_example_of_every_function_can_be_called(proxy: Gateway) -> None:
    flows = await proxy.connect("/flows")
    for function in TABLE:
        queue = await proxy.queue(function.name)
        await prepare(queue, flows, function.name)
        if function.name in _REFUSED:
            assert (await queue.refusal(function.name, *function.example))[0] == _REFUSED[function.name]
        else:
            await queue.call(function.name, *await real(function.example, proxy, queue, function.name))
        await queue.close()
    await prepare(await proxy.queue("mails"), flows, "mails")
    for function in FLOWS:
        if function.name in _REFUSED:
            assert (await flows.refusal(function.name, *function.example))[0] == _REFUSED[function.name]
        else:
            await flows.call(function.name, *function.example)
