"""What all messages share: the envelope, its ids, the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypedDict

from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.schema.docstrings import parse
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas

ID: Final[Schema] = {"$ref": "#/components/schemas/Id"}
NUMBER: Final[Schema] = {"$ref": "#/components/schemas/Number"}
COMMON_SCHEMAS: Final[dict[str, Schema]] = {
    "Id": {"type": ["number", "string"], "description": "Chosen by the sender; a reply carries that of its request."},
    "Number": {
        "type": "integer",
        "minimum": 0,
        "description": "The gateway numbers what it sends of its own accord 0, 1, 2 and so on, on each connection.",
    },
}


class ErrorObject(TypedDict):
    """What went wrong. The message is for people and may change, except where it is BullMQ's own."""

    message: str
    code: ErrorCode


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of message.

    Attributes:
        name: in the document.
        data: the type, or the schema, of its `data`.
        examples: of `data`.
        id: of the examples.
        about: what it says; a type's docstring by default.
    """

    name: str
    data: Any
    examples: list[Any]
    id: int | str = 0
    about: str = ""


def envelope(id: Schema, data: Schema) -> Schema:
    """Return the schema of a whole message."""
    return {"type": "object", "properties": {"id": id, "data": data}, "required": ["id", "data"]}


def described(message: Message, schemas: Schemas, id: Schema = ID) -> dict[str, Any]:
    """Return a message as AsyncAPI describes it."""
    text = message.about or parse(getattr(message.data, "__doc__", "")).text
    data = message.data if isinstance(message.data, dict) else schemas.of(message.data)
    return {
        "name": message.name,
        "summary": text,
        "correlationId": {"$ref": "#/components/correlationIds/id"},
        "payload": envelope(id, data),
        "examples": [{"payload": {"id": message.id, "data": example}} for example in message.examples],
    }


def error_message(schemas: Schemas) -> dict[str, Any]:
    """Return the reply that says what went wrong."""
    data = {"type": "object", "properties": {"err": schemas.of(ErrorObject)}, "required": ["err"]}
    refusal = {"err": {"message": "Expected a whole number >= 0 - at `args[2].delay`", "code": "INVALID_ARGUMENTS"}}
    about = "The request, or the message, failed."
    shown = described(Message("error", {**data, "additionalProperties": False}, [refusal], id=1, about=about), schemas)
    # Where the id of a message could not be read it is null.
    shown["payload"]["properties"]["id"] = {"anyOf": [ID, {"type": "null"}]}
    return shown


def expires_message(schemas: Schemas) -> dict[str, Any]:
    """Return the message that a token expires, which every connection that was opened with one gets."""
    data: Schema = {
        "type": "object",
        "properties": {"type": {"const": "expires"}, "in": {"type": "integer", "description": _IN}},
        "required": ["type", "in"],
    }
    about = "The client's token expires: hand in a fresh one by `renew`. It is no reply, and has no number."
    shown = described(Message("expires", data, [{"type": "expires", "in": 30000}], about=about), schemas, _NULL)
    shown["examples"][0]["payload"]["id"] = None
    return shown


_NULL: Final[Schema] = {"type": "null"}
_IN: Final = "Milliseconds that are left; then the connection is closed with 4004."


def error_codes() -> str:
    """Return the codes and what they say, as a Markdown list."""
    return "\n".join(f"* `{code.value}`: {code.meaning}" for code in ErrorCode)
