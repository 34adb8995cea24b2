"""What Redis refuses at the moment, over all queues of a shard: the log hears of its beginning and of its end."""

from __future__ import annotations

from typing import Final

from bullmq_proxy.gateway.log_events import LogEvent

_MOST: Final = 50  # kinds of trouble at a time; further ones have no line


class Troubles:
    """The troubles of a shard. Hundreds of queues that fail for one reason, again and again, are one of them.

    Attributes:
        now: the queues in trouble, by what was done and why it failed; false when there are none.
    """

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], set[str]] = {}
        self._most: dict[tuple[str, str], int] = {}  # queues at a time

    def begin(self, doing: str, queue: str, error: object) -> None:
        """Take note that something has failed for a queue.

        Args:
            doing: what, such as `fetching from`; the log has it before the name of the first queue.
            queue: its name.
            error: why.
        """
        kind = (doing, str(error))
        if kind not in self.now:
            if len(self.now) >= _MOST:
                return
            self.now[kind] = set()
            # The text: a record that is kept would keep the error.
            LogEvent.TROUBLE.log(doing=doing, queue=queue, reason=kind[1])
        queues = self.now[kind]
        queues.add(queue)
        self._most[kind] = max(len(queues), self._most.get(kind, 0))

    def forget(self, queue: str) -> None:
        """Count a queue out that nobody uses any more."""
        for kind, queues in list(self.now.items()):
            queues.discard(queue)
            if not queues:
                del self.now[kind], self._most[kind]

    def end(self, doing: str, queue: str) -> None:
        """Take note that it works for a queue. Where time counts, ask first whether there is any trouble `now`."""
        for kind in [kind for kind, queues in self.now.items() if kind[0] == doing and queue in queues]:
            self.now[kind].discard(queue)
            if not self.now[kind]:
                del self.now[kind]
                LogEvent.TROUBLE_OVER.log(doing=doing, queue=queue, queues=self._most.pop(kind))
