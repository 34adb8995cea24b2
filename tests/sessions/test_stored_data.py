"""Jobs in Redis that nobody expected: each is its own trouble, and never that of the jobs behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.broker.consuming import manual
from bullmq_proxy.gateway.broker.consuming.leases import Lease
from bullmq_proxy.gateway.broker.consuming.marker import MarkerWait
from bullmq_proxy.gateway.broker.consuming.schedules import Schedules
from bullmq_proxy.gateway.broker.jobs.moves import ScriptOptions
from bullmq_proxy.gateway.broker.watching.event_reader import Cursor
from bullmq_proxy.gateway.sessions.events import EventsSession
from bullmq_proxy.gateway.sessions.worker import WorkerSession
from tests.sessions.peer import Gateway, Peer, until

HALF = b"id \xed\xa0\xbd"
"""The bytes under which Node stores `'id \\ud83d'`, half an emoji."""


class Store:
    """The queue `q` as another program writes it: in bytes."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._base = f"{prefix}:q:".encode()

    async def add(self, id: bytes, **fields: Any) -> None:
        """Store a job that waits."""
        job: dict[Any, Any] = {
            "name": "odd",
            "data": "{}",
            "opts": "{}",
            "timestamp": 1,
            "delay": 0,
            "priority": 0,
            **fields,
        }
        await self._redis.hset(self._base + id, mapping=job)
        await self._redis.lpush(self._base + b"wait", id)
        await self._redis.zadd(self._base + b"marker", {"0": 0})

    async def command(self, name: str, key: bytes, *args: Any) -> Any:
        return await self._redis.execute_command(name, self._base + key, *args)  # type: ignore[no-untyped-call]


@pytest.fixture
async def store(redis: Redis, prefix: str) -> Any:
    pool = redis.connection_pool.connection_kwargs
    async with Redis(unix_socket_path=pool["path"]) as plain:
        yield Store(plain, prefix)


async def take_all(worker: Peer, names: set[str]) -> dict[str, Any]:
    """Complete every job that comes until all of these have; returns what was shown, by name."""
    shown: dict[str, Any] = {}
    while not names <= shown.keys():
        job = await worker.job()
        shown[job.name] = job.shown
        await job.answer(result=None)
        assert (await worker.data())["state"] == "completed"
    return shown


PLAIN = {f"plain-{number}" for number in range(10)}


async def add_plain(queue: Peer) -> None:
    for name in sorted(PLAIN):
        await queue.call("add", name, {})


class TestIdsThatAreNoUtf8:
    async def test_their_jobs_are_shown_and_settled_and_the_others_run(self, proxy: Gateway, store: Store) -> None:
        await store.add(HALF)
        queue = await proxy.queue()
        await add_plain(queue)
        worker = await proxy.worker(confirm="true")
        shown = await take_all(worker, PLAIN | {"odd"})
        assert shown["odd"]["id"] == "id \ufffd\ufffd\ufffd"
        assert await store.command("ZSCORE", b"completed", HALF) is not None
        assert await store.command("LLEN", b"active") == 0
        assert await store.command("HGET", HALF, "returnvalue") == b"null"

    @pytest.mark.parametrize(
        ("answer", "state"),
        [({"err": "no"}, "failed"), ({"type": "release"}, "waiting"), ({"type": "delay", "delay": 10**9}, "delayed")],
    )
    async def test_every_answer_reaches_them(
        self, proxy: Gateway, store: Store, answer: dict[str, Any], state: str
    ) -> None:
        await store.add(HALF)
        worker = await proxy.worker(confirm="true")
        await (await worker.job()).answer(**answer)
        told = {"type": "finished", "state": state, "jobId": "id \ufffd\ufffd\ufffd"}
        assert await worker.data() == ({**told, "delay": 10**9} if state == "delayed" else told)
        where = {"failed": "ZSCORE", "delayed": "ZSCORE", "waiting": "LPOS"}[state]
        if state != "waiting":
            assert await store.command(where, state.encode(), HALF) is not None

    async def test_progress_and_log_rows_reach_them(self, proxy: Gateway, store: Store) -> None:
        await store.add(HALF)
        worker = await proxy.worker(confirm="true")
        job = await worker.job()
        await job.answer(type="progress", progress=7)
        await job.answer(type="log", row="so far")
        await job.answer(result=1)
        assert (await worker.data())["state"] == "completed"
        assert await store.command("HGET", HALF, "progress") == b"7"
        assert await store.command("LRANGE", HALF + b":logs", 0, -1) == [b"so far"]

    async def test_they_go_back_when_their_worker_vanishes(self, proxy: Gateway, store: Store) -> None:
        await store.add(HALF)
        first = await proxy.worker()
        await first.job()
        first.vanish()
        second = await proxy.worker()
        assert (await second.job()).name == "odd"
        assert await store.command("HGET", HALF, "stc") == b"1"

    async def test_their_locks_are_renewed(self, proxy: Gateway, store: Store) -> None:
        await store.add(HALF)
        worker = await proxy.worker(lockDuration=1000, confirm="true")
        job = await worker.job()

        async def renewed() -> bool:
            return bool(await store.command("PTTL", HALF + b":lock") > 1000 - 400)

        async def used() -> bool:
            return bool(await store.command("PTTL", HALF + b":lock") < 1000 - 450)

        await until(used, "half of the lock's time has passed")
        await until(renewed, "the lock is renewed")
        await job.answer(result=1)
        assert (await worker.data())["state"] == "completed"

    async def test_they_are_taken_by_hand(self, proxy: Gateway, store: Store) -> None:
        await store.add(HALF)
        queue = await proxy.queue()
        assert (await queue.call("getNextJob", "mine"))["id"] == "id \ufffd\ufffd\ufffd"
        assert await store.command("GET", HALF + b":lock") == b"mine"

    async def test_every_reading_function_shows_them(self, proxy: Gateway, store: Store) -> None:
        await store.add(HALF, name=b"odd \xff", data=b'{"a":"\xf0\x9f\x92"}', deid=b"\xfe")
        queue = await proxy.queue()
        [job] = await queue.call("getJobs", ["waiting"])
        assert (job["id"], job["name"]) == ("id \ufffd\ufffd\ufffd", "odd \ufffd")
        assert job["data"] == {"a": "\ufffd"}
        assert job["deduplicationId"] == "\ufffd"
        assert await queue.call("getRanges", ["wait"], 0, -1) == ["id \ufffd\ufffd\ufffd"]


@pytest.mark.parametrize("attempts", ["3", 3, 3.0, "0x3", [3], " 3 "])
async def test_attempts_count_as_javascript_counts_them(proxy: Gateway, store: Store, attempts: Any) -> None:
    await store.add(b"a", opts=json.dumps({"attempts": attempts}))
    worker = await proxy.worker(confirm="true")
    for state in ("waiting", "waiting", "failed"):
        await (await worker.job()).answer(err="no")
        assert (await worker.data())["state"] == state


@pytest.mark.parametrize(
    "opts",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"nope",
        b'{"attempts":null,"backoff":[],"stackTraceLimit":{},"kl":"x","removeOnComplete":null}',
        b'{"attempts":1e999,"backoff":{"type":7,"delay":"x","jitter":[]},"removeOnComplete":{"count":"x"}}',
        b'{"attempts":true,"removeOnFail":{"age":{}},"fpof":"yes","tm":"\xff","de":{"id":"\xfe"}}',
        b'{"repeat":[],"prevMillis":{},"delay":"x","priority":"y","timestamp":[]}',
        b'{"tm":"\\ud83d","attempts":2}',
        b"[" * 5000,
        b'{"a":' * 5000,
    ],
)
@pytest.mark.parametrize("answer", [{"result": 1}, {"err": {"message": "no", "stack": "s"}}])
async def test_a_job_with_any_options_can_be_settled(
    proxy: Gateway, store: Store, opts: bytes, answer: dict[str, Any]
) -> None:
    await store.add(b"a", opts=opts, stacktrace=b'["\xff","\\ud83d",7]', stc=b"\xff", rjk=b"")
    worker = await proxy.worker(confirm="true")
    job = await worker.job()
    await job.answer(type="log", row="row")
    await job.answer(**answer)
    assert (await worker.data())["type"] == "finished"


@pytest.mark.parametrize(
    "fields", [{"atm": "x"}, {"parentKey": "k", "parent": "["}, {"opts": '{"kl":1}', "atm": "1e3"}]
)
async def test_a_job_that_breaks_the_script_is_lost_to_its_worker_and_the_others_run(
    proxy: Gateway, store: Store, fields: dict[str, Any]
) -> None:
    await store.add(b"a", **fields)
    await add_plain(await proxy.queue())
    worker = await proxy.worker(confirm="true")
    seen: set[str] = set()

    async def answer() -> None:
        while True:
            job = await worker.job()
            await job.answer(result=None)
            assert (await worker.data())["type"] == ("lost" if job.id == "a" else "finished")
            seen.add(job.name)

    async def all_is_done() -> bool:
        return answering.done() or (seen >= PLAIN and await proxy.metric("jobs_held") == 0)

    answering = asyncio.ensure_future(answer())
    await until(all_is_done, "the others have run, and none is held")
    assert not answering.done(), answering.exception()
    answering.cancel()


class _Failure(Exception):
    """The failure that the tests inject."""


def fail_for(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, id: str) -> None:
    """Let a function of ours fail where it meets one job."""
    original = getattr(owner, name)

    def failing(*args: Any, **named: Any) -> Any:
        if any(getattr(arg, "id", arg) == id for arg in (*args, *named.values())):
            raise _Failure(name)
        return original(*args, **named)

    monkeypatch.setattr(owner, name, failing)


class TestFailuresOfOurOwn:
    """Each is injected for one job; the jobs behind it run in the room that it gave back."""

    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            (Lease, "read"),
            (Schedules, "advance"),
            (WorkerSession, "take"),
            (ScriptOptions, "finish"),
            (WorkerSession, "_settled"),
        ],
    )
    async def test_a_fetch_or_a_settling_that_fails_leaves_nothing_behind(
        self,
        proxy: Gateway,
        store: Store,
        monkeypatch: pytest.MonkeyPatch,
        background: list[str],
        owner: Any,
        name: str,
    ) -> None:
        fail_for(monkeypatch, owner, name, "bad")
        queue = await proxy.queue()
        await store.add(b"bad", rjk="s")
        await add_plain(queue)
        worker = await proxy.worker(confirm="true")
        seen: set[str] = set()
        while not seen >= PLAIN:
            job = await worker.job()
            seen.add(job.name)
            await job.answer(result=None)
            if job.id != "bad" or name == "finish":
                await worker.data()
        assert await queue.call("getJobCountByTypes", "waiting") == 0
        assert await proxy.metric("jobs_held") == 0
        assert background.pop()
        background.clear()

    async def test_a_renewal_whose_client_cannot_be_told_renews_the_others(
        self, proxy: Gateway, store: Store, monkeypatch: pytest.MonkeyPatch, background: list[str]
    ) -> None:
        fail_for(monkeypatch, WorkerSession, "cancel", "bad")
        await store.add(b"bad")
        await store.add(b"good")
        worker = await proxy.worker(concurrency=2, lockDuration=600, confirm="true")
        first, second = await worker.job(), await worker.job()
        assert {first.id, second.id} == {"bad", "good"}
        good = first if first.id == "good" else second
        await store.command("DEL", b"bad:lock")

        async def lost() -> bool:
            return await proxy.metric("jobs_held") == 1

        await until(lost, "the lost lease has ended")
        await store.add(b"next")
        # The room of the lost one was given back; a check for stalled jobs may have made it the next one.
        assert (await worker.job()).id in {"next", "bad"}
        await good.answer(result=1)
        assert (await worker.data())["state"] == "completed"
        background.clear()

    @pytest.mark.parametrize("name", ["read", "take"])
    async def test_a_job_that_cannot_be_handed_over_by_hand_fails_and_the_next_one_is_taken(
        self, proxy: Gateway, store: Store, monkeypatch: pytest.MonkeyPatch, background: list[str], name: str
    ) -> None:
        fail_for(monkeypatch, Lease if name == "read" else manual._FetchAttempt, name, "bad")
        await store.add(b"bad")
        await store.add(b"good")
        queue = await proxy.queue()
        assert (await queue.call("getNextJob", "mine", {"block": 5000}))["id"] == "good"
        await queue.until_state("bad", "failed")
        background.clear()

    async def test_a_waiting_that_fails_begins_again(
        self, proxy: Gateway, monkeypatch: pytest.MonkeyPatch, background: list[str]
    ) -> None:
        waits: list[MarkerWait] = []
        original = MarkerWait.wait

        async def failing(self: MarkerWait, due: int) -> int:
            waits.append(self)
            if len(waits) == 1:
                raise _Failure("wait")
            return await original(self, due)

        monkeypatch.setattr(MarkerWait, "wait", failing)
        worker = await proxy.worker()

        async def again() -> bool:
            return len(waits) > 1

        await until(again, "it waits again")
        await (await proxy.queue()).call("add", "a")
        assert (await worker.job()).name == "a"
        background.clear()

    @pytest.mark.parametrize("owner", [Cursor, EventsSession])
    async def test_an_event_that_cannot_be_delivered_stops_neither_the_next_nor_the_others(
        self, proxy: Gateway, monkeypatch: pytest.MonkeyPatch, background: list[str], owner: Any
    ) -> None:
        first, second, queue = await proxy.events("q", "added"), await proxy.events("q", "added"), await proxy.queue()
        original, calls = owner.deliver, []

        def failing(self: Any, what: Any, *id: str) -> None:
            calls.append(what)
            if len(calls) == 1:
                raise _Failure("deliver")
            original(self, what, *id)

        monkeypatch.setattr(owner, "deliver", failing)
        await queue.call("add", "a")
        await queue.call("add", "b")
        seen = [(await watcher.data())["args"][0]["name"] for watcher in (first, second)]
        assert sorted(seen) == ["a", "b"]  # one of them has missed the first one
        background.clear()
