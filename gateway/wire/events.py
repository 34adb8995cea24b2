"""Queue events: the names, subscriptions, and a stream entry as the message that Node's `QueueEvents` would emit."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Raw

from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.jobs import Hash
from bullmq_proxy.gateway.values.json_text import encode, json_text
from bullmq_proxy.gateway.values.validation import nearest

EVENTS: Final = frozenset(
    (
        "active",
        "added",
        "cleaned",
        "completed",
        "deduplicated",
        "delayed",
        "drained",
        "duplicated",
        "failed",
        "paused",
        "progress",
        "removed",
        "resumed",
        "retries-exhausted",
        "stalled",
        "waiting",
        "waiting-children",
    )
)
ALL: Final = "*"
_CUSTOM: Final = "custom:"
_STREAM_ID: Final = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_LARGEST: Final = 2**64 - 1  # of both numbers of an id; Redis refuses what is larger, and to read behind the largest
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?")

StreamId = tuple[int, int]


class Subscription:
    """The events that one connection wants."""

    def __init__(self, names: list[str]) -> None:
        """Subscribe to `names`; `*` is all of them.

        Raises:
            GatewayError: INVALID_ARGUMENTS that lists the known names.
        """
        self._all = False
        self._names: set[str] = set()
        self.on(names)

    def on(self, names: list[str]) -> None:
        """Add events."""
        wanted = [_event_name(name) for name in names]
        self._all = self._all or ALL in wanted
        self._names.update(name for name in wanted if name != ALL)

    def off(self, names: list[str]) -> None:
        """Drop events; dropping single ones from "all" leaves the other known ones."""
        dropped = {_event_name(name) for name in names}
        if ALL in dropped:
            self._all, self._names = False, set()
            return
        if self._all:
            self._all, self._names = False, set(EVENTS) | self._names
        self._names -= dropped

    def wants(self, event: str) -> bool:
        """Return whether the connection asked for this event."""
        return self._all or event in self._names

    def in_force(self) -> list[str]:
        """Return the events now subscribed to, sorted; `["*"]` for all."""
        return [ALL] if self._all else sorted(name if name in EVENTS else _CUSTOM + name for name in self._names)


def _event_name(name: str) -> str:
    if name.startswith(_CUSTOM) and len(name) > len(_CUSTOM):
        return name.removeprefix(_CUSTOM)
    if name in EVENTS or name == ALL:
        return name
    known = ", ".join(sorted(EVENTS))
    raise invalid_arguments(
        f"Unknown event `{name[:100]}`{nearest(name, EVENTS)} - at `events`; known are {known}, * for all of them,"
        " and custom:NAME for a producer's own"
    )


def parse_stream_id(text: str) -> StreamId:
    """Return `1700000000000-0` as numbers that compare as Redis compares them; `1700000000000` is its first entry.

    Raises:
        GatewayError: INVALID_ARGUMENTS.
    """
    match = _STREAM_ID.fullmatch(text)
    id = (int(match[1]), int(match[2] or 0)) if match else (_LARGEST, 0)
    if id[0] >= _LARGEST or id[1] > _LARGEST:
        raise invalid_arguments(
            f"Expected a stream id such as `1700000000000-0`, got `{text[:100]}` - at `lastEventId`"
        )
    return id


def format_stream_id(id: StreamId) -> str:
    """Return the text of a stream id."""
    return f"{id[0]}-{id[1]}"


class StreamEvent:
    """An entry of a queue's event stream.

    Attributes:
        id: comparable, as Redis compares it.
        name: of the event.
        fields: as stored.
    """

    __slots__ = ("_data", "fields", "id", "id_text", "name")

    def __init__(self, id: bytes, fields: Hash) -> None:
        self.id_text = id.decode()
        self.id = parse_stream_id(self.id_text)
        self.fields = fields
        self.name = fields.get(b"event", b"").decode(errors="replace")
        self._data = b""

    @property
    def data(self) -> bytes:
        """The `data` of the event's message; made once, for however many watchers.

        `args` is what Node's `QueueEvents` hands a listener (queue-events.js): the fields, then the id; `drained` has
        the id alone. `returnvalue` and `progress` are the stored JSON text, `delayed.delay` is a number, all else are
        strings.
        """
        if not self._data:
            args = [] if self.name == "drained" else [self._members()]
            self._data = encode({"event": self.name, "args": [*args, self.id_text]})
        return self._data

    def _members(self) -> dict[str, Raw | str]:
        return {
            field.decode(errors="replace"): _member(self.name, field, value)
            for field, value in self.fields.items()
            if field != b"event"
        }


def _member(event: str, field: bytes, value: bytes) -> Raw | str:
    verbatim = (
        (event == "completed" and field == b"returnvalue")
        or (event == "progress" and field == b"data")
        or (event == "delayed" and field == b"delay" and _NUMBER.fullmatch(value) is not None)
    )
    if verbatim and (text := json_text(value)) is not None:
        return text
    return value.decode(errors="replace")


def gap_data(start: StreamId, end: StreamId) -> bytes:
    """Return the `data` of the message that says: events between these ids were trimmed before you came back."""
    return encode({"event": "gap", "args": [{"from": format_stream_id(start), "to": format_stream_id(end)}]})
