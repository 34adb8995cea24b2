"""The pid file: whose it is, and what is said of one that leads nowhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bullmq_proxy.supervisor.pid_file import PidFile, hang_up
from bullmq_proxy.supervisor.slots import StartError
from tests.support.service import run_here


def test_it_is_there_while_the_service_runs_and_a_successor_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("what a killed service has left")
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert os.listdir(tmp_path) == []
    with PidFile(str(path)):
        path.write_text("1\n")
    assert path.read_text() == "1\n"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="pid_file: cannot write"), PidFile(f"{tmp_path}/none/pid"):
        pass


def test_the_process_gets_the_signal(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); print(1, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        path.write_text(f"{process.pid}\n")
        assert hang_up(str(path)) == process.pid
        assert process.wait(10) == -signal.SIGHUP
    with pytest.raises(StartError, match=f"names pid {process.pid}, which is gone"):
        hang_up(str(path))


@pytest.mark.parametrize(
    ("text", "problem"), [(None, "no service runs that has this file"), ("x", "it holds no number")]
)
def test_a_file_that_leads_nowhere(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "pid"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StartError, match=problem):
        hang_up(str(path))


def test_reload_needs_to_know_which_service(tmp_path: Path) -> None:
    ran = run_here(tmp_path, "reload")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pid_file: not set, so nobody knows which service" in ran.stderr
