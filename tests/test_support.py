"""What the tests themselves promise."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import ROOT, lives
from tests.support.waiting import wait_for

PROGRAM = """
import sys
from pathlib import Path
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess

home = Path(sys.argv[1])
server = ValkeyProcess(home / "valkey").start()
service = Service(home / "service", "--procs", "1").start()
print(server.pid, service.pid, *service.shards(), *service.servers(), flush=True)
sys.stdin.read()
"""


def test_the_tests_of_a_file_share_a_process_and_what_it_has_started(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("loadgroup", False):  # as one of several processes
        assert request.node.nodeid.endswith("@tests/test_support.py")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells them")
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_interrupted_leaves_no_process_behind(tmp_path: Path, signum: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pids = list(map(int, run.stdout.readline().split()))
        assert len(pids) == 4
        run.send_signal(signum)
    wait_for(lambda: not any(map(lives, pids)), "all that it started has ended")
