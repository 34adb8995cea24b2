"""Spans of jobs: one trace from the call that adds a job to its end, whoever works on it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from tests.sessions.peer import Gateway, Refused, until
from tests.support.collector import Collector, Span
from tests.support.valkey import ValkeyProcess
from tests.webhooks.endpoint import client_of, serving

OURS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, PARENT = OURS.split("-")[1:3]


async def spans(collector: Collector, count: int) -> list[Span]:
    return await asyncio.to_thread(collector.wait, count)


def carried(job: dict[str, Any]) -> str:
    """The trace and the span that a job's options name."""
    return without_flags(json.loads(job["opts"]["telemetry"]["metadata"])["traceparent"])


def without_flags(traceparent: str) -> str:
    return traceparent.rpartition("-")[0]


class TestProducers:
    async def test_a_job_carries_the_span_of_the_call_that_added_it(self, proxy: Gateway, collector: Collector) -> None:
        queue = await proxy.queue()
        job = await queue.call("add", "welcome", {"to": "ada"}, {"attempts": 2})
        [span] = await spans(collector, 1)
        assert (span.name, span.kind, span.parent, span.status) == ("add q.welcome", "PRODUCER", "", "UNSET")
        assert span.attributes == {
            "bullmq.queue.name": "q",
            "bullmq.queue.operation": "add",
            "bullmq.job.name": "welcome",
            "bullmq.job.id": job["id"],
        }
        assert span.service["service.name"] == "bullmq-proxy"
        assert carried(job) == carried(await queue.call("getJob", job["id"])) == span.context

    @pytest.mark.parametrize("opts", [None, {}, {"telemetry": {}}, {"telemetry": None, "delay": 5}])
    async def test_options_of_any_form_do(self, proxy: Gateway, collector: Collector, opts: Any) -> None:
        queue = await proxy.queue()
        job = await queue.call("add", "welcome", {}, opts)
        assert carried(job) == (await spans(collector, 1))[0].context

    async def test_a_caller_that_names_a_trace_keeps_it(self, proxy: Gateway, collector: Collector) -> None:
        queue = await proxy.queue()
        job = await queue.call("add", "welcome", {}, {"telemetry": {"metadata": json.dumps({"traceparent": OURS})}})
        other = await queue.call("add", "welcome", {}, {"telemetry": {"metadata": "m"}})
        quiet = await queue.call("add", "welcome", {}, {"telemetry": {"omitContext": True}})
        first, second, third = await spans(collector, 3)
        assert (first.trace, first.parent, carried(job)) == (TRACE, PARENT, without_flags(OURS))
        assert (second.parent, other["opts"]["telemetry"]) == ("", {"metadata": "m"})
        assert (third.parent, quiet["opts"]["telemetry"]) == ("", {"omitContext": True})

    async def test_a_request_that_names_a_trace_goes_on_in_it(self, proxy: Gateway, collector: Collector) -> None:
        headers = {"Authorization": "Bearer key-1", "traceparent": OURS, "tracestate": "a=b"}
        async with ClientSession() as http:
            for given in (headers, {**headers, "traceparent": "00-00-00-00"}):
                url = f"http://127.0.0.1:{proxy.port}/queue/q/add"
                async with http.post(url, json=["welcome"], headers=given) as response:
                    job = (await response.json())["ok"]
                if given is headers:
                    telemetry = json.loads(job["opts"]["telemetry"]["metadata"])
        first, second = await spans(collector, 2)
        assert (first.trace, first.parent) == (TRACE, PARENT)
        assert (without_flags(telemetry["traceparent"]), telemetry["tracestate"]) == (first.context, "a=b")
        assert (second.trace == TRACE, second.parent) == (False, "")

    async def test_long_names_are_cut(self, proxy: Gateway, collector: Collector) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        await queue.call("add", "n" * 5000)
        await (await worker.job()).answer(err={"message": "m" * 5000})
        producer, consumer = await spans(collector, 2)
        assert (producer.name, producer.attributes["bullmq.job.name"]) == ("add q." + "n" * 998, "n" * 1000)
        assert (consumer.attributes["bullmq.job.name"], consumer.reason) == ("n" * 1000, "m" * 1000)

    async def test_a_bulk_has_one_span(self, proxy: Gateway, collector: Collector) -> None:
        queue = await proxy.queue()
        own = {"telemetry": {"metadata": json.dumps({"traceparent": OURS})}}
        jobs = await queue.call(
            "addBulk", [*({"name": f"n{place}"} for place in range(60)), {"name": "n", "opts": own}]
        )
        [span] = await spans(collector, 1)
        assert (span.name, span.attributes["bullmq.job.bulk.count"]) == ("addBulk q", 61)
        assert span.attributes["bullmq.job.bulk.names"][:2] == ["n0", "n1"]
        assert {carried(job) for job in jobs[:60]} == {span.context}
        assert carried(jobs[60]) == without_flags(OURS)

    @pytest.mark.parametrize("count", [1, 60])
    async def test_jobs_by_the_ancestors_route_have_one_span(
        self, proxy: Gateway, collector: Collector, count: int
    ) -> None:
        async with client_of(proxy.port, "key-1") as client:
            answer = await client.ask("POST", "/queues/mails/jobs", [{"name": "n", "data": {}}] * count)
        [span] = await spans(collector, 1)
        assert (span.name, span.kind, span.status) == ("addBulk mails", "PRODUCER", "UNSET")
        queue = await proxy.queue("mails")
        for job in answer.json[:: max(1, count - 1)]:
            assert carried(await queue.call("getJob", job["id"])) == span.context

    async def test_a_flow_has_one_span(self, proxy: Gateway, collector: Collector) -> None:
        flows = await proxy.connect("/flows")
        child = {"name": "child", "queueName": "c"}
        flow = await flows.call("add", {"name": "root", "queueName": "q", "children": [child]})
        bulk = await flows.call("addBulk", [{"name": "root", "queueName": "q", "opts": {"attempts": 2}}])
        first, second = await spans(collector, 2)
        assert (first.name, first.attributes["bullmq.flow.name"], second.name) == ("addFlow q", "root", "addBulkFlows")
        assert carried(flow["job"]) == carried(flow["children"][0]["job"]) == first.context
        assert carried(bulk[0]["job"]) == second.context

    async def test_the_first_job_of_a_scheduler_has_one(self, proxy: Gateway, collector: Collector) -> None:
        queue = await proxy.queue()
        job = await queue.call("upsertJobScheduler", "nightly", {"every": 10**9}, {"name": "report"})
        [span] = await spans(collector, 1)
        assert (span.name, span.attributes["bullmq.job.id"]) == ("add q.report", job["id"])
        assert carried(job) == carried(await queue.call("getJob", job["id"])) == span.context
        assert "opts" not in (await queue.call("getJobScheduler", "nightly")).get("template", {})

    async def test_a_call_that_waits_has_one(self, proxy: Gateway, collector: Collector) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        call = await queue.request("addAndWait", "welcome", {}, {})
        job = await worker.job()
        await job.answer(result=7)
        assert await queue.reply(call) == 7
        producer, consumer = sorted(await spans(collector, 2), key=lambda span: span.kind, reverse=True)
        assert (producer.kind, consumer.parent) == ("PRODUCER", producer.id)

    @pytest.mark.parametrize(
        ("fn", "args"),
        [
            ("add", ["welcome", {}, {"delay": "soon"}]),
            ("addBulk", [[{"name": "n", "opts": {"priority": -1}}]]),
            ("addBulk", [[{"name": f"n{place}", "opts": {"priority": -1}} for place in range(60)]]),
            ("addAndWait", ["welcome", {}, {"priority": -1}]),
            ("upsertJobScheduler", ["s", {"every": 1, "pattern": "* * * * *"}]),
        ],
    )
    async def test_a_call_that_is_refused_is_an_error(
        self, proxy: Gateway, collector: Collector, fn: str, args: list[Any]
    ) -> None:
        queue = await proxy.queue()
        with pytest.raises(Refused) as refused:
            await queue.call(fn, *args)
        [span] = await spans(collector, 1)
        assert (span.status, span.reason) == ("ERROR", refused.value.message)


class TestWorkers:
    @pytest.mark.parametrize(
        ("answer", "status", "reason", "state", "attempts"),
        [
            ({"result": 1}, "OK", "", "completed", 1),
            ({"err": {"message": "no luck"}}, "ERROR", "no luck", "failed", 1),
            ({"type": "release"}, "UNSET", "", "waiting", 0),
            ({"type": "delay", "delay": 60_000}, "UNSET", "", "delayed", 0),
        ],
    )
    async def test_a_job_in_hand_is_a_span_until_it_is_settled(
        self,
        proxy: Gateway,
        collector: Collector,
        answer: dict[str, Any],
        status: str,
        reason: str,
        state: str,
        attempts: int,
    ) -> None:
        queue, worker = await proxy.queue(), await proxy.worker(name="w1")
        added = await queue.call("add", "welcome")
        job = await worker.job()
        await worker.pause()
        await job.answer(**answer)
        producer, consumer = await spans(collector, 2)
        assert (consumer.name, consumer.kind) == ("process q", "CONSUMER")
        assert (consumer.trace, consumer.parent) == (producer.trace, producer.id)
        assert (consumer.status, consumer.reason) == (status, reason)
        assert consumer.attributes == {
            "bullmq.queue.name": "q",
            "bullmq.queue.operation": "process",
            "bullmq.worker.name": "w1",
            "bullmq.job.id": added["id"],
            "bullmq.job.name": "welcome",
            "bullmq.job.state": state,
            "bullmq.job.attempts.made": attempts,
        }
        assert carried(job.shown) == consumer.context  # from there the client goes on
        assert carried(await queue.call("getJob", added["id"])) == producer.context

    async def test_each_attempt_is_a_span(self, proxy: Gateway, collector: Collector) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        await queue.call("add", "welcome", {}, {"attempts": 2})
        await (await worker.job()).answer(err={"message": "no luck"})
        await (await worker.job()).answer(result=1)
        producer, first, second = await spans(collector, 3)
        assert [span.parent for span in (first, second)] == [producer.id] * 2
        assert [(span.attributes["bullmq.job.state"], span.status) for span in (first, second)] == [
            ("waiting", "ERROR"),
            ("completed", "OK"),
        ]

    async def test_a_worker_that_vanishes_is_an_error(self, proxy: Gateway, collector: Collector) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        await queue.call("add", "welcome")
        await worker.job()
        worker.vanish()
        _, consumer = await spans(collector, 2)
        assert (consumer.status, consumer.attributes["bullmq.job.state"]) == ("ERROR", "waiting")
        assert consumer.reason == "the worker has vanished, or its answer could not be stored"

    async def test_a_job_that_is_taken_away_is_an_error(self, proxy: Gateway, collector: Collector) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        await queue.call("add", "welcome")
        job = await worker.job()
        await queue.call("cancelJob", job.id, "not needed")
        _, consumer = await spans(collector, 2)
        assert (consumer.status, consumer.reason) == ("ERROR", "not needed")

    async def test_a_job_that_its_client_moves_by_hand_leaves_open_how_it_ended(
        self, proxy: Gateway, collector: Collector
    ) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        await queue.call("add", "welcome")
        job = await worker.job()
        await queue.call("moveJobToCompleted", job.id, 1, job.shown["token"])
        _, consumer = await spans(collector, 2)
        assert (consumer.status, consumer.attributes.get("bullmq.job.state")) == ("UNSET", None)

    async def test_an_answer_that_comes_too_late_is_an_error(
        self, proxy: Gateway, collector: Collector, valkey: ValkeyProcess, prefix: str
    ) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        await queue.call("add", "welcome")
        job = await worker.job()
        async with Redis.from_url(valkey.url) as redis:
            await redis.delete(f"{prefix}:q:{job.id}:lock")
        await job.answer(result=1)
        _, consumer = await spans(collector, 2)
        assert (consumer.status, consumer.reason) == ("ERROR", f"Missing lock for job {job.id}. moveToFinished")

    async def test_a_job_that_a_client_takes_up_again_leaves_open_how_it_ended(
        self, proxy: Gateway, collector: Collector
    ) -> None:
        queue, worker = await proxy.queue(), await proxy.worker(grace=60_000)
        secret = (await worker.data())["consumer"]
        await queue.call("add", "welcome")
        await worker.job()
        worker.vanish()
        again = await proxy.worker(grace=60_000, consumer=secret)
        [held] = (await again.data())["jobs"]
        await again.send(held["number"], result=1)
        await queue.until_state(held["jobId"], "completed")
        _, consumer = await spans(collector, 2)
        assert (consumer.status, consumer.attributes.get("bullmq.job.state")) == ("UNSET", None)

    async def test_a_job_without_a_trace_begins_one(
        self, proxy: Gateway, collector: Collector, valkey: ValkeyProcess, prefix: str
    ) -> None:
        async with Gateway(valkey.url, prefix=prefix) as untraced:
            await (await untraced.queue()).call("add", "welcome")
        worker = await proxy.worker()
        job = await worker.job()
        await job.answer(result=1)
        [consumer] = await spans(collector, 1)
        assert (consumer.parent, carried(job.shown)) == ("", consumer.context)

    async def test_what_is_not_sampled_is_not_sent_on_either_side(self, proxy: Gateway, collector: Collector) -> None:
        queue, worker = await proxy.queue(), await proxy.worker()
        unsampled = OURS[:-1] + "0"
        await queue.call("add", "quiet", {}, {"telemetry": {"metadata": json.dumps({"traceparent": unsampled})}})
        job = await worker.job()
        await job.answer(result=1)
        pushed = json.loads(job.shown["opts"]["telemetry"]["metadata"])["traceparent"]
        assert pushed.startswith(f"00-{TRACE}-")
        assert pushed.endswith("-00")
        await queue.call("add", "loud")
        assert (await spans(collector, 1))[0].name == "add q.loud"


class TestWebhooks:
    async def test_a_request_carries_the_span_of_its_delivery(self, proxy: Gateway, collector: Collector) -> None:
        async with serving() as endpoint, client_of(proxy.port, "key-1") as client:
            endpoint.answer(500, "no luck")
            await client.put("mails", endpoint.url)
            await client.add("mails", attempts=1)
            delivery = await endpoint.came()
            producer, consumer = await spans(collector, 2)
        assert (consumer.name, consumer.kind, consumer.status) == ("process mails", "CONSUMER", "ERROR")
        assert (consumer.trace, consumer.parent) == (producer.trace, producer.id)
        assert without_flags(delivery.headers["traceparent"]) == carried(delivery.job) == consumer.context

    async def test_a_job_that_the_endpoint_keeps_is_a_span_until_the_gateway_leaves(
        self, proxy: Gateway, collector: Collector
    ) -> None:
        async with serving() as endpoint, client_of(proxy.port, "key-1") as client:
            endpoint.answer(202)
            await client.put("mails", endpoint.url)
            await client.add("mails")
            await endpoint.came()

            async def accepted() -> bool:
                return bool((await proxy.metrics("webhook_deliveries_total")).get("accepted"))

            await until(accepted, "the job is accepted")
            await proxy.stop()
        _, consumer = await spans(collector, 2)
        assert (consumer.name, consumer.status) == ("process mails", "UNSET")
