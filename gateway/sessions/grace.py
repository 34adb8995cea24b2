"""The grace time of a Worker connection: for how long its jobs are kept when it breaks, and for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bullmq_proxy.gateway.broker.consuming.grace import is_secret, new_secret


class Grace:
    """The claim of one client to come back.

    Attributes:
        secret: that it has to show then.
        moved_to: the secret of the connection on which it has; empty while it has not.
    """

    def __init__(self, milliseconds: int, id: str, key: str) -> None:
        """Make a claim.

        Args:
            milliseconds: after which it is given up.
            id: of the worker in the roster.
            key: the name of the client's key.
        """
        self.secret = new_secret(id)
        self.moved_to = ""
        self._time = milliseconds / 1000
        self._key = key
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the connection is gone."""
        return self._timer is not None

    def begin(self, give_up: Callable[[], None]) -> None:
        """Call `give_up` when the time has passed; the connection is gone."""
        self._timer = asyncio.get_running_loop().call_later(self._time, give_up)

    def end(self) -> None:
        """Give the claim up now, without telling anybody."""
        if self._timer is not None:
            self._timer.cancel()

    def is_for(self, secret: str, key: str) -> bool:
        """Return whether a client is the one whose claim this is, by the secret and the key that it shows."""
        return key == self._key and is_secret(secret, self.secret)
