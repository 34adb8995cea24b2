"""The ends of jobs: one watcher per queue and shard for everybody who waits for a job to be completed or to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import settle
from bullmq_proxy.gateway.broker.watching.event_reader import Cursor, EventReader
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.values.json_text import UNREADABLE, json_text
from bullmq_proxy.gateway.wire.events import StreamId, Subscription

_NULL: Final = Raw(b"null")
_MISSING: Final = -1  # isFinished-3.lua, as those that follow
_UNFINISHED, _COMPLETED = 0, 1


class _Fields(Struct):
    jobId: str = ""
    returnvalue: Raw = _NULL
    failedReason: str = ""


class _Event(Struct):
    event: str
    args: tuple[_Fields, str]


_decoder: Final = msgspec.json.Decoder(_Event)


class JobWaits:
    """Who waits for which job of one queue to end. Costs one reader of the events, however many wait."""

    def __init__(
        self, queue: Queue, reader: Callable[[Queue], EventReader], on_empty: Callable[[JobWaits], None]
    ) -> None:
        """Make one; it watches while anybody waits.

        Args:
            queue: whose jobs are waited for.
            reader: gives the reader of a queue's events.
            on_empty: is told when nobody waits any more.
        """
        self.queue = queue
        self.subscription = Subscription(["completed", "failed"])
        self._reader_of = reader
        self._on_empty = on_empty
        self._awaited: dict[str, set[asyncio.Future[Raw]]] = {}
        self._waiting = 0
        self._watching: asyncio.Task[tuple[EventReader, Cursor]] | None = None

    async def wait(self, id: str) -> Raw:
        """Wait until a job has ended; gives its return value.

        Raises:
            GatewayError: CONFLICT with the reason, the job has failed; NOT_FOUND, there is no such job; or Redis is not
                reachable.
        """
        end: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(id, set()).add(end)
        self._waiting += 1
        try:
            await self._watch()  # first: an end after that is seen, one before that is found
            self._look(id, end)
            return await end
        finally:
            self._dismiss(id, end)

    def _dismiss(self, id: str, end: asyncio.Future[Raw]) -> None:
        if not end.cancel() and not end.cancelled():
            end.exception()  # seen, should it be one that the caller was too late for
        self._awaited[id].discard(end)
        if not self._awaited[id]:
            del self._awaited[id]
        self._waiting -= 1
        if not self._waiting:
            self._on_empty(self)
            if self._watching is not None:
                self._watching.add_done_callback(_leave)
                self._watching = None

    async def _watch(self) -> None:
        """Join the reader, all who wait together."""
        if self._watching is None or (self._watching.done() and self._watching.exception() is not None):
            self._watching = asyncio.create_task(self._open(), name=f"ends of jobs of {self.queue.name}")
        await asyncio.shield(self._watching)

    async def _open(self) -> tuple[EventReader, Cursor]:
        reader = self._reader_of(self.queue)
        cursor = await reader.open(self)
        await reader.follow(cursor, None)
        return reader, cursor

    # Looking

    def look_again(self) -> None:
        """The link was down: what was written to the stream meanwhile may have been trimmed, or lost with its Redis."""
        if self._watching is not None and self._watching.done():  # else the first look is still to come
            for id, ends in self._awaited.items():
                for end in ends:
                    self._look(id, end, again=True)

    def _look(self, id: str, end: asyncio.Future[Raw], *, again: bool = False) -> None:
        keys = self.queue.keys("completed", "failed", id)
        self.queue.scripts["isFinished"].send(keys, [id, "1"], partial(self._looked, id, end, again))

    def _looked(self, id: str, end: asyncio.Future[Raw], again: bool, reply: Any) -> None:
        if isinstance(reply, Exception):
            if not again:  # else the link broke once more: the next time that it is up
                settle(end, reply)
        elif reply[0] == _COMPLETED:
            value = reply[1] if len(reply) > 1 else None
            settle(end, _NULL if value is None else json_text(value) or _NULL)
        elif reply[0] == _MISSING:
            settle(end, finished_error(_MISSING, command="isFinished", job_id=self.queue.key(id)))
        elif reply[0] != _UNFINISHED:
            settle(end, _failure((reply[1] or b"").decode(errors="replace") if len(reply) > 1 else ""))

    # What the reader asks of a watcher

    def deliver(self, data: bytes) -> None:
        """One event."""
        try:
            event = _decoder.decode(data)
        except UNREADABLE:
            return  # no event of BullMQ's own
        fields = event.args[0]
        for end in self._awaited.get(fields.jobId, ()):
            settle(end, _failure(fields.failedReason) if event.event == "failed" else fields.returnvalue)

    def gap(self, start: StreamId, end: StreamId) -> None:
        """Nothing is resumed."""

    async def drained(self) -> None:
        """Nothing to wait for."""

    def overrun(self) -> None:
        """Nothing is resumed."""


def _leave(watching: asyncio.Task[tuple[EventReader, Cursor]]) -> None:
    if not watching.cancelled() and watching.exception() is None:
        reader, cursor = watching.result()
        reader.leave(cursor)


def _failure(reason: str) -> GatewayError:
    return GatewayError(ErrorCode.CONFLICT, reason)
