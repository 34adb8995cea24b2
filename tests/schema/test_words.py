"""Schemas in words."""

from __future__ import annotations

from typing import Any

import pytest

from bullmq_proxy.gateway.schema.words import in_words

REFERENCE = {"$ref": "#/Job"}
WEEKDAYS = {"enum": ["mon", "tue", "wed"]}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "any JSON"),
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 1}, "non-empty text"),
        ({"type": "string", "minLength": 2}, "text of at least 2 characters"),
        ({"type": "string", "maxLength": 9}, "text of 0 to 9 characters"),
        ({"type": "string", "pattern": "^a"}, "text that matches `^a`"),
        ({"type": "integer"}, "whole number"),
        ({"type": "integer", "minimum": 0, "maximum": 5}, "whole number from 0 to 5"),
        ({"type": "integer", "minimum": -(2**53), "maximum": 2**53}, "whole number"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number above 0 below 1"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "null"}, "`null`"),
        ({"type": ["string", "null"]}, "text or `null`"),
        ({"const": "a"}, "`a`"),
        ({"const": ""}, '`""`'),
        (WEEKDAYS, "`mon`, `tue` or `wed`"),
        ({"anyOf": [WEEKDAYS, {"type": "array", "items": WEEKDAYS}]}, "`mon`, `tue` or `wed` or a list of them"),
        ({"type": "array"}, "list of any JSON"),
        ({"type": "array", "items": {"type": "string"}}, "list of texts"),
        ({"type": "array", "items": WEEKDAYS}, "list of (`mon`, `tue` or `wed`)"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, "list of whole numbers, at least 1"),
        ({"type": "array", "items": {}, "minItems": 1, "maxItems": 3}, "list of any JSON, 1 to 3 of them"),
        ({"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}, "list of text, whole number"),
        ({"type": "object"}, "object"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of whole numbers"),
        (REFERENCE, "a job"),
        ({"allOf": [REFERENCE], "description": "…"}, "a job"),
    ],
)
def test_a_schema_is_said_in_words(schema: dict[str, Any], words: str) -> None:
    assert in_words(schema, lambda reference: "a job") == words
