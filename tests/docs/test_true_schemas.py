"""What the AsyncAPI document says of results and messages is true of a real gateway: every function is called."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from bullmq_proxy.gateway.broker.functions.table import Function
from bullmq_proxy.gateway.schema.tables import Api, apis
from bullmq_proxy.gateway.wire.answers import Invoke, decode_answer
from tests.sessions.peer import Gateway, Job, Peer
from tests.support import contract
from tests.support.valkey import ValkeyProcess

STACK = "Error: no such user\n    at send (mail.js:1:1)"


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Gateway]:
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        yield gateway


@dataclass(frozen=True)
class Jobs:
    """Ids of jobs in the queue `q`, one in each state."""

    waiting: str
    delayed: str
    prioritized: str
    completed: str
    failed: str
    active: str
    parent: str


async def fill(proxy: Gateway, producer: Peer) -> tuple[Jobs, Job]:
    """Bring jobs into all states; the active one is in the returned hands."""
    worker = await proxy.worker(name="w-1")
    done = await producer.call("add", "welcome", {"to": "ada@example.org"}, {"attempts": 3, "backoff": 1000})
    await (await worker.job()).answer(result={"sent": True})
    failed = await producer.call("add", "welcome", None, {"deduplication": {"id": "once"}})
    await (await worker.job()).answer(err={"message": "no such user", "stack": STACK})
    parent = await producer.call("add", "report", {"n": 1})
    held = await worker.job()
    queue = f"{proxy.prefix}:q"
    active = await producer.call("add", "child", [1], {"parent": {"id": parent["id"], "queue": queue}, "lifo": True})
    await held.answer(type="waitChildren")
    child = await worker.job()
    await child.answer(type="progress", progress={"half": 0.5})
    await child.answer(type="log", row="on my way")
    await worker.pause()
    waiting = await producer.call("add", "welcome", {}, {"jobId": "w", "telemetry": {"metadata": "t"}})
    delayed = await producer.call("add", "welcome", {}, {"delay": 3_600_000})
    prioritized = await producer.call("add", "welcome", {}, {"priority": 5, "removeOnComplete": {"count": 3}})
    for job, state in ((done, "completed"), (failed, "failed"), (parent, "waiting-children"), (active, "active")):
        await producer.until_state(job["id"], state)
    ids = (waiting, delayed, prioritized, done, failed, active, parent)
    return Jobs(*(job["id"] for job in ids)), child


Arguments = Callable[[Jobs], list[list[Any]]]
# Calls that must give a result. Functions that are not here are called with the arguments of their example.
ARGUMENTS: dict[str, Arguments] = {
    "add": lambda jobs: [["a"], ["a", {}, {"jobId": jobs.waiting}], ["a", 1, {"deduplication": {"id": "x"}}]],
    "addBulk": lambda jobs: [[[]], [[{"name": "a"}, {"name": "b", "data": [], "opts": {"delay": 5}}]]],
    "remove": lambda jobs: [[jobs.waiting], [jobs.active], [jobs.parent, {"removeChildren": False}]],
    "removeJob": lambda jobs: [[jobs.waiting]],
    "retryJob": lambda jobs: [[jobs.failed], [jobs.completed, "completed"]],
    "promoteJob": lambda jobs: [[jobs.delayed]],
    "updateJobData": lambda jobs: [[jobs.active, {"a": 1}]],
    "updateJobProgress": lambda jobs: [[jobs.active, "half"]],
    "addJobLog": lambda jobs: [[jobs.active, "row"], [jobs.active, "row", 2]],
    "getJob": lambda jobs: [[id] for id in (*vars(jobs).values(), "none", 1)],
    "getJobs": lambda jobs: [[], ["waiting"], [["failed", "completed"], 0, 5, True]],
    "getJobCounts": lambda jobs: [[], ["active", "failed"]],
    "getJobCountByTypes": lambda jobs: [["active", "failed"]],
    "getJobState": lambda jobs: [[id] for id in (*vars(jobs).values(), "none")],
    "getJobLogs": lambda jobs: [[jobs.active], [jobs.active, 0, -1, False], ["none"]],
    "clean": lambda jobs: [[0, 0], [0, 5, "failed"]],
    "getCountsPerPriority": lambda jobs: [[[0, 5, 7]]],
    "getDependencies": lambda jobs: [[jobs.parent, "pending", 0, -1], [jobs.parent, "processed", 0, -1]],
    "getJobDependencies": lambda jobs: [[jobs.parent], ["none"]],
    "getJobDependenciesCount": lambda jobs: [[jobs.parent], ["none"]],
    "getJobChildrenValues": lambda jobs: [[jobs.parent], ["none"]],
    "getNextJob": lambda jobs: [["token-1"], ["token-1", {"lockDuration": 5000}]],
    "obliterate": lambda jobs: [[{"force": True}]],
    "retryJobs": lambda jobs: [[], [{"state": "completed", "count": 1}]],
}
FUNCTIONS = [(api, function) for api in apis() for function in api.table]


@pytest.mark.parametrize(
    ("api", "function"),
    [pytest.param(api, row, id=f"{api.name}-{row.name}") for api, row in FUNCTIONS if row.writes],
)
async def test_a_function_returns_what_its_schema_says(proxy: Gateway, api: Api, function: Function) -> None:
    await check(proxy, [(api, function)])


async def test_so_do_all_that_change_nothing(proxy: Gateway) -> None:
    await check(proxy, [(api, function) for api, function in FUNCTIONS if not function.writes])


async def check(proxy: Gateway, functions: list[tuple[Api, Function]]) -> None:
    """Call these functions, one after the other, beside jobs in all states."""
    jobs, _ = await fill(proxy, await proxy.queue())
    callers = {api.name: await proxy.connect(api.path.replace("{queue}", "q")) for api, _ in functions}
    for api, function in functions:
        known = ARGUMENTS.get(function.name) if api.name == "queue" else None
        for arguments in known(jobs) if known is not None else [example(api, function)]:
            function.bind([msgspec.Raw(msgspec.json.encode(argument)) for argument in arguments])
            id = await callers[api.name].request(function.name, *arguments)
            reply = await callers[api.name].message()
            assert reply["id"] == id
            assert "ok" in reply["data"] or known is None, (function.name, reply)
            contract.check(api.name, "error" if "err" in reply["data"] else f"{function.name}Reply", reply)


def example(api: Api, function: Function) -> list[Any]:
    """The arguments that the document shows."""
    shown = contract.document()["channels"][api.name]["messages"][f"{function.name}Request"]["examples"][0]
    arguments: list[Any] = shown["payload"]["data"].get("args", [])
    return arguments


async def test_a_worker_is_told_what_the_document_says(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker("q", 3, confirm=1)
    parent = await producer.call("add", "report")
    place = {"parent": {"id": parent["id"], "queue": f"{proxy.prefix}:q"}, "attempts": 2}
    await producer.call("add", "welcome", {"to": "ada@example.org"}, place)
    seen = [await worker.message(), await worker.message()]
    for message in seen:
        contract.check("worker", "process", message)
    held, child = (Job(worker, message) for message in seen)

    await child.answer(type="progress", progress=[1])
    await child.answer(err={"message": "no such user", "stack": STACK})
    contract.check("worker", "finished", await worker.message())
    again = await worker.message()  # with the reason and the stack trace of the failure
    contract.check("worker", "process", again)
    assert again["data"]["job"]["stacktrace"]
    await Job(worker, again).answer(result=None)
    contract.check("worker", "finished", await worker.message())
    await held.answer(type="waitChildren")
    contract.check("worker", "error", await worker.message())
    await held.answer(type="release")
    for _ in range(2):  # it comes again, and the confirmation may come before or after it
        message = await worker.message()
        contract.check("worker", message["data"]["type"], message)
    await held.answer(type="release")
    contract.check("worker", "lost", await worker.message())
    for type in ("pause", "resume"):
        await worker.send(77, type=type)
        contract.check("worker", "done", await worker.message())
    await worker.send(78, fn="count")
    contract.check("worker", "result", await worker.message())
    await proxy.stop()
    contract.check("worker", "drain", await worker.message())


async def test_a_worker_that_comes_back_is_told_what_the_document_says(proxy: Gateway) -> None:
    await (await proxy.queue()).call("add", "work")
    worker = await proxy.worker(grace=60_000)
    welcome = await worker.message()
    contract.check("worker", "welcome", welcome)
    await worker.job()
    back = await proxy.worker(grace=60_000, consumer=welcome["data"]["consumer"])
    welcome = await back.message()
    contract.check("worker", "welcome", welcome)
    assert len(welcome["data"]["jobs"]) == 1


async def test_a_silent_worker_is_told_what_the_document_says(proxy: Gateway) -> None:
    worker = await proxy.worker(concurrency=2, ackTimeout=50)
    await (await proxy.queue()).call("addBulk", [{"name": "work"}, {"name": "more"}])
    await (await worker.job()).answer(type="ack")
    await worker.job()
    contract.check("worker", "cancel", await worker.message())


async def test_a_watcher_is_told_what_the_document_says(proxy: Gateway) -> None:
    watcher, producer = await proxy.events(lastEventId="1-0"), await proxy.queue()
    jobs, held = await fill(proxy, producer)
    await held.answer(result=1)
    await producer.call("add", "welcome", {}, {"jobId": jobs.waiting})
    for _ in range(2):
        await producer.call("add", "welcome", {}, {"deduplication": {"id": "twice", "ttl": 60_000}})
    await producer.call("remove", jobs.delayed)
    await producer.call("clean", 0, 0, "failed")
    await producer.call("pause")
    await producer.call("resume")

    seen: dict[str, int] = {}
    while "resumed" not in seen:
        message = await watcher.message()
        event = message["data"]["event"]
        contract.check("events", event, message)
        seen[event] = seen.get(event, 0) + 1
    told = {"added", "waiting", "active", "completed", "failed", "delayed", "progress", "waiting-children", "paused"}
    told |= {"duplicated", "deduplicated", "removed", "cleaned", "drained", "retries-exhausted"}
    assert told <= seen.keys()
    await watcher.send(1, fn="on", args=["completed"])
    contract.check("events", "subscribed", await watcher.message())
    await watcher.send(2, fn="no")
    contract.check("events", "error", await watcher.message())


def test_the_gateway_reads_what_a_worker_may_say() -> None:
    worker = contract.document()["channels"]["worker"]["messages"]
    for operation in ("workerReport", "workerAnswer", "workerControl", "workerCall"):
        for each in contract.document()["operations"][operation]["messages"]:
            name = each["$ref"].rpartition("/")[2]
            for shown in worker[name]["examples"]:
                _, answer = decode_answer(json.dumps(shown["payload"]).encode())
                assert isinstance(answer, Invoke) == (name == "call")
