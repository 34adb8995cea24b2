"""One trace with Node on the other side, where `bullmq-otel` makes the spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.client import Gateway
from tests.interop.conftest import KEY, PREFIX
from tests.interop.peer import Peer
from tests.support.collector import Collector
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(valkey: ValkeyProcess, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The real service, with two forked shards that trace."""
    arguments = ("--procs", "2", "--redis-url", valkey.url, "--prefix", PREFIX, "--tracing")
    environment = {"AUTH_KEYS": KEY, **collector.environment}
    with Service(tmp_path_factory.mktemp("traced"), *arguments, env=environment) as service:
        yield Gateway(service, KEY)


@pytest.fixture(autouse=True)
def forgotten(collector: Collector) -> None:
    """Each test has its own spans."""
    collector.spans.clear()


def test_a_gateway_worker_goes_on_with_a_trace_of_nodes(
    traced: Gateway, peer: Peer, queue: str, collector: Collector
) -> None:
    producer = named(peer.ask("tracedAdd", queue=queue, fn="add", args=["welcome", {}]), "add ")
    with traced.worker(queue, 1) as worker:
        pushed = worker.receive()
        worker.send(pushed["id"], result=1)
        [consumer] = collector.wait(1)
    assert (producer["name"], producer["kind"]) == (f"add {queue}.welcome", "PRODUCER")
    assert (consumer.name, consumer.kind, consumer.status) == (f"process {queue}", "CONSUMER", "OK")
    assert (consumer.trace, consumer.parent) == (producer["trace"], producer["id"])
    metadata = json.loads(pushed["data"]["job"]["opts"]["telemetry"]["metadata"])
    assert metadata["traceparent"].startswith(consumer.context)


@pytest.mark.parametrize(
    ("fn", "args", "name"),
    [
        ("add", ["welcome", {}, {"attempts": 2}], "add {}.welcome"),
        ("addBulk", [[{"name": "welcome"}]], "addBulk {}"),
        ("upsertJobScheduler", ["ticks", {"every": 10**9}, {"name": "tick"}], "add {}.tick"),
    ],
)
def test_a_node_worker_goes_on_with_a_trace_of_ours(
    traced: Gateway, peer: Peer, queue: str, collector: Collector, fn: str, args: list[Any], name: str
) -> None:
    with traced.queue(queue) as client:
        client.call(fn, *args)
    consumer = named(peer.ask("tracedWork", queue=queue), "process ")
    [producer] = collector.wait(1)
    assert (producer.name, producer.kind) == (name.format(queue), "PRODUCER")
    assert (consumer["name"], consumer["kind"]) == (f"process {queue}", "CONSUMER")
    assert (consumer["trace"], consumer["parent"]) == (producer.trace, producer.id)


def test_spans_have_the_attributes_of_nodes(traced: Gateway, peer: Peer, queue: str, collector: Collector) -> None:
    theirs = named(peer.ask("tracedAdd", queue=queue, fn="add", args=["welcome", {}]), "add ")["attributes"]
    with traced.queue(queue) as client:
        client.call("add", "welcome", {})
    [producer] = collector.wait(1)
    assert producer.attributes == {**theirs, "bullmq.job.id": "2"}


def test_each_shard_names_itself(traced: Gateway, queue: str, collector: Collector) -> None:
    shards: set[str] = set()
    while len(shards) < 2:  # the kernel chooses one for each connection
        collector.spans.clear()
        with traced.queue(queue) as client:
            client.call("add", "welcome")
        shards.add(collector.wait(1)[0].service["service.instance.id"])


def named(spans: list[dict[str, Any]], beginning: str) -> dict[str, Any]:
    """The one span whose name begins so."""
    [span] = [span for span in spans if span["name"].startswith(beginning)]
    return span
