"""Whichever shard answers, its page of metrics has the figures of all."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.service import Service
from tests.support.waiting import TIMEOUT, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

SHARDS = 3


def figures(service: Service, name: str, timeout: float = TIMEOUT) -> dict[int, float]:
    """A figure of every slot, from whichever shard the kernel gives us."""
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=timeout) as answer:
        page = answer.read().decode()
    assert page.count(f"# TYPE bullmq_proxy_{name} ") == 1
    lines = re.findall(rf'^bullmq_proxy_{name}{{slot="(\d+)"}} (\S+)$', page, re.MULTILINE)
    return {int(slot): float(value) for slot, value in lines}


def asked(service: Service, target: str, method: str = "GET", body: Any = None) -> Any:
    """The result of a request, from whichever shard the kernel gives us."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}/{target}", content, method=method)
    request.add_header("Authorization", f"Bearer {service.token}")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return json.load(answer)["ok"]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for tests that leave its shards as they are."""
    with Service(tmp_path_factory.mktemp("standing"), "--procs", str(SHARDS)) as running:
        yield running


@pytest.mark.xdist_group("metrics")  # one service for both
def test_every_page_has_all_shards_and_every_shard_reaches_all_connections(standing: Service) -> None:
    running, before = standing, sum(figures(standing, "calls_begun_total").values())
    with ExitStack() as stack:
        sockets = [stack.enter_context(connect(running.address("/queue/q"))) for _ in range(8 * SHARDS)]
        for socket in sockets:
            socket.send(json.dumps({"id": 1, "data": {"fn": "getJobCounts", "args": []}}))
            assert "ok" in json.loads(socket.recv(timeout=TIMEOUT))["data"]
        wait_for(
            lambda: sum(figures(running, "calls_begun_total").values()) == before + len(sockets), "all calls are seen"
        )
        assert sum(figures(running, "connections").values()) == len(sockets)
        seen = {tuple(figures(running, "connections").items()) for _ in range(8 * SHARDS)}
        shown = asked(running, "connections?kind=queue")["connections"]
        assert sorted(Counter(each["shard"] for each in shown).items()) == [
            (slot, count) for slot, count in figures(running, "connections").items() if count
        ]
        for each in shown:
            assert asked(running, f"connections/{each['id']}/close", method="POST") is True
        for socket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=TIMEOUT)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
    assert len(seen) == 1, "it does not matter which shard answers"
    assert [slot for slot, _ in seen.pop()] == list(range(SHARDS))


def test_a_shard_that_takes_the_place_of_one_that_died_counts_on(service: Callable[..., Service]) -> None:
    running = service("--procs", "2").start()
    before = figures(running, "start_time_seconds")
    for _ in range(4):
        asked(running, "queue/mails/add", method="POST", body=["job"])
    wait_for(lambda: _added(running) == [4, 4], "both have written down what they count")
    counted = figures(running, "calls_begun_total")
    with connect(running.address("/queue/q")), connect(running.address("/queue/q")):
        for pid in running.shards():
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(running.shards()) == 2, "both are back")
        wait_for(lambda: _serves(running) and len(figures(running, "start_time_seconds")) == 2, "both have figures")
    after = figures(running, "start_time_seconds")
    assert all(after[slot] > before[slot] for slot in before)
    assert sum(figures(running, "connections").values()) == 0
    assert figures(running, "starts_total") == {0: 2, 1: 2}
    assert figures(running, "calls_begun_total") == counted
    assert _added(running) == [4, 4]


def _added(service: Service) -> list[int]:
    """How many jobs were added in the last hour, to a queue and to all."""
    return [sum(asked(service, target)["added"]) for target in ("history?queue=mails", "history")]


@pytest.mark.xdist_group("metrics")
def test_the_lag_of_a_shard_that_stands_still_grows(standing: Service) -> None:
    running, still = standing, standing.shards()[0]
    os.kill(still, signal.SIGSTOP)
    try:
        wait_for(lambda: max(_lag(running)) > 1, "its sibling shows the lag")
    finally:
        os.kill(still, signal.SIGCONT)
    wait_for(lambda: max(_lag(running), default=9) < 1, "it is back in time")


def _lag(running: Service) -> list[float]:
    """The lag of all, if it is not the one that stands still who is asked."""
    try:
        return list(figures(running, "event_loop_lag_seconds", timeout=0.5).values())
    except OSError:
        return [0.0]


def _serves(running: Service) -> bool:
    return all(running.errors.count(f"shard {slot} is ready") == 2 for slot in range(2))
