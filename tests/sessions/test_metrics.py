"""The page of metrics counts what happens: calls, jobs, events, connections."""

from __future__ import annotations

from typing import Any

from tests.sessions.peer import Gateway
from tests.support.valkey import ValkeyProcess


async def test_calls_and_those_refused_are_counted(proxy: Gateway) -> None:
    producer = await proxy.queue()
    await producer.call("add", "work")
    await producer.call("getJobCounts")
    await producer.refusal("nonsense")
    await producer.refusal("add")
    assert await proxy.metrics("calls_begun_total") == {"": 4}
    assert await proxy.metrics("calls_total") == {"add/ok": 1, "add/error": 1, "getJobCounts/ok": 1, "other/error": 1}
    errors = await proxy.metrics("call_errors_total")
    assert {code for code, count in errors.items() if count} == {"UNKNOWN_FUNCTION", "INVALID_ARGUMENTS"}
    took = await proxy.metrics("call_seconds_count")
    assert took == {"add": 2, "getJobCounts": 1, "other": 1}
    sums = await proxy.metrics("call_seconds_sum")
    assert 0 < sums["add"] < 60
    buckets = await proxy.metrics("call_seconds_bucket")
    assert [count for labels, count in buckets.items() if labels.startswith("add/")][-1] == 2


async def test_jobs_are_counted_by_what_became_of_them(proxy: Gateway) -> None:
    producer, worker = await proxy.queue(), await proxy.worker(confirm=1)
    answers: list[dict[str, Any]] = [
        {"result": 1},
        {"err": "no"},
        {"type": "release"},
        {"result": 2},
        {"type": "delay", "delay": 60_000},
    ]
    for answer in answers:
        if answer != {"result": 2}:  # the one that was given back comes again
            await producer.call("add", "work")
        job = await worker.job()
        await job.answer(type="ack")
        await job.answer(**answer)
        assert (await worker.data())["type"] == "finished"
    assert await proxy.metrics("jobs_pushed_total") == {"": 5}
    assert await proxy.metrics("jobs_answered_total") == {
        "completed": 2,
        "failed": 1,
        "waiting": 1,
        "delayed": 1,
        "waiting-children": 0,
    }
    assert await proxy.metrics("jobs_held") == {"": 0}


async def test_an_event_counts_once_for_each_watcher(proxy: Gateway) -> None:
    watchers = [await proxy.events("q", "paused") for _ in range(3)]
    producer = await proxy.queue()
    await producer.call("pause")
    for watcher in watchers:
        assert (await watcher.data())["event"] == "paused"
    assert await proxy.metrics("events_delivered_total") == {"": 3}


async def test_connections_to_clients_and_to_redis_are_counted(server: ValkeyProcess) -> None:
    async with Gateway(server.url) as proxy:
        first, _ = await proxy.queue(), await proxy.worker()
        await first.call("getJobCounts")
        assert await proxy.metrics("connections") == {"": 2}
        await first.close()
        assert await proxy.metrics("connections_accepted_total") == {"": 2}
        assert await proxy.metrics("redis_connected_total") == {"": 1}
        assert (await proxy.metrics("start_time_seconds"))[""] > 1_700_000_000
        assert (await proxy.metrics("event_loop_lag_seconds"))[""] < 60
