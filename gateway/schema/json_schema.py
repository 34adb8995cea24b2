"""Python types as JSON Schemas of draft 7, which AsyncAPI builds on.

msgspec's own generator speaks a later draft, and refuses defaults of the type `Raw`. What it knows of types is used.
"""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Final, Never, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, UNSET, Raw, UnsetType, inspect

from bullmq_proxy.gateway.schema.docstrings import of_class

Schema = dict[str, Any]

ANY: Final[Schema] = {}
NEVER: Final[Schema] = {"not": {}}


class Schemas:
    """JSON Schemas of types. Named object types become components, to which the other schemas refer."""

    def __init__(self, root: str = "#/components/schemas/") -> None:
        """Make an empty collection; `root` is what references to components begin with."""
        self.components: dict[str, Schema] = {}
        self._root = root
        self._names: dict[Any, str] = {}

    def of(self, shape: Any) -> Schema:
        """Return the schema of a type."""
        if shape is Never:
            return NEVER
        origin, inner = get_origin(shape), get_args(shape)
        # msgspec takes no union of several object types; results can be one.
        if origin in (Union, UnionType):
            members = sorted(inner, key=lambda each: each is NoneType)
            return _one_of([self.of(each) for each in members if each is not UnsetType])
        if origin is list:
            return {"type": "array", "items": self.of(inner[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(inner[1])}
        return self._schema(inspect.type_info(shape))

    def resolve(self, schema: Schema) -> Schema:
        """Return the component that a reference leads to, or the schema itself where it is none."""
        return self.components[self.name(schema)] if "$ref" in schema else schema

    def name(self, schema: Schema) -> str:
        """Return the name of the component that a reference leads to."""
        reference: str = schema["$ref"]
        return reference.removeprefix(self._root)

    def _schema(self, known: inspect.Type) -> Schema:
        match known:
            case inspect.Metadata():
                return self._annotated(known)
            case inspect.AnyType() | inspect.RawType():
                return {}
            case inspect.NoneType():
                return {"type": "null"}
            case inspect.BoolType():
                return {"type": "boolean"}
            case inspect.IntType():
                return {"type": "integer", **_limits(known, _NUMBER)}
            case inspect.FloatType():
                return {"type": "number", **_limits(known, _NUMBER)}
            case inspect.StrType():
                return {"type": "string", **_limits(known, _TEXT)}
            case inspect.BytesType() | inspect.ByteArrayType() | inspect.MemoryViewType():
                return {"type": "string"}
            case inspect.LiteralType():
                return _literal(list(known.values))
            case inspect.EnumType():
                return {"enum": [member.value for member in known.cls]}
            case inspect.UnionType():
                return self._union(known)
            case inspect.TupleType():
                items = [self._schema(item) for item in known.item_types]
                return fixed_array(items)
            case inspect.CollectionType():
                return {"type": "array", "items": self._schema(known.item_type), **_limits(known, _LIST)}
            case inspect.DictType():
                return {"type": "object", "additionalProperties": self._schema(known.value_type)}
            case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType():
                return self._reference(known)
        raise TypeError(f"no JSON Schema for {known}")

    def _annotated(self, known: inspect.Metadata) -> Schema:
        extra = known.extra or {}
        schema = self.of(extra["shows"]) if "shows" in extra else self._schema(known.type)
        more = known.extra_json_schema or {}
        # Whatever stands beside a reference does not count in draft 7.
        return {"allOf": [schema], **more} if more and "$ref" in schema else {**schema, **more}

    def _union(self, known: inspect.UnionType) -> Schema:
        # msgspec sorts the members; null comes last for people.
        members = sorted(known.types, key=lambda each: isinstance(each, inspect.NoneType))
        return _one_of([self._schema(each) for each in members])

    def _reference(self, known: inspect.StructType | inspect.TypedDictType | inspect.DataclassType) -> Schema:
        name = self._names.get(known.cls)
        if name is None:
            name = self._new_name(known.cls)
            self._names[known.cls] = name
            self.components[name] = {}  # keeps its place, and ends a recursion
            self.components[name] = self._object(known)
        return {"$ref": self._root + name}

    def _new_name(self, cls: Any) -> str:
        name: str = cls.__name__.lstrip("_")
        if name not in self.components:
            return name
        module: str = cls.__module__.rpartition(".")[2]
        return module.capitalize() + name

    def _object(self, known: inspect.StructType | inspect.TypedDictType | inspect.DataclassType) -> Schema:
        doc = of_class(known.cls)
        fields = {each.encode_name: each for each in _in_order(known)}
        properties = {name: self._field(each, doc.named.get(name)) for name, each in fields.items()}
        properties = {name: schema for name, schema in properties.items() if schema != NEVER}
        if isinstance(known, inspect.StructType) and known.array_like:
            return fixed_array(list(properties.values()), least=sum(each.required for each in fields.values()))
        schema: Schema = {"type": "object"}
        if doc.paragraphs:
            schema["description"] = doc.text
        if isinstance(known, inspect.StructType) and known.tag_field:
            properties = {known.tag_field: {"const": known.tag}, **properties}
        schema["properties"] = properties
        if required := [name for name, each in fields.items() if each.required]:
            schema["required"] = required
        if isinstance(known, inspect.StructType) and known.forbid_unknown_fields:
            schema["additionalProperties"] = False
        return schema

    def _field(self, known: inspect.Field, about: str | None) -> Schema:
        schema = self._schema(known.type)
        more: Schema = {}
        if about:
            more["description"] = about
        if (default := _default(known)) is not None:
            more["default"] = default
        if not more:
            return schema
        return {"allOf": [schema], **more} if "$ref" in schema else {**schema, **more}


def _one_of(schemas: list[Schema]) -> Schema:
    if ANY in schemas:
        return {}
    if {"type": "number"} in schemas:
        schemas = [each for each in schemas if each != {"type": "integer"}]
    if len(schemas) == 1:
        return schemas[0]
    plain = [each["type"] for each in schemas if each.keys() == {"type"} and isinstance(each["type"], str)]
    return {"type": plain} if len(plain) == len(schemas) else {"anyOf": schemas}


def fixed_array(items: list[Schema], least: int | None = None) -> Schema:
    """Return an array with a schema for each place, of which the last ones may be missing."""
    schema: Schema = {"type": "array"}
    if items:
        schema["items"] = items
    schema["minItems"] = len(items) if least is None else least
    schema["maxItems"] = len(items)
    return schema


def plain(value: Any) -> Any:
    """Return a Python value as JSON-like data; None for what has no such form."""
    if isinstance(value, Raw):
        return msgspec.json.decode(value)
    if value is UNSET:
        return None
    return msgspec.to_builtins(value, str_keys=True)


def _default(known: inspect.Field) -> Any:
    if known.default is not NODEFAULT:
        return plain(known.default)
    if known.default_factory is not NODEFAULT:
        factory: Callable[[], Any] = known.default_factory
        return plain(factory())
    return None


def _in_order(known: inspect.StructType | inspect.TypedDictType | inspect.DataclassType) -> list[inspect.Field]:
    """Return the fields in the order in which they are declared: msgspec sorts those of a TypedDict."""
    if not isinstance(known, inspect.TypedDictType):
        return list(known.fields)
    by_name = {each.name: each for each in known.fields}
    return [by_name[name] for name in known.cls.__annotations__]


_NUMBER: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_TEXT: Final = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
_LIST: Final = {"min_length": "minItems", "max_length": "maxItems"}


def _limits(known: inspect.Type, names: dict[str, str]) -> Schema:
    return {shown: getattr(known, name) for name, shown in names.items() if getattr(known, name, None) is not None}


def _literal(values: list[Any]) -> Schema:
    values.sort(key=lambda value: value is None)
    if len(values) == 1:
        return {"const": values[0]}
    kinds = {"string" if isinstance(value, str) else "other" for value in values}
    return {"type": "string", "enum": values} if kinds == {"string"} else {"enum": values}
