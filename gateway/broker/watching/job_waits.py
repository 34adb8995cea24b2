"""Waiting for jobs to end: one listener per queue and shard for everybody who waits for a job to complete or fail.

A job that is removed ends, too. BullMQ tells of one that is removed by itself; of many that are removed together
(`clean`, `drain`, `obliterate`, the children of a job) nobody is told, so there is a look now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from msgspec import Raw

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import pack_command, resolve
from bullmq_proxy.gateway.broker.watching.event_reader import EventReader
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.values.json_text import json_text
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.events import StreamEvent, StreamId

_NULL: Final = Raw(b"null")
_MISSING: Final = -1  # isFinished-3.lua, as those that follow
_UNFINISHED, _COMPLETED = 0, 1
_ENDS: Final = ("completed", "failed", "removed")

LOOK: Final = 5.0
"""Seconds between two looks whether the jobs that are waited for are still there."""

SETTLE: Final = 0.5
"""Seconds for the event of a job that was removed when it was completed: it may still be on its way."""

_AT_A_TIME: Final = 256  # jobs that one EXISTS asks for
_MOST_NEW: Final = 10_000  # ends that are kept while jobs are being added whose ids are not known yet


class JobWaits:
    """Who waits for which job of one queue to end. Costs one reader of the events, however many wait."""

    def __init__(self, queue: Queue, reader: Callable[[], EventReader], on_empty: Callable[[JobWaits], None]) -> None:
        """Make one; it watches while anybody waits.

        Args:
            queue: whose jobs are waited for.
            reader: gives the reader of the queue's events.
            on_empty: is told when nobody waits any more.
        """
        self.queue = queue
        self._reader = reader
        self._on_empty = on_empty
        self._awaited: dict[str, set[asyncio.Future[Raw]]] = {}
        self._waiting = 0
        self._watching: asyncio.Task[EventReader] | None = None
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.TimerHandle | None = None
        self._adding = 0  # jobs that are to be waited for once they have an id
        self._new_ends: dict[str, StreamEvent] = {}  # that came meanwhile

    async def wait(self, id: str) -> Raw:
        """Wait until a job has ended; gives its return value.

        Raises:
            GatewayError: CONFLICT with the reason, the job has failed; NOT_FOUND, there is no such job, or it was
                removed; or Redis is not reachable.
        """
        with self._attending():
            await self._watch()  # first: an end after that is seen, one before that is found
            return await self._wait(id)

    async def wait_for_new(self, add: Callable[[], Awaitable[tuple[str, bool]]]) -> Raw:
        """Wait until a job has ended that is yet to be added; no end is missed, nor one that removes the job.

        Args:
            add: adds it, and returns its id and whether it is new.

        Returns, raises:
            As `wait`; and what `add` raises.
        """
        with self._attending():
            await self._watch()
            self._adding += 1
            try:
                id, is_new = await add()
                event = self._new_ends.get(id)
            finally:
                self._adding -= 1
                if not self._adding:
                    self._new_ends.clear()
            return await self._wait(id, is_new=is_new, event=event)

    async def _wait(self, id: str, *, is_new: bool = False, event: StreamEvent | None = None) -> Raw:
        end: asyncio.Future[Raw] = self._loop.create_future()
        self._awaited.setdefault(id, set()).add(end)
        try:
            if event is not None:
                self._end(end, event)
            elif not is_new:  # a new one that is gone already has an event on its way
                self._ask(id, end)
            return await end
        finally:
            self._dismiss(id, end)
            del end  # an error's traceback holds this frame

    @contextmanager
    def _attending(self) -> Iterator[None]:
        """Stay while somebody waits."""
        self._waiting += 1
        if self._looking is None:
            self._looking = self._loop.call_later(LOOK, self._look)
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._on_empty(self)

    def _dismiss(self, id: str, end: asyncio.Future[Raw]) -> None:
        if not end.cancel() and not end.cancelled():
            end.exception()  # seen, should it be one that the caller was too late for
        self._awaited[id].discard(end)
        if not self._awaited[id]:
            del self._awaited[id]

    async def _watch(self) -> None:
        """Join the reader, all who wait together."""
        if self._watching is None or (self._watching.done() and self._watching.exception() is not None):
            self._watching = asyncio.create_task(self._join(), name=f"ends of jobs of {self.queue.name}")
        await asyncio.shield(self._watching)

    async def _join(self) -> EventReader:
        reader = self._reader()
        await reader.join(self)
        return reader

    async def close(self) -> None:
        """Leave the reader."""
        if self._looking is not None:
            self._looking.cancel()
        if (watching := self._watching) is not None:
            self._watching = None
            watching.cancel()
            await asyncio.wait((watching,))
            if not watching.cancelled() and watching.exception() is None:
                watching.result().leave(self)

    # Asking Redis

    def ask_again(self) -> None:
        """Ask once more after the link was down: the stream may have been trimmed meanwhile, or lost with its Redis."""
        if self._watching is not None and self._watching.done():  # else the first look is still to come
            for id, ends in self._awaited.items():
                self._ask_all(id, list(ends))

    def _ask(self, id: str, end: asyncio.Future[Raw], *, again: bool = False) -> None:
        keys = self.queue.keys("completed", "failed", id)
        self.queue.scripts["isFinished"].send(keys, [id, "1"], partial(self._answered, id, end, again))

    def _answered(self, id: str, end: asyncio.Future[Raw], again: bool, reply: Any) -> None:
        if isinstance(reply, Exception):
            if not again:  # else the link broke once more: the next time that it is up
                resolve(end, reply)
        elif reply[0] == _COMPLETED:
            resolve(end, _return_value(reply[1] if len(reply) > 1 else None))
        elif reply[0] == _MISSING:
            resolve(end, self._missing(id))
        elif reply[0] != _UNFINISHED:
            resolve(end, _failure(_text(reply[1] if len(reply) > 1 else None)))

    def missed(self, start: StreamId, end: StreamId) -> None:
        """Ask for all jobs whose end may have been among the events that are gone."""
        self.ask_again()

    def hear(self, event: StreamEvent) -> None:
        """Tell those who wait for a job that it has ended."""
        if event.name == "cleaned":
            self.look_again()
        if event.name not in _ENDS:
            return
        id = _text(event.fields.get(b"jobId"))
        if self._adding and len(self._new_ends) < _MOST_NEW:
            self._new_ends[id] = event
        for end in self._awaited.get(id, ()):
            self._end(end, event)

    def _end(self, end: asyncio.Future[Raw], event: StreamEvent) -> None:
        if event.name == "failed":
            resolve(end, _failure(_text(event.fields.get(b"failedReason"))))
        elif event.name == "completed":
            resolve(end, _return_value(event.fields.get(b"returnvalue")))
        else:
            resolve(end, self._missing(_text(event.fields.get(b"jobId"))))

    # Jobs that go without a word

    def _look(self) -> None:
        self._looking = self._loop.call_later(LOOK, self._look)
        if self.queue.link.is_up:
            self.look_again()

    def look_again(self) -> None:
        """Find out which of the jobs that are waited for are gone."""
        ids = list(self._awaited)
        for first in range(0, len(ids), _AT_A_TIME):
            some = ids[first : first + _AT_A_TIME]
            self.queue.link.send(pack_command("EXISTS", *self.queue.keys(*some)), partial(self._looked, some))

    def _looked(self, some: list[str], found: Any) -> None:
        if not isinstance(found, int) or found == len(some):
            return
        if len(some) > 1:
            for id in some:
                self.queue.link.send(pack_command("EXISTS", self.queue.key(id)), partial(self._looked, [id]))
        elif ends := self._awaited.get(some[0]):
            self._loop.call_later(SETTLE, self._ask_all, some[0], list(ends))

    def _ask_all(self, id: str, ends: list[asyncio.Future[Raw]]) -> None:
        for end in ends:
            if not end.done():
                self._ask(id, end, again=True)

    def _missing(self, id: str) -> GatewayError:
        return finished_error(_MISSING, command="isFinished", job_id=self.queue.key(id))


def _text(value: bytes | None) -> str:
    return text_of(value or b"")


def _return_value(value: bytes | None) -> Raw:
    return _NULL if value is None else json_text(value) or _NULL


def _failure(reason: str) -> GatewayError:
    return GatewayError(ErrorCode.CONFLICT, reason)
