"""The messages of the Events API: each event with its fields, the gap, and changes of the subscription."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from bullmq_proxy.gateway.broker.functions.renewing import EXAMPLE_TOKEN, FreshToken
from bullmq_proxy.gateway.rules.shapes import Caller
from bullmq_proxy.gateway.schema.json_schema import Schema, fixed_array
from bullmq_proxy.gateway.schema.messages import Message
from bullmq_proxy.gateway.wire.events import EVENTS

_STREAM_ID: Final[Schema] = {"type": "string", "pattern": "^[0-9]+-[0-9]+$", "description": "The event's stream id."}
_SHOWN_ID: Final = "1700000000000-0"
# What is not a text.
_FIELDS: Final[dict[str, Schema]] = {"returnvalue": {}, "data": {}, "delay": {"type": ["number", "string"]}}
GAP: Final = "gap"


@dataclass(frozen=True, slots=True)
class _Event:
    """What is known of an event: what it means, its fields in an example, and which of them may be missing."""

    about: str
    example: dict[str, Any]
    optional: tuple[str, ...] = ()


_JOB: Final = {"jobId": "1"}
_KNOWN: Final = {
    "active": _Event("A worker has taken the job.", {**_JOB, "prev": "waiting"}, ("prev",)),
    "added": _Event("The job was created.", {**_JOB, "name": "welcome"}),
    "cleaned": _Event("`clean` has removed jobs.", {"count": "12"}),
    "completed": _Event(
        "The job is done.", {**_JOB, "returnvalue": {"sent": True}, "prev": "active"}, ("returnvalue", "prev")
    ),
    "deduplicated": _Event(
        "A job was not added, or replaced another one, because of its deduplication id.",
        {**_JOB, "deduplicationId": "welcome-ada", "deduplicatedJobId": "2"},
        ("deduplicatedJobId",),
    ),
    "delayed": _Event("The job waits for its time.", {**_JOB, "delay": 1700000005000}, ("delay",)),
    "duplicated": _Event("A job was not added, because one of its id was there.", _JOB),
    "failed": _Event("The job failed.", {**_JOB, "failedReason": "no such user", "prev": "active"}, ("prev",)),
    "paused": _Event("The queue was paused.", {}),
    "progress": _Event("A worker says how far the job is.", {**_JOB, "data": 50}),
    "removed": _Event("The job was removed.", {**_JOB, "prev": "waiting"}, ("prev",)),
    "resumed": _Event("The queue was resumed.", {}),
    "retries-exhausted": _Event("The job failed for the last time.", {**_JOB, "attemptsMade": "3"}),
    "stalled": _Event("The job has lost its worker.", _JOB),
    "waiting": _Event("The job can be taken.", {**_JOB, "prev": "delayed"}, ("prev",)),
    "waiting-children": _Event("The job waits for its children.", {**_JOB, "prev": "active"}, ("prev",)),
}


def messages() -> list[Message]:
    """Every event, and the gap."""
    drained = Message(
        "drained",
        _data({"const": "drained"}, fixed_array([_STREAM_ID])),
        [{"event": "drained", "args": [_SHOWN_ID]}],
        about="No job waits any more.",
    )
    return [*map(_known, sorted(EVENTS - {"drained"})), drained, _custom(), _gap()]


def _known(name: str) -> Message:
    event = _KNOWN.get(name, _Event("", {}))
    required = [field for field in event.example if field not in event.optional]
    fields = {
        "type": "object",
        "properties": {field: _FIELDS.get(field, {"type": "string"}) for field in event.example},
        **({"required": required} if required else {}),
        "additionalProperties": {"type": "string"},
    }
    return Message(
        name,
        _data({"const": name}, fixed_array([fields, _STREAM_ID])),
        [{"event": name, "args": [event.example, _SHOWN_ID]}],
        about=event.about,
    )


def _custom() -> Message:
    name = {"type": "string", "not": {"enum": sorted({*EVENTS, GAP})}}
    fields = {"type": "object", "additionalProperties": {"type": "string"}}
    return Message(
        "custom",
        _data(name, fixed_array([fields, _STREAM_ID])),
        [{"event": "mine", "args": [{"text": "hello"}, _SHOWN_ID]}],
        about="An event of a producer's own.",
    )


def _gap() -> Message:
    ends = {
        "type": "object",
        "properties": {"from": _STREAM_ID, "to": _STREAM_ID},
        "required": ["from", "to"],
    }
    return Message(
        GAP,
        _data({"const": GAP}, fixed_array([ends])),
        [{"event": GAP, "args": [{"from": _SHOWN_ID, "to": "1700000009000-0"}]}],
        about="Events between these two may have been trimmed before the client came back.",
    )


def _data(name: Schema, args: Schema) -> Schema:
    return {"type": "object", "properties": {"event": name, "args": args}, "required": ["event", "args"]}


class On(TypedDict):
    """Subscribe to more events: names, `*` for all, `custom:NAME` for those of a producer's own."""

    fn: Literal["on"]
    args: list[str]


class Off(TypedDict):
    """Drop events; `*` drops everything."""

    fn: Literal["off"]
    args: list[str]


class Renew(TypedDict):
    """Put a fresh token in force, in place of the one that the connection was opened with."""

    fn: Literal["renew"]
    args: tuple[FreshToken]


class Subscribed(TypedDict):
    """What is now subscribed to."""

    ok: list[str]


class Renewed(TypedDict):
    """The rights of the fresh token."""

    ok: Caller


CHANGES: Final = (
    Message("on", On, [{"fn": "on", "args": ["completed", "custom:mine"]}], id=1),
    Message("off", Off, [{"fn": "off", "args": ["completed"]}], id=2),
)
SUBSCRIBED: Final = (Message("subscribed", Subscribed, [{"ok": ["completed", "custom:mine"]}], id=1),)
RENEWAL: Final = (Message("renew", Renew, [{"fn": "renew", "args": list(EXAMPLE_TOKEN)}], id=3),)
RENEWED: Final = (
    Message("renewed", Renewed, [{"ok": {"key": "jwt/ada", "permissions": ["observe"], "queues": ["*"]}}], id=3),
)
