"""The pid file: by it other programs, as `bullmq-proxy reload`, find the supervisor."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Self

from bullmq_proxy.supervisor.slots import StartError


class PidFile:
    """Holds the process id of the supervisor between `with` and its end."""

    def __init__(self, path: str) -> None:
        """Name the file; its directory has to be there."""
        self._path = Path(path)

    def __enter__(self) -> Self:
        made = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            made.write_text(f"{os.getpid()}\n")
            made.replace(self._path)  # nobody ever reads half of it
        except OSError as error:
            raise StartError(f"pid_file: cannot write {self._path}: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, ValueError):
            if int(self._path.read_text()) == os.getpid():  # a successor has put its own there
                self._path.unlink()


def hang_up(path: str) -> int:
    """Send SIGHUP to the supervisor that a pid file names; returns its pid, or raises StartError."""
    try:
        pid = int(Path(path).read_text())
    except FileNotFoundError:
        raise StartError(f"pid_file: there is no {path}: no service runs that has this file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no number"
        raise StartError(f"pid_file: cannot read {path}: {reason}") from None
    try:
        os.kill(pid, signal.SIGHUP)
    except ProcessLookupError:
        raise StartError(f"pid_file: {path} names pid {pid}, which is gone: the service was killed") from None
    except PermissionError:
        raise StartError(f"pid_file: {path} names pid {pid}, which belongs to another user") from None
    return pid
