"""Halves of surrogate pairs in every text of every function: no reason to refuse, and never an invalid answer."""

from __future__ import annotations

import json
from typing import Any

from bullmq_proxy.gateway.broker.functions import FLOWS, TABLE
from bullmq_proxy.gateway.broker.functions.table import Function
from bullmq_proxy.gateway.rules.flow import MAX_DEPTH
from tests.sessions.peer import Gateway, Peer

HALF = "\ud83d"


def with_halves(value: Any) -> Any:
    """The value with half a pair at the end of each text, except of those that are one of a closed set."""
    match value:
        case str():
            return value + HALF
        case list():
            return [with_halves(each) for each in value]
        case dict():
            return {name: with_halves(each) for name, each in value.items()}
    return value


def halved(function: Function) -> list[Any]:
    args = []
    for place, arg in enumerate(function.example):
        reader = function.parameters[0 if function.variadic else place].reader
        closed = reader is not None and (reader.shape.enum or (reader.shape.items and reader.shape.items.enum))
        args.append(arg if closed else with_halves(arg))
    return args


async def answer(peer: Peer, fn: str, args: list[Any]) -> dict[str, Any]:
    """Send a call as JavaScript writes it; the answer has to be UTF-8 and JSON without halves where it shows texts."""
    await peer.socket.send(json.dumps({"id": HALF, "data": {"fn": fn, "args": args}}))
    message: dict[str, Any] = json.loads(await peer.text())
    assert message["id"] == HALF
    data: dict[str, Any] = message["data"]
    return data


# Their texts are patterns, time zones, states and labels, which halves make wrong ones.
WRONG = {"upsertJobScheduler", "exportPrometheusMetrics", "retryJobs"}


async def test_every_function_takes_them(proxy: Gateway) -> None:
    for function in [*TABLE, *FLOWS]:  # each in a queue of its own
        peer = await (proxy.connect("/flows") if function in list(FLOWS) else proxy.queue(function.name))
        data = await answer(peer, function.name, halved(function))
        if "err" in data and function.name not in WRONG:
            assert data["err"]["code"] in ("NOT_FOUND", "NOT_LOCKED", "CONFLICT"), (function.name, data)
        assert data.get("err", {}).get("code") != "INTERNAL", function.name
        await peer.close()


async def test_a_job_with_them_goes_all_the_way(proxy: Gateway) -> None:
    producer, worker, events = await proxy.queue(), await proxy.worker(confirm=1), await proxy.events()
    options = {"jobId": f"id {HALF}", "deduplication": {"id": HALF}, "telemetry": {"metadata": HALF}, "attempts": 2}
    added = (await answer(producer, "add", [HALF, {HALF: HALF}, options]))["ok"]
    assert added["data"] == {HALF: HALF}
    for said in ({"err": {"message": HALF, "stack": HALF}}, {"result": {HALF: HALF}}):
        job = await worker.job()
        assert job.payload == {HALF: HALF}
        for more in ({"type": "progress", "progress": HALF}, {"type": "log", "row": HALF}, said):
            await worker.socket.send(json.dumps({"id": job.number, "data": more}))
        assert (await worker.data())["type"] == "finished"
    [done] = (await answer(producer, "getJobs", ["completed"]))["ok"]
    assert (done["returnvalue"], done["progress"], done["stacktrace"]) == ({HALF: HALF}, HALF, [HALF])
    for fn, args in (("getFailed", []), ("getJobCounts", []), ("getMeta", []), ("clean", [0, 0, "completed"])):
        assert "ok" in await answer(producer, fn, args)
    while (await events.data())["event"] != "completed":
        pass


async def test_a_flow_of_as_many_levels_as_there_may_be_takes_them(proxy: Gateway) -> None:
    flow: dict[str, Any] = {"name": HALF, "queueName": "q", "data": HALF}
    for level in range(MAX_DEPTH - 1):
        flow = {"name": f"{level}", "queueName": "q", "children": [flow]}
    answered = (await answer(await proxy.connect("/flows"), "add", [flow]))["ok"]
    while "children" in answered:
        [answered] = answered["children"]
    assert answered["job"]["data"] == HALF
