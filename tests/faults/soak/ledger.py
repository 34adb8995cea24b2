"""The ledger: what the clients of one queue know of its jobs, in whatever order they tell it."""

from __future__ import annotations

import time
from collections import Counter


class Ledger:
    """What the clients of one queue know.

    Attributes:
        queue: its name.
        is_lossy: whether Redis promises to keep only what all servers have.
        tried: ids of jobs that somebody wanted to add.
        added: those that were confirmed.
        voided: those of jobs that the server was told to forget.
        gone: ids of jobs that were promised and are not there: there must be none.
        unpromised: ids of jobs that were confirmed and are not there, but were not seen on all servers before.
        pushes: how often each one came to a worker.
        late: answers that came too late, as the gateway said.
        heard: ids of jobs whose completion a watcher has heard of.
        missed: ids of jobs of which it may have missed that, as the gateway said.
    """

    def __init__(self, queue: str, *, is_lossy: bool = False) -> None:
        """Make an empty one; of one that `is_lossy` tell it what is `replicated`."""
        self.queue = queue
        self.is_lossy = is_lossy
        self.tried: set[str] = set()
        self.added: set[str] = set()
        self.voided: set[str] = set()
        self.gone: set[str] = set()
        self.unpromised: set[str] = set()
        self.pushes: Counter[str] = Counter()
        self.late = 0
        self.heard: set[str] = set()
        self.missed: set[str] = set()
        self._again: dict[str, list[str]] = {}
        self._history: dict[str, list[str]] = {}
        self._kept: set[str] = set()  # ids of jobs that all servers have
        self._kept_ends: set[str] = set()  # ids of those whose end they have
        self._done: dict[str, int] = {}  # by job, that of the start whose completion was confirmed to the worker

    def pushed(self, id: str, start: int) -> None:
        """Take note that a job came to a worker, `start` being how often it was started then."""
        self.pushes[id] += 1
        self._note(id, f"start {start}")
        is_promised = id in self._kept_ends or not self.is_lossy
        if start > self._done.get(id, start) and id not in self.voided and is_promised:
            self._again[id] = self._history[id]

    def finished(self, id: str, start: int) -> None:
        """Take note that the completion of this start of a job was confirmed to its worker."""
        self._done[id] = max(start, self._done.get(id, 0))
        self._note(id, f"end of {start}")

    def _note(self, id: str, what: str) -> None:
        self._history.setdefault(id, []).append(f"{what} at {time.monotonic():.2f}")

    def history(self, id: str) -> str:
        """Return what the clients were told of a job, in the order in which it came."""
        return f"{id}: {', '.join(self._history.get(id, ()))}"

    def lost(self) -> None:
        """Take note that an answer came too late."""
        self.late += 1

    def confirm(self, id: str) -> None:
        """Take note that the addition of a job was confirmed, unless the server has forgotten it since it was tried."""
        if id in self.tried:
            self.added.add(id)
            self._note(id, "added")

    @property
    def in_doubt(self) -> tuple[set[str], set[str]]:
        """The jobs, and those whose end, were confirmed, and which are not known to be on all servers."""
        return self.added - self._kept, self._done.keys() - self._kept_ends

    def replicated(self, added: set[str], ended: set[str]) -> None:
        """Take note of jobs that all servers have, and of those whose end they have."""
        self._kept |= added
        self._kept_ends |= ended

    def miss(self, ids: set[str]) -> None:
        """Take note that confirmed jobs are not there."""
        unpromised = self.in_doubt[0] & ids if self.is_lossy else set()
        self.unpromised |= unpromised
        self.gone |= ids - unpromised

    def gap(self) -> None:
        """Take note that a watcher was told that it has missed events."""
        self.missed |= self.tried - self.heard

    def void(self) -> None:
        """Take note that the server was told to forget all jobs, just now."""
        self.voided |= self.tried
        for each in (self.tried, self.added, self._done, self._kept, self._kept_ends):
            each.clear()

    @property
    def done(self) -> set[str]:
        """The ids of the jobs whose completion was confirmed to their worker."""
        return set(self._done)

    @property
    def again(self) -> list[str]:
        """The jobs that were started again after their end was confirmed, as it came: there must be none.

        A push that comes late tells of an earlier start. One that comes before may tell of a later start: on a master
        that was replaced, and did not keep it.
        """
        return [f"{id}: {', '.join(history)}" for id, history in self._again.items()]
