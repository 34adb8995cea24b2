"""Every function of the Queue API against a real Valkey: its result, and its refusals (PROTOCOL 3 and 6)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from bullmq import Queue
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.functions import TABLE
from tests.sessions.peer import Gateway, Job, Peer
from tests.support.valkey import ValkeyProcess


@pytest.fixture
async def queue(proxy: Gateway) -> Peer:
    return await proxy.queue()


async def finished(proxy: Gateway, queue: Peer, opts: dict[str, Any] | None = None, *, failed: bool = False) -> str:
    """The id of a job that has been completed, or has failed."""
    worker = await proxy.worker(confirm=1)
    await queue.call("add", "done", {}, opts or {})
    job = await worker.job()
    await (job.answer(err="boom") if failed else job.answer(result={"r": 1}))
    await worker.data()
    await worker.close()
    return job.id


async def active(proxy: Gateway, queue: Peer, **opts: Any) -> tuple[Peer, Job]:
    await queue.call("add", "busy", {}, opts)
    worker = await proxy.worker()
    return worker, await worker.job()


# add, addBulk


async def test_add_returns_the_job_as_nodes_bullmq_would(queue: Peer, prefix: str) -> None:
    before = time.time() * 1000
    job = await queue.call("add", "welcome", {"to": "a@b.c"}, {"attempts": 3, "delay": 5, "backoff": 7, "priority": 2})
    assert before - 1 <= job.pop("timestamp") <= time.time() * 1000 + 1
    assert job == {
        "id": "1",
        "name": "welcome",
        "data": {"to": "a@b.c"},
        "opts": {"attempts": 3, "delay": 5, "priority": 2, "backoff": {"type": "fixed", "delay": 7}},
        "progress": 0,
        "returnvalue": None,
        "stacktrace": None,
        "delay": 5,
        "priority": 2,
        "attemptsStarted": 0,
        "attemptsMade": 0,
        "stalledCounter": 0,
        "queueQualifiedName": f"{prefix}:q",
    }


@pytest.mark.parametrize(
    ("opts", "state"),
    [({}, "waiting"), ({"delay": 60_000}, "delayed"), ({"priority": 3}, "prioritized"), ({"lifo": True}, "waiting")],
)
async def test_a_job_is_stored_where_its_options_say(queue: Peer, opts: dict[str, Any], state: str) -> None:
    job = await queue.call("add", "work", {}, opts)
    assert await queue.call("getJobState", job["id"]) == state


async def test_options_that_python_and_node_store_come_back_under_their_names(queue: Peer) -> None:
    opts = {
        "attempts": 2,
        "removeOnComplete": {"age": 60, "count": 5},
        "removeOnFail": 3,
        "keepLogs": 4,
        "stackTraceLimit": 2,
        "sizeLimit": 1000,
        "failParentOnFailure": True,
        "telemetry": {"metadata": "m", "omitContext": True},
        "deduplication": {"id": "d", "ttl": 60_000},
        "timestamp": 1_700_000_000_000,
    }
    job = await queue.call("add", "work", {}, opts)
    stored = await queue.call("getJob", job["id"])
    assert stored["opts"] == opts
    assert (stored["timestamp"], stored["deduplicationId"]) == (1_700_000_000_000, "d")


async def test_a_custom_id_that_is_there_already_adds_nothing(queue: Peer) -> None:
    first = await queue.call("add", "a", {"n": 1}, {"jobId": "mine"})
    second = await queue.call("add", "b", {"n": 2}, {"jobId": "mine"})
    assert "duplicate" not in first
    assert (second["id"], second["duplicate"], second["data"]) == ("mine", True, {"n": 2})
    assert (await queue.call("getJob", "mine"))["data"] == {"n": 1}
    assert await queue.call("count") == 1


@pytest.mark.parametrize("opts", [{"delay": 60_000}, {"priority": 4}])
async def test_a_custom_id_counts_for_delayed_and_prioritized_jobs_too(queue: Peer, opts: dict[str, Any]) -> None:
    assert "duplicate" not in await queue.call("add", "a", {}, {"jobId": "mine", **opts})
    assert (await queue.call("add", "a", {}, {"jobId": "mine", **opts}))["duplicate"] is True


@pytest.mark.parametrize("mode", [{}, {"ttl": 60_000}, {"ttl": 60_000, "extend": True}, {"keepLastIfActive": True}])
async def test_a_deduplicated_job_adds_nothing_and_shows_the_id_of_the_one_that_is_there(
    queue: Peer, mode: dict[str, Any]
) -> None:
    opts = {"deduplication": {"id": "once", **mode}}
    first = await queue.call("add", "a", {}, opts)
    second = await queue.call("add", "b", {}, opts)
    assert "duplicate" not in first
    assert (second["id"], second["duplicate"], second["deduplicationId"]) == (first["id"], True, "once")
    assert await queue.call("count") == 1


async def test_a_deduplicated_job_that_replaces_a_delayed_one_is_no_duplicate(queue: Peer) -> None:
    opts = {"deduplication": {"id": "once", "replace": True}, "delay": 60_000}
    first = await queue.call("add", "a", {}, opts)
    second = await queue.call("add", "b", {}, opts)
    assert second["id"] != first["id"]
    assert "duplicate" not in second
    assert await queue.call("getJob", first["id"]) is None


async def test_after_the_end_of_a_job_its_deduplication_id_is_free(proxy: Gateway, queue: Peer) -> None:
    opts = {"deduplication": {"id": "once"}}
    await finished(proxy, queue, opts)
    assert "duplicate" not in await queue.call("add", "again", {}, opts)


async def test_add_bulk_stores_all_in_their_order(queue: Peer) -> None:
    jobs = await queue.call(
        "addBulk", [{"name": f"n{n}", "data": {"n": n}, "opts": {"lifo": n == 2}} for n in range(3)]
    )
    assert [(job["id"], job["name"], job["data"]) for job in jobs] == [
        ("1", "n0", {"n": 0}),
        ("2", "n1", {"n": 1}),
        ("3", "n2", {"n": 2}),
    ]
    assert await queue.call("addBulk", []) == []
    assert await queue.call("count") == 3


async def test_add_bulk_checks_all_before_it_stores_any(queue: Peer) -> None:
    code, message = await queue.refusal("addBulk", [{"name": "a"}, {"name": "b", "opts": {"delai": 5}}])
    assert code == "INVALID_ARGUMENTS"
    assert message == "Unknown option `delai`, did you mean `delay`? - at `args[0][1].opts`"
    assert await queue.call("count") == 0


async def test_in_a_bulk_a_job_without_its_parent_shows_its_error_and_the_others_are_stored(
    queue: Peer, prefix: str
) -> None:
    parent = {"id": "nobody", "queue": f"{prefix}:q"}
    jobs = await queue.call("addBulk", [{"name": "a"}, {"name": "b", "opts": {"parent": parent}}, {"name": "c"}])
    assert [job.get("name") for job in jobs] == ["a", None, "c"]
    assert jobs[1]["err"] == {
        "code": "NOT_FOUND",
        "message": f"Missing key for parent job {prefix}:q:nobody. addJob",
    }
    assert await queue.call("count") == 2


async def test_a_job_without_its_parent_is_refused(queue: Peer, prefix: str) -> None:
    refusal = await queue.refusal("add", "child", {}, {"parent": {"id": "nobody", "queue": f"{prefix}:q"}})
    assert refusal == ("NOT_FOUND", f"Missing key for parent job {prefix}:q:nobody. addJob")


BAD_ADDS: list[tuple[list[Any], str]] = [
    ([], "at `args`"),
    ([5], "Expected a string, got a whole number - at `args[0]`"),
    (["a", {}, {"delay": -1}], "Expected a whole number >= 0 - at `args[2].delay`"),
    (["a", {}, {"delay": "5"}], "Expected a whole number, got a string - at `args[2].delay`"),
    (["a", {}, {"attempts": 1.5}], "at `args[2].attempts`"),
    (["a", {}, {"backoff": {"type": 1}}], "at `args[2].backoff.type`"),
    (["a", {}, [1]], "at `args[2]`"),
    (["a", {}, {}, 1], "at `args`"),
    (["a", {}, {"repeat": {"every": 1000}}], "`upsertJobScheduler`"),
    (["a", {}, {"priority": 2**21}], "Priority should be between 0 and 2097151"),
    (["a", {}, {"priority": 1.5}], "Priority should not be float"),
    (["a", {}, {"jobId": "12"}], "Custom Id cannot be integers"),
    (["a", {}, {"jobId": "a:b"}], "Custom Id cannot contain :"),
    (["a", {}, {"jobId": "0"}], "JobId cannot be '0' or start with '0:'"),
    (["a", {}, {"deduplication": {}}], "Deduplication id must be provided"),
    (["a", {}, {"debounce": {}}], "Debounce option has been removed"),
    (["a", {"long": "x" * 50}, {"sizeLimit": 10}], "The size of job a exceeds the limit 10 bytes"),
    (["a", {}, {"removeDependencyOnFailure": True, "failParentOnFailure": True}], "cannot be used together"),
]


@pytest.mark.parametrize(("args", "message"), BAD_ADDS)
async def test_bad_arguments_of_add_are_named_before_anything_is_stored(
    queue: Peer, args: list[Any], message: str
) -> None:
    code, text = await queue.refusal("add", *args)
    assert code == "INVALID_ARGUMENTS"
    assert message in text
    assert await queue.call("count") == 0


# Reading


async def test_the_jobs_of_each_state_are_listed_in_their_order(proxy: Gateway, queue: Peer) -> None:
    done = [await finished(proxy, queue) for _ in range(2)]
    broken = await finished(proxy, queue, failed=True)
    worker, busy = await active(proxy, queue)
    for name, opts in (("w1", {}), ("w2", {}), ("d", {"delay": 60_000}), ("p", {"priority": 1})):
        await queue.call("add", name, {}, opts)
    lists = {
        fn: [job["name"] if fn != "getCompleted" else job["id"] for job in await queue.call(fn)]
        for fn in ("getWaiting", "getActive", "getDelayed", "getPrioritized", "getCompleted", "getFailed")
    }
    assert lists == {
        "getWaiting": ["w1", "w2"],
        "getActive": ["busy"],
        "getDelayed": ["d"],
        "getPrioritized": ["p"],
        "getCompleted": done[::-1],
        "getFailed": ["done"],
    }
    assert [job["name"] for job in await queue.call("getWaiting", 1, 1)] == ["w2"]
    assert [job["name"] for job in await queue.call("getJobs", ["delayed", "waiting"], 0, -1, True)] == [
        "d",
        "w1",
        "w2",
    ]
    assert len(await queue.call("getJobs")) == 8
    assert [job["name"] for job in await queue.call("getJobs", "prioritized")] == ["p"]
    assert await queue.call("getJobCounts") == {
        "active": 1,
        "completed": 2,
        "delayed": 1,
        "failed": 1,
        "prioritized": 1,
        "waiting": 2,
        "waiting-children": 0,
    }
    assert list(await queue.call("getJobCounts", "waiting", "active", "waiting")) == ["waiting", "active"]
    assert await queue.call("getJobCountByTypes", "waiting", "failed") == 3
    assert await queue.call("count") == 4
    assert await queue.call("getJobState", broken) == "failed"
    assert await queue.call("getJobState", busy.id) == "active"
    assert await queue.call("getJobState", "nobody") == "unknown"
    await worker.close()


async def test_a_job_is_shown_as_node_loads_it(proxy: Gateway, queue: Peer, prefix: str) -> None:
    id = await finished(proxy, queue, {"attempts": 2})
    job = await queue.call("getJob", id)
    for time_of in ("timestamp", "processedOn", "finishedOn"):
        assert abs(job.pop(time_of) - time.time() * 1000) < 60_000
    assert job == {
        "name": "done",
        "data": {},
        "opts": {"attempts": 2},
        "id": id,
        "progress": 0,
        "returnvalue": {"r": 1},
        "stacktrace": [],
        "delay": 0,
        "priority": 0,
        "attemptsStarted": 1,
        "attemptsMade": 1,
        "stalledCounter": 0,
        "queueQualifiedName": f"{prefix}:q",
    }


async def test_a_job_that_is_not_there_is_null_and_a_number_as_id_stays_one(queue: Peer) -> None:
    assert await queue.call("getJob", "nobody") is None
    assert await queue.call("getJob", "") is None
    await queue.call("add", "work")
    assert (await queue.call("getJob", 1))["id"] == 1


async def test_logs_are_read_from_either_end(queue: Peer) -> None:
    id = (await queue.call("add", "work"))["id"]
    assert [await queue.call("addJobLog", id, row) for row in ("a", "b", "c")] == [1, 2, 3]
    assert await queue.call("addJobLog", id, "d", 3) == 3
    assert await queue.call("getJobLogs", id) == {"logs": ["b", "c", "d"], "count": 3}
    assert await queue.call("getJobLogs", id, 0, 0) == {"logs": ["b"], "count": 3}
    assert await queue.call("getJobLogs", id, 0, 0, False) == {"logs": ["d"], "count": 3}
    assert await queue.call("getJobLogs", id, 0, -1, False) == {"logs": ["d", "c", "b"], "count": 3}
    assert await queue.call("getJobLogs", "nobody") == {"logs": [], "count": 0}


async def test_workers_are_counted_by_their_redis_connections(proxy: Gateway, queue: Peer, prefix: str) -> None:
    assert await queue.call("getWorkersCount") == 0
    worker = await proxy.worker()
    while not (workers := await queue.call("getWorkers")):
        await worker.nothing_more()
    assert (workers[0]["name"], await queue.call("getWorkersCount")) == ("q", 1)
    assert workers[0]["rawname"].startswith(f"{prefix}:")


# Managing


async def test_pause_and_resume(queue: Peer) -> None:
    assert await queue.call("isPaused") is False
    assert await queue.call("pause") is None
    assert await queue.call("isPaused") is True
    assert await queue.call("resume") is None
    assert await queue.call("isPaused") is False


async def test_drain_removes_what_waits_and_delayed_jobs_if_asked(queue: Peer) -> None:
    await queue.call(
        "addBulk", [{"name": "a"}, {"name": "p", "opts": {"priority": 1}}, {"name": "d", "opts": {"delay": 9999}}]
    )
    assert await queue.call("drain") is None
    assert await queue.call("count") == 1
    assert await queue.call("drain", True) is None
    assert await queue.call("count") == 0


async def test_clean_removes_up_to_its_limit_and_returns_the_ids(proxy: Gateway, queue: Peer) -> None:
    ids = [await finished(proxy, queue) for _ in range(3)]
    assert await queue.call("clean", 60_000, 0) == []
    assert await queue.call("clean", 0, 2, "completed") == ids[:2]
    assert await queue.call("clean", 0, 0) == ids[2:]
    await queue.call("addBulk", [{"name": "a"}, {"name": "b"}])
    assert sorted(await queue.call("clean", 0, 0, "waiting")) == ["4", "5"]
    assert await queue.call("count") == 0


async def test_obliterate_removes_the_queue_unless_jobs_are_active(
    proxy: Gateway, queue: Peer, redis: Redis, prefix: str
) -> None:
    worker, job = await active(proxy, queue)
    assert await queue.refusal("obliterate") == ("CONFLICT", "Cannot obliterate queue with active jobs")
    assert await queue.call("isPaused") is True
    assert await queue.call("obliterate", {"force": True, "count": 1}) is None
    assert await redis.keys(f"{prefix}:q:[0-9m]*") == []
    await job.answer(result=1)
    assert (await worker.data())["err"]["code"] == "NOT_FOUND"


async def test_failed_jobs_are_retried_together(proxy: Gateway, queue: Peer) -> None:
    ids = [await finished(proxy, queue, failed=True) for _ in range(3)]
    assert await queue.call("retryJobs", {"count": 1}) is None
    assert sorted(job["id"] for job in await queue.call("getWaiting")) == ids
    await queue.call("drain")
    [done] = [await finished(proxy, queue)]
    assert await queue.call("retryJobs", {"state": "completed", "timestamp": int(time.time() * 1000) + 1000}) is None
    assert await queue.call("getJobState", done) == "waiting"


async def test_delayed_jobs_are_promoted_together(queue: Peer) -> None:
    await queue.call("addBulk", [{"name": "d", "opts": {"delay": 60_000}} for _ in range(3)])
    assert await queue.call("promoteJobs", {"count": 2}) is None
    assert (await queue.call("getJobCounts", "waiting", "delayed")) == {"waiting": 3, "delayed": 0}


@pytest.mark.parametrize("fn", ["retryJobs", "promoteJobs", "obliterate"])
@pytest.mark.parametrize("count", [0, -1, False, 1.5, "5"])
async def test_a_count_that_would_never_end_is_refused(queue: Peer, fn: str, count: Any) -> None:
    code, message = await queue.refusal(fn, {"count": count})
    assert (code, "`args[0].count`" in message) == ("INVALID_ARGUMENTS", True)


async def test_trim_events_cuts_the_stream(queue: Peer, redis: Redis, prefix: str) -> None:
    await queue.call("addBulk", [{"name": "a"} for _ in range(300)])
    length = await redis.xlen(f"{prefix}:q:events")
    trimmed = await queue.call("trimEvents", 0)
    assert trimmed > 0
    assert await redis.xlen(f"{prefix}:q:events") == length - trimmed


async def test_remove_says_whether_the_job_could_be_removed(proxy: Gateway, queue: Peer) -> None:
    id = (await queue.call("add", "a"))["id"]
    assert await queue.call("remove", id) == 1
    assert await queue.call("getJob", id) is None
    assert await queue.call("remove", "nobody") == 1
    _, job = await active(proxy, queue)
    assert await queue.call("remove", job.id) == 0
    assert await queue.refusal("removeJob", job.id) == (
        "CONFLICT",
        f"Job {job.id} could not be removed because it is locked by another worker",
    )


async def test_remove_takes_children_along_unless_told_not_to(queue: Peer, prefix: str) -> None:
    for remove_children, left in ((True, 0), (False, 1)):
        parent = (await queue.call("add", "parent"))["id"]
        child = await queue.call("add", "child", {}, {"parent": {"id": parent, "queue": f"{prefix}:q"}})
        assert await queue.call("removeJob", parent, {"removeChildren": remove_children}) is None
        assert (await queue.call("getJob", child["id"]) is not None) == bool(left)


async def test_the_job_of_a_scheduler_cannot_be_removed(queue: Peer, valkey: ValkeyProcess, prefix: str) -> None:
    async with Redis.from_url(valkey.url, decode_responses=True) as connection:
        theirs = Queue("q", {"connection": connection, "prefix": prefix})
        id = (await theirs.upsertJobScheduler("tick", {"every": 60_000}, "beat", {}, {})).id
        await theirs.close()
    message = f"Job {id} belongs to a job scheduler and cannot be removed directly. removeJob"
    assert await queue.refusal("remove", id) == ("CONFLICT", message)


# One job


@pytest.mark.parametrize("failed", [True, False])
async def test_retry_job_moves_a_finished_job_back_to_wait(proxy: Gateway, queue: Peer, failed: bool) -> None:
    id = await finished(proxy, queue, failed=failed)
    state = "failed" if failed else "completed"
    assert await queue.call("retryJob", id, state, {"resetAttemptsMade": True, "resetAttemptsStarted": True}) is None
    job = await queue.call("getJob", id)
    assert (await queue.call("getJobState", id), job["attemptsMade"], job["attemptsStarted"]) == ("waiting", 0, 0)
    assert "failedReason" not in job
    assert job["returnvalue"] is None
    assert await queue.refusal("retryJob", id, state) == (
        "CONFLICT",
        f"Job {id} is not in the {state} state. reprocessJob",
    )


async def test_promote_job_moves_a_delayed_job_to_wait(queue: Peer) -> None:
    id = (await queue.call("add", "a", {}, {"delay": 60_000}))["id"]
    assert await queue.call("promoteJob", id) is None
    assert await queue.call("getJobState", id) == "waiting"
    assert await queue.refusal("promoteJob", id) == ("CONFLICT", f"Job {id} is not in the delayed state. promote")


async def test_a_jobs_data_and_progress_can_be_changed(queue: Peer) -> None:
    id = (await queue.call("add", "a", {"n": 1}))["id"]
    assert await queue.call("updateJobData", id, [1, None]) is None
    assert await queue.call("updateJobProgress", id, {"half": True}) is None
    job = await queue.call("getJob", id)
    assert (job["data"], job["progress"]) == ([1, None], {"half": True})


@pytest.mark.parametrize(
    ("fn", "args", "command"),
    [
        ("updateJobData", [{}], "updateData"),
        ("updateJobProgress", [1], "updateProgress"),
        ("addJobLog", ["row"], "addLog"),
        ("retryJob", [], "reprocessJob"),
    ],
)
async def test_a_missing_job_is_not_found(queue: Peer, fn: str, args: list[Any], command: str) -> None:
    assert await queue.refusal(fn, "nobody", *args) == ("NOT_FOUND", f"Missing key for job nobody. {command}")


@pytest.mark.parametrize(
    ("fn", "args", "place"),
    [
        ("getJobs", [["waitin"]], "args[0][0]"),
        ("getJobs", ["waiting", "0"], "args[1]"),
        ("getJobCounts", ["waiting", 5], "args[1]"),
        ("getWaiting", [True], "args[0]"),
        ("getWaiting", [0, 10**30], "args[1]"),
        ("getJobLogs", ["1", -(2**63)], "args[1]"),
        ("clean", [0], "args"),
        ("clean", [-1, 0], "args[0]"),
        ("clean", [0, 0, "everything"], "args[2]"),
        ("remove", [""], "args[0]"),
        ("remove", ["1", {"children": True}], "args[1]"),
        ("retryJob", ["1", "active"], "args[1]"),
        ("retryJobs", [{"state": "active"}], "args[0].state"),
        ("getJobState", [1.5], "args[0]"),
        ("addJobLog", ["1", 5], "args[1]"),
        ("addJobLog", ["1", "row", -1], "args[2]"),
        ("updateJobData", ["1"], "args"),
        ("trimEvents", [-1], "args[0]"),
        ("trimEvents", [2**64], "args[0]"),
        ("pause", [1], "args"),
        ("drain", ["yes"], "args[0]"),
    ],
)
async def test_bad_arguments_name_their_place(queue: Peer, fn: str, args: list[Any], place: str) -> None:
    code, message = await queue.refusal(fn, *args)
    assert code == "INVALID_ARGUMENTS"
    assert f"`{place}`" in message


async def test_every_function_refuses_arguments_that_are_no_array(queue: Peer) -> None:
    for number, function in enumerate(TABLE):
        await queue.send(number, fn=function.name, args={"a": 1})
        reply = await queue.message()
        assert reply["id"] == number
        assert reply["data"]["err"]["code"] == "INVALID_ARGUMENTS", function.name


async def test_an_unknown_function_gets_the_nearest_known_name(queue: Peer) -> None:
    assert await queue.refusal("getJbo") == (
        "UNKNOWN_FUNCTION",
        "Unknown function `getJbo`, did you mean `getJob`? - at `fn`",
    )


async def test_a_function_of_another_kind_of_connection_is_said_to_be_there(proxy: Gateway, queue: Peer) -> None:
    flows, events, worker = await proxy.connect("/flows"), await proxy.events(), await proxy.worker()
    for peer, name, path in (
        (queue, "getFlow", "/flows"),
        (worker, "getFlow", "/flows"),
        (events, "getFlow", "/flows"),
        (flows, "getJob", "/queue/NAME"),
        (events, "getJob", "/queue/NAME"),
        (events, "add", "/queue/NAME and /flows"),
        (queue, "on", "/queue/NAME/events"),
        (flows, "off", "/queue/NAME/events"),
    ):
        message = f"Unknown function `{name}`: it is one of connections to {path} - at `fn`"
        assert await peer.refusal(name) == ("UNKNOWN_FUNCTION", message)


async def test_an_event_connection_may_begin_without_events(proxy: Gateway, queue: Peer) -> None:
    watcher = await proxy.connect("/queue/q/events", events="")
    assert await watcher.call("off") == []
    assert await watcher.call("on", "added", None) == ["added"]
    await queue.call("add", "after")
    assert (await watcher.message())["data"]["args"][0]["name"] == "after"


async def test_args_may_be_what_stands_for_none(queue: Peer) -> None:
    stand_ins: list[Any] = [None, {}, []]
    for args in stand_ins:
        await queue.send(9, fn="count", args=args)
        assert await queue.reply(9) == 0


async def test_a_value_of_a_closed_set_is_listed(queue: Peer) -> None:
    message = "Expected one of `completed`, `failed`, got `faild`, did you mean `failed`? - at `args[0].state`"
    assert await queue.refusal("retryJobs", {"state": "faild"}) == ("INVALID_ARGUMENTS", message)
    assert "`waiting-children`" in (await queue.refusal("getJobs", ["wait", "x"]))[1]


@pytest.mark.parametrize(
    "frame", ["", "{", "5", '{"data":{"fn":"count"}}', '{"id":null,"data":{"fn":"count"}}', '{"id":1}']
)
async def test_what_is_no_request_is_refused_and_the_connection_goes_on(queue: Peer, frame: str) -> None:
    await queue.socket.send(frame)
    assert (await queue.data())["err"]["code"] == "INVALID_MESSAGE"
    assert await queue.call("count") == 0


# Order


async def test_requests_of_one_connection_start_in_the_order_received(queue: Peer) -> None:
    ids = [
        await queue.request("add", "a"),
        await queue.request("drain"),  # runs in a task
        await queue.request("add", "b"),  # runs at once, but not before the drain
        await queue.request("drain"),
        await queue.request("add", "c"),
        await queue.request("add", "d"),
        await queue.request("getWaiting"),
    ]
    replies = {message["id"]: message["data"]["ok"] for message in [await queue.message() for _ in ids]}
    assert next(iter(replies)) == ids[0]
    assert [job["name"] for job in replies[ids[-1]]] == ["c", "d"]


async def test_a_thousand_adds_in_one_go_are_stored_in_their_order(queue: Peer) -> None:
    ids = [await queue.request("add", f"n{number}") for number in range(1100)]  # more than may be unanswered
    names = [(await queue.reply(id))["name"] for id in ids]
    assert names == [f"n{number}" for number in range(1100)]
    assert [job["name"] for job in await queue.call("getWaiting")] == names


async def test_the_connections_of_one_queue_do_not_mix_up_their_replies(proxy: Gateway) -> None:
    peers = [await proxy.queue() for _ in range(5)]
    replies = await asyncio.gather(*(peer.call("add", f"of {n}") for n, peer in enumerate(peers) for _ in (1,)))
    assert [job["name"] for job in replies] == [f"of {n}" for n in range(5)]


async def test_queue_names_may_be_any_text(proxy: Gateway) -> None:
    for name in ("with space", "ünï✓", "{tag}", "a/b", "%", "?#&"):
        queue = await proxy.queue(name)
        assert (await queue.call("add", "a"))["queueQualifiedName"].endswith(f":{name}")
        assert (await (await proxy.worker(name)).job()).shown["queue"] == name
