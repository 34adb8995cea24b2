"""The ledger: what the clients of one queue know of its jobs, in whatever order they tell it."""

from __future__ import annotations

import time
from collections import Counter


class Ledger:
    """What the clients of one queue know.

    Attributes:
        queue: its name.
        tried: ids of jobs that somebody wanted to add.
        added: those that were confirmed.
        voided: those of jobs that the server was told to forget.
        gone: ids of jobs that were confirmed and not there when the server was told to forget them: there must be none.
        pushes: how often each one came to a worker.
        late: answers that came too late, as the gateway said.
        heard: ids of jobs whose completion a watcher has heard of.
        missed: ids of jobs of which it may have missed that, as the gateway said.
    """

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.tried: set[str] = set()
        self.added: set[str] = set()
        self.voided: set[str] = set()
        self.gone: set[str] = set()
        self.pushes: Counter[str] = Counter()
        self.late = 0
        self.heard: set[str] = set()
        self.missed: set[str] = set()
        self._again: dict[str, list[str]] = {}
        self._history: dict[str, list[str]] = {}
        self._done: dict[str, int] = {}  # by job, that of the start whose completion was confirmed to the worker

    def pushed(self, id: str, start: int) -> None:
        """Take note that a job came to a worker, `start` being how often it was started then."""
        self.pushes[id] += 1
        self._note(id, f"start {start}")
        if start > self._done.get(id, start) and id not in self.voided:
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

    def gap(self) -> None:
        """Take note that a watcher was told that it has missed events."""
        self.missed |= self.tried - self.heard

    def void(self) -> None:
        """Take note that the server was told to forget all jobs, just now."""
        self.voided |= self.tried
        for each in (self.tried, self.added, self._done):
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
