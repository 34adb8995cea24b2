"""What is confirmed to clients is in as many replicas of Redis as `min_replicas` says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest
from redis import Redis

from bullmq_proxy.gateway.turns import WINDOW
from tests.sessions.peer import Gateway, Peer, Refused, until
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import eventually, wait_for


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ValkeyProcess]]:
    """A master and the two servers that follow it."""
    made = [ValkeyProcess(tmp_path_factory.mktemp("replicas"), tcp=True) for _ in range(3)]
    try:
        for server in made:
            server.start()
            if server is not made[0]:
                follow(server, made[0])
        wait_for(lambda: all_follow(made[0]), "they follow")
        yield made
    finally:
        for server in made:
            server.close()


def follow(server: ValkeyProcess, master: ValkeyProcess | None) -> None:
    with Redis(port=server.port) as redis:
        redis.replicaof(*("127.0.0.1", master.port) if master else ("NO", "ONE"))


def all_follow(master: ValkeyProcess) -> bool:
    with Redis(port=master.port) as redis:
        redis.set("followed", "")
        return bool(redis.wait(2, 100) == 2)


async def write(queue: Peer, flows: Peer, worker: Peer) -> list[str]:
    """Write in all ways, and return the codes of the refusals."""
    job = await worker.job()
    await worker.pause()
    calls = [
        (queue, await queue.request("add", "n", {})),
        (queue, await queue.request("add", "n", {}, {"jobId": "mine"})),
        (queue, await queue.request("addBulk", [{"name": "n"}, {"name": "n"}])),
        (queue, await queue.request("updateJobData", job.id, {"a": 1})),
        (flows, await flows.request("add", {"name": "n", "queueName": "flows"})),
    ]
    codes: list[str] = []
    for peer, id in calls:
        try:
            await peer.reply(id)
        except Refused as refused:
            codes.append(refused.code)
    await job.answer(result=1)
    answer = await worker.message()
    assert answer["id"] == job.number
    await worker.resume()
    return codes + ([answer["data"]["err"]["code"]] if answer["data"]["type"] == "lost" else [])


async def test_what_too_few_replicas_have_is_not_confirmed(servers: list[ValkeyProcess], prefix: str) -> None:
    async with Gateway(servers[0].url, prefix=prefix, min_replicas=2, replica_timeout=0.1) as gateway:
        queue, flows, worker = await gateway.queue(), await gateway.connect("/flows"), await gateway.worker(confirm=1)

        await queue.call("add", "n", {})
        assert await write(queue, flows, worker) == []
        servers[1].freeze()
        try:
            assert await write(queue, flows, worker) == ["OUTCOME_UNKNOWN"] * 6
            assert (await queue.call("getJobCounts"))["completed"] == 2
            status, text = await gateway.ready()
            assert status == 503
            assert "1 of 2 replicas have it after 0.1 s" in text
            assert await queue.refusal("add", "n", {}) == ("OUTCOME_UNKNOWN", text)
        finally:
            servers[1].thaw()
        await until(partial(_is_ready, gateway), "it is ready again")
        assert await write(queue, flows, worker) == []


async def _is_ready(gateway: Gateway) -> bool:
    return (await gateway.ready())[0] == 200


async def test_replicas_that_are_missing_are_told_at_the_start(
    servers: list[ValkeyProcess], prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with Gateway(servers[0].url, prefix=prefix, min_replicas=3, replica_timeout=0.01):
            pass
    assert "2 replicas follow it: while min_replicas is 3 no write is confirmed" in caplog.text


async def test_what_was_said_on_a_connection_that_broke_is_not_confirmed_on_the_next_one(
    servers: list[ValkeyProcess], prefix: str
) -> None:
    async with Gateway(servers[0].url, prefix=prefix, min_replicas=2, replica_timeout=5.0) as gateway:
        queue = await gateway.queue()
        await queue.call("add", "n", {})
        servers[1].freeze()
        try:
            id = await queue.request("add", "n", {})

            with Redis(port=servers[0].port) as redis:
                await eventually(lambda: redis.llen(f"{prefix}:q:wait") == 2, "it is written")
                link = next(client for client in redis.client_list() if client["name"] == "bullmq-proxy:0")
                redis.client_kill_filter(_id=link["id"])
            await until(partial(_is_up_again, gateway), "it is connected again")
        finally:
            servers[1].thaw()
        with pytest.raises(Refused, match="another server may be the master now"):
            await queue.reply(id)


async def test_what_waits_for_replicas_keeps_nothing_else_waiting(servers: list[ValkeyProcess], prefix: str) -> None:
    """Neither a turn, nor one of the four places for the calls of a connection, nor the next slice of a bulk."""
    async with Gateway(servers[0].url, prefix=prefix, min_replicas=2, replica_timeout=20.0) as gateway:
        busy, quiet = await gateway.queue(), await gateway.queue("calm")
        job = (await busy.call("add", "n", {}))["id"]
        servers[1].freeze()
        try:
            await quiet.call("count")  # from now on those who send much take turns
            calls = [await busy.request("add", "n", {}) for _ in range(WINDOW + 8)]
            calls.append(await busy.request("addBulk", [{"name": "n"}] * 120))
            calls += [await busy.request("addJobLog", job, "row") for _ in range(8)]

            with Redis(port=servers[0].port) as redis:
                await eventually(lambda: redis.llen(f"{prefix}:q:wait") == 1 + WINDOW + 8 + 120, "all are written")
                await eventually(lambda: redis.llen(f"{prefix}:q:{job}:logs") == 8, "all rows are written")
        finally:
            servers[1].thaw()
        for call in calls:
            await busy.reply(call)


async def _is_up_again(gateway: Gateway) -> bool:
    return await gateway.metric("redis_connected_total") > 1
