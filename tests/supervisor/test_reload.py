"""SIGHUP, and limits over several shards: the whole service in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.keys import entry, write_keys
from tests.support.service import Service
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]
ALL = ("produce", "consume", "observe", "manage")


class Site:
    """A service with a keys file, and connections to it that end with the test."""

    def __init__(self, service: Service, path: Path, opened: ExitStack) -> None:
        self.service = service
        self.path = path
        self._opened = opened
        self._reloads = 0

    def become(self, *entries: str) -> None:
        """Write the file and send SIGHUP; returns when the supervisor has read it."""
        write_keys(self.path, *entries)
        self.hang_up("read again")

    def hang_up(self, logged: str) -> None:
        before = self.service.errors.count(logged)
        self.service.signal(signal.SIGHUP)
        wait_for(lambda: self.service.errors.count(logged) > before, f"{logged!r} is logged")

    def open(self, key: str, path: str = "/queue/q") -> ClientConnection:
        return self._opened.enter_context(connect(self.service.address(path, token=key), open_timeout=10))

    def status(self, key: str) -> int:
        try:
            with connect(self.service.address("/queue/q", token=key), open_timeout=10):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    def connect_everywhere(self, key: str, shards: int) -> list[ClientConnection]:
        """Open connections until every shard has one: the kernel spreads them."""
        return [self.open(key) for _ in range(8 * shards)]


@pytest.fixture
def site(service: MakeService, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start a service with the key `shop`, which may do everything."""
    with ExitStack() as opened:

        def start(*arguments: str, **fields: Any) -> Site:
            path = tmp_path / "keys.toml"
            write_keys(path, entry("shop", *ALL, **fields))
            return Site(service("--keys-file", str(path), *arguments).start(), path, opened)

        yield start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A service of two shards, which tests give keys of their own; its shards stay."""
    home = tmp_path_factory.mktemp("shared")
    path = home / "keys.toml"
    with Service(home / "service", "--procs", "2", "--keys-file", write_keys(path, entry("first", *ALL))) as running:
        yield running, path
        assert running.stop() == 0


@pytest.fixture
def shared_site(shared: tuple[Service, Path]) -> Iterator[Callable[..., Site]]:
    """Give the shared service a key, which may do everything; returns when all shards know it."""
    service, path = shared
    with ExitStack() as opened:

        def become(key: str = "shop", **fields: Any) -> Site:
            site, mark = Site(service, path, opened), f"mark-{uuid.uuid4().hex}"
            site.become(entry(key, *ALL, **fields), entry(mark, *ALL))
            wait_for(lambda: {site.status(mark) for _ in range(16)} == {101}, "both shards have read it")
            return site

        yield become


on_shared = pytest.mark.xdist_group("shared keys")  # one service for all of them


def ask(socket: ClientConnection, fn: str, *args: Any) -> dict[str, Any]:
    socket.send(json.dumps({"id": 1, "data": {"fn": fn, "args": args}}))
    data: dict[str, Any] = json.loads(socket.recv(10))["data"]
    return data


def closed_with(socket: ClientConnection) -> int:
    """The code that the gateway closes the connection with."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


class TestReload:
    @on_shared
    def test_every_shard_takes_the_new_keys_over_and_goes_on(self, shared_site: Callable[..., Site]) -> None:
        here = shared_site()
        shards = here.service.shards()
        clients = here.connect_everywhere("shop", 2)
        here.become(entry("store", *ALL))
        assert {closed_with(client) for client in clients} == {4000}
        assert {here.status("store") for _ in range(8)} == {101}
        assert {here.status("shop") for _ in range(8)} == {401}
        assert here.service.shards() == shards

    @on_shared
    def test_open_connections_have_the_new_rights(self, shared_site: Callable[..., Site]) -> None:
        here = shared_site()
        clients = here.connect_everywhere("shop", 2)
        here.become(entry("shop", "observe"))

        def all_refuse() -> bool:
            return all(ask(client, "pause").get("err", {}).get("code") == "FORBIDDEN" for client in clients)

        wait_for(all_refuse, "no connection may pause any more")
        assert all("ok" in ask(client, "count") for client in clients)

    @on_shared
    def test_a_file_that_cannot_be_used_is_logged_and_changes_nothing(self, shared_site: Callable[..., Site]) -> None:
        here = shared_site()
        client = here.open("shop")
        here.path.write_text("[keys.shop]\n")
        here.hang_up("the keys that were read before stay in force")
        assert "key shop: hash: is missing" in here.service.errors
        assert "ok" in ask(client, "count")
        assert here.status("shop") == 101

    def test_a_shard_that_starts_later_has_the_keys_in_force(self, site: Callable[..., Site]) -> None:
        here = site("--procs", "1")
        here.become(entry("store", *ALL))
        os.kill(here.service.shards()[0], signal.SIGKILL)
        wait_for(lambda: here.service.errors.count(" is ready") == 2, "the new shard is ready")
        assert (here.status("store"), here.status("shop")) == (101, 401)

    @on_shared
    def test_a_list_longer_than_a_socket_holds_arrives_whole(self, shared_site: Callable[..., Site]) -> None:
        here = shared_site()
        patterns = [f"{'x' * 60}-{number}" for number in range(8)]
        here.become(*(entry(f"k{number}", *ALL, queues=["q", *patterns]) for number in range(1000)))
        wait_for(lambda: {here.status("k999") for _ in range(8)} == {101}, "all shards know the last key")
        assert here.status("k0") == 101
        assert here.status("shop") == 401

    def test_a_request_while_it_starts_is_not_lost(self, service: MakeService, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        starting = service("--procs", "1", "--keys-file", write_keys(path, entry("shop", *ALL))).launch()
        wait_for(starting.servers, "the embedded Valkey is being started")
        write_keys(path, entry("store", *ALL))
        starting.signal(signal.SIGHUP)
        wait_for(lambda: "read again" in starting.errors, "the keys are read again")
        wait_for(lambda: "ws://" in starting.output, "it serves")
        with connect(starting.address("/queue/q", token="store"), open_timeout=10) as client:
            assert "ok" in ask(client, "count")

    def test_no_secret_and_no_hash_is_ever_logged(self, site: Callable[..., Site]) -> None:
        here = site("--procs", "1", "--log-level", "debug")
        here.become(entry("store", *ALL, secret="hunter2"))
        wait_for(lambda: here.status("hunter2") == 101, "the shard knows the new key")
        here.path.write_text(entry("store", secret="hunter2").replace("sha256:", "sha-256:"))
        here.hang_up("stay in force")
        here.service.stop()
        said = here.service.errors + here.service.output
        assert "hunter2" not in said
        assert here.path.read_text().split('"')[1][8:] not in said


class TestLimits:
    """Over two shards."""

    @on_shared
    def test_connections_of_a_key_are_counted_over_all_shards(self, shared_site: Callable[..., Site]) -> None:
        here = shared_site("five", connections=5)
        clients = [here.open("five") for _ in range(5)]
        assert {here.status("five") for _ in range(10)} == {429}
        clients[0].close()
        wait_for(lambda: here.status("five") == 101, "there is a place again")

    def test_those_of_a_killed_shard_do_not_count_any_more(self, site: Callable[..., Site]) -> None:
        here = site("--procs", "2", connections=16)
        for _ in range(16):
            here.open("shop")
        assert here.status("shop") == 429
        for shard in here.service.shards():
            os.kill(shard, signal.SIGKILL)
        wait_for(lambda: here.service.errors.count(" is ready") == 4, "the new shards are ready")
        for _ in range(16):
            here.open("shop")
        assert here.status("shop") == 429

    @on_shared
    def test_calls_of_a_key_are_counted_over_all_shards(self, shared_site: Callable[..., Site]) -> None:
        here = shared_site("slow", messages_per_second=50)
        clients = here.connect_everywhere("slow", 2)
        made, started = 0, time.monotonic()
        while (elapsed := time.monotonic() - started) < 1:
            for client in clients:
                made += "ok" in ask(client, "count")
        # A full bucket in the beginning, and what comes back in the time: not twice that for two shards.
        assert 50 < made <= 50 + 50 * (elapsed + 0.5)
