"""A real cluster of three masters with a replica each: queues on all of them, slots that move, masters that die."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from functools import partial

import pytest
from websockets.exceptions import InvalidStatus

from bullmq_proxy.gateway.values.slots import slot_of
from tests.sessions.peer import Gateway, until
from tests.support.cluster import Cluster, ClusterNode
from tests.support.load import load
from tests.support.node import find_node, installed
from tests.support.service import ROOT
from tests.webhooks.endpoint import client_of, serving

_PROMPT = 2.0  # s, well below those after which the net finds a job whose marker was lost


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), replicas=1) as started:
        yield started


def names(cluster: Cluster, prefix: str) -> list[str]:
    """Return the name of one queue on each master."""
    found: dict[int, str] = {}
    for number in range(1000):
        name = f"{{q{number}}}"
        found.setdefault(owner(cluster, prefix, name).port, name)
        if len(found) == 3:
            break
    return list(found.values())


def slot(prefix: str, name: str) -> int:
    return slot_of(f"{prefix}:{name}:")


def owner(cluster: Cluster, prefix: str, name: str) -> ClusterNode:
    return cluster.owner(slot(prefix, name))


async def test_each_queue_is_served_by_the_node_that_has_it(cluster: Cluster, prefix: str) -> None:
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        for name in names(cluster, prefix):
            queue, events = await gateway.queue(name), await gateway.events(name, "completed")
            worker = await gateway.worker(name)
            for options in ({}, {"priority": 1}, {"delay": 1}, {"jobId": "mine"}):
                added = await queue.call("add", "n", {"a": 1}, options)
                job = await worker.job()
                assert job.id == added["id"]
                await job.answer(result=1)
                assert (await events.data())["event"] == "completed"
            assert (await queue.call("getJobCounts"))["completed"] == 4
            assert slot(prefix, name) == cluster.nodes[0]("CLUSTER", "KEYSLOT", f"{prefix}:{name}:é")
            assert owner(cluster, prefix, name)("EXISTS", f"{prefix}:{name}:mine") == 1


async def test_webhook_workers_have_queues_on_every_node(cluster: Cluster, prefix: str) -> None:
    async with (
        Gateway(cluster.url, prefix=prefix, webhook_allow="127.0.0.1") as gateway,
        client_of(gateway.port, "key-1") as client,
        serving() as endpoint,
    ):
        for name in names(cluster, prefix):
            worker = {"queue": name, "endpoint": {"url": endpoint.url}}
            assert (await client.ask("PUT", "/workers/" + name.strip("{}"), worker)).status == 200
            queue = await gateway.queue(name)
            added = await queue.call("add", "n", {})
            await queue.until_state(added["id"], "completed")
        untagged = {"queue": "untagged", "endpoint": {"url": endpoint.url}}
        assert (await client.ask("PUT", "/workers/untagged", untagged)).status == 400


async def test_the_list_of_queues_has_those_of_all_nodes(cluster: Cluster, prefix: str) -> None:
    all_names = {f"{{{number}}}" for number in range(100)}
    for name in all_names:
        owner(cluster, prefix, name)("HSET", f"{prefix}:{name}:meta", "version", "bullmq")
    untagged = f"{prefix}:untagged:meta"
    cluster.owner(slot_of(untagged))("HSET", untagged, "version", "bullmq")
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        flows = await gateway.connect("/flows")
        found: set[str] = set()
        page, pages = {"cursor": None}, 0
        while (page["cursor"] is not None or not pages) and pages < len(cluster.nodes):
            pages += 1
            of_each = {"counts": True, "oldest": True, "connected": True}
            page = await flows.call("getQueues", {**of_each, "limit": 1, "cursor": page["cursor"]})
            names_of_node = {queue["name"] for queue in page["queues"]}
            assert {(queue["oldest"], queue["paused"], queue["workers"]) for queue in page["queues"]} <= {
                (None, False, 0)
            }
            assert not names_of_node & found
            found |= names_of_node
        assert (found, page["cursor"]) == (all_names, None)
        assert pages >= 3, "one for each master, of which other tests may have made more"


async def test_a_queue_without_a_hash_tag_is_refused_when_the_connection_opens(cluster: Cluster, prefix: str) -> None:
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        for path in ("/queue/mails", "/queue/mails/process/1", "/queue/mails/events"):
            with pytest.raises(InvalidStatus) as refused:
                await gateway.connect(path)
            assert refused.value.response.status_code == 400
            assert b"a prefix in braces, such as {bull}" in (refused.value.response.body or b"")
    async with Gateway(cluster.url, prefix=f"{{{prefix}}}") as gateway:
        queue = await gateway.queue("mails")
        await queue.call("add", "n", {})


async def test_a_flow_over_several_slots_is_refused_before_anything_is_written(cluster: Cluster, prefix: str) -> None:
    first, second, _ = names(cluster, prefix)
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        flows = await gateway.connect("/flows")
        flow = {"name": "p", "queueName": first, "children": [{"name": "c", "queueName": second, "data": {}}]}
        code, message = await flows.refusal("add", flow)
        assert code == "INVALID_ARGUMENTS"
        assert "in one slot of the Redis Cluster" in message
        code, message = await flows.refusal("addBulk", [flow, flow])
        assert "in one slot" in message
        queue = await gateway.queue(first)
        code, message = await queue.refusal("add", "n", {}, {"parent": {"id": "1", "queue": f"{prefix}:{second}"}})
        assert "in one slot" in message
        assert sum((await queue.call("getJobCounts")).values()) == 0
        flow["children"][0]["queueName"] = first  # type: ignore[index]
        tree = await flows.call("add", flow)
        worker = await gateway.worker(first)
        for expected in (tree["children"][0]["job"]["id"], tree["job"]["id"]):
            job = await worker.job()
            assert job.id == expected
            await job.answer(result=None)


@pytest.mark.skipif(find_node() is None, reason="node 20 or newer, with npm, is missing")
async def test_nodes_own_producer_and_worker_share_a_queue_with_it(cluster: Cluster, prefix: str) -> None:
    name = names(cluster, prefix)[1]
    node = find_node()
    assert node is not None
    interop = ROOT / "tests" / "interop"
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        worker = await gateway.worker(name)
        mate = await asyncio.create_subprocess_exec(
            *(node, interop / "cluster_mate.cjs", json.dumps([each.port for each in cluster.nodes]), prefix, name),
            env={"PATH": os.environ["PATH"], "NODE_PATH": str(installed(interop))},
            stdout=asyncio.subprocess.PIPE,
        )
        assert mate.stdout is not None
        try:
            job = await worker.job()
            assert job.payload == {"from": "node"}
            await job.answer(result="by the gateway")
            assert json.loads(await mate.stdout.readline()) == {"result": "by the gateway"}
            await worker.close()
            assert json.loads(await mate.stdout.readline()) == {"works": True}
            queue = await gateway.queue(name)
            added = await queue.call("add", "n", {})
            assert await queue.call("waitUntilJobFinished", added["id"]) == "by node"
        finally:
            mate.kill()
            await mate.wait()


async def test_a_slot_moves_to_a_node_that_joins_and_on_while_jobs_run_and_nobody_hears_of_it(
    cluster: Cluster, prefix: str
) -> None:
    name, other, _ = names(cluster, prefix)
    at = slot(prefix, name)
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        events = await gateway.events(name, "completed")
        async with load(gateway, name) as jobs:
            joined = cluster.add_node()
            await asyncio.to_thread(cluster.join, joined)
            for node in (joined, owner(cluster, prefix, other)):
                await asyncio.to_thread(cluster.move, range(at, at + 1), node)
                await jobs.goes_on()
                assert owner(cluster, prefix, name) is node
        assert not jobs.refused
        assert not [id for id, times in jobs.done.items() if times > 1]
        seen = set[str]()
        while len(seen) < len(jobs.added):
            seen.add((await events.data())["args"][0]["jobId"])


async def test_what_is_confirmed_is_in_a_replica_of_its_node_while_slots_move(cluster: Cluster, prefix: str) -> None:
    name, other, _ = names(cluster, prefix)
    at, first = slot(prefix, name), owner(cluster, prefix, name)
    async with Gateway(cluster.url, prefix=prefix, min_replicas=1, replica_timeout=0.2) as gateway:
        async with load(gateway, name) as jobs:
            for node in (owner(cluster, prefix, other), first):
                await asyncio.to_thread(cluster.move, range(at, at + 1), node)
                await jobs.goes_on()
            assert jobs.refused.keys() <= {"OUTCOME_UNKNOWN"}
            assert jobs.refused.total() < len(jobs.added) / 2
        replica = cluster.replica(first)
        queue, elsewhere = await gateway.queue(name), await gateway.queue(other)
        replica.process.freeze()
        try:
            code, message = await queue.refusal("add", "n", {})
            assert (code, "0 of 1 replicas have it after 0.2 s" in message) == ("OUTCOME_UNKNOWN", True)
            await elsewhere.call("add", "n", {})
        finally:
            replica.process.thaw()


async def test_a_node_that_dies_before_it_got_a_slot_is_not_missed(cluster: Cluster, prefix: str) -> None:
    name = names(cluster, prefix)[0]
    at, source = slot(prefix, name), owner(cluster, prefix, name)
    joined = cluster.add_node()
    await asyncio.to_thread(cluster.join, joined)
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        queue = await gateway.queue(name)
        joined("CLUSTER", "SETSLOT", at, "IMPORTING", source.id)
        source("CLUSTER", "SETSLOT", at, "MIGRATING", joined.id)
        assert await queue.call("getJob", "none") is None  # it is asked there
        source("CLUSTER", "SETSLOT", at, "STABLE")
        joined.process.kill()
        await asyncio.to_thread(cluster.remove, joined)
        await queue.call("add", "n", {})
        assert await gateway.ready() == (200, "")


async def test_gateways_reach_each_others_workers_also_after_the_slot_of_their_channel_has_moved(
    cluster: Cluster, prefix: str
) -> None:
    at = slot(prefix, "{gateways}")
    name = names(cluster, prefix)[0]
    async with Gateway(cluster.url, prefix=prefix) as here, Gateway(cluster.url, prefix=prefix) as there:

        async def hear_each_other() -> bool:
            channel = f"{prefix}:{{gateways}}:channel@0"
            return bool(cluster.owner(at)("PUBSUB", "SHARDNUMSUB", channel)[1] == 2)

        await until(hear_each_other, "both listen")
        queue, worker = await here.queue(name), await there.worker(name)
        for _ in range(2):
            await queue.call("add", "work", {})
            job = await worker.job()
            assert await queue.call("cancelJob", job.id) == {"delivered": True, "state": "failed"}
            assert (await worker.data())["type"] == "cancel"
            assert len((await queue.call("getConsumers"))["consumers"]) == 1
            to = next(node for node in cluster.nodes[:3] if node is not cluster.owner(at))
            await asyncio.to_thread(cluster.move, range(at, at + 1), to)
            await until(hear_each_other, "both listen there")


async def test_queues_that_sleep_share_a_connection_to_each_master_and_follow_their_slots(
    cluster: Cluster, prefix: str
) -> None:
    tags = [f"{{s{number}}}" for number in range(12)]
    async with (
        Gateway(cluster.url, prefix=prefix, queue_links=1) as gateway,
        Gateway(cluster.url, prefix=prefix) as mate,
    ):
        workers = [await gateway.worker(name) for name in tags]
        watchers = [await gateway.events(name, "completed") for name in tags]
        producers = [await mate.queue(name) for name in tags]

        async def work() -> None:
            """Let each queue have a job, on the way by which nobody but Redis tells the gateway."""
            for producer in producers:
                await producer.call("add", "n", {})
            for worker, watcher in zip(workers, watchers, strict=True):
                job = await worker.job(_PROMPT)
                await job.answer(result=1)
                assert (await watcher.data(_PROMPT))["args"][0]["jobId"] == job.id

        await work()
        assert [await sharing(node) for node in cluster.nodes[:3]] == [1, 1, 1]
        for name in tags[2:5]:
            at, source = slot(prefix, name), owner(cluster, prefix, name)
            to = next(node for node in cluster.nodes[:3] if node is not source)
            await asyncio.to_thread(cluster.move, range(at, at + 1), to)
        await work()
        for producer in producers:
            assert await producer.call("getWorkersCount") == 1


async def sharing(node: ClusterNode) -> int:
    """Return how many connections to a node queues share."""
    text: str = await asyncio.to_thread(node, "CLIENT", "LIST")
    return sum(":tracker " in line and " sub=0 " not in line for line in text.splitlines())


async def test_the_calls_of_a_connection_keep_their_order_while_their_slot_moves(cluster: Cluster, prefix: str) -> None:
    name, other, _ = names(cluster, prefix)
    at = slot(prefix, name)
    async with Gateway(cluster.url, prefix=prefix) as gateway:
        queue = await gateway.queue(name)
        id = (await queue.call("add", "n", {}))["id"]
        requests: list[int] = []
        for node in (owner(cluster, prefix, other), owner(cluster, prefix, name)):
            move = asyncio.ensure_future(asyncio.to_thread(cluster.move, range(at, at + 1), node))
            while not move.done():
                requests += [await queue.request("addJobLog", id, str(len(requests) + each)) for each in range(20)]
                await queue.reply(requests[-1])
            await move
        logs = await queue.call("getJobLogs", id)
        assert logs["logs"] == [str(number) for number in range(len(requests))]


async def test_a_master_dies_and_its_replica_takes_its_place(cluster: Cluster, prefix: str) -> None:
    name, other, _ = names(cluster, prefix)
    async with Gateway(cluster.url, prefix=prefix, queue_links=1) as gateway:
        async with load(gateway, name) as jobs, load(gateway, other) as others:
            assert await gateway.ready() == (200, "")
            master = owner(cluster, prefix, name)
            master.process.kill()
            await until(partial(_is, gateway, 503), "it is not ready while a master is missing")
            await others.goes_on()
            begun = time.monotonic()
            await jobs.goes_on()
            assert time.monotonic() - begun < 10
        assert not jobs.refused["REDIS_UNAVAILABLE"]
        assert not others.refused
        await until(partial(_is, gateway, 200), "it is ready when a replica has its place")
    cluster.restore(master)  # for other tests; a server ends with the thread that starts it


async def _is(gateway: Gateway, status: int) -> bool:
    return (await gateway.ready())[0] == status
