"""A Node Worker and a Worker connection share the work of a queue, and do it in the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import redis

from tests.interop.client import Client, Gateway
from tests.interop.keyspace import differences, keyspace
from tests.interop.peer import NodeWorker, Peer
from tests.interop.work import GatewayWorker
from tests.support.waiting import wait_for

WINDOW = 200  # ms of the rate limiter
SLACK = 30  # ms: two programs' clocks are read a little before Redis acts
LATE = 1_500  # ms that a delayed job may come late on a busy machine

AnyWorker = NodeWorker | GatewayWorker


class Crew:
    """Makes workers of both kinds with the same options."""

    def __init__(self, gateway: Gateway, peer: Peer) -> None:
        self._gateway = gateway
        self._peer = peer

    def hire(self, kind: str, queue: str, concurrency: int, *, gated: bool = False, limit: int = 0) -> AnyWorker:
        """A worker, `node` or `gateway`; `limit` is the most jobs in `WINDOW`."""
        if kind == "node":
            limiter = {"limiter": {"max": limit, "duration": WINDOW}} if limit else {}
            return self._peer.work(queue, gated=gated, concurrency=concurrency, **limiter)
        query = {"limiter.max": str(limit), "limiter.duration": str(WINDOW)} if limit else {}
        return GatewayWorker(self._gateway.worker(queue, concurrency, **query), gated=gated)


@pytest.fixture
def crew(gateway: Gateway, peer: Peer) -> Crew:
    return Crew(gateway, peer)


@contextmanager
def both_at_work(crew: Crew, queue: str, concurrency: int, *, gated: bool = False) -> Iterator[list[AnyWorker]]:
    with (
        crew.hire("node", queue, concurrency, gated=gated) as node,
        crew.hire("gateway", queue, concurrency, gated=gated) as ours,
    ):
        yield [node, ours]


def completed(events: Client, count: int) -> None:
    """Wait until so many jobs are completed."""
    for _ in range(count):
        events.event("completed")


def history(store: redis.Redis, queue: str) -> list[tuple[int, dict[str, str]]]:
    """All events so far, each with the millisecond in which Redis wrote it."""
    entries: Any = store.xrange(f"bull:{queue}:events")
    return [(int(id.partition("-")[0]), fields) for id, fields in entries]


def test_they_share_200_jobs_and_each_is_processed_once(crew: Crew, gateway: Gateway, queue: str) -> None:
    with (
        gateway.queue(queue) as producer,
        gateway.events(queue, "completed") as events,
        both_at_work(crew, queue, 5, gated=True) as workers,
    ):
        jobs = producer.call("addBulk", [{"name": "job", "data": {"n": n}} for n in range(200)])
        started = [wait_for(worker.started, "each worker has jobs in hand") for worker in workers]
        for worker in workers:
            worker.release()
        completed(events, 200)
        started += [worker.started() for worker in workers]
        counts = producer.call("getJobCounts")
    assert Counter(id for ids in started for id in ids) == Counter(job["id"] for job in jobs)
    assert counts["completed"] == 200
    assert sum(counts.values()) == 200


def test_together_they_keep_to_the_priorities(crew: Crew, gateway: Gateway, store: redis.Redis, queue: str) -> None:
    priorities = [3, 0, 2, 1, 3, 1, 0, 2, 2_097_151, 1] * 3
    with gateway.queue(queue) as producer, gateway.events(queue, "completed") as events:
        producer.call("pause")
        with both_at_work(crew, queue, 1):
            jobs = producer.call(
                "addBulk",
                [{"name": "job", "data": {}, "opts": {"priority": priority}} for priority in priorities],
            )
            producer.call("resume")
            completed(events, len(jobs))
    fetched = [fields["jobId"] for _, fields in history(store, queue) if fields["event"] == "active"]
    in_order = sorted(zip(priorities, range(len(jobs)), strict=True))
    assert fetched == [jobs[index]["id"] for _, index in in_order]


@pytest.mark.parametrize("kinds", [["node"], ["gateway"], ["node", "gateway"]], ids="+".join)
def test_the_rate_limit_is_one_for_all(
    crew: Crew, gateway: Gateway, store: redis.Redis, queue: str, kinds: list[str]
) -> None:
    limit, jobs = 2, 8
    with gateway.queue(queue) as producer, gateway.events(queue, "completed") as events, ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(crew.hire(kind, queue, 4, limit=limit))
        producer.call("addBulk", [{"name": "job", "data": {}}] * jobs)
        completed(events, jobs)
    fetched = [time for time, fields in history(store, queue) if fields["event"] == "active"]
    assert len(fetched) == jobs
    begins, inside = fetched[0], 0
    for time in fetched:
        if time - begins >= WINDOW:  # a window begins with the first job that is fetched in it
            begins, inside = time, 0
        inside += 1
        assert inside <= limit
    assert fetched[-1] - fetched[0] < (jobs / limit - 1) * WINDOW + LATE


def test_the_global_concurrency_is_one_for_all(
    crew: Crew, gateway: Gateway, peer: Peer, store: redis.Redis, queue: str
) -> None:
    peer.call(queue, "setGlobalConcurrency", 2)
    with (
        gateway.queue(queue) as producer,
        gateway.events(queue, "completed") as events,
        both_at_work(crew, queue, 5),
    ):
        producer.call("addBulk", [{"name": "job", "data": {}}] * 30)
        completed(events, 30)
    active = most = 0
    for _, fields in history(store, queue):
        active += {"active": 1, "completed": -1}.get(fields["event"], 0)
        most = max(most, active)
    assert (active, most) == (0, 2)


RETRIED: dict[str, dict[str, Any]] = {
    "at once": {"data": {"fail": 1}, "opts": {"attempts": 2}},
    "fixed": {"data": {"fail": 2}, "opts": {"attempts": 3, "backoff": 100}},
    "exponential": {
        "data": {"fail": 2},
        "opts": {"attempts": 3, "backoff": {"type": "exponential", "delay": 250}},
    },
    "in vain": {"data": {"fail": 5}, "opts": {"attempts": 2, "backoff": {"type": "fixed", "delay": 50}}},
    "hopeless": {"data": {"fail": 1, "hopeless": True}, "opts": {"attempts": 5, "backoff": 50}},
    "only once": {"data": {"fail": 1}},
    "without trouble": {"data": {}},
}
BACKOFFS = {"fixed": [100, 100], "exponential": [250, 500], "in vain": [50]}


def run_retried(crew: Crew, gateway: Gateway, store: redis.Redis, kind: str, queue: str) -> dict[str, list[Any]]:
    """Let a worker of this kind process the jobs; returns what happens to each: its events and their times."""
    with (
        gateway.queue(queue) as producer,
        gateway.events(queue, "completed,failed") as events,
        crew.hire(kind, queue, len(RETRIED)),
    ):
        jobs = producer.call("addBulk", [{"name": name, **job} for name, job in RETRIED.items()])
        for _ in jobs:
            events.receive()
    happened: dict[str, list[Any]] = {job["id"]: [] for job in jobs}
    for time, fields in history(store, queue):
        if "jobId" in fields:
            happened[fields["jobId"]].append((time, fields))
    return {job["name"]: happened[job["id"]] for job in jobs}


def test_failed_jobs_go_the_same_way_whoever_processes_them(
    crew: Crew, gateway: Gateway, store: redis.Redis, queue: str
) -> None:
    by_node = run_retried(crew, gateway, store, "node", f"{queue}-n")
    by_us = run_retried(crew, gateway, store, "gateway", f"{queue}-g")
    for name, backoffs in BACKOFFS.items():
        for happened in (by_node, by_us):
            assert_waited(happened[name], backoffs)
    for name in RETRIED:
        assert [fields["event"] for _, fields in by_us[name]] == [fields["event"] for _, fields in by_node[name]]
    node, ours = keyspace(store, f"{queue}-n"), keyspace(store, f"{queue}-g")
    for id in map(str, range(1, len(RETRIED) + 1)):
        assert differences(node[id], ours[id]) == []
    for state in ("completed", "failed"):
        assert sorted(id for id, _ in ours[state]) == sorted(id for id, _ in node[state])


def assert_waited(events: list[Any], backoffs: list[int]) -> None:
    """The job was fetched again after each backoff, and soon."""
    failed_at = [time for time, fields in events if fields["event"] == "delayed"]
    fetched_at = [time for time, fields in events if fields["event"] == "active"][1:]
    for failed, fetched, backoff in zip(failed_at, fetched_at, backoffs, strict=True):
        assert backoff - SLACK <= fetched - failed <= backoff + LATE
