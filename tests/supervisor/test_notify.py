"""What systemd hears of the service, from its start to its end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bullmq_proxy.supervisor.activation import LISTEN_VARIABLES
from bullmq_proxy.supervisor.notify import NOTIFY_VARIABLES, RETRY, Notifier
from tests.support.keys import entry, write_keys
from tests.support.service import Service, clean_environment
from tests.support.systemd import Ear
from tests.support.waiting import wait_for

MakeService = Callable[..., Service]


@pytest.fixture
def ear() -> Iterator[Ear]:
    with Ear() as made:
        yield made


def report(
    notifier: Notifier, *, serving: int = 2, able: bool = True, ending: float | None = None, now: float = 0.0
) -> None:
    """Of a service with two shards."""
    notifier.report(now, status=f"{serving} of 2", complete=serving == 2, able=able, ending=ending)


class TestReports:
    def test_it_is_ready_once_all_shards_serve(self, ear: Ear) -> None:
        notifier = Notifier(ear.address)
        report(notifier, serving=1)
        report(notifier)
        report(notifier)
        assert ear.heard() == [{"STATUS": "1 of 2"}, {"READY": "1", "STATUS": "2 of 2"}]

    def test_an_abstract_name_can_be_heard(self) -> None:
        with Ear(abstract=True) as ear:
            report(Notifier(ear.address))
            assert ear.listen() == {"READY": "1", "STATUS": "2 of 2"}

    def test_later_changes_are_in_the_status_alone(self, ear: Ear) -> None:
        notifier = Notifier(ear.address)
        for serving in (2, 1, 1, 2):
            report(notifier, serving=serving)
        assert ear.heard() == [{"READY": "1", "STATUS": "2 of 2"}, {"STATUS": "1 of 2"}, {"STATUS": "2 of 2"}]

    def test_another_main_process_is_named_with_a_sign_of_life(self, ear: Ear) -> None:
        """Those of its own are not heard before, and the next one comes after half of the time."""
        notifier = Notifier(ear.address, watchdog=60.0)
        notifier.hand_over(4711)
        report(notifier)
        assert ear.heard() == [{"MAINPID": "4711", "WATCHDOG": "1"}]

    def test_the_end_is_told_once_with_the_time_that_it_may_take(self, ear: Ear) -> None:
        notifier = Notifier(ear.address)
        report(notifier)
        for _ in range(2):
            notifier.report(0.0, status="draining", complete=False, able=True, ending=40.5)
        notifier.reloading()
        notifier.reloaded()
        assert ear.heard()[1:] == [{"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "40500000"}]

    def test_a_reload_is_told_with_its_time(self, ear: Ear) -> None:
        notifier = Notifier(ear.address)
        report(notifier)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        notifier.reloading()
        notifier.reloaded()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        _, begin, end = ear.heard()
        assert begin["RELOADING"] == "1"
        assert before <= int(begin["MONOTONIC_USEC"]) <= after
        assert end == {"READY": "1"}

    def test_a_reload_during_the_start_does_not_make_it_ready(self, ear: Ear) -> None:
        notifier = Notifier(ear.address)
        notifier.reloading()
        notifier.reloaded()
        assert ear.heard() == []

    def test_without_an_address_nothing_is_due(self) -> None:
        notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000"})
        report(notifier)
        assert notifier.next_due() is None


class TestWatchdog:
    def test_a_sign_of_life_comes_twice_in_its_time(self, ear: Ear) -> None:
        notifier = Notifier(ear.address, watchdog=10.0)
        report(notifier, serving=1)
        assert notifier.next_due() is None
        for now in (0.0, 4.9, 5.0, 7.0, 10.0):
            report(notifier, now=now)
        assert [fields for fields in ear.heard() if "WATCHDOG" in fields] == [{"WATCHDOG": "1"}] * 3
        assert notifier.next_due() == 15.0

    def test_none_comes_while_nothing_serves_and_one_as_soon_as_something_does(self, ear: Ear) -> None:
        notifier = Notifier(ear.address, watchdog=10.0)
        report(notifier)
        report(notifier, serving=0, able=False, now=5.0)
        assert notifier.next_due() == 5.0 + RETRY
        report(notifier, serving=0, able=False, now=9.0)
        assert sum("WATCHDOG" in fields for fields in ear.heard()) == 1
        report(notifier, serving=0, able=True, now=10.0)
        assert {"WATCHDOG": "1"} in ear.heard()

    def test_a_sign_that_could_not_be_sent_is_due_again_soon(self, ear: Ear) -> None:
        notifier = Notifier(ear.address, watchdog=60.0)
        report(notifier)
        ear.close()
        report(notifier, now=30.0)
        due = notifier.next_due()
        assert due is not None
        assert due <= 30.0 + RETRY

    @pytest.mark.parametrize(
        ("usec", "pid", "due"),
        [
            ("10000000", "", 5.0),
            ("10000000", "ours", 5.0),
            ("10000000", "1", None),
            ("0", "", None),
            ("", "", None),
            ("soon", "", None),
        ],
    )
    def test_it_is_for_this_process_alone(self, ear: Ear, usec: str, pid: str, due: float | None) -> None:
        pid = pid.replace("ours", str(os.getpid()))
        environ = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid, "HOME": "/"}
        notifier = Notifier.from_environment(environ)
        assert environ == {"HOME": "/"}
        report(notifier)
        assert notifier.next_due() == due


class TestTrouble:
    def test_what_could_not_be_sent_is_sent_later(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with Ear() as gone:
            pass
        notifier = Notifier(gone.address)
        with caplog.at_level(logging.DEBUG):
            report(notifier)
            report(notifier)
        assert [record.levelname for record in caplog.records] == ["WARNING", "DEBUG"]
        assert "cannot tell systemd READY: No such file or directory" in caplog.text
        due = notifier.next_due()
        assert due is not None
        assert 0 < due - time.monotonic() <= RETRY

    def test_a_full_queue_does_not_hold_the_service_up(self, ear: Ear) -> None:
        notifier = Notifier(ear.address)
        report(notifier)
        sent = 0
        while notifier.next_due() is None:
            sent += 1
            notifier.say(f"{sent}")
        assert ear.listen()["READY"] == "1"
        ear.heard()
        report(notifier, serving=1)
        assert ear.listen() == {"STATUS": "1 of 2"}
        assert notifier.next_due() is None

    def test_an_end_of_a_reload_that_is_lost_is_told_again(self, ear: Ear) -> None:
        notifier = Notifier(ear.address)
        report(notifier)
        notifier.reloading()
        number = 0
        while notifier.next_due() is None:
            number += 1
            notifier.say(f"{number}")
        notifier.reloaded()
        ear.heard()
        report(notifier)
        assert ear.listen() == {"READY": "1", "STATUS": "2 of 2"}

    def test_an_address_of_another_kind_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"})
        report(notifier)
        assert "vsock:2:1234 is neither a path nor an abstract name" in caplog.text
        assert notifier.next_due() is None


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
class TestService:
    """The whole service, with systemd played by the test."""

    def test_its_life(self, service: MakeService, ear: Ear, tmp_path: Path) -> None:
        path = write_keys(tmp_path / "keys.toml", entry("shop", "produce"))
        environ = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "400000"}
        running = service("--procs", "2", "--keys-file", path, "--drain-timeout", "7", env=environ).start()
        assert ear.listen() == {"STATUS": "the embedded Valkey starts"}
        serving = f"2 of 2 shards serve on port {running.port}"
        assert ear.until("READY") == {"READY": "1", "STATUS": serving}
        for _ in range(3):
            assert ear.until("WATCHDOG", timeout=5) == {"WATCHDOG": "1"}
        write_keys(tmp_path / "keys.toml", entry("store", "produce"))  # which leaves the shards as they are
        running.signal(signal.SIGHUP)
        assert ear.until("RELOADING").keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert ear.until("READY") == {"READY": "1"}
        os.kill(running.shards()[0], signal.SIGKILL)
        assert ear.until("STATUS") == {"STATUS": f"1 of 2 shards serve on port {running.port}"}
        assert ear.until("STATUS") == {"STATUS": serving}
        running.signal(signal.SIGTERM)
        # The drain, grace for shards that do not end, and Valkey's own end.
        assert ear.until("STOPPING") == {"STOPPING": "1", "STATUS": "draining", "EXTEND_TIMEOUT_USEC": "47000000"}
        assert running.wait() == 0

    def test_a_reload_without_a_keys_file_is_over_at_once(self, service: MakeService, ear: Ear) -> None:
        running = service("--procs", "1", env={"NOTIFY_SOCKET": ear.address}).start()
        ear.until("READY")
        running.signal(signal.SIGHUP)
        ear.until("RELOADING")
        ear.until("READY")
        with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/health", timeout=5) as answer:
            assert answer.status == 200
        assert running.stop() == 0

    def test_a_start_that_fails_is_told_as_an_end(self, service: MakeService, ear: Ear, port: int) -> None:
        environ = {"NOTIFY_SOCKET": ear.address, "REDIS_URL": f"redis://127.0.0.1:{port}"}
        failing = service("--procs", "1", "--redis-start-timeout", "200ms", env=environ).launch()
        assert failing.wait() == 1
        heard = ear.heard()
        assert "STOPPING" in heard[-1]
        assert not any("READY" in fields for fields in heard)

    def test_no_child_answers_in_its_name(self, ear: Ear, tmp_path: Path) -> None:
        program = (
            "import os; from bullmq_proxy.supervisor.cli import main\n"
            "main(['serve', '--port', '0', '--procs', '1'])\n"
            "print('LEFT', *os.environ)\n"
        )
        environ = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "60000000", "LISTEN_FDS": "1", "LISTEN_PID": "1"}
        with subprocess.Popen(
            [sys.executable, "-c", program],
            env=clean_environment(tmp_path, environ),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            ear.until("READY")
            process.terminate()
            assert process.stdout is not None
            left = process.stdout.read().split("LEFT ")[1].split()
        assert "HOME" in left
        assert not {*NOTIFY_VARIABLES, *LISTEN_VARIABLES} & set(left)

    def test_a_systemd_that_hears_nothing_does_no_harm(self, service: MakeService, tmp_path: Path) -> None:
        running = service("--procs", "1", env={"NOTIFY_SOCKET": str(tmp_path / "nobody")}).start()
        wait_for(lambda: "cannot tell systemd" in running.errors, "it is logged")
        assert running.stop() == 0
        assert running.errors.count("cannot tell systemd") == 1
