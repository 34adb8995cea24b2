"""The inbox: signals of this process in, their numbers out, through a descriptor for a selector."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import sys
from types import FrameType, TracebackType
from typing import Self

STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
WATCHED = STOP | {signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2}
_STDERR = 2  # the descriptor: whatever a program puts in the place of sys.stderr has perhaps none


def _noted(_signum: int, _frame: FrameType | None) -> None:
    """Python writes the number to the wakeup descriptor only for signals that have a handler of its own."""


def hangup_ends(*, reloads: bool) -> bool:
    """Does SIGHUP end the service? Only where it means that the terminal was closed: there is one, and no reload.

    Ask before there is an `Inbox`: who started us by nohup has had the signal ignored.
    """
    return not reloads and _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def show_own_stacks() -> None:
    """Let SIGUSR1 write the stacks of all threads to stderr, and then do what it did before.

    They are written where the signal arrives, whatever holds the interpreter up.
    """
    if sys.stderr is not None:  # a service may be started with its standard streams closed
        faulthandler.register(signal.SIGUSR1, _STDERR, chain=True)


class Inbox:
    """Collects the watched signals between `with` and its end, which puts the former handlers back."""

    def __init__(self, stop: frozenset[signal.Signals] = STOP) -> None:
        """Make an inbox; `stop` are the signals that ask the service to end."""
        self.stop = stop
        self._kept: list[signal.Signals] = []
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        # A full inbox already wakes the loop: losing further bytes is no loss.
        self._wakeup_before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for signum in WATCHED:
            self._before[signum] = signal.signal(signum, _noted)
        show_own_stacks()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)  # a successor is started with them blocked
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        faulthandler.unregister(signal.SIGUSR1)
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        return self._read.fileno()

    def take(self) -> list[signal.Signals]:
        """Return the signals that came since the last call."""
        numbers: list[int] = []
        try:
            while chunk := self._read.recv(4096):
                numbers += chunk
        except BlockingIOError:
            pass
        kept, self._kept = self._kept, []
        return kept + [signal.Signals(number) for number in numbers]

    def asked_to_stop(self, seconds: float) -> bool:
        """Wait for the time, or for a signal, and say whether the service shall end; `take` still gets all signals."""
        select.select([self._read], [], [], seconds)
        self._kept = self.take()
        return not self.stop.isdisjoint(self._kept)
