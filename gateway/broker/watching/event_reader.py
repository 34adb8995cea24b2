"""The event stream of one queue: one reader per shard, fanned out to everybody who watches; resuming, and gaps.

BullMQ's Python `QueueEvents` ends for good on one error; this reader keeps its position over restarts of Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

from msgspec.structs import replace

from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.errors import of_read, will_pass
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.seats import Seat, Seats
from bullmq_proxy.gateway.broker.redis.socket import pack_command
from bullmq_proxy.gateway.broker.redis.tracker import Tracker
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.log_events import LogEvent
from bullmq_proxy.gateway.rules.jobs import to_hash
from bullmq_proxy.gateway.wire.events import StreamEvent, StreamId, Subscription, format_stream_id, parse_stream_id

log = logging.getLogger(__name__)

_BLOCK: Final = 10.0  # s; BullMQ's blockingTimeout
_BATCH: Final = 16  # entries of the first read
_LARGEST_BATCH: Final = 200
_PAGE: Final = 500  # entries per page of a resumed stream
_PAGE_BYTES: Final = 2**20  # of them, and of what is read at once, about
_BREATH: Final = 2000  # deliveries after which other connections get their turn
_RETRY: Final = 1.0  # s after an error reply
_READING: Final = "reading the events of"  # for the log
_START: Final[StreamId] = (0, 0)


class Listener(Protocol):
    """Who hears each event of a queue."""

    def hear(self, event: StreamEvent) -> None:
        """Take a live event."""

    def missed(self, start: StreamId, end: StreamId) -> None:
        """Take note that the live events between these ids are gone: nobody read them in time."""


class Watcher(Protocol):
    """What the reader needs of an Events session: it wants some events, and may resume where it was before."""

    subscription: Subscription

    def deliver(self, data: bytes, id: str) -> None:
        """Send one event: the `data` of its message, and the id of its entry."""

    def gap(self, start: StreamId, end: StreamId) -> None:
        """Say that the events between these ids are gone."""

    async def wait_writable(self) -> None:
        """Wait until the client has read enough for more."""


class Cursor:
    """Where one watcher stands in the stream."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.position: StreamId = _START
        self.is_live = False  # else it reads by itself what the others hear

    def hear(self, event: StreamEvent) -> None:
        """Deliver a live event."""
        if self.is_live and event.id > self.position:
            self.deliver(event)

    def step_back(self, position: StreamId) -> None:
        """Let live events come from an earlier position on, those of another stream."""
        if self.is_live:
            self.position = min(self.position, position)

    def missed(self, start: StreamId, end: StreamId) -> None:
        """Tell a watcher of live events of a gap; the others find it themselves."""
        if self.is_live and end > self.position:
            self.watcher.gap(max(start, self.position), end)

    def deliver(self, event: StreamEvent) -> None:
        """Deliver an event if the watcher wants it."""
        if self.watcher.subscription.wants(event.name):
            self.watcher.deliver(event.data, event.id_text)


class EventReader:
    """Reads the stream of one queue for all its listeners on this shard."""

    def __init__(
        self, queue: Queue, options: LinkOptions, seats: Seats, on_empty: Callable[[EventReader], None]
    ) -> None:
        """Make a reader; it starts with its first listener.

        Args:
            queue: whose events to read.
            options: those of the command link.
            seats: of the shard's readers.
            on_empty: is told when the last listener has left.
        """
        self.queue = queue
        self._options = replace(options, name=f"{queue.client_name}:qe", deadline=_BLOCK + options.deadline)
        self._seat = Seat(seats, queue.link)
        self._link: Link | None = None  # while it has a seat
        self._key = queue.key("events")
        self._on_empty = on_empty
        self._listeners: set[Listener] = set()
        self._position = _START
        self._batch = _BATCH
        self._read_by: tuple[Link | Tracker, int] | None = None  # what told of new entries at the last read
        self._was_away = False  # some may have come and gone since
        self._task: asyncio.Task[None] | None = None

    @property
    def watchers(self) -> int:
        """How many sessions watch the queue: not those who wait for the end of a job, and listen, too."""
        return len(self._cursors)

    @property
    def _cursors(self) -> list[Cursor]:
        return [listener for listener in self._listeners if isinstance(listener, Cursor)]

    async def join(self, listener: Listener) -> StreamId:
        """Let a listener hear every event from now on; return the id of the newest one before.

        Raises:
            GatewayError: Redis is not reachable.
        """
        self._listeners.add(listener)  # before the look at the stream's end: what comes after it is then heard
        try:
            end = await self._end()
        except BaseException:
            self.leave(listener)
            raise
        if self._task is None:
            self._position = end
            self._task = asyncio.create_task(self._read(), name=f"events {self.queue.name}")
        return end

    async def open(self, watcher: Watcher) -> Cursor:
        """Take a watcher in: it gets every event from now on, from the moment that `follow` is awaited.

        Raises:
            GatewayError: Redis is not reachable.
        """
        cursor = Cursor(watcher)
        cursor.position = await self.join(cursor)
        return cursor

    async def follow(self, cursor: Cursor, after: StreamId | None) -> None:
        """Deliver what the watcher missed since `after`, if it says so, then let live events through."""
        if after is not None:
            if (end := await self._lost_until(after)) is not None:
                cursor.watcher.gap(*sorted((after, end)))
                after = min(after, end)
            cursor.position = after
            await self._catch_up(cursor)
        while self._position > cursor.position:  # the others have heard more since
            await self._catch_up(cursor)
        cursor.is_live = True

    def leave(self, listener: Listener) -> None:
        """Let a listener, or a watcher's cursor, go."""
        self._listeners.discard(listener)
        if not self._listeners:
            self._on_empty(self)

    async def close(self) -> None:
        """Stop reading."""
        self._seat.leave()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None
        if self._link is not None:
            await self._link.close()

    async def _end(self) -> StreamId:
        """Return the id of the newest entry."""
        try:
            entries = await self.queue.link.call("XREVRANGE", self._key, "+", "-", "COUNT", 1, decode=False)
        except GatewayError as error:
            raise of_read(error) from None
        return parse_stream_id(entries[0][0].decode()) if entries else _START

    # Catching up

    async def _catch_up(self, cursor: Cursor) -> None:
        """Deliver the entries behind the cursor, at the client's pace: what it does not read stays in Redis."""
        more, is_first = True, True
        while more:
            heard = self._position
            oldest, more, entries = await self._page(cursor.position)
            begin = parse_stream_id(oldest.decode()) if oldest else heard
            if begin > cursor.position and not is_first:  # trimmed meanwhile
                cursor.watcher.gap(cursor.position, begin)
            for id_text, flat in entries:
                event = StreamEvent(id_text, to_hash(flat))
                self._give(cursor.deliver, event)
                cursor.position = event.id
            if not entries:
                cursor.position = max(cursor.position, heard)
            is_first = False
            await cursor.watcher.wait_writable()

    async def _page(self, after: StreamId) -> tuple[bytes | None, bool, list[Any]]:
        """Return the id of the oldest entry, whether there may be more than a page, and the entries behind `after`."""
        script, args = self.queue.scripts["readEvents"], [format_stream_id(after), _PAGE, _PAGE_BYTES]
        oldest, more, entries = await self._patiently(partial(script.run, [self._key], args)) or (None, False, [])
        return oldest, bool(more), entries

    async def _patiently(self, ask: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        """Return the array that a reading command replies with; wait for Redis as long as it takes.

        The watcher can leave at any time. An error reply, such as that to XINFO when there is no stream, is no array.
        """
        while True:
            try:
                reply = await ask()
            except GatewayError as error:
                if not will_pass(error):
                    return []
                self.queue.troubles.begin(_READING, self.queue.name, error)
                await asyncio.sleep(_RETRY)
            else:
                return reply

    async def _lost_until(self, after: StreamId) -> StreamId | None:
        """Return the id of the oldest entry that is left if the stream may have been trimmed beyond `after`, else None.

        That of the newest one where it is older than `after`: the server has become the master without that entry.
        Redis does not keep what it trimmed; but when `after` itself is gone, and what is oldest now is younger, and
        something was trimmed at all (`entries-added` > `length`), events may be missing.
        """
        info = await self._info()
        if not info:
            return None
        # Redis before 7.0 does not count what it added: there an id that is gone was trimmed.
        trimmed = info[b"entries-added"] > info[b"length"] if b"entries-added" in info else after > _START
        first, newest = info[b"first-entry"], parse_stream_id(info[b"last-generated-id"].decode())
        if newest < after:
            return newest
        oldest = parse_stream_id(first[0].decode()) if first else newest
        return oldest if trimmed and oldest > after else None

    async def _info(self) -> dict[bytes, Any]:
        flat = await self._patiently(partial(self.queue.link.call, "XINFO", "STREAM", self._key, decode=False))
        pairs = iter(flat)
        return dict(zip(pairs, pairs, strict=True))

    # Reading

    async def _read(self) -> None:
        while True:
            try:
                entries = await (self._block() if self._seat.take() else self._sleep())
            except GatewayError as error:
                self._was_away = True
                if self._is_up:  # an error reply; the links themselves say when they are down
                    self.queue.troubles.begin(_READING, self.queue.name, error)
                    await asyncio.sleep(_RETRY)
                continue
            except Exception:  # a bug must not leave all watchers of the queue without a word
                log.exception("reading the events of %s", self.queue.name)
                await asyncio.sleep(_RETRY)
                continue
            if self.queue.troubles.now:
                self.queue.troubles.end(_READING, self.queue.name)
            if entries:
                self._seat.stir()
                await self._fan_out(entries)
            del entries  # they can be large, and the next ones may take long

    @property
    def _is_up(self) -> bool:
        return self._link.is_up if self._link is not None else self._seat.tracker.is_up and self.queue.link.is_up

    async def _block(self) -> list[Any]:
        """Return the next entries, on a connection of its own; none when the time is up."""
        if (link := self._link) is None:
            link = self._link = self.queue.link.sibling(self._options)
            await link.start()
        await link.wait_up()
        if self._may_have_missed(link):
            return await self._look_back()
        reply = await link.call(*self._command("BLOCK", int(_BLOCK * 1000)), decode=False)
        if self._may_have_missed(link):  # it was sent on a later connection than the one that was up
            return await self._look_back()
        return reply[0][1] if reply else []

    async def _sleep(self) -> list[Any]:
        """Return the next entries, or none when there may be some now."""
        if self._link is not None:  # another one has the seat now
            await self._link.close()
            self._link = None
        tracker = self._seat.tracker
        tracker.open()
        change = tracker.expect(self._key, self.queue.link)
        try:
            if tracker.is_up:
                try:
                    await tracker.call(pack_command("EXISTS", self._key), 1, self.queue.link)
                except GatewayError:
                    if change.done():
                        return []  # the slot has moved
                    raise
                # From here on a change is told.
                # Not on that connection: large events would hold up others, and Redis gives up those with much unread.
                self._was_away = self._was_away or not self.queue.link.is_up
                await self.queue.link.wait_up()
                if self._may_have_missed(tracker):
                    if entries := await self._look_back():
                        return entries
                else:
                    reply = await self.queue.link.call(*self._command(), decode=False)
                    entries = reply[0][1] if reply else []
                    if self._may_have_missed(tracker):
                        entries = await self._look_back()
                    if entries:
                        return entries
            await change
        finally:
            tracker.forget(self._key, change)
        return []

    def _may_have_missed(self, by: Link | Tracker) -> bool:
        """Return whether a connection was lost since the last read; Redis keeps so many events and no more."""
        before, self._read_by = self._read_by, (by, by.times_up)
        if before is not None and before != self._read_by:
            self._was_away = True
        return self._was_away

    async def _look_back(self) -> list[Any]:
        """Return the next entries, and tell those who listen if some before them may be gone."""
        position = self._position
        end = await self._lost_until(position)
        oldest, _, entries = await self._page(position)
        begin = parse_stream_id(oldest.decode()) if oldest else _START
        if begin > position > _START:  # also where the last entry that we have read was trimmed since we asked
            end = begin
        elif end is None and begin > _START and not await self._has(position):
            end = await self._end()
        if end is not None:
            start, last = sorted((position, end))
            LogEvent.GAP.log(queue=self.queue.name, **{"from": str(start), "to": str(last)})
            if begin <= position:  # a server without this entry is the master now: nobody has read what it had instead
                self._position, entries = end, []
                for cursor in self._cursors:
                    cursor.step_back(start)
            for listener in list(self._listeners):
                listener.missed(start, last)
        self._was_away = False
        return entries

    async def _has(self, id: StreamId) -> bool:
        """Return whether an entry is in the stream; the one before the first always is."""
        text = format_stream_id(id)
        call = partial(self.queue.link.call, "XRANGE", self._key, text, text, decode=False)
        return id == _START or bool(await self._patiently(call))

    def _command(self, *block: Any) -> tuple[Any, ...]:
        return "XREAD", "COUNT", self._batch, *block, "STREAMS", self._key, format_stream_id(self._position)

    async def _fan_out(self, entries: list[Any]) -> None:
        """Give each listener all entries of a read together: they then leave in one write (15 us against 5 us each)."""
        events = [StreamEvent(id_text, to_hash(flat)) for id_text, flat in entries]
        self._position = events[-1].id
        self._fit_batch(entries)
        delivered = 0
        for listener in list(self._listeners):
            for event in events:
                self._give(listener.hear, event)
            delivered += len(events)
            if delivered >= _BREATH:
                delivered = 0
                await asyncio.sleep(0)

    def _fit_batch(self, entries: list[Any]) -> None:
        """Read as many entries next time as have about `_PAGE_BYTES`, by the size of these; twice as many at most."""
        size = sum([len(text) for _, flat in entries for text in flat])
        fitting = _PAGE_BYTES * len(entries) // (size + 1) + 1
        grown = 2 * self._batch if len(entries) == self._batch else self._batch
        self._batch = min(fitting, grown, _LARGEST_BATCH)

    def _give(self, hear: Callable[[StreamEvent], None], event: StreamEvent) -> None:
        """Let a listener hear an event, and log if that fails: the other listeners, and the next events, come first."""
        try:
            hear(event)
        except Exception:
            log.exception("an event of %s cannot be delivered", self.queue.name)
