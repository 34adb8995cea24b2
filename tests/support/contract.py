"""What the AsyncAPI document promises, as validators: a public library says whether a message keeps it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs

from bullmq_proxy.gateway.schema import asyncapi_document

OPEN = {"QueueMeta"}
"""Types with members of others' making beside their own."""
HANDED_ON = {"JobParent"}
"""Types that are what a program has stored, and not looked into."""

_TYPES = "#/components/schemas/"


class BrokenPromise(AssertionError):
    """A message is not what the document says."""


@functools.cache
def document() -> dict[str, Any]:
    """The AsyncAPI document."""
    return asyncapi_document()


@functools.cache
def validator(place: str) -> jsonschema_rs.Draft7Validator:
    """For the schema at a place of the document, such as `#/channels/worker/messages/ack/payload`.

    It is stricter than the document: a type may have no members but those that are described, unless it is open. It
    takes what is handed on as it is stored for what it is: tests store anything there.
    """
    schema: Any = document()
    for step in place.removeprefix("#/").split("/"):
        schema = schema[step]
    return jsonschema_rs.Draft7Validator(
        {"allOf": [schema], "components": {"schemas": dict(_types_within(schema, set()))}}
    )


def _types_within(value: Any, known: set[str]) -> Iterator[tuple[str, Any]]:
    """The types that a schema refers to, and those that they refer to."""
    if isinstance(value, dict):
        name = str(value.get("$ref", "")).removeprefix(_TYPES)
        if name and name not in known:
            known.add(name)
            schema = _closed(name, document()["components"]["schemas"][name])
            yield name, schema
            yield from _types_within(schema, known)
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _types_within(member, known)


def _closed(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name in HANDED_ON:
        return {}
    return {"additionalProperties": False, **schema} if "properties" in schema and name not in OPEN else schema


def place_of(channel: str, message: str) -> str:
    """Where the schema of a message stands."""
    shown = document()["channels"][channel]["messages"][message]
    return f"{shown.get('$ref', f'#/channels/{channel}/messages/{message}')}/payload"


def problems(channel: str, message: str, value: Any) -> list[str]:
    """What is wrong with a message, as lines; none where it is as promised.

    What is nested more deeply than the validator can follow is not looked at.
    """
    try:
        return [_shown(error) for error in validator(place_of(channel, message)).iter_errors(value)]
    except ValueError:  # a limit of the library
        return []


def check(channel: str, message: str, value: Any) -> None:
    """Fail the test for a message that is not of this kind."""
    if wrong := problems(channel, message, value):
        raise BrokenPromise(f"no {message} of the channel {channel}: {'; '.join(wrong)}\n{value!r:.2000}")


def kinds(channel: str, value: Any, among: Iterable[str]) -> list[str]:
    """Which of these messages of a channel a value is valid as."""
    return [name for name in among if not problems(channel, name, value)]


def check_result(fn: str, result: Any) -> None:
    """Fail the test for what is no result of the function, on whatever kind of connection it was called."""
    reply, message = f"{fn}Reply", {"id": 1, "data": {"ok": result}}
    channels = [name for name, channel in document()["channels"].items() if reply in channel["messages"]]
    wrong = [problems(channel, reply, message) for channel in channels]
    if wrong and all(wrong):
        raise BrokenPromise(f"no result of {fn}: {'; '.join(wrong[0])}\n{result!r:.2000}")


def _shown(error: jsonschema_rs.ValidationError) -> str:
    return f"{error.message[:300]} at {'/'.join(map(str, error.instance_path))}"
