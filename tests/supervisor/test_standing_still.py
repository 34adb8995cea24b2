"""The watch over shards that stand still, and the stacks that say where a process is."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from bullmq_proxy.gateway.shared_memory import SharedMemory
from tests.support.service import Service, lives
from tests.support.waiting import TIMEOUT, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]
WATCH = 3.0

# Stands where shards look for uvloop first, gives them the real one, and hangs the event loop on SIGUSR2.
HANGING_UVLOOP = """
import os, signal, sys, time
sys.path.remove(os.path.dirname(__file__))
del sys.modules["uvloop"]
import uvloop

def hang_for_ever(*_):
    while True:
        time.sleep(0.1)

signal.signal(signal.SIGUSR2, hang_for_ever)
"""


def let_pass(seconds: float) -> None:
    """Give the supervisor the time in which it could do what it must not."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end, "the time passes", seconds + TIMEOUT)


def answers(socket: ClientConnection) -> bool:
    socket.send(json.dumps({"id": 1, "data": {"fn": "count", "args": []}}))
    return bool(json.loads(socket.recv(timeout=TIMEOUT))["data"] == {"ok": 0})


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two shards with a watch over them, for tests that leave it as it is."""
    with Service(tmp_path_factory.mktemp("watched"), "--procs", "2", "--shard-timeout", f"{WATCH:g}") as running:
        yield running
        assert running.stop() == 0


on_watched = pytest.mark.xdist_group("watched")  # one service for all of them


def test_a_shard_gives_a_sign_of_life_with_its_figures_and_its_successor_begins_at_zero() -> None:
    memory = SharedMemory(2)
    for _ in range(3):
        memory.row(1).publish(1, [1.0])
    assert memory.beats() == [0, 3]
    memory.clear(1)
    assert memory.beats() == [0, 0]


def test_a_loop_that_hangs_shows_where_and_is_replaced(service: MakeService, tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text(HANGING_UVLOOP)
    path = {"PYTHONPATH": str(tmp_path)}
    running = service("--procs", "2", "--shard-timeout", f"{WATCH:g}", env=path).start()
    victim, other = running.shards()
    os.kill(victim, signal.SIGUSR2)
    wait_for(lambda: running.errors.count(" is ready") == 3, "the new shard is ready", WATCH + TIMEOUT)
    assert re.search(rf"shard \d has stood still for 3 s: SIGABRT to pid {victim}\n", running.errors)
    assert re.search(r"File .*uvloop.py\", line \d+ in hang_for_ever\n", running.errors)
    assert f"(pid {victim}) ended: killed by SIGABRT; starting it again in 0 s" in running.errors
    assert "SIGKILL" not in running.errors
    assert other in running.shards()


@on_watched
def test_shards_that_stood_still_with_the_supervisor_are_left_alone(watched: Service) -> None:
    """As when the machine is suspended, or its container stopped."""
    shards = watched.shards()
    for pid in shards:
        os.kill(pid, signal.SIGSTOP)
    let_pass(1.2)  # it has looked and seen no sign of life
    watched.signal(signal.SIGSTOP)
    let_pass(WATCH)
    watched.signal(signal.SIGCONT)
    let_pass(0.3)  # it has looked again
    for pid in shards:
        os.kill(pid, signal.SIGCONT)
    let_pass(WATCH + 1)
    assert watched.shards() == shards
    assert "stood still" not in watched.errors


@on_watched
def test_a_supervisor_that_stood_still_finds_its_shards_well(watched: Service) -> None:
    shards = watched.shards()
    with connect(watched.address("/queue/q")) as socket:
        watched.signal(signal.SIGSTOP)
        let_pass(WATCH + 2)
        watched.signal(signal.SIGCONT)
        let_pass(WATCH + 2)
        assert answers(socket)
    assert watched.shards() == shards
    assert "stood still" not in watched.errors


def test_without_a_timeout_a_stopped_shard_is_left_alone(service: MakeService) -> None:
    running = service("--procs", "1", "--shard-timeout", "0").start()
    [shard] = running.shards()
    with connect(running.address("/queue/q")) as socket:
        os.kill(shard, signal.SIGSTOP)
        let_pass(WATCH + 3)
        os.kill(shard, signal.SIGCONT)
        assert answers(socket)
    assert running.shards() == [shard]


@on_watched
def test_sigusr1_shows_the_stacks_of_all_processes_and_disturbs_nobody(watched: Service) -> None:
    before, logged = watched.shards() + watched.servers(), len(watched.errors)

    def stacks(file: str) -> int:
        """Count the stacks that have come to their last frame: on a busy machine they come in any order."""
        return len(re.findall(rf"{file}\.py\", line \d+ in run\n", watched.errors[logged:]))

    with ExitStack() as stack:
        sockets = [stack.enter_context(connect(watched.address("/queue/q"))) for _ in range(12)]
        watched.signal(signal.SIGUSR1)
        wait_for(lambda: stacks("master") == 1 and stacks("shard") == 2, "three processes show their stacks")
        assert all(map(answers, sockets))
    assert len(re.findall(r"stacks of shard \d: SIGUSR1 to pid \d+\n", watched.errors[logged:])) == 2
    assert watched.shards() + watched.servers() == before


def test_sigusr1_to_all_processes_does_not_end_the_valkey_either(service: MakeService) -> None:
    """`systemctl kill` means all of them, if nobody says otherwise."""
    running = service("--procs", "1").start()
    everybody = [*running.servers(), *running.shards(), running.pid]
    for pid in everybody:
        os.kill(pid, signal.SIGUSR1)
    # Its own signal and the supervisor's may have become one.
    wait_for(lambda: "stacks of shard 0" in running.errors and "shard_process.py" in running.errors, "the stacks")
    with connect(running.address("/queue/q")) as socket:
        assert answers(socket)
    assert all(map(lives, everybody))
    assert "the embedded Valkey died" not in running.errors


def test_sigusr1_is_harmless_where_nobody_can_see_the_stacks(service: MakeService) -> None:
    running = service("--procs", "1", launcher=("sh", "-c", 'exec "$0" "$@" 2>&-')).start()
    everybody = [*running.shards(), running.pid]
    with connect(running.address("/queue/q")) as socket:
        for pid in everybody:
            os.kill(pid, signal.SIGUSR1)
        assert answers(socket)
        running.signal(signal.SIGUSR1)
        assert answers(socket)
    assert all(map(lives, everybody))
    assert running.stop() == 0
