"""The session of an Events connection: the queue's events, as they happen."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import msgspec

from bullmq_proxy.gateway.access.grants import Rights
from bullmq_proxy.gateway.broker.counters import Counters
from bullmq_proxy.gateway.broker.functions import BY_PATH, SUBSCRIBING, TABLE
from bullmq_proxy.gateway.broker.functions.renewing import renewed
from bullmq_proxy.gateway.broker.functions.table import unknown_function
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.watching.event_reader import Cursor, EventReader
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.sessions.interfaces import EventClient, Work
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import read
from bullmq_proxy.gateway.wire.connection_options import EventsOptions
from bullmq_proxy.gateway.wire.envelope import InvalidMessage, decode_request, err, ok
from bullmq_proxy.gateway.wire.events import StreamId, gap_data

_name: Final[Reader[str]] = Reader(str)


class EventsSession:
    """A client that watches one queue."""

    def __init__(
        self,
        queue: Queue,
        reader: EventReader,
        options: EventsOptions,
        client: EventClient,
        counters: Counters,
        rights: Rights | None = None,
    ) -> None:
        """Make a session; `prepare` registers it with the reader.

        Args:
            queue: that is watched.
            reader: of its events.
            options: of the connection.
            client: gets the events.
            counters: count what is delivered.
            rights: of the client's key, where it can say something.
        """
        self.subscription = options.subscription
        self._queue = queue
        self._reader = reader
        self._after = options.last_event_id
        self._client = client
        self._counters = counters
        self._rights = rights
        self._cursor: Cursor | None = None
        self._following: asyncio.Task[None] | None = None
        self._next_number = 0
        self._closed = False

    async def prepare(self) -> None:
        """Find the end of the stream before the client knows that it is connected: nothing after that is missed."""
        cursor = await self._reader.open(self)
        if self._closed:  # the client did not wait for it
            self._reader.leave(cursor)
        else:
            self._cursor = cursor

    def start(self) -> None:
        """Let the events through."""
        if self._cursor is not None:
            self._following = asyncio.create_task(self._follow(self._cursor), name=f"follow {self._queue.name}")

    async def _follow(self, cursor: Cursor) -> None:
        with suppress(OSError):  # the connection ended while it was waited for
            await self._reader.follow(cursor, self._after)

    def late_message_received(self, message: bytes) -> None:
        """Ignore it: no subscription matters any more."""

    def connection_lost(self) -> None:
        """Leave the reader."""
        self._closed = True
        if self._following is not None:
            self._following.cancel()
            self._following = None
        if self._cursor is not None:
            self._reader.leave(self._cursor)
            self._cursor = None

    def drain(self, deadline: float) -> None:
        """Events go on until the connection closes; the client resumes by id elsewhere."""

    def retire(self) -> bool:
        """Return False: there are no jobs to finish."""
        return False

    @property
    def work(self) -> Work:
        """Nothing: events come unasked."""
        return Work(0, None, 0)

    @property
    def is_idle(self) -> bool:
        """Always: what is not delivered here is resumed by id."""
        return True

    # The reader's side

    def deliver(self, data: bytes, id: str) -> None:
        """Send one event."""
        self._client.send_event(self._next_number, data, id)
        self._next_number += 1
        self._counters.events += 1

    def gap(self, start: StreamId, end: StreamId) -> None:
        """Say that the events between these ids are gone."""
        self._client.send_event(self._next_number, gap_data(start, end), "")
        self._next_number += 1
        self._counters.gaps += 1

    async def wait_writable(self) -> None:
        """Wait until the client has read most of what was sent."""
        await self._client.wait_writable()

    # The client's side

    def message_received(self, message: bytes) -> None:
        """Change the subscription, by `on` or `off` with event names; or take a fresh token."""
        self._client.penalize(len(message))
        try:
            request = decode_request(message)
        except InvalidMessage as error:
            self._client.send(err(error.id, error))
            return
        id = bytes(request.id)
        try:
            result = self._call(request.data.fn, request.data.args)
        except GatewayError as error:
            self._client.send(err(id, error))
        else:
            self._client.send(*ok(id, encode(result)))

    def _call(self, function: str, args: list[msgspec.Raw]) -> Any:
        if function == "renew" and self._rights is not None:
            return renewed(self._rights, *TABLE["renew"].bind(args))
        change = {"on": self.subscription.on, "off": self.subscription.off}.get(function)
        if change is None:
            raise unknown_function(function, SUBSCRIBING, BY_PATH)
        change(_read_names(args))
        return self.subscription.in_force()


def _read_names(args: list[msgspec.Raw]) -> list[str]:
    return [read(_name, text, f"args[{place}]") for place, text in enumerate(args) if bytes(text) != b"null"]
