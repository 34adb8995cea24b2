"""The end of each session that only calls functions."""

from __future__ import annotations

from bullmq_proxy.gateway.sessions.calling import Caller
from bullmq_proxy.gateway.sessions.interfaces import Work


class EndsWithCalls:
    """A session with nothing under way but its calls."""

    __slots__ = ()
    _caller: Caller

    def connection_lost(self) -> None:
        """Let the calls under way run to their end; their replies go nowhere."""
        self._caller.close()

    def drain(self, deadline: float) -> None:
        """End the calls that may take as long as they like; all others are replied to."""
        self._caller.drain()

    def retire(self) -> bool:
        """Return False: there are no jobs to finish."""
        return False

    @property
    def work(self) -> Work:
        """The calls under way."""
        return Work(0, None, self._caller.in_flight)

    @property
    def is_idle(self) -> bool:
        """Whether all calls have been replied to."""
        return not self._caller.in_flight
