"""Events: publishing those of a producer's own, and trimming the stream that keeps all of them."""

from __future__ import annotations

from typing import Annotated, Final, TypedDict

from bullmq_proxy.gateway.broker.functions.base import MANAGE, TABLE
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.values.numbers import Count, number_text
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import read_by

EventValue = str | float | bool | None


class PublishedEvent(TypedDict):
    """An event's name, and beside it what it has to say: texts, numbers, booleans or null."""

    eventName: str


Event = Annotated[dict[str, EventValue], read_by(Reader(dict[str, EventValue]), shows=PublishedEvent)]

_NAME: Final = "eventName"
_EXAMPLE: Final = {_NAME: "shipped", "order": "47-11"}


@TABLE.function(MANAGE, writes=True, example=[_EXAMPLE, 10000])
async def publish_event(queue: Queue, event: Event, max_events: Count = 1000) -> None:
    """Publish an event under the name `event.eventName`, with its other members as text, to all who watch the queue.

    This is Node's `QueueEventsProducer.publishEvent`, and trims the stream to about `maxEvents` entries as that does.
    An event under one of BullMQ's own names is believed by everybody who waits for such: hence the permission.
    """
    name, fields = event.get(_NAME), {key: value for key, value in event.items() if key != _NAME}
    if not isinstance(name, str):
        raise invalid_arguments(f"Expected an object with `{_NAME}`, a string - at `args[0]`")
    words = [word for field, value in {"event": name, **fields}.items() for word in (field, _text(value))]
    await queue.link.call("XADD", queue.key("events"), "MAXLEN", "~", max_events, "*", *words)


def _text(value: EventValue) -> str:
    """Return a value as Node writes it into Redis."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else number_text(value)


@TABLE.function(MANAGE, writes=True, heavy=True, example=[1000])
async def trim_events(queue: Queue, max_length: Count) -> int:
    """Trim the event stream to about `maxLength` entries; return how many were removed."""
    trimmed: int = await queue.link.call("XTRIM", queue.key("events"), "MAXLEN", "~", max_length)
    return trimmed
