"""Processes from start to end: what they print is read with a deadline, and nobody outlives the benchmark."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_END_TIMEOUT: Final = 10.0  # s after SIGTERM
_PR_SET_PDEATHSIG: Final = 1


class LabError(Exception):
    """A process did not do what it was started for."""


class Process:
    """One child process with lines on stdout.

    Args:
        name: for messages.
        words: the command.
        log: file for stderr.
        environment: complete.
    """

    def __init__(self, name: str, words: Sequence[str | Path], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        self._lines = b""
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is ours to handle
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - only where there is one thread
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def line(self, deadline: float) -> str:
        """The next line of its stdout.

        Args:
            deadline: seconds to wait.

        Raises:
            LabError: it ended or said nothing in time.
        """
        assert self._process.stdout is not None
        until = time.monotonic() + deadline
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._lines:
                left = until - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise LabError(f"{self.name} said nothing for {deadline:g} s: {self.last_words()}")
                read = self._process.stdout.read()
                if read == b"":
                    raise LabError(f"{self.name} ended: {self.last_words()}")
                self._lines += read or b""
        line, _, self._lines = self._lines.partition(b"\n")
        return line.decode()

    def message(self, deadline: float) -> dict[str, Any]:
        """The next line, as JSON."""
        members: dict[str, Any] = json.loads(self.line(deadline))
        return members

    def tell(self, word: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()

    def wait(self, timeout: float) -> None:
        """Let it end by itself; what is left after `timeout` is ended by `close`."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.close()

    def close(self) -> None:
        """End it: SIGTERM, and SIGKILL when that does not help, for what it started, too."""
        if self._process.poll() is None:
            family = [*children(self.pid), self.pid]
            self._process.terminate()
            try:
                self._process.wait(_END_TIMEOUT)
            except subprocess.TimeoutExpired:
                for pid in family:
                    _kill(pid)
                self._process.wait(_END_TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                continue  # what it never read

    def last_words(self) -> str:
        """The end of its stderr."""
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or "it left no message"

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def children(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _die_with_parent() -> Callable[[], None] | None:
    """Ask Linux to end the child when the benchmark itself is killed."""
    if sys.platform != "linux" or threading.active_count() > 1:  # code between fork and exec needs a single thread
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) and None
