"""systemd's side of a service: the socket that it listens to, and the sockets that it hands over."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.waiting import TIMEOUT

# The sockets become descriptors 3 and following of a process that then becomes the service, with its pid.
_ACTIVATE = """
import fcntl, os, sys
out_of_the_way = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in sys.argv[1].split(",")]
for index, fd in enumerate(out_of_the_way):
    os.dup2(fd, 3 + index)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(out_of_the_way)), "LISTEN_FDNAMES": "x"}
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Ear:
    """Hears what a service says by the sd_notify protocol.

    Args:
        abstract: listen at an abstract name instead of a path.
    """

    def __init__(self, *, abstract: bool = False) -> None:
        # pytest's directories are too deep for a socket's path.
        self._short = Path(tempfile.mkdtemp(prefix="notify-"))
        path = str(self._short / "s")
        self.address = "@" + path if abstract else path
        """What NOTIFY_SOCKET has to say."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + path if abstract else path)

    def listen(self, timeout: float = TIMEOUT) -> dict[str, str]:
        """The next datagram's fields."""
        self._socket.settimeout(timeout)
        text = self._socket.recv(65536).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def until(self, name: str, value: str | None = None, timeout: float = TIMEOUT) -> dict[str, str]:
        """The next datagram with this field, with this value if one is given; others are left out."""
        deadline = time.monotonic() + timeout
        heard = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                fields = self.listen(left)
            except TimeoutError:
                break
            if name in fields and value in (None, fields[name]):
                return fields
            heard.append(fields)
        raise AssertionError(f"not within {timeout:g} s: {name}={value or '...'}; heard were {heard}")

    def heard(self) -> list[dict[str, str]]:
        """All that has come and was not asked for yet."""
        found = []
        self._socket.setblocking(False)
        try:
            while True:
                text = self._socket.recv(65536).decode()
                found.append(dict(line.split("=", 1) for line in text.splitlines()))
        except BlockingIOError:
            return found

    def close(self) -> None:
        self._socket.close()
        shutil.rmtree(self._short, ignore_errors=True)

    def __enter__(self) -> Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def activated(sockets: Sequence[socket.socket]) -> dict[str, list[object]]:
    """How a `Service` is launched that gets these sockets."""
    fds = [each.fileno() for each in sockets]
    launcher: list[object] = [sys.executable, "-c", _ACTIVATE, ",".join(map(str, fds))]
    return {"launcher": launcher, "pass_fds": list(fds)}
