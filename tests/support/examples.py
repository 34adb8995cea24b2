"""An argument that fits, for each parameter of a function: made from its type, so that new functions have one, too."""

from __future__ import annotations

from typing import Any

from msgspec import inspect

from bullmq_proxy.gateway.broker.functions.table import Function


def example_arguments(function: Function) -> list[Any]:
    """The fewest arguments that a call can have, and one where there may be as many as the caller likes."""
    return [example(parameter.type) for parameter in function.parameters if parameter.required or function.variadic]


def example(kind: Any) -> Any:
    """A JSON value that fits a type; raises NotImplementedError for types that no function had until now."""
    return _example(inspect.type_info(kind))


def _example(info: inspect.Type) -> Any:
    match info:
        case inspect.Metadata():
            return _example(info.type)
        case inspect.RawType() | inspect.AnyType() | inspect.DictType():
            return {}
        case inspect.BoolType():
            return False
        case inspect.StrType():
            return "1"
        case inspect.IntType() | inspect.FloatType():
            return max(1, info.ge or 0, (info.gt or 0) + 1)
        case inspect.LiteralType():
            return info.values[0]
        case inspect.UnionType():
            return _example(info.types[0])
        case inspect.ListType() | inspect.CollectionType():
            return [_example(info.item_type)]
        case inspect.StructType() | inspect.TypedDictType():
            return {field.encode_name: _example(field.type) for field in info.fields if field.required}
        case inspect.NoneType():
            return None
    raise NotImplementedError(f"no example for {info}: add one here")
