"""Functions that read and count a queue, against a real Valkey; `tests/interop/` compares their results with Node's."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Peer


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


# Counts


async def test_the_counts_of_single_states_are_those_of_get_job_counts(proxy: Gateway, queue: Peer) -> None:
    await queue.call("addBulk", [{"name": "a", "opts": opts} for opts in ({}, {}, {"delay": 9999}, {"priority": 1})])
    worker = await proxy.worker()
    await worker.job()
    counts = await queue.call("getJobCounts")
    functions = {
        "active": "getActiveCount",
        "completed": "getCompletedCount",
        "delayed": "getDelayedCount",
        "failed": "getFailedCount",
        "prioritized": "getPrioritizedCount",
        "waiting": "getWaitingCount",
        "waiting-children": "getWaitingChildrenCount",
    }
    assert {type: await queue.call(fn) for type, fn in functions.items()} == counts
    assert await queue.call("recordJobCountsMetric") == counts
    assert (counts["active"], counts["waiting"], counts["delayed"], counts["prioritized"]) == (1, 1, 1, 1)


async def test_delayed_jobs_are_counted_up_to_a_time(queue: Peer) -> None:
    job = await queue.call("add", "a", {}, {"delay": 60_000})
    due = job["timestamp"] + 60_000
    assert await queue.call("getDelayedCount", due) == 0
    assert await queue.call("getDelayedCount", due + 1_000) == 1
    assert await queue.call("getDelayedCount", None) == 1
    for wrong in (1.5, 2**53, 10**30):
        assert await queue.refusal("getDelayedCount", wrong) == (
            "INVALID_ARGUMENTS",
            "timestamp must be a safe integer in milliseconds",
        )


async def test_counts_per_priority_come_in_the_order_of_the_priorities(queue: Peer) -> None:
    await queue.call("addBulk", [{"name": "a", "opts": {"priority": n}} for n in (0, 10, 9, 10)])
    id = await queue.request("getCountsPerPriority", [-2, 10, -1, 9, 0, 10, 2**53 - 1])
    assert await queue.text() == (
        f'{{"id":{id},"data":{{"ok":{{"0":1,"9":1,"10":2,"-2":0,"-1":0,"9007199254740991":0}}}}}}'
    )


# Pages


async def test_ids_come_in_the_order_of_the_types(queue: Peer) -> None:
    await queue.call("addBulk", [{"name": "a", "opts": {"priority": n % 2}} for n in range(6)])
    assert await queue.call("getRanges", ["prioritized", "waiting"]) == ["6", "4", "5", "3"]
    assert await queue.call("getRanges", ["waiting", "wait", "prioritized"], 0, -1, True) == list("135246")


async def test_ranges_are_the_same_however_many_ids_are_read_at_a_time(
    queue: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.call("addBulk", [{"name": "a", "opts": opts} for opts in ({}, {"delay": 9999}, {"priority": 1}) * 7])
    types = ["waiting", "delayed", "prioritized", "completed"]

    async def ranges() -> list[Any]:
        bounds = [(0, -1), (0, 0), (2, 5), (-4, -2), (5, 99), (6, 3)]
        return [await queue.call("getRanges", types, *each, asc) for each in bounds for asc in (True, False)]

    at_once = await ranges()
    assert len(at_once[0]) == 21
    monkeypatch.setattr("bullmq_proxy.gateway.broker.jobs.pages._IDS", 2)
    assert await ranges() == at_once


async def test_jobs_are_read_without_the_right_to_ask_how_they_are_stored(queue: Peer, redis: Redis) -> None:
    added = await queue.call("addBulk", [{"name": "a"}, {"name": "b", "data": "x" * 100}])
    await redis.execute_command("ACL", "SETUSER", "default", "-object")  # type: ignore[no-untyped-call]
    try:
        assert [job["data"] for job in await queue.call("getWaiting")] == [job["data"] for job in added]
    finally:
        await redis.execute_command("ACL", "SETUSER", "default", "+object")  # type: ignore[no-untyped-call]


async def test_a_broken_hash_spoils_no_page(queue: Peer, redis: Redis, prefix: str) -> None:
    ids = [(await queue.call("add", "a", {"n": n}))["id"] for n in range(7)]
    broken: list[dict[str, str | bytes]] = [
        {"data": "{"},
        {"opts": "["},
        {"opts": "null", "progress": "}", "parent": "]"},
        {"opts": '{"de":{"id":"\\ud800"}}', "stacktrace": '["\\ud800"]'},
        {"name": b"\xff", "data": b'"\xff"', "failedReason": b"\xfe", "pb": b"\xc0"},
        {"opts": '{"fpof":' + "9" * 400 + "}", "data": "[" * 100_000, "delay": "9" * 400, "ats": "x"},
    ]
    for id, fields in zip(ids, broken, strict=False):
        await redis.hset(f"{prefix}:q:{id}", mapping=fields)  # type: ignore[arg-type]
    jobs = await queue.call("getWaiting")
    assert [job["id"] for job in jobs] == ids
    assert [job["data"] for job in jobs[:2]] == ["{", {"n": 1}]
    assert all(job["opts"].get("attempts") == 0 for job in jobs[1:3])
    assert (jobs[2]["progress"], "parent" in jobs[2]) == (0, False)
    assert [await queue.call("getJob", id) for id in ids] == jobs


# Children


async def mother(queue: Peer, prefix: str, children: int, name: str = "q", other: Peer | None = None) -> None:
    """A job `mother` in `name` whose children are in the queue of `other`, or in hers."""
    await queue.call("add", "mother", {}, {"jobId": "mother"})
    parent = {"id": "mother", "queue": f"{prefix}:{name}"}
    await (other or queue).call("addBulk", [{"name": "c", "opts": {"parent": parent}} for _ in range(children)])


async def test_pages_of_many_children_hold_each_of_them_once(queue: Peer, prefix: str) -> None:
    await mother(queue, prefix, 1200)  # more than one call of the script looks at
    whole = await queue.call("getDependencies", "mother", "pending", 0, -1)
    assert (whole["total"], len(whole["items"]), len(whole["jobs"])) == (1200, 1200, 1200)
    keys = {item["id"] for item in whole["items"]}
    assert keys == {f"{prefix}:q:{n}" for n in range(2, 1202)}
    pages = [await queue.call("getDependencies", "mother", "pending", at, at + 299) for at in range(0, 1500, 300)]
    assert [len(page["items"]) for page in pages] == [300, 300, 300, 300, 0]
    assert {item["id"] for page in pages for item in page["items"]} == keys
    assert (await queue.call("getDependencies", "mother", "pending", 700, 700))["items"] == [whole["items"][700]]


async def test_a_page_shows_the_results_and_hashes_of_children_in_any_queue(proxy: Gateway, prefix: str) -> None:
    queue, other = await proxy.queue(), await proxy.queue("other")
    await mother(queue, prefix, 2, other=other)
    worker = await proxy.worker("other", confirm=1)
    await (await worker.job()).answer(result={"r": 1})
    await worker.data()
    page = await queue.call("getDependencies", "mother", "processed", 0, -1)
    assert (page["items"], page["total"]) == ([{"id": f"{prefix}:other:1", "v": {"r": 1}}], 1)
    assert (page["jobs"][0]["data"], page["jobs"][0]["returnvalue"]) == ("{}", '{"r": 1}')
    [pending] = (await queue.call("getDependencies", "mother", "pending", 0, 5))["items"]
    assert pending == {"id": f"{prefix}:other:2"}


async def test_a_result_that_is_no_json_shows_as_an_error(queue: Peer, redis: Redis, prefix: str) -> None:
    await redis.hset(f"{prefix}:q:mother:processed", mapping={f"{prefix}:q:1": "oh", f"{prefix}:q:2": ""})
    page = await queue.call("getDependencies", "mother", "processed", 0, -1)
    assert [item["err"] for item in page["items"]] == ['"oh" is not valid JSON', '"" is not valid JSON']


# The queue itself


async def test_a_queue_that_nobody_has_written_to_says_so(queue: Peer) -> None:
    assert await queue.call("getVersion") is None
    assert await queue.call("getMeta") == {"paused": False}
    await queue.call("add", "a")
    version = await queue.call("getVersion")
    assert version.startswith("bullmq-proxy:")
    assert await queue.call("getMeta") == {"version": version, "maxLenEvents": 10_000, "paused": False}


async def test_a_deduplication_key_can_be_looked_up_and_removed(queue: Peer) -> None:
    opts = {"deduplication": {"id": "once"}}
    id = (await queue.call("add", "a", {}, opts))["id"]
    assert await queue.call("getDeduplicationJobId", "once") == id
    assert await queue.call("removeDeduplicationKey", "once") == 1
    assert await queue.call("removeDeduplicationKey", "once") == 0
    assert await queue.call("getDeduplicationJobId", "once") is None
    assert "duplicate" not in await queue.call("add", "a", {}, opts)


# Orphans


async def test_orphans_go_and_nothing_else_does(proxy: Gateway, queue: Peer, redis: Redis, prefix: str) -> None:
    await queue.call("addBulk", [{"name": "a", "opts": opts} for opts in ({}, {"delay": 9999}, {"priority": 1})])
    worker = await proxy.worker()
    await worker.job()
    await redis.hset(f"{prefix}:q:metrics:failed", "count", "7")  # to Node it looks like a part of a job `metrics`
    await redis.set(f"{prefix}:q:dn:logs", "data of a job that is to come")
    before = sorted(await redis.keys(f"{prefix}:*"))
    for number in range(50):
        await redis.hset(f"{prefix}:q:orphan {number}", "name", "x")
        await redis.rpush(f"{prefix}:q:orphan {number}:logs", "row")
    assert await queue.call("removeOrphanedJobs", 10) == 50
    assert sorted(await redis.keys(f"{prefix}:*")) == before


async def test_the_sweep_ends_at_its_limit(queue: Peer, redis: Redis, prefix: str) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(300):
            pipe.hset(f"{prefix}:q:o{number}", "name", "x")
        await pipe.execute()
    removed = await queue.call("removeOrphanedJobs", 1, 20)
    assert 20 <= removed < 300
    assert await queue.call("removeOrphanedJobs") == 300 - removed


@pytest.mark.parametrize("name", ["a*", "a?", "[ab]", "a\\", "a[!b]", "ü^-"])
async def test_a_queue_s_name_is_no_pattern(proxy: Gateway, redis: Redis, prefix: str, name: str) -> None:
    for other in ("ab", "a", "b", "aa"):
        await redis.hset(f"{prefix}:{other}:x:orphan", "name", "x")
    await redis.hset(f"{prefix}:{name}:mine", "name", "x")
    assert await (await proxy.queue(name)).call("removeOrphanedJobs") == 1
    assert len(await redis.keys(f"{prefix}:*:x:orphan")) == 4


# Refusals


@pytest.mark.parametrize(
    ("fn", "args", "place"),
    [
        ("getActiveCount", [1], "args"),
        ("getDelayedCount", ["1"], "args[0]"),
        ("getCountsPerPriority", [], "args"),
        ("getCountsPerPriority", [1], "args[0]"),
        ("getCountsPerPriority", [[1, 1.5]], "args[0][1]"),
        ("getCountsPerPriority", [[2**60]], "args[0][0]"),
        ("recordJobCountsMetric", ["active", "x"], "args[1]"),
        ("getRanges", [], "args"),
        ("getRanges", ["waiting"], "args[0]"),
        ("getRanges", [["gone"]], "args[0][0]"),
        ("getRanges", [["waiting"], True], "args[1]"),
        ("getRanges", [["waiting"], 0, 10**30], "args[2]"),
        ("getJobs", [["waiting", None]], "args[0][1]"),
        ("getJobs", [5], "args[0]"),
        ("getJobs", [[], 2**53], "args[1]"),
        ("getJobs", [[], 0, -(2**63)], "args[2]"),
        ("getJobs", [[], 0, 1.5], "args[2]"),
        ("getJobs", [[], 0, 1, "yes"], "args[3]"),
        ("getWaitingChildren", [0, True], "args[1]"),
        ("getDependencies", ["1", "pending", 0], "args"),
        ("getDependencies", ["", "pending", 0, -1], "args[0]"),
        ("getDependencies", ["1", "failed", 0, -1], "args[1]"),
        ("getDependencies", ["1", "pending", -1, -1], "args[2]"),
        ("getDependencies", ["1", "pending", 0, -2], "args[3]"),
        ("getDependencies", ["1", "pending", 0, 2**60], "args[3]"),
        ("getDeduplicationJobId", [], "args"),
        ("removeDeduplicationKey", [1], "args[0]"),
        ("removeDeprecatedPriorityKey", [1], "args"),
        ("removeOrphanedJobs", [0], "args[0]"),
        ("removeOrphanedJobs", [1000, -1], "args[1]"),
        ("getMeta", [1], "args"),
    ],
)
async def test_bad_arguments_name_their_place(queue: Peer, fn: str, args: list[Any], place: str) -> None:
    code, message = await queue.refusal(fn, *args)
    assert code == "INVALID_ARGUMENTS"
    assert f"`{place}`" in message


async def test_many_jobs_are_read_in_pages_with_the_same_result(queue: Peer) -> None:
    jobs = [{"name": "job", "data": number} for number in range(1203)]
    for at in range(0, len(jobs), 401):
        await queue.call("addBulk", jobs[at : at + 401])
    await queue.call("addBulk", [{"name": "job", "data": number, "opts": {"priority": 1}} for number in range(3)])

    async def numbers(*args: Any) -> list[int]:
        return [job["data"] for job in await queue.call("getJobs", *args)]

    oldest = list(range(1203))
    assert await numbers("waiting", 0, -1, True) == oldest
    assert await numbers("waiting") == oldest[::-1]
    assert await numbers(["waiting", "prioritized"], 0, -1, True) == [*oldest, 0, 1, 2]
    assert await numbers("waiting", 100, 1100, True) == oldest[100:1101]
    assert await numbers("waiting", 700, 5000, True) == oldest[700:]
    assert await numbers("waiting", 700, 5000) == oldest[::-1][700:]
    assert await numbers("waiting", -600, -2, True) == oldest[-600:-1]
    assert await numbers("waiting", -600, -2) == oldest[::-1][-600:-1]
    assert await numbers("waiting", 1203, -1, True) == []
    assert await numbers("waiting", 0, -1300, True) == []


async def test_more_jobs_than_a_reply_can_hold_are_refused(queue: Peer, redis: Redis, prefix: str) -> None:
    for number in range(18):
        await redis.hset(f"{prefix}:q:{number}", mapping={"name": "job", "data": '"' + "x" * 1_000_000 + '"'})
        await redis.rpush(f"{prefix}:q:wait", str(number))
    code, message = await queue.refusal("getJobs", "waiting", 0, -1)
    assert (code, message) == (
        "INVALID_ARGUMENTS",
        "The reply would have more than 16 MiB: ask for fewer, by `start` and `end`",
    )
    assert len(await queue.call("getJobs", "waiting", 0, 4)) == 5


@pytest.mark.parametrize("count", [1, 10**9])
async def test_orphans_are_removed_a_few_at_a_time(queue: Peer, redis: Redis, prefix: str, count: int) -> None:
    kept = (await queue.call("add", "job"))["id"]
    for number in range(250):
        await redis.hset(f"{prefix}:q:orphan-{number}", mapping={"name": "job", "timestamp": "1"})
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert await queue.call("removeOrphanedJobs", count) == 250
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - before >= 3
    assert await queue.call("getJobState", kept) == "waiting"
