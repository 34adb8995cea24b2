"""Who works on a queue, asked of Node and of the gateway: they list the same connections."""

from __future__ import annotations

from typing import Any

from tests.interop.client import Gateway
from tests.interop.peer import Peer
from tests.support.waiting import wait_for

# What Redis says about a connection at the moment of the question.
MOMENTARY = frozenset(
    (
        "age",
        "argv-mem",
        "cmd",
        "events",
        "flags",
        "idle",
        "multi-mem",
        "obl",
        "oll",
        "omem",
        "qbuf",
        "qbuf-free",
        "rbp",
        "rbs",
        "tot-cmds",
        "tot-mem",
        "tot-net-in",
        "tot-net-out",
    )
)


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in MOMENTARY} for row in rows]


def test_a_queue_without_workers_has_none_on_either_side(gateway: Gateway, peer: Peer, queue: str) -> None:
    with gateway.queue(queue) as client:
        assert client.call("getWorkers") == peer.call(queue, "getWorkers") == []
        assert client.call("getWorkersCount") == peer.call(queue, "getWorkersCount") == 0


def test_a_worker_that_is_busy_from_its_first_moment_on_is_listed_on_both_sides(
    gateway: Gateway, peer: Peer, queue: str
) -> None:
    with gateway.queue(queue) as client:
        client.call("addBulk", [{"name": "a"}] * 3)
        with gateway.worker(queue, 1) as worker:
            worker.receive()
            wait_for(lambda: client.call("getWorkersCount") == 1, "it has a name")
            assert peer.call(queue, "getWorkersCount") == 1
        wait_for(lambda: client.call("getWorkersCount") == 0, "it has gone")


def by_id(row: dict[str, Any]) -> int:
    return int(row["id"])


def test_workers_of_both_kinds_are_listed_alike_on_both_sides(gateway: Gateway, peer: Peer, queue: str) -> None:
    with (
        gateway.queue(queue) as client,
        gateway.worker(queue, 1),
        peer.work(queue),
        peer.work(queue, name="chosen"),
    ):
        # Connections get their names a moment after a worker is there.
        wait_for(lambda: client.call("getWorkersCount") == 3, "all three have a name")
        ours, node = client.call("getWorkers"), peer.call(queue, "getWorkers")
        assert sorted(lasting(ours), key=by_id) == sorted(lasting(node), key=by_id)  # CLIENT LIST has no order
        assert [row["name"] for row in ours] == [queue] * 3
        assert peer.call(queue, "getWorkersCount") == 3
