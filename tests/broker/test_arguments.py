"""Arguments as clients of all languages write them: one rule of the binding, tested over the whole table."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Raw

from bullmq_proxy.gateway.broker.functions import FLOWS, TABLE
from bullmq_proxy.gateway.broker.functions.table import Function
from bullmq_proxy.gateway.rules.options import JobOptions, OptionsCache
from bullmq_proxy.gateway.rules.repeat import RepeatOptions
from bullmq_proxy.gateway.values.reading import Reader, Shape

FUNCTIONS = [function for table in (TABLE, FLOWS) for function in table]


def bound(function: Function, args: list[Any]) -> list[Any]:
    return [_shown(value) for value in function.bind([Raw(json.dumps(arg).encode()) for arg in args])]


def _shown(value: Any) -> Any:
    """A value that can be compared: of a Raw, which is any JSON, its text."""
    if isinstance(value, Raw):
        return json.loads(bytes(value))
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, msgspec.Struct):
        return {name: _shown(getattr(value, name)) for name in value.__struct_fields__}
    return value


def shape_of(function: Function, place: int) -> Shape:
    parameter = function.parameters[0 if function.variadic else place]
    return Shape({"raw"}) if parameter.reader is None else parameter.reader.shape


def with_nulls(value: Any, shape: Shape) -> Any:
    """The value with null for each member that may be left out and is left out."""
    if isinstance(value, dict) and "raw" not in shape.kinds:
        nulls = {name: None for name in shape.optional if name not in value}
        kept = {name: with_nulls(each, shape.members.get(name, Shape({"raw"}))) for name, each in value.items()}
        return {**nulls, **kept}
    if isinstance(value, list) and shape.items is not None:
        return [with_nulls(each, shape.items) for each in value]
    return value


def with_fractions(value: Any, shape: Shape) -> Any:
    """The value with 1.0 for 1."""
    if isinstance(value, dict) and "raw" not in shape.kinds:
        return {name: with_fractions(each, shape.members.get(name, Shape({"raw"}))) for name, each in value.items()}
    if isinstance(value, list) and shape.items is not None:
        return [with_fractions(each, shape.items) for each in value]
    return (
        float(value) if isinstance(value, int) and not isinstance(value, bool) and "raw" not in shape.kinds else value
    )


class TestEachFunction:
    def test_null_for_an_argument_that_may_be_left_out_leaves_it_out(self) -> None:
        for function in FUNCTIONS:
            required = list(function.example)[: sum(parameter.required for parameter in function.parameters)]
            for place in range(len(required), len(function.parameters)):
                without = bound(function, required + [None] * (place - len(required)))
                given = bound(function, required + [None] * (place - len(required) + 1))
                assert [_none(value, function, at) for at, value in enumerate(given)] == [
                    _none(value, function, at) for at, value in enumerate(without)
                ]

    def test_null_for_a_member_that_may_be_left_out_leaves_it_out(self) -> None:
        for function in FUNCTIONS:
            args = list(function.example)
            nulls = [with_nulls(arg, shape_of(function, place)) for place, arg in enumerate(args)]
            assert bound(function, nulls) == bound(function, args), function.name

    def test_a_whole_number_may_have_a_point(self) -> None:
        for function in FUNCTIONS:
            args = list(function.example)
            fractions = [with_fractions(arg, shape_of(function, place)) for place, arg in enumerate(args)]
            assert bound(function, fractions) == bound(function, args), function.name

    def test_an_empty_list_is_an_empty_object_where_one_is_wanted_and_the_other_way_round(self) -> None:
        for function in FUNCTIONS:
            for place in range(len(function.parameters)):
                kinds = shape_of(function, place).kinds
                for given, meant in (([], {}), ({}, [])):
                    kind, other = ("object", "array") if meant == {} else ("array", "object")
                    if kind in kinds and other not in kinds:
                        args = [*list(function.example)[:place], *[None] * (place - len(function.example))]
                        assert _outcome(function, [*args, given]) == _outcome(function, [*args, meant])

    def test_half_a_surrogate_pair_is_no_reason_to_refuse(self) -> None:
        for function in FUNCTIONS:
            args = list(function.example)
            for place, arg in enumerate(args):
                shape = shape_of(function, place)
                if isinstance(arg, str) and "str" in shape.kinds and not shape.enum:
                    halves = [*args[:place], f"{arg}\ud83d", *args[place + 1 :]]
                    assert bound(function, halves)[place].startswith(arg)


def _none(value: Any, function: Function, place: int) -> Any:
    """None and the default mean the same where the type takes null; a `Raw` takes any JSON, null included."""
    parameter = function.parameters[0 if function.variadic else place]
    if parameter.required:
        return value
    return None if value in (None, _shown(parameter.default)) else value


def _outcome(function: Function, args: list[Any]) -> Any:
    try:
        return bound(function, args)
    except Exception as error:
        return str(error)


class TestJobOptions:
    def test_null_is_none_for_each(self) -> None:
        cache, shape = OptionsCache(), Reader(JobOptions).shape
        assert len(shape.optional) == len(JobOptions.__struct_fields__)
        for name in shape.optional:
            assert cache.prepare(Raw(f'{{"{name}":null}}'.encode())) == cache.prepare(Raw(b"{}"))

    def test_whole_numbers_may_have_a_point_and_an_exponent(self) -> None:
        cache = OptionsCache()
        plain = cache.prepare(
            Raw(b'{"delay":5000,"attempts":3,"backoff":{"type":"fixed","delay":10,"jitter":0.5},"keepLogs":100}')
        )
        others = Raw(
            b'{"delay":5e3,"attempts":3.0,"backoff":{"type":"fixed","delay":1e1,"jitter":5e-1},"keepLogs":1E2}'
        )
        assert cache.prepare(others) == plain
        assert cache.prepare(Raw(b'{"removeOnComplete":10.0}')) == cache.prepare(Raw(b'{"removeOnComplete":10}'))

    def test_an_empty_list_is_no_options(self) -> None:
        cache = OptionsCache()
        assert cache.prepare(Raw(b"[]")) == cache.prepare(Raw(b"{}"))
        assert cache.prepare(Raw(b'{"telemetry":[]}')) == cache.prepare(Raw(b'{"telemetry":{}}'))

    def test_repeat_options_are_read_alike(self) -> None:
        reader: Reader[RepeatOptions] = Reader(RepeatOptions)
        assert reader.read(b'{"every":1000.0,"limit":2.0,"startDate":1e12,"pattern":null,"tz":null}') == reader.read(
            b'{"every":1000,"limit":2,"startDate":1000000000000}'
        )
