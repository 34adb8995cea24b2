"""How long commands that a server refuses to execute are sent again, before their callers hear of it."""

from __future__ import annotations

import asyncio
from typing import Final

_QUIET: Final = 5.0  # s without a refusal, after which the next one begins a new trouble


class Patience:
    """Counts the time from the first refusal of a trouble."""

    def __init__(self, limit: float) -> None:
        """Make one that lasts for `limit` seconds."""
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._since = self._last = float("-inf")

    def has_ended(self) -> bool:
        """Take note of a refusal, and return whether it comes too late for another try."""
        now = self._loop.time()
        if now - self._last > _QUIET:
            self._since = now
        self._last = now
        return now - self._since >= self._limit
