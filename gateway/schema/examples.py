"""Examples made from schemas: the values that the documentation uses, where a name or a type has one."""

from __future__ import annotations

import re
from typing import Any, Final

from bullmq_proxy.gateway.broker.functions.table import Function
from bullmq_proxy.gateway.schema.json_schema import Schema, Schemas, plain

_TIME: Final = 1_700_000_000_000
_DATA: Final = {"to": "ada@example.org"}

# By the name of an argument or member; the first one that fits its schema is taken.
_NAMED: Final[dict[str, tuple[Any, ...]]] = {
    "id": ("1",),
    "jobId": ("1",),
    "name": ("welcome",),
    "jobName": ("welcome",),
    "data": (_DATA,),
    "payload": (_DATA,),
    "returnvalue": ({"sent": True},),
    "progress": (50,),
    "types": ("waiting", ["waiting"]),
    "type": ("completed",),
    "state": ("completed",),
    "logRow": ("sent to the relay",),
    "logs": (["sent to the relay"],),
    "queue": ("bull:mails",),
    "queueName": ("mails",),
    "queueKey": ("bull:mails",),
    "queueQualifiedName": ("bull:mails",),
    "parentKey": ("bull:reports:7",),
    "prefix": ("bull",),
    "timestamp": (_TIME,),
    "processedOn": (_TIME + 5,),
    "finishedOn": (_TIME + 9,),
    "start": (0,),
    "end": (-1, 9),
    "limit": (100,),
    "grace": (60_000,),
    "maxLength": (1000,),
    "count": (1,),
    "attempts": (3,),
    "delay": (5000,),
    "ttl": (5000,),
    "every": (60_000,),
    "pattern": ("0 0 9 * * *",),
    "tz": ("Europe/Berlin",),
    "token": ("token-1",),
    "childKey": ("bull:mails:1",),
    "jobSchedulerId": ("every-morning",),
    "deduplicationId": ("welcome-ada",),
    "failedReason": ("no such user",),
}
# By the name of a component; these stand for themselves wherever the type is used.
_JOB: Final = {
    "name": "welcome",
    "data": _DATA,
    "opts": {"attempts": 3},
    "id": "1",
    "progress": 0,
    "returnvalue": None,
    "stacktrace": [],
    "delay": 0,
    "priority": 0,
    "attemptsStarted": 0,
    "attemptsMade": 0,
    "stalledCounter": 0,
    "timestamp": _TIME,
    "queueQualifiedName": "bull:mails",
}
_TYPED: Final[dict[str, Any]] = {
    "Job": _JOB,
    "AddedJob": {**_JOB, "stacktrace": None},
    "JobOptions": {"attempts": 3, "backoff": 1000},
    "BulkJob": {"name": "welcome", "data": _DATA},
}
_TEXTS: Final = ("text", "1", "1700000000000-0", "a", "bull:mails", "text" * 10)
_DEEPEST: Final = 8


class Examples:
    """Makes values that are valid against schemas."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def of(self, schema: Schema, name: str = "", depth: int = 0) -> Any:
        """Return a value.

        Args:
            schema: that it is valid against.
            name: of the argument or member.
            depth: in how many objects and lists it stands.
        """
        if schema.get("examples"):
            return schema["examples"][0]
        if "$ref" in schema:
            return self._component(schema, depth)
        if "allOf" in schema:
            return self.of(schema["allOf"][0], name, depth)
        for value in _NAMED.get(name, ()):
            if _fits(schema, value):
                return value
        if "anyOf" in schema:
            return self.of(self._simplest(schema["anyOf"], depth), name, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        kind = schema.get("type")
        return self._plain(schema, kind[0] if isinstance(kind, list) else kind, depth)

    def _component(self, schema: Schema, depth: int) -> Any:
        name = self._schemas.name(schema)
        if name in _TYPED:
            return _TYPED[name]
        return self.of(self._schemas.components[name], "", depth)

    def _simplest(self, choices: list[Schema], depth: int) -> Schema:
        """Return the first choice, or null where it would never end."""
        empty = [each for each in choices if each.get("type") in ("null", "array")]
        return empty[-1] if depth > _DEEPEST and empty else choices[0]

    def _plain(self, schema: Schema, kind: str | None, depth: int) -> Any:
        match kind:
            case "null":
                return None
            case "boolean":
                return True
            case "integer" | "number":
                return next((value for value in _numbers(schema) if _fits(schema, value)), 1)
            case "string":
                return next((text for text in _TEXTS if _fits(schema, text)), "text")
            case "array":
                return self._array(schema, depth)
            case "object":
                return self._object(schema, depth)
        return _DATA

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        items = schema.get("items", {})
        if isinstance(items, list):
            return [self.of(item, item.get("title", ""), depth + 1) for item in items]
        least = schema.get("minItems", 0)
        if depth > _DEEPEST:
            return [self.of(items, "", depth + 1)] * least
        return [self.of(items, "", depth + 1)] * max(1, least)

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        if properties is None:
            values = schema.get("additionalProperties", {})
            return {"waiting": self.of(values if isinstance(values, dict) else {}, "", depth + 1)}
        wanted = schema.get("required", ())
        return {name: self.of(member, name, depth + 1) for name, member in properties.items() if name in wanted}

    def arguments(self, function: Function) -> list[Any]:
        """Arguments that the function takes: all that must be given, and others that say something."""
        found: list[Any] = []
        said = 0
        for parameter in function.parameters:
            optional = not parameter.required and not function.variadic
            value = plain(parameter.default) if optional else None
            if value in (None, {}):
                value = self.of(self._schemas.of(parameter.type), parameter.name)
            found.append(value)
            if not optional or value not in (None, {}):
                said = len(found)
        return found[:said]


def _numbers(schema: Schema) -> tuple[Any, ...]:
    above, below = schema.get("exclusiveMinimum", 0), schema.get("exclusiveMaximum", 0)
    return (1, schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf"), above + 1, below - 1)


def _fits(schema: Schema, value: Any) -> bool:
    """Return whether a plain value, or an object for a schema that asks for nothing, is valid."""
    if "anyOf" in schema:
        return any(_fits(each, value) for each in schema["anyOf"])
    if "$ref" in schema or "allOf" in schema or "properties" in schema:
        return False
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema.get("type")
    if kinds is None:
        return True
    if not any(isinstance(value, _KINDS[kind]) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, str):
        return (
            schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
            and re.search(schema.get("pattern", ""), value) is not None
        )
    if isinstance(value, int):
        return bool(
            value % schema.get("multipleOf", 1) == 0
            and schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and schema.get("exclusiveMinimum", value - 1) < value < schema.get("exclusiveMaximum", value + 1)
        )
    if isinstance(value, list):
        return isinstance(schema.get("items"), dict) and all(_fits(schema["items"], item) for item in value)
    return "additionalProperties" not in schema


_KINDS: Final[dict[str, Any]] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
}
