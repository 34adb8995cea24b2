"""Metrics by the minute: what workers of both kinds keep, read by Node and by the gateway."""

from __future__ import annotations

from typing import Any

import redis

from tests.interop.client import Client, Gateway
from tests.interop.keyspace import differences, keyspace
from tests.interop.peer import Peer
from tests.interop.work import GatewayWorker
from tests.support.waiting import wait_for

MINUTES = 7
KINDS = ("completed", "failed")


def finish(client: Client, store: redis.Redis, queue: str) -> None:
    """Let the queue's worker finish jobs of both kinds, twice, with some minutes in between."""
    _finish(client, 1)
    for kind in KINDS:
        store.hincrby(f"bull:{queue}:metrics:{kind}", "prevTS", -60_000 * MINUTES)
    _finish(client, 2)


def _finish(client: Client, time: int) -> None:
    for data in ({}, {}, {"fail": 1}):
        client.call("add", "job", data, {"attempts": 1})
    wanted = {"completed": 2 * time, "failed": time}
    wait_for(lambda: client.call("getJobCounts", *KINDS) == wanted, "all are finished")


def metrics_of(store: redis.Redis, queue: str) -> dict[str, Any]:
    return {name: value for name, value in keyspace(store, queue).items() if name.startswith("metrics:")}


def test_both_kinds_of_workers_keep_the_same_metrics(
    gateway: Gateway, peer: Peer, store: redis.Redis, queue: str
) -> None:
    node, ours = f"{queue}-n", f"{queue}-g"
    with gateway.queue(node) as at_node, gateway.queue(ours) as at_ours:
        with peer.work(node, metrics={"maxDataPoints": 5}):
            finish(at_node, store, node)
        with GatewayWorker(gateway.worker(ours, 1, **{"metrics.maxDataPoints": "5"})):
            finish(at_ours, store, ours)
        assert set(metrics_of(store, ours)) == {f"metrics:{kind}{end}" for kind in KINDS for end in ("", ":data")}
        assert not differences(metrics_of(store, node), metrics_of(store, ours))
        for name, client in ((node, at_node), (ours, at_ours)):
            for kind in KINDS:
                shown = client.call("getMetrics", kind)
                assert shown == peer.call(name, "getMetrics", kind)
                assert (shown["meta"]["count"], shown["count"]) == ({"completed": 4, "failed": 2}[kind], 5)
            assert client.call("exportPrometheusMetrics") == peer.call(name, "exportPrometheusMetrics")
            peer.ask("forget", queue=name)
