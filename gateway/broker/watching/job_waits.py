"""Waiting for jobs to end: one listener per queue and shard for everybody who waits for a job to complete or fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec import Raw

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.socket import resolve
from bullmq_proxy.gateway.broker.watching.event_reader import EventReader
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error
from bullmq_proxy.gateway.values.json_text import json_text
from bullmq_proxy.gateway.values.text import text_of
from bullmq_proxy.gateway.wire.events import StreamEvent

_NULL: Final = Raw(b"null")
_MISSING: Final = -1  # isFinished-3.lua, as those that follow
_UNFINISHED, _COMPLETED = 0, 1


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
            self._ask(id, end)
            return await end
        finally:
            self._dismiss(id, end)
            del end  # an error's traceback holds this frame

    def _dismiss(self, id: str, end: asyncio.Future[Raw]) -> None:
        if not end.cancel() and not end.cancelled():
            end.exception()  # seen, should it be one that the caller was too late for
        self._awaited[id].discard(end)
        if not self._awaited[id]:
            del self._awaited[id]
        self._waiting -= 1
        if not self._waiting:
            self._on_empty(self)

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
                for end in ends:
                    self._ask(id, end, again=True)

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
            resolve(end, finished_error(_MISSING, command="isFinished", job_id=self.queue.key(id)))
        elif reply[0] != _UNFINISHED:
            resolve(end, _failure(_text(reply[1] if len(reply) > 1 else None)))

    def hear(self, event: StreamEvent) -> None:
        """Tell those who wait for a job that it has ended."""
        if event.name not in ("completed", "failed"):
            return
        for end in self._awaited.get(_text(event.fields.get(b"jobId")), ()):
            if event.name == "failed":
                resolve(end, _failure(_text(event.fields.get(b"failedReason"))))
            else:
                resolve(end, _return_value(event.fields.get(b"returnvalue")))


def _text(value: bytes | None) -> str:
    return text_of(value or b"")


def _return_value(value: bytes | None) -> Raw:
    return _NULL if value is None else json_text(value) or _NULL


def _failure(reason: str) -> GatewayError:
    return GatewayError(ErrorCode.CONFLICT, reason)
