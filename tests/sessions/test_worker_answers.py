"""What a worker may say about a job, and what becomes of the job then (PROTOCOL 4)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Job, Peer
from tests.support.waiting import stretched


async def held(proxy: Gateway, *, opts: dict[str, Any] | None = None, **query: Any) -> tuple[Peer, Job, Peer]:
    """A producer, a job, and the worker that holds it."""
    producer = await proxy.queue()
    await producer.call("add", "work", {"n": 1}, opts or {})
    worker = await proxy.worker(**query)
    return producer, await worker.job(), worker


async def test_a_pushed_job_shows_its_data_options_and_token(proxy: Gateway) -> None:
    _, job, _ = await held(proxy, opts={"attempts": 3, "priority": 7})
    assert job.number == 0
    assert job.payload == {"n": 1}
    assert job.name == "work"
    assert job.shown["opts"] == {"attempts": 3, "priority": 7}
    assert (job.shown["attemptsMade"], job.shown["attemptsStarted"]) == (0, 1)
    assert job.shown["queue"] == "q"
    assert job.shown["token"]
    assert abs(job.shown["timestamp"] - time.time() * 1000) < 60_000
    assert 0 <= job.shown["processedOn"] - job.shown["timestamp"] < 60_000
    assert "processedBy" not in job.shown


async def test_a_pushed_job_shows_the_name_of_its_worker(proxy: Gateway) -> None:
    _, job, worker = await held(proxy, opts={"attempts": 2}, name="w ✓")
    assert job.shown["processedBy"] == "w ✓"
    await job.answer(err="again")
    await worker.close()
    nameless = await proxy.worker()
    again = await nameless.job()
    assert again.shown["processedBy"] == "w ✓"  # as in Node: nobody has taken the name away
    assert again.shown["processedOn"] >= job.shown["processedOn"]


@pytest.mark.parametrize("result", [None, True, 0, -1.5, "", "text ✓ \u2028", [], [1, [2]], {}, {"a": {"b": None}}])
async def test_a_result_of_any_json_type_completes_the_job(proxy: Gateway, result: Any) -> None:
    producer, job, worker = await held(proxy, confirm=1)
    await job.answer(result=result)
    assert await worker.message() == {"id": 0, "data": {"type": "finished", "state": "completed", "jobId": job.id}}
    stored = await producer.call("getJob", job.id)
    assert stored["returnvalue"] == result
    assert stored["attemptsMade"] == 1
    assert stored["finishedOn"] >= stored["processedOn"]


EXACT = '{"z":1.0,"a":12345678901234567890123,"é":"\\u00e9 ✓ \\/","e":1e2,"z ":[ 1 ,2],"9":-0.0}'


async def test_data_and_result_keep_the_very_text_that_their_sender_wrote(
    proxy: Gateway, redis: Redis, prefix: str
) -> None:
    producer, worker, watcher = await proxy.queue(), await proxy.worker(confirm=1), await proxy.events("q", "completed")
    await producer.socket.send(f'{{"id":1,"data":{{"fn":"add","args":["exact",{EXACT}]}}}}')
    added, pushed = await producer.text(), await worker.text()
    assert f'"data":{EXACT},' in added
    assert f'"payload":{EXACT},"job"' in pushed
    await worker.socket.send(f'{{"id":0,"data":{{"result":{EXACT}}}}}')
    await worker.message()
    assert await redis.hmget(f"{prefix}:q:1", "data", "returnvalue") == [EXACT, EXACT]
    assert f'"returnvalue":{EXACT}' in await watcher.text()
    await producer.socket.send('{"id":2,"data":{"fn":"getJob","args":["1"]}}')
    shown = await producer.text()
    assert f'"data":{EXACT}' in shown
    assert f'"returnvalue":{EXACT}' in shown


FAILURES = [
    ({"err": {"message": "boom", "stack": "Error: boom\n    at x"}}, "boom", "Error: boom\n    at x"),
    ({"err": {"message": "boom"}}, "boom", "Error: boom"),
    ({"err": "boom"}, "boom", "Error: boom"),
    ({"message": "boom", "stack": "at x"}, "boom", "at x"),
    ({"err": {"message": "boom ✓", "stack": None}}, "boom ✓", "Error: boom ✓"),
    ({"err": {"code": 5}}, "", "Error: "),
]


@pytest.mark.parametrize(("answer", "reason", "trace"), FAILURES)
async def test_an_error_in_each_of_its_forms_fails_the_job(
    proxy: Gateway, answer: dict[str, Any], reason: str, trace: str
) -> None:
    producer, job, worker = await held(proxy, confirm=1)
    await job.answer(**answer)
    assert (await worker.data())["state"] == "failed"
    stored = await producer.call("getJob", job.id)
    assert stored.get("failedReason", "") == reason
    assert stored["stacktrace"] == [trace]
    assert await producer.call("getJobState", job.id) == "failed"


async def test_a_failed_job_comes_back_until_its_attempts_are_used_up(proxy: Gateway) -> None:
    producer, job, worker = await held(proxy, opts={"attempts": 3})
    for attempt in (1, 2):
        await job.answer(err=f"boom {attempt}")
        job = await worker.job()
        assert job.shown["attemptsMade"] == attempt
        assert job.shown["failedReason"] == f"boom {attempt}"
    await job.answer(err="boom 3")
    await producer.until_state(job.id, "failed")
    stored = await producer.call("getJob", job.id)
    assert stored["attemptsMade"] == 3
    assert stored["stacktrace"] == ["Error: boom 1", "Error: boom 2", "Error: boom 3"]


async def test_stack_traces_are_kept_up_to_their_limit(proxy: Gateway) -> None:
    producer, job, worker = await held(proxy, opts={"attempts": 3, "stackTraceLimit": 1})
    for attempt in (1, 2, 3):
        await job.answer(err=f"boom {attempt}")
        if attempt < 3:
            job = await worker.job()
    await producer.until_state(job.id, "failed")
    assert (await producer.call("getJob", job.id))["stacktrace"] == ["Error: boom 3"]


@pytest.mark.parametrize(
    "answer",
    [
        {"err": {"message": "no", "unrecoverable": True}},
        {"err": "no", "unrecoverable": True},
        {"message": "no", "unrecoverable": True},
    ],
)
async def test_an_unrecoverable_error_uses_up_no_more_attempts(proxy: Gateway, answer: dict[str, Any]) -> None:
    producer, job, worker = await held(proxy, opts={"attempts": 5}, confirm=1)
    await job.answer(**answer)
    assert (await worker.data())["state"] == "failed"
    assert await producer.call("getJobState", job.id) == "failed"


@pytest.mark.parametrize(
    ("backoff", "made", "least", "most"),
    [
        (5000, 1, 5000, 5000),
        ({"type": "fixed", "delay": 5000}, 1, 5000, 5000),
        ({"type": "exponential", "delay": 5000}, 1, 5000, 5000),
        ({"type": "fixed", "delay": 5000, "jitter": 0.5}, 1, 2500, 5000),
        ({"type": "exponential", "delay": 5000, "jitter": 1}, 1, 0, 5000),
    ],
)
async def test_a_failed_job_waits_for_its_backoff(
    proxy: Gateway, backoff: Any, made: int, least: int, most: int
) -> None:
    producer, job, worker = await held(proxy, opts={"attempts": 3, "backoff": backoff}, confirm=1)
    await job.answer(err="boom")
    told = await worker.data()
    stored = await producer.call("getJob", job.id)
    assert told == {"type": "finished", "state": "delayed", "jobId": job.id, "delay": stored["delay"]}
    assert least <= stored["delay"] <= most
    assert stored["attemptsMade"] == made
    assert await producer.call("getJobState", job.id) == "delayed"


async def test_an_exponential_backoff_doubles_with_each_attempt(proxy: Gateway) -> None:
    backoff = {"type": "exponential", "delay": 40}
    _, job, worker = await held(proxy, opts={"attempts": 4, "backoff": backoff})
    watcher = await proxy.events("q", "delayed")
    delays = []
    for _ in range(3):
        before = time.time() * 1000
        await job.answer(err="boom")
        delays.append((await watcher.data())["args"][0]["delay"] - before)
        job = await worker.job()
    assert [round(delay / 40, 0) >= 2**n for n, delay in enumerate(delays)] == [True] * 3
    assert all(delay < 40 * 2**n + 60 for n, delay in enumerate(delays)), delays


async def test_progress_is_recorded_and_told_to_watchers(proxy: Gateway) -> None:
    producer, job, worker = await held(proxy)
    watcher = await proxy.events("q", "progress")
    await job.answer(type="progress", progress={"done": 0.5, "of": [1]})
    assert (await watcher.data())["args"][0] == {"jobId": job.id, "data": {"done": 0.5, "of": [1]}}
    assert (await producer.call("getJob", job.id))["progress"] == {"done": 0.5, "of": [1]}
    await worker.nothing_more()


async def test_log_rows_are_kept_up_to_keep_logs(proxy: Gateway) -> None:
    producer, job, worker = await held(proxy, opts={"keepLogs": 2})
    for row in ("one", "two ✓", ""):
        await job.answer(type="log", row=row)
    await worker.nothing_more()
    assert await producer.call("getJobLogs", job.id) == {"logs": ["two ✓", ""], "count": 2}


async def test_a_row_and_a_log_grow_to_a_limit(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer, job, worker = await held(proxy, opts={"keepLogs": 10**6})
    key = f"{prefix}:q:{job.id}:logs"
    await redis.rpush(key, *["x"] * 10_000)
    await job.answer(type="log", row="é" * 32769)
    message = "A row of a job's log has at most 64 KiB"
    assert (await worker.data())["err"] == {"message": message, "code": "INVALID_ARGUMENTS"}
    assert await producer.refusal("addJobLog", job.id, "x" * 65537) == ("INVALID_ARGUMENTS", message)
    assert await producer.call("addJobLog", job.id, "é" * 32768) == 10_000
    assert await redis.llen(key) == 10_000


async def test_stack_traces_grow_to_a_limit(proxy: Gateway, redis: Redis, prefix: str) -> None:
    producer, worker = await proxy.queue(), await proxy.worker()
    await producer.call("add", "work", {}, {"attempts": 30})
    for number in range(12):
        await (await worker.job()).answer(err={"message": "no", "stack": f"{number} " + "x" * 60_000})
    await worker.job()
    stored = await redis.hget(f"{prefix}:q:1", "stacktrace")
    assert stored is not None
    assert len(stored) < 2**18
    assert json.loads(stored)[-1].startswith("11 ")


async def test_progress_and_logs_before_a_result_are_stored_before_it(proxy: Gateway) -> None:
    _, job, worker = await held(proxy, confirm=1)
    await job.answer(type="progress", progress=99)
    await job.answer(type="log", row="done")
    await job.answer(result="x")
    assert (await worker.data())["state"] == "completed"
    assert (await worker.call("getJob", job.id))["progress"] == 99
    assert (await worker.call("getJobLogs", job.id))["logs"] == ["done"]


@pytest.mark.parametrize("priority", [0, 5])
async def test_a_released_job_is_first_in_line_and_no_attempt_is_charged(proxy: Gateway, priority: int) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1)
    opts = {"priority": priority} if priority else {}
    await producer.call("addBulk", [{"name": name, "opts": opts} for name in ("a", "b", "c")])
    job = await worker.job()
    assert job.name == "a"
    await worker.pause()
    await job.answer(type="release")
    assert (await worker.data())["state"] == "waiting"
    other = await proxy.worker()
    again = await other.job()
    assert (again.name, again.shown["attemptsMade"]) == ("a", 0)


async def test_a_prioritized_job_that_is_released_wakes_an_idle_worker_at_once(proxy: Gateway) -> None:
    _, job, worker = await held(proxy, opts={"priority": 5})
    other = await proxy.worker()
    await other.nothing_more()
    await worker.pause()
    await job.answer(type="release")
    assert (await other.job(timeout=2)).id == job.id


async def test_a_delayed_job_comes_back_in_time_and_no_attempt_is_charged(proxy: Gateway) -> None:
    _, job, worker = await held(proxy, confirm=1)
    before = time.monotonic()
    await job.answer(type="delay", delay=150)
    assert (await worker.data())["state"] == "delayed"
    again = await worker.job()
    assert 0.15 <= time.monotonic() - before < stretched(0.35)
    assert (again.id, again.shown["attemptsMade"]) == (job.id, 0)


async def test_a_job_waits_for_its_children_and_comes_back_after_the_last_one(proxy: Gateway, prefix: str) -> None:
    producer, parent, worker = await held(proxy, confirm=1)
    child = await (await proxy.queue("kids")).call(
        "add", "child", {}, {"parent": {"id": parent.id, "queue": f"{prefix}:q"}}
    )
    await parent.answer(type="waitChildren")
    assert (await worker.data())["state"] == "waiting-children"
    assert await producer.call("getJobState", parent.id) == "waiting-children"
    nanny = await proxy.worker("kids")
    job = await nanny.job()
    assert job.id == child["id"]
    await job.answer(result="grown up")
    assert (await worker.job()).id == parent.id


async def test_waiting_for_children_that_are_not_there_leaves_the_job_with_its_worker(proxy: Gateway) -> None:
    producer, job, worker = await held(proxy)
    await job.answer(type="waitChildren")
    reply = await worker.message()
    assert (reply["id"], reply["data"]["err"]["code"]) == (0, "CONFLICT")
    await job.answer(result=1)
    await producer.until_state(job.id, "completed")


async def test_a_job_with_pending_children_cannot_be_completed_and_fails_with_the_reason(
    proxy: Gateway, prefix: str
) -> None:
    producer, parent, worker = await held(proxy, confirm=1)
    await producer.call("add", "child", {}, {"parent": {"id": parent.id, "queue": f"{prefix}:q"}, "delay": 60_000})
    await parent.answer(result=1)
    assert (await worker.data())["state"] == "failed"
    assert "has pending dependencies" in (await producer.call("getJob", parent.id))["failedReason"]


@pytest.mark.parametrize(
    ("answer", "command"),
    [({"result": 1}, "moveToFinished"), ({"type": "waitChildren"}, "moveToWaitingChildren")],
    ids=["completed", "waits for its children"],
)
async def test_a_job_with_a_failed_child_fails_for_good(
    proxy: Gateway, prefix: str, answer: dict[str, Any], command: str
) -> None:
    producer, parent, worker = await held(proxy, opts={"attempts": 5}, confirm=1)
    of_parent = {"parent": {"id": parent.id, "queue": f"{prefix}:q"}}
    await (await proxy.queue("kids")).call("add", "child", {}, {**of_parent, "failParentOnFailure": True})
    nanny = await proxy.worker("kids", confirm=1)
    await (await nanny.job()).answer(err="boom")
    await nanny.data()
    await parent.answer(**answer)
    assert await worker.data() == {"type": "finished", "state": "failed", "jobId": parent.id}
    shown = await producer.call("getJob", parent.id)
    assert (
        shown["failedReason"] == f"Cannot complete job {parent.id} because it has at least one failed child. {command}"
    )
    assert (shown["attemptsMade"], await producer.call("getJobState", parent.id)) == (1, "failed")
    await producer.call("add", "next")
    assert (await worker.job()).name == "next"  # its place is free again


async def test_without_confirm_the_client_hears_nothing_of_its_answers(proxy: Gateway) -> None:
    producer, job, worker = await held(proxy)
    await job.answer(type="ack")
    await job.answer(result=None)
    await producer.until_state(job.id, "completed")
    await worker.nothing_more()


async def test_a_second_answer_is_lost(proxy: Gateway) -> None:
    _, job, worker = await held(proxy)
    await job.answer(result=1)
    await job.answer(result=2)
    lost = await worker.message()
    assert (lost["id"], lost["data"]["type"], lost["data"]["err"]["code"]) == (0, "lost", "NOT_FOUND")
    assert (await worker.call("getJob", job.id))["returnvalue"] == 1


@pytest.mark.parametrize("answer", [{"type": "ack"}, {"type": "log", "row": ""}, {"type": "progress", "progress": 1}])
async def test_a_remark_about_a_job_that_is_not_ours_is_an_error(proxy: Gateway, answer: dict[str, Any]) -> None:
    worker = await proxy.worker()
    await worker.send(77, **answer)
    reply = await worker.message()
    assert (reply["id"], reply["data"]["err"]["code"]) == (77, "NOT_FOUND")


@pytest.mark.parametrize("id", ["0", "0.0", '"0"', "0e0"])
async def test_an_id_may_come_back_as_any_number_or_text_that_means_it(proxy: Gateway, id: str) -> None:
    _, job, worker = await held(proxy, confirm=1)
    await worker.socket.send(f'{{"id":{id},"data":{{"result":1}}}}')
    assert await worker.text() == f'{{"id":{id},"data":{{"type":"finished","state":"completed","jobId":"{job.id}"}}}}'


@pytest.mark.parametrize("id", ["1e999", "-5", "0.5", '"inf"', '"nan"', '""', "123456789012345678901234567890"])
async def test_an_id_that_means_no_job_is_answered_with_itself(proxy: Gateway, id: str) -> None:
    worker = await proxy.worker()
    await worker.socket.send(f'{{"id":{id},"data":{{"result":1}}}}')
    text = await worker.text()
    assert text.startswith(f'{{"id":{id},"data":{{"type":"lost","err":{{')
    assert json.loads(text)["data"]["err"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "x",
        "[]",
        '{"id":0}',
        '{"id":0,"data":{"reslt":1}}',
        '{"id":0,"data":{"type":"nonsense"}}',
        '{"id":[],"data":{}}',
    ],
)
async def test_a_message_that_says_nothing_is_refused_and_harms_no_job(proxy: Gateway, frame: str) -> None:
    producer, job, worker = await held(proxy)
    await worker.socket.send(frame)
    assert (await worker.data())["err"]["code"] == "INVALID_MESSAGE"
    await job.answer(result=1)
    await producer.until_state(job.id, "completed")


async def test_a_worker_can_call_functions_on_its_own_connection(proxy: Gateway) -> None:
    _, job, worker = await held(proxy)
    added = await worker.call("add", "more", {"from": job.id})
    assert await worker.call("getJobState", added["id"]) == "waiting"
    assert (await worker.refusal("nope"))[0] == "UNKNOWN_FUNCTION"
    await job.answer(result=1)
    assert (await worker.job()).payload == {"from": job.id}
