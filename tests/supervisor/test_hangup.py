"""SIGHUP without a keys file: the end on a terminal, which was closed; elsewhere a reload that has nothing to read."""

from __future__ import annotations

import os
import pty
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.keys import entry, write_keys
from tests.support.service import Service, run_here
from tests.support.waiting import wait_for

MakeService = Callable[..., Service]

# A session leader without a terminal gets the first one that it opens. Started by nohup, tests ignore SIGHUP.
ON_TERMINAL = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.open(sys.argv[1], os.O_RDWR)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Terminal:
    """A terminal window, to be closed."""

    def __init__(self) -> None:
        self._window, self._line = pty.openpty()

    @property
    def launcher(self) -> list[str]:
        """What lets a program run in it."""
        return [sys.executable, "-c", ON_TERMINAL, os.ttyname(self._line)]

    def close(self) -> None:
        """The kernel sends SIGHUP to the program."""
        for fd in (self._window, self._line):
            os.close(fd)
        self._window = self._line = -1

    @property
    def is_open(self) -> bool:
        return self._window >= 0


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    if made.is_open:
        made.close()


def test_a_closed_terminal_ends_the_service(service: MakeService, terminal: Terminal) -> None:
    running = service("--procs", "1", launcher=terminal.launcher).start()
    terminal.close()
    assert running.wait() == 0
    assert "SIGHUP: draining" in running.errors


def test_a_terminal_that_is_closed_during_the_start_does_so_too(service: MakeService, terminal: Terminal) -> None:
    starting = service("--procs", "1", launcher=terminal.launcher).launch()
    wait_for(starting.servers, "the embedded Valkey is being started")
    terminal.close()
    assert starting.wait() == 0


def test_with_a_keys_file_a_closed_terminal_is_a_reload(
    service: MakeService, terminal: Terminal, tmp_path: Path
) -> None:
    path = write_keys(tmp_path / "keys.toml", entry("shop", "produce"))
    running = service("--procs", "1", "--keys-file", path, launcher=terminal.launcher).start()
    terminal.close()
    wait_for(lambda: "keys_file: read again" in running.errors, "the keys are read again")
    assert running.stop() == 0


def test_with_a_pid_file_the_command_reloads_a_service_in_a_terminal(
    service: MakeService, terminal: Terminal, tmp_path: Path
) -> None:
    pid_file = str(tmp_path / "pid")
    running = service("--procs", "1", "--pid-file", pid_file, launcher=terminal.launcher).start()
    assert run_here(tmp_path, "reload", "--pid-file", pid_file).returncode == 0
    wait_for(lambda: "one shard after the other is replaced" in running.errors, "it reloads")
    assert running.stop() == 0


def test_without_a_terminal_it_is_a_reload(service: MakeService) -> None:
    running = service("--procs", "1").start()
    running.signal(signal.SIGHUP)
    wait_for(lambda: "one shard after the other is replaced" in running.errors, "it is logged")
    wait_for(lambda: running.errors.count(" is ready") == 2, "the fresh shard is ready")
    assert running.stop() == 0
    assert "SIGHUP: draining" not in running.errors
