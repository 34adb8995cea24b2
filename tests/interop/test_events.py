"""Node's QueueEvents and our Events connection on one queue at the same time: the same events, to the letter."""

from __future__ import annotations

import redis

from bullmq_proxy.gateway.wire.events import EVENTS
from tests.interop.client import Client, Gateway
from tests.interop.peer import Peer

END = "curtain"  # a custom event: whoever has seen it has seen all before it


def everything_happens(producer: Client, gateway: Gateway, peer: Peer, store: redis.Redis, queue: str) -> None:
    """Every event that BullMQ knows, with every kind of argument that it can have."""
    with gateway.worker(queue, 1, confirm="1") as worker:
        producer.call("add", "simple", {"n": 1})
        pushed = worker.receive()
        for progress in (50, 0.5, {"at": "ü"}, [1, None], "half", False):
            worker.send(pushed["id"], type="progress", progress=progress)
        settle(worker, pushed["id"], result={"ü": [1.5, None, {"deep": True}]})
        for result in (None, 7, 1e21, "text", "", True):
            producer.call("add", "simple", {})
            settle(worker, worker.receive()["id"], result=result)
        producer.call("add", "again", {}, {"attempts": 2})
        settle(worker, worker.receive()["id"], err={"message": "once"})
        settle(worker, worker.receive()["id"], err={"message": "grüße\ntwice", "stack": "at 1"})
        producer.call("add", "later", {}, {"attempts": 2, "backoff": 1})
        settle(worker, worker.receive()["id"], err="soon again")
        settle(worker, worker.receive()["id"], type="delay", delay=1)
        settle(worker, worker.receive()["id"], result=None)
        producer.call("add", "mother", {}, {"jobId": "mother"})
        pushed = worker.receive()
        parent = {"id": "mother", "queue": f"bull:{queue}"}
        producer.call("add", "child", {}, {"jobId": "child", "parent": parent, "delay": 3_600_000})
        settle(worker, pushed["id"], type="waitChildren")
        producer.call("promoteJob", "child")
        settle(worker, worker.receive()["id"], result="grown up")
        settle(worker, worker.receive()["id"], result=None)
    producer.call("add", "named", {}, {"jobId": "named", "priority": 2})
    producer.call("add", "named", {}, {"jobId": "named"})
    for _ in range(2):
        producer.call("add", "one", {}, {"deduplication": {"id": "one"}})
        producer.call("add", "other", {}, {"deduplication": {"id": "other", "replace": True}, "delay": 3_600_000})
    peer.ask("take", queue=queue, token="lost")
    for _ in range(2):  # the first look finds the job active, the second one without its lock
        store.delete(*store.scan_iter(match=f"bull:{queue}:*:lock"), f"bull:{queue}:stalled-check")
        peer.ask("checkStalled", queue=queue)
    producer.call("pause")
    producer.call("resume")
    producer.call("remove", "named")
    producer.call("clean", 0, 0)
    producer.call("drain", True)
    mine = {"eventName": "mine", "text": "ü", "number": 7, "json": '{"a":1}'}
    producer.call("publishEvent", mine)
    peer.call(queue, "publishEvent", mine)
    producer.call("publishEvent", {"eventName": END})


def settle(worker: Client, id: int, **answer: object) -> None:
    worker.send(id, **answer)
    confirmed = worker.receive()
    assert (confirmed["id"], confirmed["data"]["type"]) == (id, "finished"), confirmed


def test_node_and_the_gateway_see_the_same_events_with_the_same_arguments(
    gateway: Gateway, peer: Peer, store: redis.Redis, queue: str
) -> None:
    with gateway.queue(queue) as producer, gateway.events(queue) as ours, peer.watch(queue) as node:
        everything_happens(producer, gateway, peer, store, queue)
        seen_here, seen_by_node = ours.events_until(END), node.until(END)
    assert seen_here == seen_by_node
    assert {event["event"] for event in seen_here} == EVENTS | {"mine", END}
