"""JSON Schemas in words, for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from bullmq_proxy.gateway.schema.json_schema import Schema
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER

Link = Callable[[Schema], str]


def in_words(schema: Schema, link: Link) -> str:
    """Return what a value may be.

    Args:
        schema: of the value.
        link: makes the text for a reference.
    """
    if "$ref" in schema:
        return link(schema)
    if "allOf" in schema:
        return in_words(schema["allOf"][0], link)
    if "anyOf" in schema:
        return _or(list(_choices(schema["anyOf"], link)))
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return _or([code(value) for value in schema["enum"]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _or([in_words({**schema, "type": each}, link) for each in kind])
    match kind:
        case None:
            return "any JSON"
        case "string":
            return _text(schema)
        case "integer" | "number":
            return ("whole number" if kind == "integer" else "number") + _range(schema)
        case "boolean":
            return "boolean"
        case "null":
            return "`null`"
        case "array":
            return _array(schema, link)
    return _object(schema, link)


def code(value: Any) -> str:
    """Return a JSON value as inline code; a text stands without its quotes where that is clear."""
    text = value if isinstance(value, str) and value and not value.startswith(("{", "[")) else compact(value)
    return f"`{text}`"


def compact(value: Any) -> str:
    """JSON as the gateway writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _choices(schemas: list[Schema], link: Link) -> Iterator[str]:
    for schema in schemas:
        # "one of many, or a list of them": the many are not repeated.
        again = schema.get("type") == "array" and schema.get("items") in schemas
        yield "a list of them" if again else in_words(schema, link)


def _or(choices: list[str]) -> str:
    choices = list(dict.fromkeys(choices))
    if len(choices) == 1:
        return choices[0]
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


def _text(schema: Schema) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if "pattern" in schema:
        return schema.get("title") or f"text that matches `{schema['pattern']}`"
    if most is not None:
        return f"text of {least} to {most} characters"
    if least > 1:
        return f"text of at least {least} characters"
    return "non-empty text" if least else "text"


def _range(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    least = None if least is not None and least <= -MAX_SAFE_INTEGER else least
    most = (
        None if most is not None and most >= MAX_SAFE_INTEGER else most
    )  # such limits say only that the number is exact
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    parts = [
        f" from {least}" if least is not None else "",
        f" above {above}" if above is not None else "",
        f" to {most}" if most is not None else "",
        f" below {below}" if below is not None else "",
    ]
    return "".join(parts)


def _array(schema: Schema, link: Link) -> str:
    items = schema.get("items", {})
    if isinstance(items, list):
        return f"list of {', '.join(in_words(item, link) for item in items)}"
    least, most = schema.get("minItems"), schema.get("maxItems")
    size = f", {least} to {most} of them" if most is not None else f", at least {least}" if least else ""
    return f"list of {_several(items, link)}{size}"


def _object(schema: Schema, link: Link) -> str:
    values = schema.get("additionalProperties")
    if "properties" not in schema and isinstance(values, dict) and values:
        return f"object of {_several(values, link)}"
    return "object"


_PLURALS: Final = {
    "text": "texts",
    "non-empty text": "non-empty texts",
    "number": "numbers",
    "whole number": "whole numbers",
    "boolean": "booleans",
    "object": "objects",
}


def _several(schema: Schema, link: Link) -> str:
    words = in_words(schema, link)
    words = _PLURALS.get(words, words)
    return f"({words})" if " or " in words else words
