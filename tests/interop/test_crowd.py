"""Two gateways' clients and two Node clients do random things to one queue at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from tests.interop.client import Gateway
from tests.interop.conftest import KEY, PREFIX
from tests.interop.crowd import Actor, GatewayActor, Ledger, NodeActor, Walk
from tests.interop.keyspace import differences
from tests.interop.peer import Peer
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess

OPERATIONS = 1_000  # of all clients together
# Where a job can be, and the key's kind.
PLACES = {
    "wait": "list",
    "active": "list",
    "prioritized": "zset",
    "delayed": "zset",
    "completed": "zset",
    "failed": "zset",
    "waiting-children": "zset",
}


@pytest.fixture
def crowd(
    peer: Peer, node: str, modules: Path, gateway: Gateway, valkey: ValkeyProcess, queue: str, tmp_path: Path
) -> Iterator[list[Actor]]:
    """Two clients of each kind, each with a process of its own."""
    with ExitStack() as stack:
        other_peer = Peer(node, modules, {"path": urlsplit(valkey.url).path, "maxRetriesPerRequest": None}, PREFIX)
        stack.callback(other_peer.close)
        arguments = ("--procs", "2", "--redis-url", valkey.url, "--prefix", PREFIX)
        other = Gateway(stack.enter_context(Service(tmp_path, *arguments, env={"AUTH_KEYS": KEY})), KEY)
        yield [
            NodeActor(peer, queue),
            NodeActor(other_peer, queue),
            GatewayActor(stack.enter_context(gateway.queue(queue))),
            GatewayActor(stack.enter_context(other.queue(queue))),
        ]
        other_peer.ask("forget", queue=queue)


def places(store: redis.Redis, queue: str) -> list[str]:
    """The ids of all jobs in all states, as often as they stand there."""
    found: list[str] = []
    for place, kind in PLACES.items():
        key = f"{PREFIX}:{queue}:{place}"
        ids: Any = store.lrange(key, 0, -1) if kind == "list" else store.zrange(key, 0, -1)
        found += ids
    return found


def test_all_of_them_see_the_same_in_the_end_and_no_job_is_lost(
    crowd: list[Actor], store: redis.Redis, queue: str
) -> None:
    ledger = Ledger()
    qualified = f"{PREFIX}:{queue}"
    walks = [Walk(actor, f"client-{n}", n, ledger, qualified) for n, actor in enumerate(crowd)]
    with ThreadPoolExecutor(len(walks)) as threads:
        for done in [threads.submit(walk.run, OPERATIONS // len(walks)) for walk in walks]:
            done.result()
    assert ledger.calls >= OPERATIONS
    assert ledger.late < OPERATIONS / 3, "too many of them came too late to say much"

    there = places(store, queue)
    assert len(there) == len(set(there)), "a job is in two states"
    assert not store.exists(f"{PREFIX}:{queue}:active")
    without_hash = [id for id in there if not store.exists(f"{PREFIX}:{queue}:{id}")]
    assert not without_hash
    lost = ledger.added - set(there) - ledger.gone
    assert not lost, f"{len(lost)} of {len(ledger.added)} jobs are lost"
    assert set(there) <= ledger.added

    views = [
        {
            "jobs": {job["id"]: job for job in actor.call("getJobs")},
            "counts": actor.call("getJobCounts"),
            "states": {id: actor.call("getJobState", id) for id in sorted(ledger.added)},
            "paused": actor.call("isPaused"),
            "logs": {id: actor.call("getJobLogs", id) for id in sorted(ledger.added)},
        }
        for actor in crowd
    ]
    assert views[0]["jobs"].keys() == set(there)
    for view in views[1:]:
        assert not differences(views[0], view)
