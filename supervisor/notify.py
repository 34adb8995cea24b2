"""systemd's ear: what the service does in, datagrams of the sd_notify protocol out (sd_notify(3)).

Whoever does not listen costs nothing: without NOTIFY_SOCKET nothing is sent, and an error of the socket is no error of
the service.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# After a datagram that could not be sent: the socket's queue may be full while systemd is busy.
RETRY = 1.0


class Notifier:
    """Tells systemd how the service is.

    `report` is called after whatever may have changed it, and when `next_due` has come; it sends only what is new.
    """

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        """Make a notifier.

        Args:
            address: a path, or `@` and an abstract name; None to be silent.
            watchdog: seconds within which systemd wants a sign of life; None for never.
        """
        self._address = address
        self._pause = None if watchdog is None else watchdog / 2
        self._beat_due = float("-inf")
        self._retry_due: float | None = None
        self._ready = False
        self._reload_ends = False  # and systemd has not heard of it yet
        self._stopping = False
        self._status = ""
        self._complained = False

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Return the notifier that the environment asks for, and remove its variables: no child answers for us."""
        address, usec, pid = (environ.pop(name, "") for name in NOTIFY_VARIABLES)
        if address and address[0] not in "/@":
            log.warning("NOTIFY_SOCKET: %s is neither a path nor an abstract name; systemd is told nothing", address)
            address = ""
        watched = usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address or None, int(usec) / 1e6 if watched and address else None)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which another process becomes the notifier in place of this one."""
        if self._address is None:
            return {}
        watchdog = {} if self._pause is None else {"WATCHDOG_USEC": str(int(self._pause * 2e6))}
        return {"NOTIFY_SOCKET": self._address, **watchdog}

    def hand_over(self, pid: int) -> None:
        """Say that another process is the main one from now on; systemd has dropped its signs of life until now."""
        self._send(MAINPID=str(pid), WATCHDOG="1")
        self._address = None

    def next_due(self) -> float | None:
        """Return when `report` has something to say, if nothing happens before; None for never."""
        due = [
            at for at in (self._retry_due, self._beat_due if self._pause and self._ready else None) if at is not None
        ]
        return min(due, default=None)

    def say(self, status: str) -> None:
        """Say what the service is doing, for `systemctl status`."""
        if status != self._status and self._send(STATUS=status):
            self._status = status

    def report(self, now: float, *, status: str, complete: bool, able: bool, ending: float | None) -> None:
        """Say what has changed since the last report.

        Args:
            now: of the monotonic clock.
            status: one line for `systemctl status`.
            complete: whether all shards serve; the first time that they do is the end of the start.
            able: whether the service can serve or is about to: only then it gives signs of life.
            ending: seconds that the end may take, once the service is ending.
        """
        self._retry_due = None
        if ending is not None:
            if not self._stopping:
                # Whatever the unit's TimeoutStopSec= is: the drain is given its time.
                microseconds = int(ending * 1e6)
                self._stopping = self._send(STOPPING="1", STATUS=status, EXTEND_TIMEOUT_USEC=str(microseconds))
        elif self._reload_ends:
            self._reload_ends = not self._send(READY="1", STATUS=status)
        elif complete and not self._ready:
            self._ready = self._send(READY="1", STATUS=status)
            self._status = status
        else:
            self.say(status)
        if self._pause and self._ready and now >= self._beat_due:
            alive = able and self._send(WATCHDOG="1")
            self._beat_due = now + (self._pause if alive else min(RETRY, self._pause))

    def reloading(self) -> None:
        """Say that the configuration is being read again; `reloaded` has to follow."""
        if self._ready and not self._stopping:
            self._send(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def reloaded(self) -> None:
        """Say that the configuration has been read again."""
        if self._ready and not self._stopping:
            self._reload_ends = not self._send(READY="1")  # if it is lost, the next report says it again

    def _send(self, **fields: str) -> bool:
        """Send one datagram; says whether there is no need to send it again."""
        if self._address is None:
            return True
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)  # the loop that sends this has more important things to do
                sock.sendto(text.encode(errors="replace"), address)
        except OSError as error:
            log.log(
                logging.DEBUG if self._complained else logging.WARNING,
                "cannot tell systemd %s: %s",
                next(iter(fields)),
                error.strerror or error,
            )
            self._complained = True
            self._retry_due = time.monotonic() + RETRY
            return False
        return True
