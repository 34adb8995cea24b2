"""Penalties of a connection for what was no successful call, nor an answer to a job: so many a second are let pass."""

from __future__ import annotations

from typing import Final

from bullmq_proxy.gateway.values.token_bucket import TokenBucket

_SIZE: Final = 4096  # bytes of a long message that count as one more
_TIME: Final = 10.0  # s for which `bad_messages_per_second` can be used up at once


class Penalties(TokenBucket):
    """The penalties of one connection; time takes them off."""

    def are_too_many(self, size: int, now: float, rate: int) -> bool:
        """Count a message of `size` bytes at the loop time `now`; return whether `rate` a second are too few for it."""
        return not self.take(rate, now, 1 + size // _SIZE, seconds=_TIME)
