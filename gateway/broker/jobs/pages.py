"""Reading the jobs of whole ranges page by page: no call holds Redis for long, and no result is without end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.jobs import loaded_job, to_hash
from bullmq_proxy.gateway.rules.shapes import Job
from bullmq_proxy.gateway.values.text import text_of

LISTS: Final = ("wait", "active", "paused")
"""Types that Redis has as lists, the oldest job last."""

MOST_BYTES: Final = 64 * 2**20
"""Of all hashes that one call reads."""

_PAGE: Final = 500  # jobs that one call of a script reads
_PAGE_BYTES: Final = 2**22  # and bytes, about
_IDS: Final = 20_000  # ids that one call of a script reads
_BACKFILL: Final = 5  # getJobs-1.lua: ranges that it looks at to make up for ids whose hash is gone


async def read_range(queue: Queue, types: Sequence[str], start: int, end: int, *, asc: bool) -> list[Job]:
    """Return the jobs of some types, each once, as BullMQ's getJobs gives them.

    The ids of a type are read first, and then their hashes: jobs that come and go meanwhile shift nothing, except for
    ranges of more than `_IDS`. BullMQ reads both in one script, which holds Redis for as long as the jobs are large.

    Args:
        queue: whose jobs they are.
        types: as they are stored, each once.
        start: counts within each type, from the end where it is negative.
        end: the last one, in the same way.
        asc: the oldest first.

    Raises:
        GatewayError: INVALID_ARGUMENTS when the hashes are larger than `MOST_BYTES` together.
    """
    jobs = _Jobs(queue)
    sizes = await queue.scripts["getCounts"].run(queue.keys(""), types)
    for type, size in zip(types, sizes, strict=True):
        window = _window(start, end, size)
        if window.most:
            await jobs.read(type, window, asc=asc)
    return list(jobs.found.values())


def count_bytes(so_far: int, more: int) -> int:
    """Return the sum of some lengths.

    Raises:
        GatewayError: INVALID_ARGUMENTS when it is larger than `MOST_BYTES`.
    """
    if so_far + more > MOST_BYTES:
        raise invalid_arguments(
            f"These jobs have more than {MOST_BYTES >> 20} MiB: ask for fewer, by `start` and `end`"
        )
    return so_far + more


@dataclass(frozen=True, slots=True)
class _Window:
    """A range in one type: from `first` on, `stop` not included, at most `most` jobs of it."""

    first: int
    stop: int
    most: int


def _window(start: int, end: int, size: int) -> _Window:
    if start < 0 or end < 0:
        first = max(start + size, 0) if start < 0 else start
        stop = min((end + size if end < 0 else end) + 1, size)
        return _Window(first, stop, max(stop - first, 0))
    most = max(end - start + 1, 0)
    stop = min(start + _BACKFILL * most, size)
    return _Window(start, stop, min(most, max(stop - start, 0)))


class _Jobs:
    """What has been read, by id."""

    def __init__(self, queue: Queue) -> None:
        self.found: dict[bytes, Job] = {}
        self._queue = queue
        self._size = 0

    async def read(self, type: str, window: _Window, *, asc: bool) -> None:
        left = window.most
        async for ids in self._ids(type, window, asc=asc):
            at = 0
            while at < len(ids) and left:
                page = ids[at : at + min(_PAGE, left)]
                size, *hashes = await self._queue.scripts["readJobs"].run(self._queue.keys(""), [_PAGE_BYTES, *page])
                self._size = count_bytes(self._size, size)
                left -= self._take_all(zip(page, hashes, strict=False))
                at += len(hashes)
            if not left:
                return

    async def _ids(self, type: str, window: _Window, *, asc: bool) -> AsyncIterator[list[bytes]]:
        step = min(max(window.most, _PAGE), _IDS)
        for first in range(window.first, window.stop, step):
            last = min(first + step, window.stop) - 1
            args = [first, last, "1" if asc else "0", type]
            [ids] = await self._queue.scripts["getRanges"].run(self._queue.keys(""), args)
            yield ids[::-1] if asc and type in LISTS else ids

    def _take_all(self, jobs: Iterable[tuple[bytes, list[bytes]]]) -> int:
        """Keep those that are there, and return how many."""
        return sum([self._take(id, flat) for id, flat in jobs])

    def _take(self, id: bytes, flat: list[bytes]) -> bool:
        if flat and id not in self.found:
            self.found[id] = loaded_job(text_of(id), to_hash(flat), self._queue.qualified)
        return bool(flat)
