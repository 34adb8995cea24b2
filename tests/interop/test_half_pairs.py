"""Halves of surrogate pairs in texts: valid JSON that JavaScript writes, and stored as Node stores it, to the byte."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
from redis.connection import PythonRespSerializer

from tests.interop.client import Client, Gateway
from tests.interop.keyspace import differences, keyspace, renamed
from tests.interop.peer import Peer
from tests.support.valkey import ValkeyProcess

LENGTHS: Final = (1, 2, 30, 63, 64, 65, 200)
"""Code units of a text: Node writes the halves of longer ones otherwise than those of shorter ones."""

HALVES: Final = ("\ud83d", "\udc00", "\udc00\ud83d", "\ud83d\u00e9", "\U0001f600\udfff")


def texts() -> Iterator[str]:
    for length in LENGTHS:
        for half in HALVES:
            yield half + "a" * (length - len(half.encode("utf-16-le", "surrogatepass")) // 2)


class Twins:
    """A queue of Node's and one of ours, whose contents are compared byte by byte."""

    def __init__(self, peer: Peer, client: Client, flows: Client, store: redis.Redis) -> None:
        name = f"halves-{uuid.uuid4().hex[:8]}"
        self.node, self.ours = f"{name}-n", f"{name}-g"
        self._peer, self._client, self._flows, self._store = peer, client, flows, store
        peer.call(self.node, "count")
        peer.call(self.ours, "count")

    def call(self, fn: str, *args: Any) -> None:
        """Call a function of both."""
        self._peer.call(self.node, fn, *renamed(args, "QUEUE", f"bull:{self.node}"))
        self._client.call(fn, *renamed(args, "QUEUE", f"bull:{self.ours}"))

    def flow(self, flow: Any) -> None:
        """Add a flow to both."""
        self._peer.flow("add", renamed(flow, "NAME", self.node))
        self._flows.call("add", renamed(flow, "NAME", self.ours))

    def differences(self) -> list[str]:
        """Where Redis holds different bytes."""
        return differences(keyspace(self._store, self.node), keyspace(self._store, self.ours))


@pytest.fixture
def bytewise(valkey: ValkeyProcess) -> Iterator[redis.Redis]:
    """Redis, with a character for each byte."""
    packer = PythonRespSerializer(6000, _as_bytes)
    with redis.Redis.from_url(valkey.url, decode_responses=True, encoding="latin-1", command_packer=packer) as store:
        yield store


def _as_bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode("latin-1")


@pytest.fixture
def twins(peer: Peer, gateway: Gateway, bytewise: redis.Redis) -> Iterator[Twins]:
    with gateway.queue("any") as client, gateway.flows() as flows:
        twins = Twins(peer, client, flows, bytewise)
        with gateway.queue(twins.ours) as ours:
            twins._client = ours
            yield twins
    for name in (twins.node, twins.ours):
        peer.ask("forget", queue=name)


def test_names_ids_and_options_of_jobs(twins: Twins) -> None:
    for number, text in enumerate(texts()):
        twins.call("add", text, {text: [text]}, {"attempts": 2})
        twins.call("add", "a", text, {"jobId": f"{text}{number}"})
        twins.call("add", "a", text, {"jobId": f"{text}{number}"})
        twins.call("add", "d", {}, {"deduplication": {"id": text}, "delay": 3_600_000})
        twins.call("add", "d", {}, {"deduplication": {"id": text}, "delay": 3_600_000})
        twins.call("add", "o", {}, {"telemetry": {"metadata": text}, "backoff": {"type": text, "delay": 1}})
        twins.call("addBulk", [{"name": text, "data": text, "opts": {"jobId": f"bulk {text}"}}, {"name": "b"}])
    assert not twins.differences()


def test_children_and_flows(twins: Twins) -> None:
    """Node writes the key of a parent otherwise than the parent's own where only the key is long: see the next test."""
    for text in texts():
        if 20 < len(text) < 64:
            continue
        child = {"name": text, "queueName": "NAME", "data": [text], "opts": {"jobId": f"child {text}"}}
        twins.flow({"name": text, "queueName": "NAME", "opts": {"jobId": f"mother {text}"}, "children": [child]})
        twins.call("add", "late", {}, {"parent": {"id": f"mother {text}", "queue": "QUEUE"}})
    assert not twins.differences()


@pytest.mark.parametrize("length", LENGTHS)
def test_a_flow_runs_whatever_the_length_of_its_ids(gateway: Gateway, queue: str, length: int) -> None:
    id = "\ud83d" + "a" * (length - 1)
    child = {"name": id, "queueName": queue, "opts": {"jobId": f"child {id}"}}
    with (
        gateway.flows() as flows,
        gateway.worker(queue, 1) as worker,
        gateway.events(queue, "completed") as events,
    ):
        flows.call("add", {"name": "mother", "queueName": queue, "opts": {"jobId": id}, "children": [child]})
        for name in ("child", "mother"):
            job = worker.receive()
            assert (job["data"]["job"]["name"] == "mother") == (name == "mother")
            worker.send(job["id"], result=name)
            assert events.event("completed")[0]["returnvalue"] == name


def test_schedulers(twins: Twins) -> None:
    for text in texts():
        twins.call("upsertJobScheduler", text, {"every": 3_600_000}, {"name": text, "data": {"x": text}})
        twins.call(
            "upsertJobScheduler",
            f"2 {text}",
            {"pattern": "0 0 1 1 *"},
            {"opts": {"telemetry": {"metadata": text}, "attempts": 3}},
        )
        twins.call("upsertJobScheduler", f"3 {text}", {"every": 3_600_000, "limit": 5})
    assert not twins.differences()
    for text in texts():
        twins.call("getJobScheduler", text)
        twins.call("removeJobScheduler", f"3 {text}")
    assert not twins.differences()


def test_what_is_written_on_a_job(twins: Twins) -> None:
    twins.call("add", "job", {}, {"jobId": "one", "stackTraceLimit": 100, "attempts": 1000})
    for text in texts():
        twins.call("updateJobData", "one", {"x": text})
        twins.call("updateJobProgress", "one", text)
        twins.call("addJobLog", "one", text)
        twins.call("getNextJob", "hand")
        twins.call("moveJobToFailed", "one", {"message": text, "stack": f"Error: {text}\n at x"}, "hand")
    twins.call("getNextJob", "hand")
    twins.call("moveJobToFailed", "one", {"message": "\ud83d", "unrecoverable": True}, "hand")
    assert not twins.differences()


def test_return_values(twins: Twins) -> None:
    for number, text in enumerate(texts()):
        twins.call("add", "job", {}, {"jobId": f"job {number}"})
        twins.call("getNextJob", "hand")
        twins.call("moveJobToCompleted", f"job {number}", {"x": text}, "hand")
    assert not twins.differences()


def test_events_and_looking_for_what_is_not_there(twins: Twins) -> None:
    for text in texts():
        twins.call("publishEvent", {"eventName": text, text: text})
        for fn, args in (
            ("getJob", (text,)),
            ("getJobState", (text,)),
            ("getJobLogs", (text,)),
            ("remove", (text,)),
            ("removeDeduplicationKey", (text,)),
            ("getDeduplicationJobId", (text,)),
            ("getJobScheduler", (f"not {text}",)),
            ("removeJobScheduler", (f"not {text}",)),
            ("exportPrometheusMetrics", ({"label": text},)),
        ):
            twins.call(fn, *args)
    assert not twins.differences()


def test_worker_answers_and_filters_of_events(peer: Peer, gateway: Gateway, queue: str, bytewise: redis.Redis) -> None:
    with (
        gateway.queue(queue) as producer,
        gateway.worker(queue, 1, confirm="1") as worker,
        gateway.events(queue, "failed") as events,
    ):
        for number, text in enumerate(texts()):
            producer.call("add", text, {"x": text}, {"jobId": f"job {number}", "attempts": 1})
            job = worker.receive()
            assert json.loads(json.dumps(job["data"]["payload"])) == {"x": text}
            worker.send(job["id"], type="progress", progress=text)
            worker.send(job["id"], type="log", row=text)
            worker.send(job["id"], err={"message": text, "stack": text})
            assert worker.receive()["data"]["state"] == "failed"
            assert "jobId" in events.event("failed")[0]
            shown = producer.call("getJob", f"job {number}")
            assert (shown["progress"], shown["data"]) == (text, {"x": text})
            assert shown["failedReason"]
            row: Any = bytewise.lrange(f"bull:{queue}:job {number}:logs", 0, -1)
            assert row == [
                text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode().decode("latin-1")
            ]
        events.send(1, fn="on", args=["custom:\ud83d"])
        assert events.receive()["data"]["ok"] == ["custom:\ufffd", "failed"]
        peer.call(queue, "publishEvent", {"eventName": "\ud83d"})
        assert events.event("\ufffd")
