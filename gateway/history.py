"""The history of the last hour: what has become of jobs in each step of ten seconds, of all queues and of the busiest.

Each shard adds what it has counted to its slot of the shared memory, once a second; whoever is asked sums up all slots.
The memory outlives the shards, so that a successor goes on where its predecessor has ended.

A slot has room for the busiest queues: one that has had none for long, or far less than another, gives its place up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from bullmq_proxy.gateway.broker.jobs.counts import Counts, Figures
from bullmq_proxy.gateway.rules import shapes
from bullmq_proxy.gateway.rules.options import now_ms
from bullmq_proxy.gateway.shared_memory import SERIES, STEPS, WIDTH, ShardMemory, Title

STEP: Final = 10_000
"""Milliseconds."""

_ALL: Final = 0  # the series of all queues
_NOBODY: Final[Title] = (0, 0)  # the title of a series that is free
_MINUTE: Final = 60_000 // STEP  # steps between two looks for busier queues
_NEWCOMERS: Final = 1000  # queues of a minute among which the busiest are found
_SLICE: Final = 1000  # queues whose counts are taken in one turn of the loop: 2 ms
_FAR_LESS: Final = 2  # a queue with so many times as many jobs takes the series of another


class History:
    """The history as one shard writes it, and as it shows that of all."""

    def __init__(self, memory: ShardMemory, counts: Counts, now: Callable[[], int] = now_ms) -> None:
        """Make one.

        Args:
            memory: where the shards keep theirs.
            counts: what this one counts.
            now: the time in ms since 1970.
        """
        self._memory = memory
        self._counts = counts
        self._now = now
        self._titles, self._cells = memory.history()
        # What the memory says counts: a predecessor that drains, or a successor, may give a series to another queue.
        self._places: dict[str, tuple[int, Title]] = {}
        self._recent: dict[str, int] = {}  # jobs of each queue since the last look for busier ones
        self._looked = self._now() // STEP

    def collect(self) -> bool:
        """Write down what was counted since the last time, of some queues; return whether there may be more."""
        step = self._now() // STEP
        if step - self._looked >= _MINUTE or step < self._looked:
            self._looked = step
            self._make_room(step)
        every: list[Figures] = []
        for name, figures in self._counts.take(_SLICE):
            every.append(figures)
            if name and (place := self._place(name, figures)):
                self._add(place, step, figures)
        if every:
            *sums, longest = zip(*every, strict=True)
            self._add(_ALL, step, Figures(*map(sum, sums))._replace(longest=max(longest)))
        return len(every) == _SLICE

    def collect_all(self) -> None:
        """Write down all that was counted."""
        while self.collect():
            pass

    def _place(self, name: str, figures: Figures) -> int:
        """Return the place of a queue's series; 0 where it has none."""
        place, title = self._places.get(name, (0, _NOBODY))
        if place and _title(self._titles, place) != title:
            del self._places[name]
            place = 0
        if not place and name not in self._recent:
            if len(self._recent) >= _NEWCOMERS:
                return 0
            place = self._claim(name)
        self._recent[name] = self._recent.get(name, 0) + figures.added + figures.started
        return place

    def _claim(self, name: str) -> int:
        """Return the series that a queue had before, or one that is free; 0 where there is none."""
        title, firsts = _title_of(name), self._titles.tolist()[2::2]
        if title[0] in firsts:  # nearly always enough: most of very many names are not there
            for place, taken in enumerate(self._taken(), 1):
                if taken == title:
                    self._places[name] = place, title
                    return place
        return self._give(firsts.index(0) + 1, name) if 0 in firsts else 0

    def _taken(self) -> list[Title]:
        """Return the titles of the queues' series, in the order of their places from 1 on."""
        numbers = self._titles.tolist()
        return list(zip(numbers[2::2], numbers[3::2], strict=True))

    def _give(self, place: int, name: str) -> int:
        """Give a series to another queue, and return its place."""
        title = _title_of(name)
        self._titles[2 * place], self._titles[2 * place + 1] = _NOBODY  # nobody reads it meanwhile
        start = place * STEPS * WIDTH
        for cell in range(start, start + STEPS * WIDTH, WIDTH):
            self._cells[cell] = 0.0
        self._titles[2 * place], self._titles[2 * place + 1] = title
        self._places[name] = place, title
        return place

    def _make_room(self, step: int) -> None:
        """Give the series of the idlest queues to those that had far more jobs of late."""
        recent, self._recent = self._recent, {}
        taken = self._taken()
        self._places = {name: (place, title) for name, (place, title) in self._places.items() if title in taken}
        newcomers = sorted(recent.keys() - self._places.keys(), key=recent.__getitem__, reverse=True)
        if not newcomers:
            return
        rates = [_jobs_of(self._cells, place, step) * _MINUTE / STEPS for place in range(1, SERIES)]
        for name, (place, _) in self._places.items():
            rates[place - 1] = max(rates[place - 1], recent.get(name, 0))
        idlest = sorted(range(1, SERIES), key=lambda place: rates[place - 1])
        for name, place in zip(newcomers, idlest, strict=False):
            if recent[name] <= rates[place - 1] * _FAR_LESS:
                break
            self._give(place, name)

    def _add(self, place: int, step: int, figures: Figures) -> None:
        cells, start = self._cells, (place * STEPS + step % STEPS) * WIDTH
        if cells[start] != step:
            for column in range(1, WIDTH):
                cells[start + column] = 0.0
            cells[start] = step
        for column, figure in enumerate(figures[:-1], start + 1):
            cells[column] += figure
        last = start + WIDTH - 1
        cells[last] = max(cells[last], figures.longest)

    # What it shows

    def show(self, queue: str | None) -> shapes.History:
        """Return the history of a queue, or of all, as all shards have seen it."""
        self.collect_all()
        step = self._now() // STEP
        columns = [[0] * STEPS for _ in range(WIDTH - 1)]
        added, completed, failed, started, waited, longest = columns
        title = None if queue is None else _title_of(queue)
        is_kept = False
        for titles, cells in self._memory.histories():
            for place in _places_of(titles, title):
                is_kept = True
                for at, figures in _steps(cells, place, step - STEPS + 1):
                    for column, figure in zip(columns[:-1], figures, strict=False):
                        column[at] += figure
                    longest[at] = max(longest[at], figures[-1])
        return {
            "step": STEP,
            "end": (step + 1) * STEP,
            "added": added,
            "completed": completed,
            "failed": failed,
            "waited": [round(total / count) if count else None for total, count in zip(waited, started, strict=True)],
            "longest": [most if count else None for most, count in zip(longest, started, strict=True)],
            "kept": is_kept,
        }


def _title_of(name: str) -> Title:
    """Return what stands for a queue: names are of any length."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _title(titles: memoryview[int], place: int) -> Title:
    return titles[2 * place], titles[2 * place + 1]


def _places_of(titles: memoryview[int], title: Title | None) -> Iterator[int]:
    if title is None:
        yield _ALL
    else:
        yield from (place for place in range(1, SERIES) if _title(titles, place) == title)


def _steps(cells: memoryview[float], place: int, first: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the steps of a series that were in the last hour: which one, from the `first` on, and its figures."""
    start = place * STEPS * WIDTH
    found = cells[start : start + STEPS * WIDTH].tolist()
    for cell in range(0, STEPS * WIDTH, WIDTH):
        at = int(found[cell]) - first
        if 0 <= at < STEPS:
            yield at, [int(figure) for figure in found[cell + 1 : cell + WIDTH]]


def _jobs_of(cells: memoryview[float], place: int, last: int) -> int:
    """Return how many jobs of a series were added or started in the hour that ends with a step."""
    return sum(figures[0] + figures[3] for _, figures in _steps(cells, place, last - STEPS + 1))
