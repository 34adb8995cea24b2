"""The circuit breaker of a registration: whether its endpoint is asked, and when it is tried again. It does no I/O."""

from __future__ import annotations

import enum
from typing import Final

THRESHOLD: Final = 5
"""Requests in a row that fail because the endpoint is down, until it is left alone."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until one request tries whether it is back; doubled each time that it is not."""


@enum.unique
class State(enum.Enum):
    """The states of a breaker."""

    CLOSED = "the endpoint is asked"
    OPEN = "it is down, and left alone"
    HALF_OPEN = "one request finds out whether it is back"


CLOSED, OPEN, HALF_OPEN = State


class Breaker:
    """Counts how an endpoint answers.

    Attributes:
        state: now; `is_due` and what is told change it.
        pause: seconds until the next try, once it is open.
        until: the time of that try, by the clock of `failed`.
    """

    def __init__(self) -> None:
        self.state = CLOSED
        self.pause = FIRST_PAUSE
        self._failures = 0
        self.until = 0.0

    def answered(self) -> bool:
        """Note that the endpoint is there, whatever it says; return whether it was taken for down."""
        was_down = self.state is not CLOSED
        self.state, self.pause, self._failures = CLOSED, FIRST_PAUSE, 0
        return was_down

    def failed(self, now: float) -> bool:
        """Note that the endpoint is down; return whether the breaker opens with it. `now` in seconds of any clock."""
        if self.state is OPEN:  # of requests that were under way
            return False
        self._failures += 1
        if self.state is CLOSED and self._failures < THRESHOLD:
            return False
        if self.state is HALF_OPEN:
            self.pause = min(self.pause * 2, LONGEST_PAUSE)
        self.state, self.until = OPEN, now + self.pause
        return True

    def is_due(self, now: float) -> bool:
        """Return whether an open breaker lets one request try again now, and go over to that."""
        if self.state is OPEN and now >= self.until:
            self.state = HALF_OPEN
            return True
        return False
