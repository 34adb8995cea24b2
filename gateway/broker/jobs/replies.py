"""Replies that can be large: how large one may be, and how many of them a shard puts together at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import invalid_arguments

MOST_BYTES: Final = 16 * 2**20
"""Of what one call reads, with `_OVERHEAD` for each entry. It is in memory about three times until it is sent."""

_SMALL: Final = 2**16  # bytes that a reply has without a place among the large ones
_PAGE: Final = 50  # entries that one script reads, and that we read in one turn of the loop: about 0.5 ms for each
_PAGE_BYTES: Final = 2**18
_PER_COMMAND: Final = 2  # that take Redis as long as a command
_OVERHEAD: Final = 128  # bytes, about, that an entry costs beside its own


class Reply:
    """What one call reads from Redis: pages of entries, whose bytes are counted.

    Use it by `async with`: a reply that becomes large waits for one of the shard's places, and leaves it at the end.
    """

    def __init__(self, queue: Queue, remedy: str) -> None:
        """Begin a reply.

        Args:
            queue: of any of the shard's connections: they share the places.
            remedy: what a client does about one that is too large, such as "ask for fewer, by `start` and `end`".
        """
        self.size = 0
        self._scripts = queue.scripts
        self._turns = queue.turns
        self._places = queue.large_replies
        self._has_place = False
        self._remedy = remedy

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._has_place:
            self._places.release()

    async def grow(self, size: int, entries: int) -> None:
        """Count some entries that were read.

        Raises:
            GatewayError: INVALID_ARGUMENTS when the reply has become larger than `MOST_BYTES`.
        """
        await self._admit(size + entries * _OVERHEAD)
        self.size += size + entries * _OVERHEAD

    async def _admit(self, more: int) -> None:
        if self.size + more > MOST_BYTES:
            raise invalid_arguments(f"The reply would have more than {MOST_BYTES >> 20} MiB: {self._remedy}")
        if self.size + more > _SMALL and not self._has_place:
            await self._places.acquire()
            self._has_place = True

    async def read(self, script: str, key: str, names: Sequence[Any]) -> AsyncIterator[tuple[Any, Any]]:
        """Read entries page by page.

        Args:
            script: `readJobs` or `readEntries`.
            key: its only one.
            names: of the entries, as the script takes them.

        Yields:
            Each name with its entry.
        """
        at, most = 0, 0
        while at < len(names):
            page = names[at : at + self._turns.share(_PAGE, _PER_COMMAND)]
            most = most or (_PAGE_BYTES if self._has_place else _SMALL)
            async with self._turns.of(-(-len(page) // _PER_COMMAND)):
                size, *entries = await self._scripts[script].run([key], [most, *page])
            if not entries:  # the first one is too large for a page
                await self._admit(size)
                most = size
                continue
            await self.grow(size, sum(map(bool, entries)))
            at, most = at + len(entries), 0
            for pair in zip(page, entries, strict=False):
                yield pair


async def scan(queue: Queue, command: str, key: str | bytes, cursor: Any, count: int) -> tuple[bytes, list[bytes]]:
    """Return the next cursor in a set (SSCAN, ZSCAN) or hash (HSCAN), and about `count` members, or names of fields."""
    if command == "HSCAN":
        cursor, found = await queue.scripts["scanFields"].run([key], [cursor, count])
    else:
        cursor, found = await queue.link.call(command, key, cursor, "COUNT", count, decode=False)
    return cursor, found
