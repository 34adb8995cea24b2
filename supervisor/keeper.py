"""The keeper: a small process that outlives the supervisor, and ends the embedded Valkey after the last shard's drain.

It is a program of its own: `keeper.py LIFE SHARDS PID SECONDS`, with descriptors of two pipes that nobody writes to.
The supervisor alone has the other end of the first one, and every shard has that of the second.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_BY_ITSELF = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""Signals that come to all processes of a service; the keeper ends when its work is done."""


class Keeper:
    """Starts the process, anew for each server, and ends it.

    Attributes:
        held: descriptor that each shard inherits, and so shows that it lives.
    """

    def __init__(self, patience: float) -> None:
        """Make a keeper.

        Args:
            patience: seconds that the shards may take to end after the supervisor's death.
        """
        self._patience = patience
        self._life, self._life_end = os.pipe()
        self._shards, self.held = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, server: int) -> None:
        """Look after the server with this process id, and after no other one any more.

        Raises:
            OSError: the system cannot start a process.
        """
        self._end()
        descriptors = (self._life, self._shards)
        arguments = [*map(str, descriptors), str(server), str(self._patience)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", Path(__file__), *arguments],
            stdin=subprocess.DEVNULL,
            env={},
            start_new_session=True,
            pass_fds=descriptors,
        )

    def close(self) -> None:
        """End the process: the supervisor has ended the server itself."""
        self._end()
        for descriptor in (self._life, self._life_end, self._shards, self.held):
            os.close(descriptor)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def keep(life: int, shards: int, server: int, patience: float) -> None:
    """End the server after the supervisor's death, when all shards have ended or `patience` seconds have passed."""
    descriptor = os.pidfd_open(server)  # its number may be another process's then
    select.select([life], [], [])
    select.select([shards, descriptor], [], [], patience)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)


def main(arguments: Sequence[str]) -> None:
    """Run the keeper's process."""
    for signum in _BY_ITSELF:
        signal.signal(signum, signal.SIG_IGN)
    life, shards, server, patience = arguments
    with suppress(ProcessLookupError):
        keep(int(life), int(shards), int(server), float(patience))


if __name__ == "__main__":
    main(sys.argv[1:])
