"""TCP ports for tests."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

_PORTS: Final = range(10_240, 32_768)  # below those that systems choose themselves
_OURS: Final[set[int]] = set()


def free_port() -> int:
    """A port that nobody uses, and that no other process which asks here gets while this one lives.

    A port that a socket had a moment ago may be another's when it is used: many run tests beside each other.
    """
    for _ in _PORTS:
        port = random.choice(_PORTS)
        if port not in _OURS and _claim(port):
            _OURS.add(port)
            with socket.socket() as sock:
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:  # somebody has it who does not ask here
                    continue
            return port
    raise AssertionError("no port is free")


def _claim(port: int) -> bool:
    """Lock the byte with the port's number; the system unlocks it when this process ends."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _claims() -> int:
    """The file with a byte for each port, open until this process ends."""
    path = Path(tempfile.gettempdir()) / f"bullmq-proxy-test-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
