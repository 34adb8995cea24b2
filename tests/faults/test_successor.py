"""SIGUSR2 lets another supervisor, of the code that is installed now, take over the sockets of this one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.faults.clients import check_no_job_is_lost
from tests.faults.test_reload import check_no_connection_is_refused_or_reset, hang_up
from tests.faults.test_upgrade import Installed
from tests.support.service import Service, children, command_of
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]


@pytest.fixture
def successors() -> Iterator[list[int]]:
    """Process ids of supervisors that the test has to end: nobody else knows of them."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not any(map(lives, pids)), "they have ended", 15)


def lives(pid: int) -> bool:
    return "serve" in command_of(pid)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def take_over(running: Service, successors: list[int]) -> None:
    """Send SIGUSR2, and wait until the first supervisor has ended."""
    running.signal(signal.SIGUSR2)
    wait_for(lambda: "starts with pid" in running.errors, "the successor starts")
    [pid] = re.findall(r"a supervisor of the installed code starts with pid (\d+)", running.errors)
    successors.append(int(pid))
    assert parent(int(pid)) != running.pid, "systemd watches its own children alone"
    assert running.wait(40) == 0


async def test_under_load_no_job_is_lost_and_the_new_code_serves(
    service: MakeService, valkey: ValkeyProcess, prefix: str, tmp_path: Path, successors: list[int]
) -> None:
    installed = Installed(tmp_path, service, "--procs", "2", "--prefix", prefix, "--redis-url", valkey.url)
    running = installed.service

    def strike() -> None:
        installed.change("gateway/__init__.py", r'__version__ = "[^"]+"', '__version__ = "9.9.9"')
        running.signal(signal.SIGUSR2)

    await check_no_job_is_lost(running, strike)  # with the key that was made for the run
    [pid] = re.findall(r"a supervisor of the installed code starts with pid (\d+)", running.errors)
    successors.append(int(pid))
    assert running.wait(40) == 0
    page = await asyncio.to_thread(urlopen, f"http://127.0.0.1:{running.port}/health")
    with page:
        assert json.load(page)["version"] == "9.9.9"
    assert len([each for each in children(int(pid)) if "shard_process" in command_of(each)]) == 2
    assert "ERROR" not in running.errors


def test_no_connection_is_refused_or_reset(service: MakeService, valkey: ValkeyProcess, successors: list[int]) -> None:
    running = service("--procs", "2", "--no-auth", "--redis-url", valkey.url).start()
    check_no_connection_is_refused_or_reset(running, lambda: take_over(running, successors))


def test_a_successor_that_cannot_serve_changes_nothing(
    service: MakeService, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(f'redis_url = "{valkey.url}"\nprocs = 1\n')
    running = service("--config", str(file)).start()
    before = running.shards()
    file.write_text("prox = 3\n")
    running.signal(signal.SIGUSR2)
    wait_for(lambda: "does not serve, all stays as it was" in running.errors, "it is given up")
    assert "unknown key 'prox'" in running.errors
    assert running.shards() == before
    file.write_text(f'redis_url = "{valkey.url}"\n')
    hang_up(running, "one shard after the other")  # it hears signals as before


def test_the_embedded_valkey_stays_with_its_supervisor(service: MakeService) -> None:
    running = service("--procs", "1").start()
    running.signal(signal.SIGUSR2)
    wait_for(lambda: "SIGUSR2: the embedded Valkey belongs to this process" in running.errors, "it is refused")
    assert running.stop() == 0
