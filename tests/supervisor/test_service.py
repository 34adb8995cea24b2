"""The whole service in processes of its own: start, crash, stop, and what it says about them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.supervisor.welcome import welcome
from tests.supervisor.test_imports import FOR_SHARDS_ONLY
from tests.support.service import COMMAND, ROOT, Service, clean_environment, command_of, lives, run_cli
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import stretched, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]


def health(service: Service) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/health", timeout=5) as answer:
        status: int = answer.status
        return status


def error_line(text: str) -> str:
    """The line for the user; what else there is are log lines, never a traceback."""
    assert "Traceback" not in text
    [line] = [line for line in text.splitlines() if line.startswith("bullmq-proxy: error: ")]
    return line.removeprefix("bullmq-proxy: error: ")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of three shards with a data directory, for tests that leave it as it is."""
    home = tmp_path_factory.mktemp("standing")
    limits = ("sh", "-c", 'ulimit -Sn 256 && ulimit -Hn 4096 && exec "$0" "$@"')
    with Service(home, "--procs", "3", "--data-dir", str(home / "data"), launcher=limits) as running:
        yield running


beside_standing = pytest.mark.xdist_group("standing")  # one service for all of them


class TestStart:
    @beside_standing
    def test_it_prints_one_url_with_a_key_for_this_run(self, standing: Service) -> None:
        running = standing
        url = urlsplit(running.url)
        assert (url.scheme, url.hostname, url.path) == ("ws", "127.0.0.1", "/queue/welcome")
        assert len(running.token) >= 32
        assert running.output.count("ws://") == 2  # by itself, and in the first call
        assert f"\nFor people: http://127.0.0.1:{running.port}/\n" in running.output
        assert health(running) == 200

    def test_whoever_has_keys_is_told_to_put_one_into_the_first_call(self) -> None:
        *_, made, call = welcome(Settings(), "", "127.0.0.1:8080", "made")
        assert made.endswith("`welcome`:") and "?token=made" in call
        *_, remark, call = welcome(Settings(auth_keys=("one",)), "", "127.0.0.1:8080", None)
        assert remark.endswith("`welcome`, with one of the keys in place of KEY:") and "?token=KEY" in call

    @beside_standing
    def test_the_first_call_that_it_prints_can_be_pasted_into_a_shell(self, standing: Service) -> None:
        command = standing.output.splitlines()[-1]
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=10)
        assert json.loads(done.stdout)["data"]["ok"]["name"] == "hello"

    @beside_standing
    def test_each_process_may_have_all_descriptors_and_shards_go_before_the_valkey_when_memory_is_short(
        self, standing: Service
    ) -> None:
        for pid in (standing.pid, *standing.shards()):
            assert re.search(r"Max open files +4096 +4096", Path(f"/proc/{pid}/limits").read_text())
        *shards, server = (
            int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in standing.shards() + standing.servers()
        )
        assert min(shards) > server

    def test_it_uses_the_redis_it_is_given_and_says_once_what_is_dangerous_about_it(
        self, service: MakeService, valkey: ValkeyProcess
    ) -> None:
        running = service("--procs", "2", "--redis-url", valkey.url, env={"AUTH_KEYS": "hunter2"}).start()
        assert running.servers() == []
        assert health(running) == 200
        assert running.errors.count("it keeps nothing on disk") == 1
        # A key of the configuration is not printed.
        assert running.token == ""
        assert running.url.endswith("/queue/welcome")
        running.stop()
        assert "hunter2" not in running.output + running.errors

    @beside_standing
    def test_it_forks_as_many_shards_as_it_is_told(self, standing: Service) -> None:
        assert len(standing.shards()) == 3

    def test_it_serves_although_nobody_can_read_what_it_prints(self, tmp_path: Path, port: int) -> None:
        with open("/dev/full", "wb") as full, (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, "serve", "--port", str(port), "--procs", "1"],
                env=clean_environment(tmp_path),
                stdout=full,
                stderr=log,
            )
        wait_for(lambda: "is ready" in (tmp_path / "log").read_text(), "the shard is ready")
        process.terminate()
        assert process.wait(15) == 0

    def test_logs_can_be_json_and_never_have_the_key(self, service: MakeService) -> None:
        running = service("--procs", "1", "--log-format", "json", "--log-level", "debug").start()
        running.stop()
        assert running.token and running.token not in running.errors
        entries = [json.loads(line) for line in running.errors.splitlines()]
        assert {entry["slot"] for entry in entries} >= {None}
        assert any("is ready" in entry["msg"] for entry in entries)

    def test_the_live_parent_has_imported_nothing_that_only_shards_need(self, tmp_path: Path) -> None:
        program = (
            "import sys; from bullmq_proxy.supervisor.cli import main\n"
            "main(['serve', '--port', '0', '--procs', '1'])\n"
            "print('LOADED', *{name.partition('.')[0] for name in sys.modules})\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            env=clean_environment(tmp_path),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ws://")
            process.terminate()
            loaded = set(process.stdout.read().split("LOADED ")[1].split())
        assert not loaded & FOR_SHARDS_ONLY


class TestFailedStart:
    """Exit code 1 and one line."""

    @beside_standing
    def test_the_port_is_taken_by_another_instance(self, standing: Service, tmp_path: Path) -> None:
        result = run_cli(tmp_path, "serve", "--port", str(standing.port))
        assert result.returncode == 1
        assert error_line(result.stderr) == (
            f"cannot listen on 127.0.0.1:{standing.port}: the port is taken by another process; choose another --port"
        )

    @beside_standing
    def test_the_data_directory_is_in_use(self, standing: Service, tmp_path: Path) -> None:
        result = run_cli(tmp_path, "serve", "--port", "0", "--data-dir", str(standing.home / "data"))
        assert result.returncode == 1
        assert f"in use by the bullmq-proxy with pid {standing.pid};" in error_line(result.stderr)

    def test_redis_cannot_be_reached(self, tmp_path: Path, port: int) -> None:
        result = run_cli(
            tmp_path, "serve", "--port", "0", "--procs", "1",
            "--redis-url", f"redis://user:hunter2@127.0.0.1:{port}", "--redis-start-timeout", "300ms",
        )  # fmt: skip
        self.check_refusal(result, f"redis://127.0.0.1:{port}/0 cannot be reached: Connection refused")

    def test_the_password_is_wrong(self, tmp_path: Path) -> None:
        with ValkeyProcess(tmp_path / "valkey", tcp=True, password="right") as server:
            result = run_cli(
                tmp_path, "serve", "--port", "0", "--procs", "1",
                env={"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port), "REDIS_PASSWORD": "hunter2"},
            )  # fmt: skip
        self.check_refusal(result, "password")

    def check_refusal(self, result: subprocess.CompletedProcess[str], problem: str) -> None:
        """End with one line; tests/test_embed.py has all else that can be wrong with a Redis."""
        assert result.returncode == 1
        assert problem in error_line(result.stderr)
        assert error_line(result.stderr).endswith("; the address is that of --redis-url, or REDIS_URL")
        assert "hunter2" not in result.stderr
        assert result.stderr.count("\n") == 2  # the line that says what starts, and the error
        assert result.stdout == ""

    def test_the_data_directory_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(mode=0o700)
        (tmp_path / "data" / "valkey.log").mkdir()
        result = run_cli(tmp_path, "serve", "--port", "0", "--procs", "1", "--data-dir", str(tmp_path / "data"))
        assert result.returncode == 1
        assert error_line(result.stderr) == (
            f"cannot write {tmp_path}/data/valkey.log: Is a directory; set another --data-dir"
        )

    def test_the_disk_is_full(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(mode=0o700)
        (tmp_path / "data" / "lock").symlink_to("/dev/full")
        result = run_cli(tmp_path, "serve", "--port", "0", "--procs", "1", "--data-dir", str(tmp_path / "data"))
        assert result.returncode == 1
        assert error_line(result.stderr).startswith(f"cannot write into the data directory {tmp_path}/data: ")

    def test_a_shard_that_always_crashes_stops_the_service(self, service: MakeService, tmp_path: Path) -> None:
        # Only shards import websockets.
        (tmp_path / "websockets.py").write_text("raise RuntimeError('broken installation')")
        broken = service("--procs", "1", env={"PYTHONPATH": str(tmp_path)}).launch()
        assert broken.wait() == 1
        assert "broken installation" in broken.errors
        last = broken.errors.splitlines()[-1]
        assert last.startswith("bullmq-proxy: error: shard 0 died 5 times in a row without becoming ready")
        assert broken.output == ""


def connections(running: Service) -> list[int]:
    """Return the number of open connections of each shard, a second old."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics") as page:
        return [int(count) for count in re.findall(r"_connections\{slot=.*\} (\d+)", page.read().decode())]


@pytest.fixture
def opened(service: MakeService) -> Iterator[ExitStack]:
    """Ends connections before the service ends."""
    with ExitStack() as stack:
        yield stack


class TestCrash:
    def test_a_killed_shard_is_back_within_two_seconds_and_gets_its_part_of_the_connections(
        self, service: MakeService, opened: ExitStack
    ) -> None:
        running = service("--procs", "2").start()
        first, second = running.shards()
        for _ in range(6):
            opened.enter_context(connect(running.address("/queue/q")))
        wait_for(lambda: connections(running) == [3, 3], "both have as many connections")
        killed_at = time.monotonic()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: running.errors.count(" is ready") == 3, "the new shard is ready")
        assert time.monotonic() - killed_at < stretched(2)
        assert second in running.shards()
        assert len(running.shards()) == 2
        assert running.output.count("ws://") == 2  # by itself, and in the first call
        for _ in range(3):
            opened.enter_context(connect(running.address("/queue/q")))
        wait_for(lambda: connections(running) == [3, 3], "the new one has got the next ones")

    def test_the_port_never_closes_and_the_jobs_of_a_killed_shard_are_back_with_its_successor(
        self, service: MakeService, prefix: str
    ) -> None:
        """BullMQ alone would take 30 to 60 seconds to miss them."""
        running = service("--procs", "1").start()
        with connect(running.address(f"/queue/{prefix}")) as queue:
            queue.send('{"id":1,"data":{"fn":"add","args":["mail",{"to":"a"}]}}')
            queue.recv(5)
        with connect(running.address(f"/queue/{prefix}/process/1")) as worker:
            first = json.loads(worker.recv(5))
            os.kill(running.shards()[0], signal.SIGKILL)
            assert health(running) == 200  # waits in the slot's socket until the next shard accepts
        with connect(running.address(f"/queue/{prefix}/process/1")) as worker:
            again = json.loads(worker.recv(5))
        assert again["data"]["job"]["id"] == first["data"]["job"]["id"]
        assert again["data"]["payload"] == {"to": "a"}

    def test_a_killed_valkey_is_started_again(self, service: MakeService) -> None:
        running = service("--procs", "1").start()
        [server] = running.servers()
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: running.servers() not in ([], [server]), "a new server")
        assert "the embedded Valkey died" in running.errors
        assert running.stop() == 0

    def test_nothing_outlives_a_killed_supervisor(self, service: MakeService) -> None:
        running = service("--procs", "2").start()
        left = running.shards() + running.servers()
        assert len(left) == 3
        running.signal(signal.SIGKILL)
        running.wait()
        wait_for(lambda: not any(map(lives, left)), "shards and server follow")


class TestStop:
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def test_it_drains_and_ends_with_0_and_leaves_nobody(self, service: MakeService, signum: signal.Signals) -> None:
        running = service("--procs", "2").start()
        started = running.shards() + running.servers()
        running.signal(signum)
        assert running.wait() == 0
        assert not any(map(lives, started))
        assert "Traceback" not in running.errors

    def test_ctrl_c_reaches_the_whole_group_and_the_valkey_is_stopped_last(self, service: MakeService) -> None:
        running = service("--procs", "2").start()
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait() == 0
        lines = running.errors.splitlines()
        ends = [index for index, line in enumerate(lines) if "ended: exit code 0" in line]
        assert len(ends) == 2
        assert "embedded Valkey stopped" in lines[-1]

    def test_a_request_during_the_start_is_heard(self, service: MakeService) -> None:
        starting = service("--procs", "2").launch()
        wait_for(lambda: "starting on" in starting.errors, "the shards are forked")
        assert starting.stop() == 0
        assert starting.shards() == []

    def test_the_port_is_free_at_once_and_no_server_is_left_on_its_directory(
        self, service: MakeService, tmp_path: Path
    ) -> None:
        data = tmp_path / "data"
        first = service("--procs", "1", "--data-dir", str(data)).start()
        port = first.port
        assert health(first) == 200
        first.stop()
        running = [pid for pid in Path("/proc").iterdir() if pid.name.isdigit()]
        assert not [pid for pid in running if str(data) in command_of(int(pid.name))]
        second = service("--procs", "1", "--port", str(port)).start()
        assert second.port == port
