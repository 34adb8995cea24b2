"""The work of a queue, for programs that start and end workers."""

from __future__ import annotations

import json
from typing import Any

from tests.net.support import RawClient
from tests.sessions.peer import Gateway


async def test_jobs_that_wait_and_those_that_are_worked_on_are_counted(proxy: Gateway) -> None:
    producer, worker, flows = await proxy.queue("mails"), await proxy.worker("mails"), await proxy.connect("/flows")
    assert (await scale(proxy, "none"))["ok"] == {
        "queue": "none",
        "value": 0,
        "oldest": None,
        "paused": False,
        "workers": 0,
    }
    for opts in ({}, {}, {"priority": 3}, {"delay": 60_000}):
        await producer.call("add", "work", {}, opts)
    await worker.job()
    found = (await scale(proxy, "mails"))["ok"]
    assert (found["value"], found["paused"], found["workers"]) == (3, False, 1)
    assert found["oldest"] >= 0
    assert (await flows.call("getScale", {"queue": "mails"}))["value"] == 3
    await producer.call("pause")
    found = (await scale(proxy, "mails"))["ok"]
    assert (found["value"], found["paused"]) == (1, True)
    for query in ("", "?queue=", "?queue=a:b", "?queue=mails&x=1"):
        assert (await scale(proxy, query))["err"]["code"] == "INVALID_ARGUMENTS"


async def scale(proxy: Gateway, queue: str) -> Any:
    """The answer at /scale, for a queue or with a query string."""
    async with await RawClient.connect(proxy.port) as client:
        target = f"/scale{queue}" if not queue or queue.startswith("?") else f"/scale?queue={queue}"
        return json.loads((await client.fetch("GET", target)).body)
