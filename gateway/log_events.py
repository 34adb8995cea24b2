"""The events of the log: a closed table of names, levels and lines, and the one way to write them.

A line of another kind is for people alone. Names and fields stay what they are, so that programs can look for them; the
texts may change. What may come in floods is sampled: of the rest a line says how many were left out.
"""

from __future__ import annotations

import enum
import logging
import re
import time
from typing import Final

log = logging.getLogger("bullmq_proxy.events")

LINES: Final = 10
"""Lines of one event in a period; further ones are left out, and counted."""
PERIOD: Final = 10.0
"""Seconds."""
_FIELD: Final = re.compile(r"%\((\w+)\)")
_INFO, _WARNING, _ERROR = logging.INFO, logging.WARNING, logging.ERROR


class LogEvent(enum.Enum):
    """An event of the log. A member is a row: name, level, whether it is sampled, line, when it is written.

    Attributes:
        level: of `logging`.
        sampled: it may come in floods.
        text: the line, with the fields in it.
        meaning: for the documents.
    """

    level: int
    sampled: bool
    text: str
    meaning: str

    def __new__(cls, name: str, level: int, sampled: bool, text: str, meaning: str) -> LogEvent:
        """Make a member of its row."""
        member = object.__new__(cls)
        member._value_ = name
        member.level = level
        member.sampled = sampled
        member.text = text
        member.meaning = meaning
        return member

    # Clients
    OPENED = (
        "connection_opened",
        _INFO,
        False,
        "%(address)s has a %(kind)s connection to %(queue)s, key %(key)s",
        "a connection is open (`access_log`)",
    )
    CLOSED = (
        "connection_closed",
        _INFO,
        False,
        "%(address)s had a %(kind)s connection to %(queue)s, key %(key)s: %(code)s after %(seconds).3f s, "
        "%(received)d messages received, %(sent)d sent",
        "it has ended (`access_log`); the code is that of the close frame that came first, 1006 without one",
    )
    REQUESTED = (
        "request",
        _INFO,
        False,
        "%(address)s %(method)s %(path)s, key %(key)s: %(status)d after %(seconds).6f s",
        "a request has its response (`access_log`)",
    )
    REFUSED = (
        "refused",
        _WARNING,
        True,
        "%(address)s is refused %(path)s with %(code)d, key %(key)s",
        "a handshake or request was refused, with a status or [its close code](protocol.md#refused-handshakes)",
    )
    AUDIT = (
        "managed",
        _INFO,
        False,
        "key %(key)s has called %(function)s on %(queue)s: %(outcome)s",
        "a function that needs `manage` was called (`audit_log`); `outcome` is `ok`, or the code of the error",
    )
    SLOW_CONSUMER = (
        "slow_consumer",
        _WARNING,
        True,
        "%(address)s does not read its %(kind)s connection to %(queue)s, key %(key)s: %(unread)d bytes are unread",
        "a client did not read what was sent to it (4002)",
    )
    NO_PONG = (
        "no_pong",
        _INFO,
        True,
        "%(address)s does not answer pings on its %(kind)s connection to %(queue)s, key %(key)s",
        "a client did not answer pings (4003)",
    )
    LIMIT_REACHED = (
        "limit_reached",
        _WARNING,
        True,
        "%(address)s has reached a limit on its %(kind)s connection to %(queue)s, key %(key)s: %(code)d, %(reason)s",
        "a connection was closed for a [limit](limits.md) (1008, 1009, 1013)",
    )
    BAD_FRAMES = (
        "bad_frames",
        _INFO,
        True,
        "%(address)s sends no messages on its %(kind)s connection to %(queue)s, key %(key)s: %(code)d, %(reason)s",
        "a connection was closed for broken or binary frames, or text that is no UTF-8 (1002, 1003, 1007)",
    )
    RATE_REACHED = (
        "rate_reached",
        _WARNING,
        True,
        "the key %(key)s has used up its messages_per_second = %(rate)g",
        "calls of a key were answered with `TOO_MANY_REQUESTS`",
    )
    DESCRIPTORS_OUT = (
        "descriptors_out",
        _WARNING,
        True,
        "connections are given up: no descriptors are left: %(connections)d connections are open",
        "a client was closed without an answer",
    )
    UNOPENED_FULL = (
        "unopened_full",
        _WARNING,
        True,
        "connections are given up: %(connections)d have not asked for anything yet, most of them of %(address)s",
        "the same, since too many clients had said nothing",
    )
    TLS_FAILED = (
        "tls_failed",
        _WARNING,
        True,
        "%(address)s cannot speak TLS here: %(reason)s",
        "a handshake of TLS failed, with the reason in OpenSSL's words",
    )
    TLS_OFF = (
        "tls_off",
        _WARNING,
        True,
        "%(address)s speaks TLS, which is not spoken on this port (tls_cert)",
        "a client takes the port for one with TLS",
    )
    PROXY_HEADER = (
        "proxy_header",
        _WARNING,
        True,
        "%(address)s is in trusted_proxies and does not say whose connection it is: %(reason)s",
        "a proxy of `proxy_protocol` was closed without an answer",
    )
    # Jobs
    WORKER_LOST = (
        "worker_lost",
        _WARNING,
        True,
        "a worker of %(queue)s has vanished with %(jobs)d jobs in hand",
        "its jobs go back to wait; [grace](protocol.md#coming-back) has ended, where there was any",
    )
    STALLED = (
        "jobs_stalled",
        _INFO,
        True,
        "%(jobs)d stalled jobs of %(queue)s are back in wait",
        "workers, of whatever kind, have let the locks of jobs run out",
    )
    GAP = (
        "events_gone",
        _WARNING,
        True,
        "events of %(queue)s between %(from)s and %(to)s are gone",
        "Redis had trimmed events that watchers had not seen",
    )
    # Redis
    LINK_LOST = (
        "link_lost",
        _WARNING,
        False,
        "redis link to %(server)s: %(reason)s",
        "the first connection to a server is lost, or does not come back for another reason",
    )
    LINK_BACK = (
        "link_back",
        _WARNING,
        False,
        "redis link to %(server)s: connected again after %(seconds).1f s",
        "all connections to it are there again",
    )
    WRITES_REFUSED = (
        "writes_refused",
        _WARNING,
        False,
        "no sign of life can be given: %(reason)s",
        "Redis refuses to write: it is full, read-only, or not allowed",
    )
    WRITES_TAKEN = ("writes_taken", _WARNING, False, "signs of life can be given again", "it writes again")
    TROUBLE = (
        "queue_trouble",
        _WARNING,
        False,
        "%(doing)s %(queue)s: %(reason)s",
        "Redis refuses something of a queue; further queues with the same trouble have no line",
    )
    TROUBLE_OVER = (
        "queue_trouble_over",
        _WARNING,
        False,
        "%(doing)s %(queue)s works again; of %(queues)d queues it did not",
        "it works for all of them again",
    )
    # Processes
    SHARD_READY = ("shard_ready", _INFO, False, "shard %(shard)d is ready, pid %(process)d", "a shard serves")
    SHARD_ENDED = (
        "shard_ended",
        _INFO,
        False,
        "shard %(shard)d (pid %(process)d) ended: %(how)s",
        "a shard has ended that was to end",
    )
    SHARD_LOST = (
        "shard_lost",
        _ERROR,
        False,
        "shard %(shard)d (pid %(process)d) ended: %(how)s",
        "a shard has ended that was not to end; another one is started",
    )
    SHARD_SILENT = (
        "shard_silent",
        _WARNING,
        False,
        "shard %(shard)s is dead; jobs of its that are back in wait: %(jobs)d",
        "a shard, of this gateway or another, gives no signs of life; this shard has acted for it",
    )
    DRAIN = (
        "drain",
        _INFO,
        False,
        "drain: jobs in hand: %(jobs)d; waiting up to %(seconds)g s for answers and calls",
        "a shard takes nothing new any more",
    )
    DRAINED = (
        "drained",
        _INFO,
        False,
        "drain: ended after %(seconds).1f s; jobs given back unanswered: %(jobs)d",
        "all its connections are closed",
    )
    RELOAD = (
        "reload",
        _INFO,
        False,
        "SIGHUP: one shard after the other is replaced by a fresh one",
        "what is configured now is in force",
    )
    RELOAD_REFUSED = (
        "reload_refused",
        _ERROR,
        False,
        "SIGHUP: %(reason)s; all settings stay as they are",
        "it cannot be used",
    )
    KEYS_READ = (
        "keys_read",
        _INFO,
        False,
        "keys_file: read again, keys: %(keys)d",
        "the keys of the file are in force",
    )
    LEFT_OUT = (
        "left_out",
        _WARNING,
        False,
        "%(lines)d more lines of %(event)s were left out in %(seconds).0f s",
        f"of a sampled event, which has at most {LINES} lines in {PERIOD:g} s",
    )

    @property
    def fields(self) -> list[str]:
        """The names of the fields, in the order of the line."""
        return _FIELD.findall(self.text)

    def log(self, **fields: object) -> None:
        """Write a line with these fields; no key, no query string and no job data may be among them."""
        if log.isEnabledFor(self.level) and (not self.sampled or _sampler.lets(self)):
            log.log(self.level, self.text, *([fields] if fields else ()), extra={"event": self.value})


class _Sampler:
    """Lets so many lines of each event through in a period."""

    def __init__(self) -> None:
        self._periods: dict[LogEvent, tuple[float, int]] = {}  # since when, by monotonic time, and how many lines

    def lets(self, event: LogEvent) -> bool:
        now = time.monotonic()
        since, lines = self._periods.get(event, (now, 0))
        if now - since > PERIOD:
            self._end(event)
            since, lines = now, 0
        self._periods[event] = since, lines + 1
        return lines < LINES

    def tick(self, now: float) -> None:
        for event, (since, _) in list(self._periods.items()):
            if now - since > PERIOD:
                self._end(event)

    def _end(self, event: LogEvent) -> None:
        since, lines = self._periods.pop(event)
        if lines > LINES:
            LogEvent.LEFT_OUT.log(lines=lines - LINES, event=event.value, seconds=time.monotonic() - since)


_sampler: Final = _Sampler()


def tick() -> None:
    """Say what has been left out, once a second."""
    _sampler.tick(time.monotonic())
