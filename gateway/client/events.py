"""The events of a queue, which go on where they were when the connection breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from bullmq_proxy.gateway.client.errors import ProxyError
from bullmq_proxy.gateway.client.link import URL, Key, Link, queue_path
from bullmq_proxy.gateway.client.listeners import Listener, Listeners

MOST_EVENTS: Final = 10_000
"""Events that wait for a loop over them; then no more are read, and the gateway waits, too."""
_OF_THE_LINK: Final = frozenset({"connected", "disconnected", "error"})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a queue.

    Attributes:
        name: such as `completed`. `gap` tells of events that are lost, `from` one id `to` another; both are None when
            the connection broke before there was any event to go on from.
        fields: what happened, such as `jobId`.
        id: in the queue's stream; None for a gap.
    """

    name: str
    fields: dict[str, Any]
    id: str | None


class QueueEvents(Listeners):
    """The events of a queue: for listeners, which get the fields and the id, or for a loop: `async for event in …`.

    Until there is either, those that come are kept for a loop.

    Listeners: the names of events; `connected`, `disconnected` (why), `error` (why no more will come).

    Attributes:
        lastEventId: of the last event; the next connection goes on behind it.
    """

    def __init__(
        self,
        name: str,
        *,
        url: str = URL,
        key: Key | None = None,
        ca: str | None = None,
        events: Iterable[str] = ("*",),
        lastEventId: str | None = None,
    ) -> None:
        """Prepare to watch a queue.

        Args:
            name: of the queue.
            url: of the gateway.
            key: that it knows, or a function, plain or of coroutines, that returns a token each time it is asked; None
                for a gateway without keys.
            ca: path of the certificates to trust in place of the system's, where the URL begins with `wss`.
            events: names of those to get; `custom:NAME` for one of a producer's own.
            lastEventId: the events after this one come first; None for those from now on.
        """
        super().__init__()
        self.name = name
        self.lastEventId = lastEventId
        self._events = ",".join(events)
        self._link = Link(_Owner(self), url, key, ca, queue_path(name, "/events"), self._query)
        self._was_open = False
        self._is_open = asyncio.Event()
        self._waiting: deque[Event] = deque()
        self._is_iterated = False
        self._is_heard = False
        self._came = asyncio.Event()
        self._taken = asyncio.Event()

    def on(self, name: str, listener: Listener) -> Listener:
        """Call `listener` whenever `name` happens."""
        if name not in _OF_THE_LINK:
            self._is_heard = True
            if not self._is_iterated:
                self._waiting.clear()
                self._taken.set()
        return super().on(name, listener)

    async def start(self) -> None:
        """Watch, and wait until events come; a refusal is raised."""
        self._link.start()
        await self._is_open.wait()
        if self._link.error is not None:
            raise self._link.error

    @property
    def isClosed(self) -> bool:
        """Whether there will be no connection any more."""
        return self._link.error is not None

    async def close(self) -> None:
        """Watch no more; a loop over the events ends."""
        await self._link.close()

    async def __aenter__(self) -> QueueEvents:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> QueueEvents:
        self._is_iterated = True
        return self

    async def __anext__(self) -> Event:
        self._link.start()
        while not self._waiting:
            if (error := self._link.error) is not None:
                if self._link.was_closed:
                    raise StopAsyncIteration
                raise error
            self._came.clear()
            await self._came.wait()
        self._taken.set()
        return self._waiting.popleft()

    @property
    def _is_kept(self) -> bool:
        return self._is_iterated or not self._is_heard

    def _query(self) -> dict[str, str]:
        resume = {} if self.lastEventId is None else {"lastEventId": self.lastEventId}
        return {"events": self._events, **resume}

    async def _opened(self) -> None:
        if self._was_open and self.lastEventId is None:
            await self._deliver(Event("gap", {"from": None, "to": None}, None))
        self._was_open = True
        self._is_open.set()
        self.emit("connected")

    async def _received(self, data: dict[str, Any]) -> None:
        if "event" not in data or not isinstance(data.get("args"), list) or not data["args"]:
            return  # a later gateway's affair
        *fields, last = data["args"]
        if data["event"] == "gap":
            await self._deliver(Event("gap", last, None))
        else:
            self.lastEventId = last
            await self._deliver(Event(data["event"], fields[0] if fields else {}, last))

    async def _deliver(self, event: Event) -> None:
        self.emit(event.name, event.fields, event.id)
        while self._is_kept and len(self._waiting) >= MOST_EVENTS:
            self._taken.clear()
            await self._taken.wait()
        if self._is_kept:
            self._waiting.append(event)
            self._came.set()

    def _stopped(self, error: ProxyError) -> None:
        self._is_open.set()
        self._came.set()
        if not self._link.was_closed:
            self.emit("error", error)


class _Owner:
    """What a link tells a watcher."""

    def __init__(self, events: QueueEvents) -> None:
        self._events = events

    async def opened(self) -> None:
        await self._events._opened()

    async def received(self, id: Any, data: dict[str, Any]) -> None:
        await self._events._received(data)

    def broke(self) -> None:
        """Do nothing: no call is under way."""

    def waits(self, trouble: ProxyError) -> None:
        self._events.emit("disconnected", trouble)

    def stopped(self, error: ProxyError) -> None:
        self._events._stopped(error)
