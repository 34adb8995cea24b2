"""Clients that speak only the oldest dialect: `?token=`, three spellings of each path, no ack, no confirm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.client import Client, Gateway
from tests.interop.peer import HERE, node_environment
from tests.support.waiting import TIMEOUT

PATHS = ("/queue/", "/queues/", "/ws/queues/")
STACK = "Error: no such address\n    at send (mail.js:1:1)"


class Oldest:
    """The connections of one client: the key by query string, and nothing else but the path."""

    def __init__(self, gateway: Gateway, path: str) -> None:
        self._base = f"ws://127.0.0.1:{gateway.service.port}{path}"
        self._token = gateway.key

    def open(self, path: str, query: str = "") -> Client:
        return Client(f"{self._base}{path}?token={self._token}{query}")


@pytest.fixture(params=PATHS)
def oldest(request: pytest.FixtureRequest, gateway: Gateway) -> Oldest:
    return Oldest(gateway, request.param)


def test_a_request_is_answered_under_its_own_id_from_0_on(oldest: Oldest, queue: str) -> None:
    with oldest.open(queue) as producer:
        for id in (0, 1, 2):
            producer.send(id, fn="add", args=["mail", {"n": id}])
            reply = producer.receive()
            assert reply["id"] == id
            assert reply["data"]["ok"]["data"] == {"n": id}


def test_an_unacknowledged_result_completes_the_job(oldest: Oldest, queue: str) -> None:
    with (
        oldest.open(queue) as producer,
        oldest.open(f"{queue}/process/1") as worker,
        oldest.open(f"{queue}/events", "&events=completed") as events,
    ):
        ids = [producer.call("add", "mail", {"n": n})["id"] for n in (1, 2)]
        for number, result in enumerate((None, {"sent": True})):
            pushed = worker.receive()
            assert (pushed["id"], pushed["data"]["type"]) == (number, "process")
            assert pushed["data"]["payload"] == {"n": number + 1}
            worker.send(pushed["id"], result=result)
            assert events.event("completed")[0] == {
                "jobId": ids[number],
                "returnvalue": result,
                "prev": "active",
            }


@pytest.mark.parametrize(
    "answer",
    [
        {"err": {"message": "no such address", "stack": STACK}},
        {"message": "no such address", "stack": STACK},
    ],
    ids=["err", "bare"],
)
def test_an_error_with_its_stack_fails_the_job(oldest: Oldest, queue: str, answer: dict[str, Any]) -> None:
    with (
        oldest.open(queue) as producer,
        oldest.open(f"{queue}/process/1") as worker,
        oldest.open(f"{queue}/events", "&events=failed") as events,
    ):
        id = producer.call("add", "mail", {})["id"]
        worker.send(worker.receive()["id"], **answer)
        assert events.event("failed")[0] == {"jobId": id, "failedReason": "no such address", "prev": "active"}
        job = producer.call("getJob", id)
    assert (job["failedReason"], job["stacktrace"]) == ("no such address", [STACK])


def test_nothing_is_sent_that_the_oldest_worker_does_not_know(oldest: Oldest, queue: str) -> None:
    with oldest.open(queue) as producer, oldest.open(f"{queue}/process/1") as worker:
        for n in range(3):
            producer.call("add", "mail", {"n": n})
            pushed = worker.receive()  # were the last answer confirmed, this would be the confirmation
            assert (pushed["id"], pushed["data"]["type"]) == (n, "process")
            worker.send(n, result=None)


def test_a_node_client_of_the_oldest_dialect_works_unchanged(
    node: str, modules: Path, gateway: Gateway, queue: str
) -> None:
    done = subprocess.run(
        [node, HERE / "oldest_client.cjs", f"ws://127.0.0.1:{gateway.service.port}", queue, gateway.key],
        env=node_environment(modules),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["replies"] == [{"id": 0, "name": "mail 0"}, {"id": 1, "name": "mail 1"}]
    assert seen["pushed"] == [
        {"id": 0, "type": "process", "payload": {"to": "a@b.c"}},
        {"id": 1, "type": "process", "payload": {"to": "nobody", "fail": True}},
    ]
    assert seen["events"] == [
        {"event": "completed", "jobId": "1", "returnvalue": None, "prev": "active"},
        {"event": "failed", "jobId": "2", "failedReason": "no such address", "prev": "active"},
    ]
