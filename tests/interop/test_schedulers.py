"""Job schedulers go on when a gateway worker takes their jobs, and go on as if a Node Worker had taken them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import Any, Final, NamedTuple

import pytest
import redis

from tests.interop.client import Client, Gateway
from tests.interop.keyspace import differences, keyspace
from tests.interop.peer import Peer
from tests.interop.scenarios.schedulers import FAR, PAST, YEAR, YEARLY
from tests.interop.scenarios.steps import LATER, TOKEN
from tests.support.waiting import wait_for

NOW: Final = {**YEARLY, "immediately": True}

# What depends on the worker rather than on its work: tokens, markers that somebody waits for, times of checks.
_ITS_OWN: Final = ("marker", "stalled-check")


@pytest.mark.parametrize("pattern", ["* * * * * *", "@secondly", "* * * * * 1-5,6,7"])
def test_a_pattern_of_nodes_fires_again_and_again(gateway: Gateway, peer: Peer, queue: str, pattern: str) -> None:
    peer.call(queue, "upsertJobScheduler", "ticks", {"pattern": pattern}, {"name": "tick", "data": {"n": 1}})
    assert all(step > 0 and step % 1000 == 0 for step in fired(gateway, queue))


@pytest.mark.parametrize("repeat", [{"pattern": "* * * * * *"}, {"every": 1000}])
def test_schedulers_of_ours_fire_again_and_again(gateway: Gateway, queue: str, repeat: dict[str, Any]) -> None:
    with gateway.queue(queue) as client:
        client.call("upsertJobScheduler", "ticks", repeat, {"data": {"n": 1}})
    assert all(step > 0 and step % 1000 == 0 for step in fired(gateway, queue))


def test_a_node_worker_goes_on_with_a_scheduler_of_ours(gateway: Gateway, peer: Peer, queue: str) -> None:
    with gateway.queue(queue) as client, gateway.events(queue, "completed") as events, peer.work(queue):
        client.call("upsertJobScheduler", "ticks", {"every": 300, "limit": 3}, {"data": {"n": 1}})
        done = [events.event("completed")[0] for _ in range(3)]
    times = [int(fields["jobId"].rpartition(":")[2]) for fields in done]
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert all(step > 0 and step % 300 == 0 for step in steps)  # a busy machine may miss one
    assert all(fields["returnvalue"] == {"got": {"n": 1}} for fields in done)


def fired(gateway: Gateway, queue: str) -> list[int]:
    """The milliseconds between the first three jobs; a busy machine may miss some between them."""
    times = []
    with gateway.worker(queue, 1) as worker:
        for _ in range(3):
            pushed = worker.receive()
            assert pushed["data"]["payload"] == {"n": 1}
            times.append(int(pushed["data"]["job"]["id"].rpartition(":")[2]))
            worker.send(pushed["id"], result=None)
    return [later - earlier for earlier, later in pairwise(times)]


class Twins:
    """A queue whose jobs Node takes, and one whose jobs a gateway worker takes; all else is done by Node on both."""

    def __init__(self, peer: Peer, client: Client, store: redis.Redis, node: str, ours: str) -> None:
        self._peer = peer
        self._worker = client
        self._store = store
        self._node = node
        self._ours = ours

    def call(self, fn: str, *args: Any) -> None:
        for queue in (self._node, self._ours):
            self._peer.call(queue, fn, *args)

    def take(self) -> dict[str, Any]:
        """Take the next job on each queue; returns what was pushed to our worker."""
        self._peer.ask("take", queue=self._node, token=TOKEN)
        pushed = self._worker.receive()
        assert pushed["data"]["type"] == "process"
        return pushed

    def finish(self, pushed: dict[str, Any]) -> None:
        self._peer.ask("finish", queue=self._node, token=TOKEN, fail=False, fetchNext=True)
        self._worker.send(pushed["id"], result="done")

    def become_equal(self) -> None:
        """Wait until Redis holds the same of both: what a gateway worker leaves comes right behind the job."""
        with suppress(AssertionError):  # for one that says what differs
            wait_for(lambda: not self._differences(), "the queues are equal", timeout=5)
        found = self._differences()
        assert not found, "\n" + "\n".join(found)

    def _differences(self) -> list[str]:
        node, ours = (
            {
                name: value
                for name, value in keyspace(self._store, queue).items()
                if name not in _ITS_OWN and not name.endswith(":lock")
            }
            for queue in (self._node, self._ours)
        )
        return differences(node, ours)


@pytest.fixture
def twins(peer: Peer, gateway: Gateway, store: redis.Redis, queue: str) -> Iterator[Twins]:
    node, ours = f"{queue}-n", f"{queue}-g"
    with ExitStack() as stack:
        for name in (node, ours):
            peer.call(name, "count")  # Node marks a queue with its version when it meets it
            stack.callback(peer.ask, "forget", queue=name)
        yield Twins(peer, stack.enter_context(gateway.worker(ours, 1)), store, node, ours)


class Schedule(NamedTuple):
    """A scheduler whose first job is due at once."""

    repeat: dict[str, Any]
    template: dict[str, Any] | None = None
    id: str = "s"


SCHEDULES: Final = {
    "every": Schedule({"every": YEAR}),
    "every, with data": Schedule({"every": YEAR}, {"name": "beat", "data": {"n": ["ü", 1.5]}}),
    "every, with a start": Schedule({"every": YEAR, "startDate": PAST}),
    "every, with an end": Schedule({"every": YEAR, "endDate": FAR, "tz": "Europe/Berlin"}),
    "every, limited to two": Schedule({"every": YEAR, "limit": 2}),
    "every, limited to one": Schedule({"every": YEAR, "limit": 1}),
    "every, counted": Schedule({"every": YEAR, "limit": 9, "count": 6}),
    "every, with options": Schedule(
        {"every": YEAR},
        {"opts": {"attempts": 3, "backoff": 500, "lifo": True, "removeOnFail": {"count": 3}, "keepLogs": 4}},
    ),
    "every, with a priority": Schedule({"every": YEAR}, {"opts": {"priority": 7, "backoff": {"type": "fixed"}}}),
    "every, traced": Schedule({"every": YEAR}, {"opts": {"telemetry": {"metadata": "m", "omitContext": True}}}),
    "every, with what only Node takes": Schedule(
        {"every": YEAR, "mine": [1], "offset": -7}, {"opts": {"priority": 1.5, "mine": {"a": []}, "attempts": 2.5}}
    ),
    "pattern": Schedule(NOW),
    "pattern, with data": Schedule(NOW, {"name": "new year", "data": "x" * 1000}),
    "pattern, with a zone": Schedule({**NOW, "pattern": "30 2 1 7 *", "tz": "America/New_York"}),
    "pattern without a zone": Schedule({"pattern": "0 0 1 1 *", "immediately": True}),
    "pattern, limited to two": Schedule({**NOW, "limit": 2}),
    "pattern, limited to one": Schedule({**NOW, "limit": 1}),
    "pattern, with an end": Schedule({**NOW, "endDate": FAR}),
    "pattern, with options": Schedule(
        NOW, {"opts": {"attempts": 3, "backoff": {"type": "exponential", "delay": 5}, "priority": 2, "sizeLimit": 3}}
    ),
    "colons": Schedule({"every": YEAR}, id="a:b::c"),
    "like a repeatable job": Schedule({"every": YEAR}, id="a:b:12:UTC:5"),
    "like a repeatable job with a pattern": Schedule(NOW, id="a:b::UTC:* * * * *"),
    "ünïcode": Schedule({"every": YEAR}, {"name": "日本"}, id="ünïcode 😀"),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_worker_leaves_what_a_node_worker_leaves(twins: Twins, schedule: Schedule) -> None:
    twins.call("upsertJobScheduler", schedule.id, schedule.repeat, *filter(None, [schedule.template]))
    pushed = twins.take()
    assert pushed["data"]["job"]["repeatJobKey"] == schedule.id
    twins.become_equal()
    twins.finish(pushed)
    twins.become_equal()
    if schedule.repeat.get("limit") == 1:
        return
    twins.call("promoteJobs")
    pushed = twins.take()
    twins.become_equal()
    twins.finish(pushed)
    twins.become_equal()


@pytest.mark.parametrize("repeat", [{"every": YEAR}, {"every": 2 * YEAR}, {"every": YEAR, "offset": LATER}, YEARLY])
@pytest.mark.parametrize("first", [{"every": YEAR}, NOW], ids=["every", "pattern"])
def test_a_scheduler_that_is_changed_while_its_job_is_active_goes_on(
    twins: Twins, first: dict[str, Any], repeat: dict[str, Any]
) -> None:
    twins.call("upsertJobScheduler", "s", first)
    pushed = twins.take()
    twins.become_equal()
    twins.call("pause")
    twins.call("upsertJobScheduler", "s", repeat, {"data": "changed"})
    twins.finish(pushed)
    twins.become_equal()
    twins.call("promoteJobs")
    twins.call("resume")
    twins.finish(twins.take())
    twins.become_equal()


def test_a_scheduler_that_is_gone_makes_no_more_jobs(twins: Twins) -> None:
    twins.call("pause")
    twins.call("upsertJobScheduler", "s", {"every": YEAR})
    twins.call("removeJobScheduler", "s")
    twins.call("resume")
    pushed = twins.take()
    twins.become_equal()
    twins.finish(pushed)
    twins.become_equal()


def test_a_scheduler_whose_job_is_tried_again_goes_on_once(twins: Twins) -> None:
    twins.call("upsertJobScheduler", "s", {"every": YEAR}, {"opts": {"attempts": 2}})
    pushed = twins.take()
    twins.become_equal()
    twins.finish(pushed)
    twins.become_equal()
    twins.call("retryJobs", {"state": "completed"})
    pushed = twins.take()
    twins.become_equal()
    twins.finish(pushed)
    twins.become_equal()
