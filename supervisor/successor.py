"""The successor: another supervisor, of the code that is installed now, which takes over the sockets of this one.

The sockets stay open all the while: it inherits them, as from systemd (`activation`), and serves beside the shards of
this one until it is complete. Then these drain, and this supervisor ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Final, NoReturn

from bullmq_proxy.gateway.exits import Exit
from bullmq_proxy.supervisor.activation import FIRST_FD
from bullmq_proxy.supervisor.process import ShardProcess, are_own, leaving_orphans
from bullmq_proxy.supervisor.signals import WATCHED

PATIENCE: Final = 120.0
"""Seconds that a successor may take until it serves."""

_VARIABLE: Final = "SUCCESSOR_FD"  # the pipe on which it says that it serves
_COMPLETE: Final = b"1"
_PID_BYTES: Final = 4


def obstacle(shards: Iterable[ShardProcess], *, has_valkey: bool, has_successor: bool) -> str:
    """Return why there cannot be a successor now; empty where there can.

    Args:
        shards: of the supervisor; init would adopt those that have no process of their own yet.
        has_valkey: whether the supervisor runs the embedded server.
        has_successor: whether there is one already that does not serve yet.
    """
    if has_valkey:
        return "the embedded Valkey belongs to this process: a restart replaces it"
    if os.getpid() == 1:
        return "a container ends with its process 1: replace the container"
    if has_successor:
        return "a successor starts already"
    return "" if are_own(shards) else "shards are starting: send it again when they serve"


class Successor:
    """A successor that was started and does not serve yet."""

    def __init__(self, listeners: Sequence[int], environ: Mapping[str, str]) -> None:
        """Start it, as this process was started.

        Args:
            listeners: descriptors of the sockets.
            environ: its environment; the variables of what is handed over are added.

        Raises:
            OSError: the system cannot fork.
        """
        self.due = time.monotonic() + PATIENCE
        self._read, write = os.pipe()
        # It gets no signal before it can answer: the mask outlives the change of program.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        try:
            with leaving_orphans():
                between = os.fork()
                if between == 0:
                    _fork_again([*listeners, write], environ)
                os.waitpid(between, 0)
        except OSError:
            os.close(self._read)
            raise
        finally:
            os.close(write)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        pid = os.read(self._read, _PID_BYTES)
        if not pid:
            os.close(self._read)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.pid = int.from_bytes(pid)

    def fileno(self) -> int:
        """Return the descriptor that can be read when it serves, or has ended."""
        return self._read

    def serves(self) -> bool:
        """Return whether it serves; False when it has ended. To be asked once, when there is something to be read."""
        return os.read(self._read, 1) == _COMPLETE

    def close(self) -> None:
        """Listen no more."""
        os.close(self._read)

    def give_up(self) -> None:
        """Make sure that it has ended, and listen no more."""
        os.set_blocking(self._read, False)
        try:
            has_ended = not os.read(self._read, 1)
        except BlockingIOError:
            has_ended = False
        if not has_ended:  # so the pid is still its own
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.set_blocking(self._read, True)
            while os.read(self._read, 1):
                pass
        self.close()


def _fork_again(handed: Sequence[int], environ: Mapping[str, str]) -> NoReturn:
    """Become the parent of the successor for a moment: it is a child of init (or of systemd) from then on.

    systemd looks when it hears MAINPID=, which only this supervisor may say: of a main process that is not its child by
    then it would not see the end, and a stop would kill all processes at once instead of waiting for the drain.
    """
    try:
        pid = os.fork()
        if pid == 0:
            _become(handed, environ)
        os.write(handed[-1], pid.to_bytes(_PID_BYTES))
    finally:
        os._exit(Exit.FAILED)


def _become(handed: Sequence[int], environ: Mapping[str, str]) -> NoReturn:
    try:
        # First out of the way of each other, then to the places where sockets are handed over; the pipe stands last.
        apart = [fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_FD + len(handed)) for fd in handed]
        for place, fd in enumerate(apart, FIRST_FD):
            os.dup2(fd, place)
            os.close(fd)
        count, pid = len(handed) - 1, str(os.getpid())
        environ = {**environ, "LISTEN_PID": pid, "LISTEN_FDS": str(count), _VARIABLE: str(FIRST_FD + count)}
        if "WATCHDOG_USEC" in environ:
            environ["WATCHDOG_PID"] = pid
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    except OSError as error:
        os.write(2, f"cannot run {sys.executable}: {error.strerror}\n".encode())
    finally:
        os._exit(Exit.FAILED)


class Predecessor:
    """The supervisor whose sockets this one has taken over."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Predecessor | None:
        """Return it, if there is one, and remove its variable."""
        fd = environ.pop(_VARIABLE, "")
        if not fd.isdecimal():
            return None
        os.set_inheritable(int(fd), False)
        return cls(int(fd))

    def dismiss(self) -> None:
        """Say that this supervisor serves, so that the other one leaves."""
        with suppress(OSError):  # it is dead: there is nobody to tell
            os.write(self._fd, _COMPLETE)
        os.close(self._fd)
