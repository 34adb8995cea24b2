"""A job's way through three programs: who adds it, who processes it, who watches, in every mixture of Node and us."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.client import Client, Gateway
from tests.interop.peer import Peer

DATA = {"to": "a@b.c", "körper": ["grüße", 1.5, None, {"deep": True}]}
RESULT = {"sent": True, "via": ["mx1", 2]}


def work_one(worker: Client, result: Any) -> dict[str, Any]:
    """Answer the next pushed job, and return what was pushed."""
    pushed = worker.receive()
    worker.send(pushed["id"], type="ack")
    worker.send(pushed["id"], result=result)
    return pushed["data"]  # type: ignore[no-any-return]


def test_a_job_added_on_one_connection_is_processed_on_a_second_and_watched_on_a_third(
    gateway: Gateway, queue: str
) -> None:
    with gateway.queue(queue) as producer, gateway.worker(queue, 1) as worker, gateway.events(queue) as watcher:
        added = producer.call("add", "welcome", DATA)
        pushed = work_one(worker, RESULT)
        [args, stream_id] = watcher.event("completed")
    assert (pushed["type"], pushed["payload"]) == ("process", DATA)
    assert (pushed["job"]["id"], pushed["job"]["name"]) == (added["id"], "welcome")
    assert args == {"jobId": added["id"], "returnvalue": RESULT, "prev": "active"}
    assert isinstance(stream_id, str)


def test_a_job_added_by_node_is_processed_here_and_watched_by_node(gateway: Gateway, peer: Peer, queue: str) -> None:
    with peer.watch(queue) as watcher, gateway.worker(queue, 1) as worker:
        added = peer.call(queue, "add", "welcome", DATA)
        pushed = work_one(worker, RESULT)
        [*_, completed] = watcher.until("completed")
    assert pushed["payload"] == DATA
    assert completed["args"][0] == {"jobId": added["id"], "returnvalue": RESULT, "prev": "active"}


def test_a_job_added_here_is_processed_by_node_and_watched_here(gateway: Gateway, peer: Peer, queue: str) -> None:
    with gateway.queue(queue) as producer, gateway.events(queue, "completed") as watcher, peer.work(queue):
        added = producer.call("add", "welcome", DATA)
        [args, _] = watcher.event("completed")
        stored = producer.call("getJob", added["id"])
    expected = {"got": DATA}
    assert args == {"jobId": added["id"], "returnvalue": expected, "prev": "active"}
    assert stored["returnvalue"] == expected


@pytest.mark.parametrize("name", ["with space", "grüße 日本", "{tag}-100%", "a/b?c#d"])
def test_both_sides_mean_the_same_queue_by_any_name(gateway: Gateway, peer: Peer, queue: str, name: str) -> None:
    name = f"{name} {queue}"
    with gateway.queue(name) as producer, peer.work(name), gateway.events(name, "completed") as watcher:
        added = producer.call("add", "welcome", {"n": 1})
        assert watcher.event("completed")[0]["jobId"] == added["id"]
    peer.ask("forget", queue=name)
