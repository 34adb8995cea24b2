"""The history of a gateway: what is counted as added, completed and failed, how long jobs wait, and who may see it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bullmq_proxy.gateway.access.grants import Permission
from tests.net.support import RawClient
from tests.sessions.peer import Gateway, Peer
from tests.sessions.test_connections import KEYS
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with a key for each set of permissions and patterns."""
    path = write_keys(tmp_path / "keys.toml", *(entry(name, *may, queues=of) for name, may, of in KEYS))
    async with Gateway(valkey.url, prefix=prefix, keys_file=path) as gateway:
        yield gateway


async def sums(flows: Peer, queue: str | None = None) -> tuple[int, int, int]:
    """How many jobs were added, completed and failed in the hour."""
    shown = await flows.call("getHistory", {"queue": queue})
    assert shown["kept"]
    return sum(shown["added"]), sum(shown["completed"]), sum(shown["failed"])


async def test_every_way_to_add_and_end_a_job_is_counted_once(proxy: Gateway) -> None:
    flows, queue = await proxy.connect("/flows"), await proxy.queue("mails")
    await queue.call("add", "one")
    await queue.call("add", "one", {}, {"jobId": "own"})
    await queue.call("add", "one", {}, {"jobId": "own"})  # is there already
    await queue.call("addBulk", [{"name": "two"}, {"name": "three", "opts": {"deduplication": {"id": "x"}}}])
    await queue.call("add", "four", {}, {"deduplication": {"id": "x"}})
    assert await sums(flows, "mails") == (4, 0, 0)
    tree = {"name": "root", "queueName": "mails", "children": [{"name": "child", "queueName": "orders"}]}
    await flows.call("add", tree)
    await flows.call("add", {"name": "own", "queueName": "mails", "opts": {"jobId": "own"}})
    assert (await sums(flows, "mails"), await sums(flows, "orders")) == ((5, 0, 0), (1, 0, 0))
    await queue.call("upsertJobScheduler", "nightly", {"pattern": "0 0 3 * * *"})
    assert await sums(flows) == (7, 0, 0)
    worker = await proxy.worker("mails", confirm=1)
    await (await worker.job()).answer(result=1)
    assert (await worker.data())["type"] == "finished"
    await (await worker.job()).answer(type="release")
    assert (await worker.data())["type"] == "finished"
    await (await worker.job()).answer(err={"message": "no"})
    assert (await worker.data())["type"] == "finished"
    await worker.close()
    job = await queue.call("getNextJob", "token", {"block": 5000})
    await queue.call("moveJobToCompleted", job["id"], None, "token")
    assert await sums(flows) == (7, 2, 1)
    job = await queue.call("getNextJob", "other", {"block": 5000})
    await queue.call("cancelJob", job["id"])
    assert await sums(flows, "mails") == (6, 2, 2)
    assert await sums(flows) == (7, 2, 2)


async def test_an_attempt_that_fails_and_is_tried_again_is_no_failed_job(proxy: Gateway) -> None:
    flows, queue = await proxy.connect("/flows"), await proxy.queue("mails")
    await queue.call("add", "job", {}, {"attempts": 2})
    worker = await proxy.worker("mails", confirm=1)
    await (await worker.job()).answer(err={"message": "once"})
    await worker.data()
    assert await sums(flows) == (1, 0, 0)
    await (await worker.job()).answer(err={"message": "twice"})
    await worker.data()
    assert await sums(flows) == (1, 0, 1)


async def test_a_job_waits_from_its_addition_or_the_end_of_its_delay_to_its_first_worker(proxy: Gateway) -> None:
    flows, queue = await proxy.connect("/flows"), await proxy.queue("mails")
    now = (await queue.call("add", "now"))["timestamp"]
    await queue.call("remove", "1")
    hour, minute = now - 3_600_000, now - 60_000
    jobs: list[dict[str, Any]] = [{"timestamp": minute}, {"timestamp": hour, "delay": 3_480_000}]
    for number, opts in enumerate([*jobs, {"timestamp": hour, "attempts": 2}]):
        await queue.call("add", f"job {number}", {}, opts)
    await queue.call("promoteJobs")
    worker = await proxy.worker("mails", concurrency=3)
    held = [await worker.job() for _ in range(3)]
    shown = await flows.call("getHistory", {"queue": "mails"})
    waited, longest = ([each for each in shown[what] if each is not None] for what in ("waited", "longest"))
    assert round(max(longest) / 60_000) == 60
    assert len(waited) > 1 or round(waited[0] / 60_000) == round((1 + 2 + 60) / 3)  # a new step can begin in between
    [retried] = [job for job in held if job.name == "job 2"]
    await retried.answer(err={"message": "again"})
    await worker.job()
    again = await flows.call("getHistory", {"queue": "mails"})
    assert again["waited"][-2:] == shown["waited"][-2:] or again["end"] > shown["end"]


async def test_a_key_sees_the_history_of_queues_that_it_observes_and_of_all_only_if_it_is_for_all(
    proxy: Gateway,
) -> None:
    covered: dict[str, set[str | None]] = {
        "mails-*": {"mails-1"},
        "orders": {"orders"},
        "*": {"mails-1", "orders", "others", None},
    }
    async with await RawClient.connect(proxy.port) as client:
        for name, permissions, patterns in KEYS:
            seen: set[str | None] = {queue for pattern in patterns for queue in covered[pattern]}
            for queue in ("mails-1", "orders", "others", None):
                target = "/history" if queue is None else f"/history?queue={queue}"
                answer = await client.fetch("GET", target, f"Authorization: Bearer {name}")
                may = Permission.OBSERVE in permissions and queue in seen
                assert answer.status == (200 if may else 403), (name, queue)
                assert may or answer.error["code"] == "FORBIDDEN"
        assert (await client.fetch("GET", "/history", "Authorization: Bearer wrong")).status == 401
        for target in ("/history?queue=a:b", "/history?queue=", "/history?x=1"):
            assert (await client.fetch("GET", target)).status == 400
        own = await client.fetch("GET", "/history", "Authorization: Bearer key-24")
        assert own.error["message"] == "The key key-24 is not for all queues: name one, as `queue`"
