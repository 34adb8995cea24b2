"""The gateway against Node's BullMQ as an oracle: the same calls, equal answers, equal contents of Redis."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property, partial
from itertools import islice
from typing import Any, Final

import pytest
import redis

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from tests.interop.client import Client, Gateway, Refused
from tests.interop.flow_walks import FlowWalk
from tests.interop.keyspace import differences, keyspace, renamed
from tests.interop.peer import NodeError, Peer
from tests.interop.scenarios import SCENARIOS
from tests.interop.scenarios.steps import BRANCH, Call, Scenario, Work
from tests.interop.walks import Walk

ELSEWHERE: Final = {"getWorkers", "getWorkersCount"}
"""The functions that are compared in tests of their own: `test_workers.py`."""

OURS: Final = {
    "addAndWait",
    "cancelJob",
    "closeConnection",
    "disconnectConsumer",
    "drainConnection",
    "drainConsumer",
    "getConnections",
    "getConsumers",
    "getHistory",
    "getQueues",
    "getScale",
    "renew",
    "whoami",
}
"""The functions that Node does not have."""

LEAST_CALLS: Final = 400
WALK: Final = 60  # steps

_NODE: Final = r"(\[\d+\])?(\.children\[\d+\])*"  # of a flow, in the answer
_JOB: Final = rf"{_NODE}(\.job)?"

ALLOWED: Final = (
    (
        rf"answer\.ok{_JOB}\.duplicate: Node has none, we true",
        "our reply says when nothing was added",
    ),
    (
        rf"answer\.ok{_JOB}\.data: Node has none, we \{{\}}",
        "our reply shows what is stored in place of data that was left out",
    ),
    (
        rf"answer\.ok{_NODE}\.err: Node has none, we .*",
        "our reply says which jobs of a flow were not added, or did not get their parent",
    ),
    (
        r"addBulk.*mother.* → answer\.ok\[1\]\.\w+: .*",
        "Node shows a job without its parent as if it were stored, with the id -5; we show an `err`",
    ),
)
"""The differences that are meant: a pattern for the end of a line that tells one, and the reason."""

REMOVING: Final = {"clean", "drain", "loseHash", "loseSchedulers", "obliterate", "remove", "removeJob", "trimEvents"}
"""The steps after which a difference in Redis may be gone."""

Outcome = dict[str, Any]
"""`{"ok": <result>}` or `{"error": <message>}`."""


def outcome(run: Callable[[], Any]) -> Outcome:
    try:
        return {"ok": run()}
    except (NodeError, Refused) as error:
        return {"error": str(error)}


class Twins:
    """One queue that Node's BullMQ serves, and one that the gateway serves."""

    def __init__(
        self, peer: Peer, client: Client, open_flows: Callable[[], Client], store: redis.Redis, node: str, ours: str
    ) -> None:
        self._peer = peer
        self._client = client
        self._open_flows = open_flows
        self._store = store
        self._node = node
        self._ours = ours

    @cached_property
    def _flows(self) -> Client:
        return self._open_flows()

    def active(self, branch: str = "") -> list[str]:
        """The jobs that a worker holds; of the second queue with its `branch`."""
        queue = f"bull:{self._node}{branch}"
        ids: Any = self._store.lrange(f"{queue}:active", 0, -1)
        return [id for id in ids if self._store.exists(f"{queue}:{id}:lock")]

    def take(self, steps: Iterable[Call | Work], *, slowly: bool = False) -> list[str]:
        """Take the steps on both queues, and return all differences except the allowed ones.

        Answers are compared after each step, what Redis holds at the end and before it may be removed.

        Args:
            slowly: compare what Redis holds after each step, which names the step that made the difference.
        """
        return [
            line
            for line in self._differences(steps, slowly)
            if not any(re.search(pattern + "$", line) for pattern, _ in ALLOWED)
        ]

    def _differences(self, steps: Iterable[Call | Work], slowly: bool) -> Iterator[str]:
        known: set[str] = set()  # a difference in Redis stays; it is told once
        last = "nothing"
        for step in steps:
            if not slowly and (step.op if isinstance(step, Work) else step.fn) in REMOVING:
                yield from self._in_redis(known, f"before {_shown(step)}")
            last = _shown(step)
            yield from (f"{last} → answer{line}" for line in self._step(step))
            _pass_millisecond()
            if slowly:
                yield from self._in_redis(known, last)
        yield from self._in_redis(known, f"after {last}")

    def _in_redis(self, known: set[str], when: str) -> Iterator[str]:
        found = differences(keyspace(self._store, self._node), keyspace(self._store, self._ours))
        yield from (f"{when} → redis{line}" for line in found if line not in known)
        known.update(found)

    def _step(self, step: Call | Work) -> list[str]:
        if isinstance(step, Work):
            node, ours = self._work(self._node, step), self._work(self._ours, step)
            if "error" in node and not step.may_fail:
                raise AssertionError(f"a step of the test itself failed: {_shown(step)}: {node['error']}")
        elif step.flows:
            node = self._call(self._node, step, lambda args: self._peer.flow(step.fn, *args))
            ours = self._call(self._ours, step, lambda args: self._flows.call(step.fn, *args))
        else:
            node = self._call(self._node, step, lambda args: self._peer.call(self._node, step.fn, *args))
            ours = self._call(self._ours, step, lambda args: self._client.call(step.fn, *args))
        return differences(node, ours)

    def _work(self, queue: str, step: Work) -> Outcome:
        members = renamed(step.members, "QUEUE", f"bull:{queue}")
        run = partial(self._peer.ask, step.op, queue=queue + step.branch, **members)
        return renamed(outcome(run), queue, "QUEUE")

    def _call(self, queue: str, step: Call, run: Callable[[tuple[Any, ...]], Any]) -> Outcome:
        args = renamed(renamed(step.args, "QUEUE", f"bull:{queue}"), "NAME", queue)
        return renamed(outcome(lambda: run(args)), queue, "QUEUE")


def _pass_millisecond() -> None:
    """Begin the next step in another millisecond: Redis orders what ended in the same one by id, not by time."""
    now = time.time_ns()
    while time.time_ns() // 1_000_000 == now // 1_000_000:
        time.sleep(1e-3 - now % 1_000_000 / 1e9)


def _shown(step: Call | Work) -> str:
    name, args = (step.op, step.members.values()) if isinstance(step, Work) else (step.fn, step.args)
    text = f"{name}({', '.join(json.dumps(arg, ensure_ascii=False) for arg in args)})"
    return text if len(text) < 200 else text[:200] + "…"


MakeTwins = Callable[[bool], AbstractContextManager[Twins]]


@pytest.fixture
def make_twins(peer: Peer, gateway: Gateway, store: redis.Redis) -> MakeTwins:
    @contextmanager
    def make(has_branches: bool) -> Iterator[Twins]:
        queue = f"mails-{uuid.uuid4().hex[:12]}"
        node, ours = f"{queue}-n", f"{queue}-g"
        names = [name + branch for name in (node, ours) for branch in ("", BRANCH)[: 1 + has_branches]]
        for name in names:
            peer.call(name, "count")  # Node marks a queue with its version when it meets it
        with ExitStack() as stack:
            client = stack.enter_context(gateway.queue(ours))
            yield Twins(peer, client, lambda: stack.enter_context(gateway.flows()), store, node, ours)
        for name in names:
            peer.ask("forget", queue=name)

    return make


def compare(
    make_twins: MakeTwins, steps: Callable[[Twins], Iterable[Call | Work]], *, has_branches: bool = False
) -> None:
    """Fail for any difference; where there is one, take the steps again to learn which one makes it."""
    with make_twins(has_branches) as twins:
        found = twins.take(steps(twins))
    if found:
        with make_twins(has_branches) as twins:
            found = twins.take(steps(twins), slowly=True) or found
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_gateway_says_and_stores_what_node_does(make_twins: MakeTwins, scenario: Scenario) -> None:
    compare(make_twins, lambda _: scenario.steps, has_branches=BRANCH in repr(scenario.steps))


@pytest.mark.parametrize("seed", range(10))
def test_no_random_walk_leads_them_apart(make_twins: MakeTwins, seed: int) -> None:
    compare(make_twins, lambda twins: islice(Walk(seed, twins.active).steps(), WALK))


@pytest.mark.parametrize("seed", range(10))
def test_no_random_walk_through_flows_leads_them_apart(make_twins: MakeTwins, seed: int) -> None:
    compare(make_twins, lambda twins: islice(FlowWalk(seed, twins.active).steps(), WALK), has_branches=True)


def test_a_job_that_cannot_be_added_shows_as_an_error_in_its_place(gateway: Gateway, queue: str) -> None:
    lost = {"name": "b", "data": 2, "opts": {"parent": {"id": "none", "queue": f"bull:{queue}"}}}
    with gateway.queue(queue) as client:
        first, second, third = client.call("addBulk", [{"name": "a", "data": 1}, lost, {"name": "c", "data": 3}])
        assert [job["name"] for job in client.call("getJobs", "waiting", 0, -1, True)] == ["a", "c"]
    assert (first["id"], third["id"]) == ("1", "2")
    message = f"Missing key for parent job bull:{queue}:none. addJob"
    assert second == {"err": {"message": message, "code": "NOT_FOUND"}}


def test_a_job_that_a_worker_of_nodes_holds_is_cancelled(peer: Peer, gateway: Gateway, queue: str) -> None:
    with gateway.queue(queue) as client:
        client.call("add", "a", {}, {"attempts": 3})
        peer.ask("take", queue=queue, token="hand")
        assert client.call("cancelJob", "1", "no more") == {"delivered": False, "state": "failed"}
        with pytest.raises(NodeError, match="Missing lock for job 1"):
            peer.ask("complete", queue=queue, job="1", token="hand", value="done")
    job = peer.call(queue, "getJob", "1")
    assert (job["failedReason"], job["attemptsMade"]) == ("no more", 1)


def test_the_scenarios_call_every_function_and_enough() -> None:
    called = [step for scenario in SCENARIOS for step in scenario.steps if isinstance(step, Call)]
    calls = Counter(step.fn for step in called if not step.flows)
    assert set(calls) | ELSEWHERE == {function.name for function in TABLE} - OURS
    assert {step.fn for step in called if step.flows} == {function.name for function in FLOWS} - OURS
    assert calls.total() >= LEAST_CALLS
