"""SIGHUP gives each listener a fresh shard: what is configured and installed now, without a connection refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from tests.faults.clients import check_no_job_is_lost
from tests.faults.test_upgrade import Installed
from tests.support.keys import entry, write_keys
from tests.support.ports import free_port
from tests.support.service import Service, run_here
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import TIMEOUT, eventually, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]


def hang_up(running: Service, logged: str) -> None:
    """Send SIGHUP, and wait until something new is logged."""
    before = running.errors.count(logged)
    running.signal(signal.SIGHUP)
    wait_for(lambda: running.errors.count(logged) > before, f"{logged!r} is logged")


def replaced(running: Service, *before: int) -> bool:
    """Whether none of these shards is left, and as many others are ready."""
    now = running.shards()
    return len(now) == len(before) and not set(now) & set(before)


async def test_under_load_no_job_is_lost_and_every_shard_is_another_one(service: MakeService) -> None:
    running = service("--procs", "2", "--prefix", "jobs").start()
    before = running.shards()
    await check_no_job_is_lost(running, lambda: running.signal(signal.SIGHUP))
    await eventually(lambda: replaced(running, *before), "both are replaced", 2 * TIMEOUT)
    assert running.errors.count(" is ready") == 4
    assert running.stop() == 0
    assert "ERROR" not in running.errors


def check_no_connection_is_refused_or_reset(running: Service, strike: Callable[[], None]) -> None:
    """Ask all the time while `strike` does something, which returns when that is done."""
    troubles, served, over = [], [], threading.Event()
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    def ask() -> None:
        while not over.wait(0.005):  # without a pause it would slow the start of the shards that it waits for
            try:
                with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
                    client.sendall(request)
                    served.append(client.recv(100).startswith(b"HTTP/1.1 200"))
            except OSError as error:
                troubles.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        strike()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert troubles == []
    assert len(served) > 20
    assert all(served)


def test_no_connection_is_refused_or_reset(service: MakeService) -> None:
    running = service("--procs", "2", "--no-auth").start()
    before = running.shards()

    def reload() -> None:
        running.signal(signal.SIGHUP)
        wait_for(lambda: replaced(running, *before), "all are replaced", 2 * TIMEOUT)

    check_no_connection_is_refused_or_reset(running, reload)


def test_settings_that_were_changed_are_in_force_afterwards(service: MakeService, tmp_path: Path) -> None:
    config, pid_file = tmp_path / "proxy.toml", tmp_path / "proxy.pid"
    config.write_text('auth_keys = ["old"]\nprocs = 1\n')
    reload = ("reload", "--config", str(config), "--pid-file", str(pid_file))
    running = service("--config", str(config), "--pid-file", str(pid_file)).start()
    [before] = running.shards()
    config.write_text("procs = [")
    assert run_here(tmp_path, *reload).returncode == 2
    assert "SIGHUP" not in running.errors
    config.write_text('auth_keys = ["new"]\nprocs = 3\nmax_message_size = 2048\nlog_level = "debug"\n')
    assert run_here(tmp_path, *reload).stderr.startswith(f"pid {running.pid} reads its settings again")
    wait_for(lambda: "one shard after the other" in running.errors, "it does")
    assert "changed: auth_keys, max_message_size, log_level" in running.errors
    assert "procs counts from a restart on" in running.errors
    wait_for(lambda: replaced(running, before), "it is replaced")
    with connect(running.address("/queue/q", token="new"), open_timeout=10) as client:
        client.send(json.dumps({"id": 1, "data": {"fn": "count"}}))
        assert json.loads(client.recv(10))["data"] == {"ok": 0}
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{running.port}/queue/q/count?token=old", timeout=10)
    refused.value.close()
    assert refused.value.code == 401
    assert running.stop() == 0
    assert "there is no" in run_here(tmp_path, *reload).stderr


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A service that goes on with the settings that it has started with, and its configuration file."""
    home = tmp_path_factory.mktemp("configured")
    config = home / "proxy.toml"
    config.write_text("procs = 1\n")
    with Service(home / "service", "--config", str(config)) as running:
        yield running, config


@pytest.mark.xdist_group("configured")
@pytest.mark.parametrize(
    ("text", "problem"),
    [("procs = [", "is not valid TOML"), ("max_message_size = 1\n", "max_message_size"), ("wings = 2\n", "wings")],
)
def test_a_configuration_that_cannot_be_used_changes_nothing(
    configured: tuple[Service, Path], text: str, problem: str
) -> None:
    running, config = configured
    before, logged = running.shards(), len(running.errors)
    config.write_text(text)
    hang_up(running, "all settings stay as they are")
    assert problem in running.errors[logged:]
    assert running.shards() == before


def test_code_that_cannot_start_leaves_the_old_shards_in_place(service: MakeService, tmp_path: Path) -> None:
    installed = Installed(tmp_path, service, "--procs", "2")
    running, before = installed.service, installed.service.shards()
    installed.change(
        "gateway/shard.py", r"log = logging.getLogger\(__name__\)", 'raise RuntimeError("half an upgrade")'
    )
    hang_up(running, "the reload is given up, the shards that serve go on")
    assert "half an upgrade" in running.errors
    assert running.shards() == before
    with urlopen(f"http://127.0.0.1:{running.port}/ready", timeout=10) as answer:
        assert answer.status == 200
    assert running.stop() == 0


def test_settings_with_which_no_shard_can_start_are_taken_back(
    service: MakeService, tmp_path: Path, valkey: ValkeyProcess
) -> None:
    config, right = tmp_path / "proxy.toml", f'redis_url = "{valkey.url}"\n'
    config.write_text(right)
    running = service("--config", str(config), "--procs", "1", "--redis-start-timeout", "0.5").start()
    [before] = running.shards()
    config.write_text(f'redis_url = "redis://127.0.0.1:{free_port()}"\n')
    for _ in range(2):  # a slot that has had a shard is no exception
        hang_up(running, "those of before are in force")
    assert running.shards() == [before]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: replaced(running, before), "its successor is there")
    with connect(running.address("/queue/q"), open_timeout=10) as client:
        client.send(json.dumps({"id": 1, "data": {"fn": "count"}}))
        assert json.loads(client.recv(10))["data"] == {"ok": 0}


def test_where_only_the_keys_are_others_the_shards_stay(service: MakeService, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    running = service("--procs", "1", "--keys-file", write_keys(path, entry("shop", "observe"))).start()
    [before] = running.shards()
    write_keys(path, entry("store", "observe"))
    hang_up(running, "read again")
    assert running.shards() == [before]
    hang_up(running, "one shard after the other")
    wait_for(lambda: replaced(running, before), "it is replaced")
