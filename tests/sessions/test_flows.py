"""Flows on a connection of their own: what is refused and where, what comes back, what is read (PROTOCOL 1)."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import InvalidStatus

from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from bullmq_proxy.gateway.rules.flow import MAX_DEPTH
from tests.sessions.peer import Gateway, Peer, Refused
from tests.support.relay import Relay

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
async def flows(proxy: Gateway) -> Peer:
    return await proxy.connect("/flows")


def node(id: str | None = None, *children: Any, queue: str = "q", **opts: Any) -> dict[str, Any]:
    """A node; its name is its id."""
    made: dict[str, Any] = {"name": id or "job", "queueName": queue, "opts": {**opts, **({"jobId": id} if id else {})}}
    return {**made, "children": list(children)} if children else made


def chain(levels: int, **last: Any) -> dict[str, Any]:
    """A flow of one job in each level."""
    made = {"name": "last", "queueName": "q", **last}
    for _ in range(levels - 1):
        made = {"name": "job", "queueName": "q", "children": [made]}
    return made


async def keys(redis: Redis, prefix: str) -> list[str]:
    return sorted([key async for key in redis.scan_iter(match=f"{prefix}:[^{{]*")])


# What comes back


async def test_add_returns_the_tree_of_jobs(flows: Peer, proxy: Gateway, prefix: str) -> None:
    tree = {
        "name": "report",
        "queueName": "reports",
        "data": {"month": 5},
        "opts": {"attempts": 2},
        "children": [
            {"name": "sum", "queueName": "numbers", "data": [1], "opts": {"failParentOnFailure": True, "delay": 0}},
            {"name": "draw", "queueName": "numbers"},
        ],
    }
    added = await flows.call("add", tree)
    job, [first, second] = added["job"], added["children"]
    assert UUID.fullmatch(job["id"])
    parent = {"id": job["id"], "queue": f"{prefix}:reports"}
    assert job.pop("timestamp") <= first["job"].pop("timestamp")
    assert added["job"] == {
        "id": job["id"],
        "name": "report",
        "data": {"month": 5},
        "opts": {"attempts": 2},
        "progress": 0,
        "returnvalue": None,
        "stacktrace": None,
        "priority": 0,
        "attemptsStarted": 0,
        "attemptsMade": 0,
        "stalledCounter": 0,
        "queueQualifiedName": f"{prefix}:reports",
    }
    assert first == {
        "job": {
            "id": first["job"]["id"],
            "name": "sum",
            "data": [1],
            "opts": {"attempts": 0, "failParentOnFailure": True, "delay": 0, "parent": parent},
            "progress": 0,
            "returnvalue": None,
            "stacktrace": None,
            "delay": 0,
            "priority": 0,
            "attemptsStarted": 0,
            "attemptsMade": 0,
            "stalledCounter": 0,
            "parentKey": f"{prefix}:reports:{job['id']}",
            "parent": {"id": job["id"], "queueKey": f"{prefix}:reports", "fpof": True},
            "queueQualifiedName": f"{prefix}:numbers",
        }
    }
    assert second["job"]["data"] == {} and "children" not in second
    assert len({job["id"], first["job"]["id"], second["job"]["id"]}) == 3
    reports, numbers = await proxy.queue("reports"), await proxy.queue("numbers")
    assert await reports.call("getJobState", job["id"]) == "waiting-children"
    assert [found["name"] for found in await numbers.call("getWaiting")] == ["sum", "draw"]


async def test_a_flow_is_worked_off_from_its_leaves(flows: Peer, proxy: Gateway) -> None:
    await flows.call("add", node("root", node("middle", node("leaf", queue="other")), queue="q"))
    for queue, id in (("other", "leaf"), ("q", "middle"), ("q", "root")):
        worker = await proxy.worker(queue, confirm=1)
        job = await worker.job()
        assert job.id == id
        await job.answer(result=id)
        assert (await worker.data())["state"] == "completed"
        await worker.close()
    read = await flows.call("getFlow", {"queueName": "q", "id": "root"})
    assert read["job"]["returnvalue"] == "root"
    assert read["children"][0]["children"][0]["job"]["returnvalue"] == "leaf"


async def test_every_queue_of_a_flow_says_who_writes_to_it(flows: Peer, redis: Redis, prefix: str) -> None:
    await flows.call("add", node("root", node("child", queue="other")))
    for queue in ("q", "other"):
        assert str(await redis.hget(f"{prefix}:{queue}:meta", "version")).startswith("bullmq-proxy:")


@pytest.mark.parametrize("more", [{}, {"opts": None}, {"opts": {}}, {"opts": {"jobId": ""}}])
async def test_without_an_id_a_job_gets_a_new_one(flows: Peer, more: dict[str, Any]) -> None:
    bare = {"name": "job", "queueName": "q", **more}
    added = await flows.call("add", {**bare, "children": [{**bare, "children": None}, {**bare, "children": []}]})
    jobs = [added["job"], *(child["job"] for child in added["children"])]
    assert all(UUID.fullmatch(job["id"]) for job in jobs)
    assert len({job["id"] for job in jobs}) == 3
    assert all("children" not in child for child in added["children"])


async def test_data_goes_through_as_it_was_written(flows: Peer) -> None:
    text = '{"n":1.0,"big":12345678901234567890,"b":[ 1 ],"a":"\\u00fc"}'
    await flows.socket.send(
        f'{{"id":7,"data":{{"fn":"add","args":[{{"name":"a","queueName":"q","data":{text},"opts":{{"jobId":"x"}}}}]}}}}'
    )
    assert text in await flows.text()
    await flows.request("getFlow", {"queueName": "q", "id": "x"})
    assert text in await flows.text()


async def test_what_was_there_already_is_told(flows: Peer) -> None:
    await flows.call("add", node("root", node("child"), node()))
    again = await flows.call("add", node("root", node("child"), node("new")))
    assert again["job"]["duplicate"] and again["children"][0]["job"]["duplicate"]
    assert "duplicate" not in again["children"][1]["job"]
    for duplicate in (False, True):
        job = (await flows.call("add", node(deduplication={"id": "x"})))["job"]
        assert job.get("duplicate", False) is duplicate


async def test_a_child_of_another_parent_is_told_beside_it(flows: Peer, prefix: str) -> None:
    await flows.call("add", node("first", node("child")))
    second = await flows.call("add", node("second", node("child"), node("own")))
    message = f"The parent job {prefix}:q:second cannot be replaced. addJob"
    assert second["children"][0]["err"] == {"message": message, "code": "CONFLICT"}
    assert "err" not in second and "err" not in second["children"][1]
    read = await flows.call("getFlow", {"queueName": "q", "id": "second"})
    assert [child["job"]["id"] for child in read["children"]] == ["own"]


async def test_a_root_without_its_parent_is_an_error_and_nothing_is_stored(flows: Peer, proxy: Gateway) -> None:
    lost = node("root", node("child"), parent={"id": "none", "queue": "bull:gone"})
    message = "Missing key for parent job bull:gone:none. addJob"
    assert await flows.refusal("add", lost) == ("NOT_FOUND", message)
    well, bad = await flows.call("addBulk", [node("well"), lost])
    assert "err" not in well
    assert bad["err"] == {"message": message, "code": "NOT_FOUND"}
    assert bad["children"][0]["err"]["code"] == "NOT_FOUND"
    queue = await proxy.queue()
    assert [job["id"] for job in await queue.call("getJobs")] == ["well"]


async def test_requests_start_in_their_order(flows: Peer, proxy: Gateway) -> None:
    for n in range(20):
        await flows.request("add", node(f"n{n}"))
    await flows.call("getFlow", {"queueName": "q", "id": "n19"})
    queue = await proxy.queue()
    assert [job["id"] for job in await queue.call("getWaiting")] == [f"n{n}" for n in range(20)]


# What is refused

LONG = "x" * 101
WRONG = [
    ([], "Expected an array of at least length 1, got 0 - at `args`: add(flow, opts?)"),
    ([None], "Expected an object, got null - at `args[0]`"),
    ([[]], "Object missing required field `name` - at `args[0]`"),
    ([[1]], "Expected an object, got an array - at `args[0]`"),
    ([{"queueName": "q"}], "Object missing required field `name` - at `args[0]`"),
    ([{"name": "a"}], "Object missing required field `queueName` - at `args[0]`"),
    ([{"name": 1, "queueName": "q"}], "Expected a string, got a whole number - at `args[0].name`"),
    ([node(None, {"queueName": "q"})], "Object missing required field `name` - at `args[0].children[0]`"),
    ([{**node(), "queue": "q"}], "Unknown option `queue`, did you mean `queueName`? - at `args[0]`"),
    ([{**node(), "childs": []}], "Unknown option `childs`, did you mean `children`? - at `args[0]`"),
    ([{**node(), "children": {"a": 1}}], "Expected an array or null, got an object - at `args[0].children`"),
    ([node(None, node(), None)], "Expected an object, got null - at `args[0].children[1]`"),
    ([node(queue="")], "Queue name must be provided - at `args[0].queueName`"),
    ([node(None, node(queue="a:b"))], "Queue name cannot contain : - at `args[0].children[0].queueName`"),
    ([node(queue=LONG)], "The queue name has 101 characters, 100 are allowed - at `args[0].queueName`"),
    ([{**node(), "prefix": ""}], "Expected a string of length >= 1 - at `args[0].prefix`"),
    ([{**node(), "opts": 5}], "Expected an object or null, got a whole number - at `args[0].opts`"),
    ([{**node(), "opts": [1]}], "Expected an object or null, got an array - at `args[0].opts`"),
    (
        [node("a", node("b"), node("c", node("d"), node("e", delay=-1)))],
        "Expected a whole number >= 0 - at `args[0].children[1].children[1].opts.delay`",
    ),
    (
        [node("a", node("b", dealy=1))],
        "Unknown option `dealy`, did you mean `delay`? - at `args[0].children[0].opts`",
    ),
    ([node(jobId=5)], "Expected a string, got a whole number - at `args[0].opts.jobId`"),
    ([node(parent={"id": "a"})], "Object missing required field `queue` - at `args[0].opts.parent`"),
    ([node(deduplication=True)], "Expected an object, got true or false - at `args[0].opts.deduplication`"),
    ([node(), {"queuesOption": {}}], "Unknown option `queuesOption`, did you mean `queuesOptions`? - at `args[1]`"),
    (
        [node(), {"queuesOptions": {"q": {"defaultJobOptions": {"attempts": -1}}}}],
        "Expected a whole number >= 0 - at `args[1].queuesOptions[...].defaultJobOptions.attempts`",
    ),
    (
        [node(None, node()), {"queuesOptions": {"q": {"defaultJobOptions": {"deduplication": {"id": "x"}}}}}],
        "Deduplication options cannot be used on flow nodes with children",
    ),
    ([node("a", node("a"))], "A job cannot wait for itself - at `args[0].children[0].opts.jobId`"),
    (
        [node("a", node("b", node("c"), node("a")))],
        "A job cannot wait for itself - at `args[0].children[0].children[1].opts.jobId`",
    ),
    (
        [node("a", node("up"), parent={"id": "up", "queue": "PREFIX:q"})],
        "A job cannot wait for itself - at `args[0].children[0].opts.jobId`",
    ),
    ([node("a", parent={"id": "a", "queue": "PREFIX:q"})], "A job cannot wait for itself - at `args[0].opts.jobId`"),
]


@pytest.mark.parametrize(("args", "message"), WRONG, ids=[message for _, message in WRONG])
async def test_wrong_flows_are_refused_with_the_place_and_nothing_is_stored(
    flows: Peer, redis: Redis, prefix: str, args: list[Any], message: str
) -> None:
    args = json.loads(json.dumps(args).replace("PREFIX", prefix))
    assert await flows.refusal("add", *args) == ("INVALID_ARGUMENTS", message)
    assert await keys(redis, prefix) == []


async def test_a_bulk_is_refused_as_a_whole_with_the_place(flows: Peer, redis: Redis, prefix: str) -> None:
    bulk = [node("well", node()), node("a", node(priority=1, delay="soon"))]
    message = "Expected a whole number, got a string - at `args[0][1].children[0].opts.delay`"
    assert await flows.refusal("addBulk", bulk) == ("INVALID_ARGUMENTS", message)
    assert await flows.call("addBulk", {}) == []
    assert await flows.refusal("addBulk", {"a": 1}) == (
        "INVALID_ARGUMENTS",
        "Expected an array, got an object - at `args[0]`",
    )
    assert await keys(redis, prefix) == []


async def test_the_same_id_in_another_queue_is_another_job(flows: Peer) -> None:
    added = await flows.call("add", node("a", node("a", queue="other")))
    assert "err" not in added["children"][0]


async def test_a_flow_can_be_deep_but_not_without_end(flows: Peer, redis: Redis, prefix: str) -> None:
    code, message = await flows.refusal("add", chain(MAX_DEPTH + 1))
    assert code == "INVALID_ARGUMENTS"
    assert message.startswith(f"A flow can have {MAX_DEPTH} levels - at `args[0].children[0].children[0]")
    levels = 10_000  # more than any JSON parser takes
    deep = '{"name":"a","queueName":"q","children":[' * levels + '{"name":"a","queueName":"q"}' + "]}" * levels
    await flows.socket.send(f'{{"id":5,"data":{{"fn":"add","args":[{deep}]}}}}')
    assert (await flows.data())["err"]["message"] == "The message is nested too deeply"
    assert await keys(redis, prefix) == []
    await flows.call("add", chain(MAX_DEPTH, opts={"jobId": "end"}))


async def test_other_functions_are_not_there(flows: Peer) -> None:
    assert await flows.refusal("clear") == ("UNKNOWN_FUNCTION", "Unknown function `clear` - at `fn`")
    code, message = await flows.refusal("addbulk", [])
    assert (code, message) == ("UNKNOWN_FUNCTION", "Unknown function `addbulk`, did you mean `addBulk`? - at `fn`")


async def test_the_path_takes_no_options(proxy: Gateway) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await proxy.connect("/flows", prefix="x")
    assert refused.value.response.status_code == 400


async def test_many_jobs_are_one_flow(flows: Peer) -> None:
    children = [node(f"n{n}", queue=f"q{n % 50}") for n in range(499)]
    added = await flows.call("add", node("root", *children), timeout=30)
    assert [child["job"]["id"] for child in added["children"]] == [f"n{n}" for n in range(499)]
    read = await flows.call("getFlow", {"queueName": "q", "id": "root", "maxChildren": 9_000}, timeout=30)
    assert len(read["children"]) == 499


# Redis has forgotten scripts, or breaks


@pytest.mark.parametrize(
    "known",
    [
        (),
        ("addParentJob",),
        ("addStandardJob",),
        ("addParentJob", "freeFlowChild", "releaseFlowParent"),
        ("addParentJob", "addStandardJob", "releaseFlowParent"),
        ("addParentJob", "addStandardJob", "freeFlowChild"),
    ],
)
async def test_scripts_that_redis_has_forgotten_are_sent_once_more(
    flows: Peer, proxy: Gateway, redis: Redis, prefix: str, known: tuple[str, ...]
) -> None:
    queue = await proxy.queue()
    worker = await proxy.worker(confirm=1)
    await queue.call("add", "job", {}, {"jobId": "finished"})
    await (await worker.job()).answer(result=1)
    await worker.data()
    await worker.close()

    await redis.script_flush()
    for name in known:
        await redis.script_load(script_texts()[name])
    added = await flows.call("add", node("root", node("finished"), node("alone", node("finished-too")), node()))
    assert "duplicate" not in added["job"]
    assert [child["job"].get("duplicate", False) for child in added["children"]] == [True, False, False]
    assert await queue.call("getJobState", "root") == "waiting-children"
    assert await queue.call("getJobState", "alone") == "waiting-children"
    read = await flows.call("getFlow", {"queueName": "q", "id": "root"})
    assert [child["job"]["id"] for child in read["children"]][:2] == ["finished", "alone"]
    assert len(read["children"]) == 3
    assert "" not in await redis.smembers(f"{prefix}:q:root:dependencies")


@pytest.mark.parametrize("fn", ["add", "addBulk"])
async def test_a_lost_reply_says_that_it_may_have_happened(relay: Relay, fn: str) -> None:
    async with Gateway(relay.url) as proxy:
        flows = await proxy.connect("/flows")
        relay.cut_after(sha_of(script_texts()["addParentJob"]).encode())
        tree = node("root", node("child"))
        code, _ = await flows.refusal(fn, tree if fn == "add" else [tree])
        assert code == "OUTCOME_UNKNOWN"
        await asyncio.wait_for(relay.cut.wait(), 5)
        relay.mend()
        assert (await flows.call("getFlow", {"queueName": "q", "id": "root"}))["children"][0]["job"]["id"] == "child"


# Reading


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "Object missing required field `queueName` - at `args[0]`"),
        ({"queueName": "q"}, "Object missing required field `id` - at `args[0]`"),
        ({"queueName": "q", "id": ""}, "Expected a string of length >= 1 - at `args[0].id`"),
        ({"queueName": "a:b", "id": "x"}, "Queue name cannot contain : - at `args[0].queueName`"),
        ({"queueName": "q", "id": "x", "depth": 0}, "Expected a whole number >= 1 - at `args[0].depth`"),
        ({"queueName": "q", "id": "x", "depth": -1}, "Expected a whole number >= 1 - at `args[0].depth`"),
        ({"queueName": "q", "id": "x", "depth": 201}, "Expected a whole number <= 200 - at `args[0].depth`"),
        ({"queueName": "q", "id": "x", "depth": "2"}, "Expected a whole number, got a string - at `args[0].depth`"),
        ({"queueName": "q", "id": "x", "maxChildren": 0}, "Expected a whole number >= 1 - at `args[0].maxChildren`"),
        (
            {"queueName": "q", "id": "x", "maxChild": 1},
            "Unknown option `maxChild`, did you mean `maxChildren`? - at `args[0]`",
        ),
        ({"queueName": "q", "id": "x", "prefix": ""}, "Expected a string of length >= 1 - at `args[0].prefix`"),
    ],
)
async def test_wrong_queries_are_refused(flows: Peer, query: dict[str, Any], message: str) -> None:
    assert await flows.refusal("getFlow", query) == ("INVALID_ARGUMENTS", message)


async def test_a_missing_job_is_null_and_so_is_a_removed_child(flows: Peer, redis: Redis, prefix: str) -> None:
    assert await flows.call("getFlow", {"queueName": "q", "id": "none"}) is None
    await flows.call("add", node("root", node("a"), node("b")))
    await redis.delete(f"{prefix}:q:a")
    read = await flows.call("getFlow", {"queueName": "q", "id": "root"})
    assert [child and child["job"]["id"] for child in read["children"]] == [None, "b"]


async def test_the_deepest_flow_can_be_read(flows: Peer) -> None:
    added = await flows.call("add", chain(MAX_DEPTH, opts={"jobId": "end"}))
    found = await flows.call("getFlow", {"queueName": "q", "id": added["job"]["id"], "depth": MAX_DEPTH})
    depth = 1
    while "children" in found:
        [found] = found["children"]
        depth += 1
    assert (depth, found["job"]["id"]) == (MAX_DEPTH, "end")


async def test_a_circle_is_read_as_deep_as_asked(flows: Peer, redis: Redis, prefix: str) -> None:
    await redis.hset(f"{prefix}:q:a", "name", "a")
    await redis.sadd(f"{prefix}:q:a:dependencies", f"{prefix}:q:a")
    text = json.dumps(await flows.call("getFlow", {"queueName": "q", "id": "a"}))
    assert text.count('"name": "a"') == 10


async def test_a_flow_without_end_is_refused(flows: Peer, redis: Redis, prefix: str) -> None:
    for n in range(12):
        await redis.hset(f"{prefix}:q:{n}", "name", "a")
        await redis.sadd(f"{prefix}:q:{n}:dependencies", *(f"{prefix}:q:{m}" for m in range(12)))
    message = "There are more than 10000 jobs: ask for less - at `args[0].depth`, `args[0].maxChildren`"
    assert await flows.refusal("getFlow", {"queueName": "q", "id": "0"}) == ("INVALID_ARGUMENTS", message)
    assert len((await flows.call("getFlow", {"queueName": "q", "id": "0", "depth": 3}))["children"]) == 12


async def test_keys_of_other_shapes_are_read_as_nothing(flows: Peer, redis: Redis, prefix: str) -> None:
    await redis.hset(f"{prefix}:q:a", "name", "a")
    await redis.sadd(f"{prefix}:q:a:dependencies", "", "x", "x:y")
    read = await flows.call("getFlow", {"queueName": "q", "id": "a"})
    assert read["children"] == [None, None, None]


async def test_an_id_may_be_a_number(flows: Peer, proxy: Gateway) -> None:
    await (await proxy.queue()).call("add", "job")
    assert (await flows.call("getFlow", {"queueName": "q", "id": 1}))["job"]["id"] == 1


async def test_a_key_that_is_no_job_is_an_error(flows: Peer, proxy: Gateway) -> None:
    await (await proxy.queue()).call("add", "job")
    with pytest.raises(Refused, match="not the name of one of BullMQ's own keys"):
        await flows.call("getFlow", {"queueName": "q", "id": "wait"})
