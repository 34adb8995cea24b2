"""The data directory: a path in, a private directory that belongs to one service at a time out."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from bullmq_proxy.gateway.access.private import exposure
from bullmq_proxy.supervisor.slots import StartError

# After a kill of the supervisor its Valkey holds the lock until it has written out its data.
LEFTOVER_TIMEOUT = 10.0
_TICK = 0.05


class DataDir:
    """A directory with a lock file that names its holder's pid.

    The lock belongs to the open file: whoever inherits its descriptor holds it, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._fd: int | None = None

    def __repr__(self) -> str:
        return f"<DataDir {self.path} {'held' if self._fd is not None else 'free'}>"

    def fileno(self) -> int:
        """Return the lock's descriptor."""
        assert self._fd is not None, "the directory is not held"
        return self._fd

    def acquire(self) -> None:
        """Create the directory, for this user alone, and take its lock; raises StartError where others can get in."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if exposed := exposure(self.path.stat(), self.path):
                raise StartError(f"data_dir: {exposed}")
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"cannot use the data directory {self.path}: {error.strerror}; set another --data-dir"
            ) from None
        try:
            self._lock(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.close()
            raise StartError(
                f"cannot write into the data directory {self.path}: {error.strerror}; set another --data-dir"
            ) from None

    def note(self, server: int) -> None:
        """Write down the process id of the server that inherits the lock."""
        os.pwrite(self.fileno(), f"{os.getpid()}\n{server}\n".encode(), 0)

    def close(self) -> None:
        """Let go of the directory; a process that has inherited the lock still holds it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self, fd: int) -> None:
        deadline = time.monotonic() + LEFTOVER_TIMEOUT
        while not _try_lock(fd):
            holder, _, server = os.pread(fd, 64, 0).decode("ascii", "replace").strip().partition("\n")
            if _lives(holder) or time.monotonic() > deadline:
                raise StartError(
                    f"the data directory {self.path} is in use by the bullmq-proxy with pid {holder};"
                    " stop it or set another --data-dir"
                )
            _end_server(server)
            time.sleep(_TICK)  # flock has no deadline of its own


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_server(pid: str) -> None:
    """End the server of a supervisor that was killed: it may still serve shards that drain, and these find ours."""
    with suppress(OSError, ValueError):
        if b"valkey-server" in Path(f"/proc/{int(pid)}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGTERM)


def _lives(pid: str) -> bool:
    if not pid.isdigit() or int(pid) == 0:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
