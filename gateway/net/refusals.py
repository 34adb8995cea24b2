"""The refusals of a listener: counted by status or close code, and told to the log."""

from __future__ import annotations

from typing import Final

from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.wire.closing import Refusal

OTHER: Final = 0
"""Stands for statuses that no refusal here has by itself."""
CODES: Final[tuple[int, ...]] = (
    *(400, 401, 403, 404, 405, 408, 413, 414, 426, 429, 431, 500, 503, 505),
    *(refusal.value for refusal in Refusal),
    OTHER,
)
_LONGEST_PATH: Final = 200  # characters in the log


class Refusals:
    """Handshakes and requests that were refused before anything was done for them.

    Attributes:
        counts: by the code of `CODES` that the client got.
    """

    def __init__(self) -> None:
        """Begin to count."""
        self.counts = dict.fromkeys(CODES, 0)

    def note(self, code: int, address: str, target: str, key: str) -> None:
        """Count a refusal.

        Args:
            code: the status, or the close code that stands for it.
            address: of the client; empty on a Unix socket.
            target: that it has asked for; its query may hold a key, and is not kept. Empty where that is not known.
            key: the name of its key, where that was right.
        """
        self.counts[code if code in self.counts else OTHER] += 1
        path = target.partition("?")[0][:_LONGEST_PATH]
        LogEvent.REFUSED.log(address=address or "unix", path=path or "?", code=code, key=key or "?")
