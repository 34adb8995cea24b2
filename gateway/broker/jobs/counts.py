"""Counts, for the history, of the jobs of each queue that were added or ended since somebody last looked.

To count is an addition. A queue says once that it has changed, so that whoever looks sees no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.values.histogram import JOBS, Histogram

_FIRST: Final = (b"1", None)  # times that a job was started; older versions of BullMQ do not count them


class Figures(NamedTuple):
    """Counts of jobs.

    Attributes:
        added: that are new.
        completed: for good, as the failed ones.
        failed: not those that are tried again.
        started: given to a worker for the first time.
        waited: milliseconds that those had waited, all together.
        longest: that one of them had waited.
    """

    added: int = 0
    completed: int = 0
    failed: int = 0
    started: int = 0
    waited: int = 0
    longest: int = 0


class QueueCounts:
    """The counts of one queue, since they were taken last; attributes are those of `Figures`.

    Attributes:
        name: of the queue.
    """

    __slots__ = (
        "_changed",
        "_has_changed",
        "_waiting",
        "added",
        "completed",
        "failed",
        "longest",
        "name",
        "started",
        "waited",
    )

    def __init__(self, name: str, changed: list[QueueCounts], waiting: Histogram) -> None:
        """Make counts that are entered into `changed` with their first change; `waiting` is of all queues."""
        self.name = name
        self._waiting = waiting
        self._changed = changed
        self._clear()

    def _clear(self) -> None:
        self.added = self.completed = self.failed = self.started = self.waited = self.longest = 0
        self._has_changed = False

    def add(self) -> None:
        """Count a new job."""
        self.added += 1
        if not self._has_changed:
            self._note()

    def end(self, state: str) -> None:
        """Count a job that has left `active` for a state."""
        if state == "completed":
            self.completed += 1
        elif state == "failed":
            self.failed += 1
        if not self._has_changed:
            self._note()

    def start(self, fields: Hash, delay: int) -> None:
        """Count a job that is given to a worker.

        It has waited since it was added, or since its delay was over.

        Args:
            fields: its hash.
            delay: that it was added with, in ms: what stands in the hash is 0 by then.
        """
        if fields.get(b"ats") not in _FIRST:
            return
        try:
            waited = now_ms() - int(fields[b"timestamp"]) - delay
        except (KeyError, ValueError):
            return
        self.started += 1
        if waited > 0:  # nothing but comparisons: each job comes by here
            self.waited += waited
            self.longest = max(self.longest, waited)
        self._waiting.add(max(waited, 0) / 1000)
        if not self._has_changed:
            self._note()

    def _note(self) -> None:
        self._has_changed = True
        self._changed.append(self)

    def take(self) -> Figures:
        """Return what was counted, and count from zero again."""
        figures = Figures(self.added, self.completed, self.failed, self.started, self.waited, self.longest)
        self._clear()
        return figures


class Counts:
    """The counts of all queues of a shard.

    Attributes:
        waiting: how long jobs had waited that were given to a worker for the first time, ever.
        running: how long jobs were in a worker's hands until its final answer was stored.
    """

    def __init__(self) -> None:
        self.waiting = Histogram(JOBS)
        self.running = Histogram(JOBS)
        self._changed: list[QueueCounts] = []

    def of(self, name: str) -> QueueCounts:
        """Return new counts of a queue; `name` is empty for one of another prefix, which has no history of its own."""
        return QueueCounts(name, self._changed, self.waiting)

    def take(self, most: int) -> Iterator[tuple[str, Figures]]:
        """Yield the names of queues, at most so many, and what was counted of them since they were taken last."""
        taken, self._changed[:most] = self._changed[:most], ()
        for counts in taken:
            yield counts.name, counts.take()
