"""Schedules that Node set up go on when a gateway worker takes their jobs, also where Python's BullMQ would stop."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.interop.client import Gateway
from tests.interop.peer import Peer


@pytest.mark.parametrize("pattern", ["* * * * * *", "@secondly", "* * * * * 1-5,6,7"])
def test_a_pattern_of_nodes_fires_again_and_again(gateway: Gateway, peer: Peer, queue: str, pattern: str) -> None:
    peer.call(queue, "upsertJobScheduler", "ticks", {"pattern": pattern}, {"name": "tick", "data": {"n": 1}})
    times = []
    with gateway.worker(queue, 1) as worker:
        for _ in range(3):
            pushed = worker.receive()
            assert pushed["data"]["payload"] == {"n": 1}
            times.append(int(pushed["data"]["job"]["id"].rpartition(":")[2]))
            worker.send(pushed["id"], result=None)
    assert [later - earlier for earlier, later in pairwise(times)] == [1000, 1000]
