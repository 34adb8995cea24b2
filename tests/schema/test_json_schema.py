"""Types as JSON Schemas of draft 7: what a public validator says of values is what msgspec says."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, Never, NotRequired, TypedDict

import jsonschema_rs
import msgspec
import pytest
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from bullmq_proxy.gateway.rules.options import JobOptions
from bullmq_proxy.gateway.schema.examples import Examples
from bullmq_proxy.gateway.schema.json_schema import Schemas
from bullmq_proxy.gateway.values.validation import shows


class Colour(enum.StrEnum):
    RED = "red"


class Leaf(Struct, forbid_unknown_fields=True, rename="camel"):
    """A leaf.

    Attributes:
        how_long: in millimetres.
    """

    how_long: Annotated[int, Meta(ge=1)]
    more: Raw = Raw(b'{"a":1}')
    colours: list[Colour] = []


class Tree(TypedDict):
    """A tree."""

    leaves: list[Leaf]
    trees: NotRequired[list[Tree]]
    above: NotRequired[Leaf | None]


class Pair(Struct, array_like=True):
    """Two."""

    first: int
    second: str = ""


class Tagged(Struct, tag="tagged"):
    """With a tag."""

    x: int = 0


class Known(Struct, forbid_unknown_fields=True):
    """With a name that is refused."""

    used: int | UnsetType = UNSET
    refused: Annotated[Any, shows(Never)] = UNSET


SHAPES: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [1, -1], ["1", None, 1.5]),
    (Annotated[int, Meta(ge=0, lt=5, multiple_of=2)], [0, 4], [-2, 5, 3, 6]),
    (float, [1, 1.5], ["1"]),
    (int | float | None, [1, 1.5, None], ["1"]),
    (Annotated[str, Meta(min_length=1, max_length=3, pattern="^a")], ["a", "abc"], ["", "abcd", "b", 1]),
    (bool | str, [True, "a"], [1, None]),
    (Literal["a", "b"], ["a"], ["c", None]),
    (Literal["a"], ["a"], ["b"]),
    (Literal["a", 1, None], ["a", 1, None], ["b", 2]),
    (Colour, ["red"], ["blue"]),
    (list[int], [[], [1]], [["a"], 1]),
    (Annotated[list[int], Meta(min_length=1)], [[1]], [[]]),
    (tuple[int, str], [[1, "a"]], [[1], ["a", 1], [1, "a", 2]]),
    (tuple[int, ...], [[], [1, 2]], [["a"]]),
    (dict[str, int], [{}, {"a": 1}], [{"a": "b"}, []]),
    (Leaf, [{"howLong": 1}, {"howLong": 2, "colours": ["red"]}], [{}, {"howLong": 0}, {"howLong": 1, "x": 1}]),
    (Tree, [{"leaves": []}, {"leaves": [], "trees": [{"leaves": [{"howLong": 1}]}]}], [{}, {"leaves": [{}]}]),
    (Pair, [[1], [1, "a"]], [[], ["a"], [1, 2]]),
    (Tagged, [{"type": "tagged"}, {"type": "tagged", "x": 1}], [{"type": "other"}, {"type": "tagged", "x": "a"}]),
    (Known | None, [{}, {"used": 1}, None], [{"used": "a"}, {"unused": 1}]),
]


def validator(shape: Any) -> tuple[jsonschema_rs.Draft7Validator, Schemas, Any]:
    schemas = Schemas()
    schema = schemas.of(shape)
    whole = {"allOf": [schema], "components": {"schemas": schemas.components}}
    return jsonschema_rs.Draft7Validator(whole), schemas, schema


@pytest.mark.parametrize(("shape", "good", "bad"), SHAPES, ids=lambda each: str(each)[:40])
def test_the_validator_agrees_with_msgspec(shape: Any, good: list[Any], bad: list[Any]) -> None:
    schema, _, _ = validator(shape)
    for value in good:
        msgspec.json.decode(msgspec.json.encode(value), type=shape)
        assert schema.is_valid(value), value
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(value), type=shape)
        assert not schema.is_valid(value), value


@pytest.mark.parametrize("shape", [shape for shape, _, _ in SHAPES] + [JobOptions, Raw, Any, None], ids=str)
def test_examples_are_valid(shape: Any) -> None:
    schema, schemas, described = validator(shape)
    schema.validate(Examples(schemas).of(described))


def test_a_result_can_be_one_of_several_object_types() -> None:
    schema, _, _ = validator(dict[str, list[Tree | Leaf | None]])
    assert schema.is_valid({"a": [{"leaves": []}, {"howLong": 1}, None]})
    assert not schema.is_valid({"a": [{}]})


def test_what_a_raw_argument_shows() -> None:
    schemas = Schemas()
    assert schemas.of(Annotated[Raw, shows(Leaf | None)]) == {
        "anyOf": [{"$ref": "#/components/schemas/Leaf"}, {"type": "null"}]
    }
    assert "Leaf" in schemas.components
    assert schemas.of(Raw) == {}


def test_a_name_that_is_refused_does_not_show() -> None:
    schemas = Schemas()
    schemas.of(Known)
    assert schemas.components["Known"]["properties"].keys() == {"used"}


def test_members_have_their_descriptions_and_defaults() -> None:
    schemas = Schemas()
    schemas.of(Leaf)
    assert schemas.components["Leaf"]["description"] == "A leaf."
    assert schemas.components["Leaf"]["properties"] == {
        "howLong": {"type": "integer", "minimum": 1, "description": "in millimetres."},
        "more": {"default": {"a": 1}},
        "colours": {"type": "array", "items": {"enum": ["red"]}, "default": []},
    }


def test_the_members_of_a_typed_dict_keep_their_order() -> None:
    schemas = Schemas()
    schemas.of(Tree)
    assert list(schemas.components["Tree"]["properties"]) == ["leaves", "trees", "above"]


def test_two_types_of_one_name_are_told_apart() -> None:
    schemas = Schemas()
    schemas.of(Leaf)
    other = msgspec.defstruct("Leaf", [("x", int)], module="another.tree")
    assert schemas.of(other) == {"$ref": "#/components/schemas/TreeLeaf"}
