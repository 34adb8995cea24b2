"""Connections that are closed because of their age: none loses anything by it."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack

from bullmq_proxy.gateway.net.ages import Ages
from tests.net.conftest import MakeGateway
from tests.net.support import RawClient
from tests.net.test_event_streams import EVENTS, Stream

REASON = "the connection has lived its time (max_connection_age)"


async def test_each_kind_is_closed_and_a_worker_answers_first(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(max_connection_age=1.0, drain_timeout=30.0)
    async with (
        await RawClient.open(gateway.port, "/queue/q") as queue,
        await RawClient.open(gateway.port, "/queue/q/process/1") as worker,
        await RawClient.open(gateway.port, "/queue/other/process/1") as idle,
        await RawClient.connect(gateway.port) as stream,
        await RawClient.connect(gateway.port) as requests,
    ):
        await Stream.open(stream, EVENTS)
        assert "ok" in await queue.ask("addBulk", [{"name": "first"}, {"name": "second"}])
        pushed = await worker.message()
        drain = (await worker.message())["data"]
        assert drain["type"] == "drain"
        assert await queue.closed() == (1001, REASON)
        assert (await idle.message())["data"]["type"] == "drain"
        assert await idle.closed() == (1001, REASON)
        async with asyncio.timeout(5):
            while await stream._reader.read(1000):
                pass
        worker.send(json.dumps({"id": pushed["id"], "data": {"result": 1}}))
        assert await worker.closed() == (1001, REASON)
        for _ in range(2):
            counts = await requests.fetch("GET", "/queue/q/getJobCounts")
        assert json.loads(counts.body)["ok"].items() >= {"completed": 1, "waiting": 1, "active": 0}.items()


async def test_a_worker_that_does_not_answer_loses_its_job_in_the_end(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(max_connection_age=1.0, drain_timeout=0.1)
    async with await RawClient.connect(gateway.port) as requests:
        assert (await requests.fetch("POST", "/queue/q/add", body='["name"]')).status == 200
        async with await RawClient.open(gateway.port, "/queue/q/process/1") as worker:
            assert (await worker.message())["data"]["type"] == "process"
            while (told := (await worker.message())["data"]) != {"type": "drain", "deadline": 0}:
                assert told == {"type": "drain"}, "that its time is over, and that nobody waits for it any more"
            assert await worker.closed() == (1001, REASON)
        counts = await requests.fetch("GET", "/queue/q/getJobCounts")
        assert json.loads(counts.body)["ok"].items() >= {"waiting": 1, "active": 0}.items()


async def test_a_shard_that_is_replaced_sends_its_clients_away_one_by_one(make_gateway: MakeGateway) -> None:
    gateway = await make_gateway(drain_timeout=30.0)
    async with AsyncExitStack() as opened:
        paths = ["/queue/q/process/1", *["/queue/q"] * 20]
        worker, *others = [await opened.enter_async_context(await RawClient.open(gateway.port, path)) for path in paths]
        assert "ok" in await others[0].ask("add", "name")
        pushed = await worker.message()
        assert gateway._app is not None
        shedding = asyncio.create_task(gateway._app.shed(0.3))
        assert (await worker.message())["data"]["type"] == "drain"
        assert await others[0].closed() == (1001, "the gateway goes on in another process")
        assert "ok" in await others[-1].ask("count"), "its turn has not come"
        assert [(await other.closed())[0] for other in others[1:]] == [1001] * 19
        await shedding
        worker.send(json.dumps({"id": pushed["id"], "data": {"result": 1}}))
        async with await RawClient.connect(gateway.port) as requests:
            finished = await requests.fetch("POST", "/queue/q/waitUntilJobFinished", body='["1", 5000]')
            assert json.loads(finished.body) == {"ok": 1}


def test_connections_that_were_made_together_are_not_closed_together() -> None:
    ages = Ages(lambda: (), 100.0, 0.0)
    limits = sorted(ages.limit_of(1_700_000_000_000_000 + number) for number in range(100))
    assert 90 <= limits[0] < 92
    assert 108 < limits[-1] <= 110
    assert max(after - before for before, after in itertools.pairwise(limits)) < 1
