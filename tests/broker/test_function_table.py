"""The table of functions: a Python signature is what a client's arguments are checked against."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions.table import FunctionTable, camel_case, unknown_function
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import nearest
from tests.wire.strategies import damaged, json_texts


class Limits(Struct, forbid_unknown_fields=True, rename="camel"):
    """Options of a function."""

    max_count: int = 10
    force: bool = False


TABLE = FunctionTable()
EMPTY = Raw(b"{}")


@TABLE.function(Permission.MANAGE, writes=True)
async def clean_up(
    queue: object,
    job_id: Annotated[str, Meta(min_length=1)],
    limit: Annotated[int, Meta(ge=0)] = 5,
    opts: Limits | None = None,
) -> None:
    """Clean something up."""


@TABLE.function(Permission.OBSERVE, writes=False)
async def count_types(queue: object, *types: str) -> int:
    """Count."""
    return len(types)


@TABLE.function(Permission.OBSERVE, writes=False)
async def name_all(queue: object, names: dict[Annotated[str, Meta(max_length=3)], str]) -> None:
    """Take names with their meaning."""


@TABLE.function(Permission.OBSERVE, writes=False, name="isPaused")
async def paused(queue: object) -> bool:
    """Nothing to say."""
    return False


@TABLE.direct(Permission.PRODUCE, writes=True, packs=True, result=str)
def add(queue: object, name: str, data: Raw = EMPTY, *, sink: Any) -> None:
    """Add something."""


_texts: Reader[list[Raw]] = Reader(list[Raw])


def bind(name: str, args: str) -> tuple[Any, ...]:
    return tuple(TABLE[name].bind(_texts.read(args.encode())))


def refusal(name: str, args: str) -> str:
    with pytest.raises(GatewayError) as refused:
        bind(name, args)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENTS
    return refused.value.message


class TestRows:
    def test_a_function_has_its_node_name(self) -> None:
        assert [row.name for row in TABLE] == ["cleanUp", "countTypes", "nameAll", "isPaused", "add"]
        assert camel_case("get_job_count_by_types") == "getJobCountByTypes"

    def test_a_row_says_what_the_function_is(self) -> None:
        row = TABLE["cleanUp"]
        assert (row.permission, row.writes, row.direct, row.doc) == (
            Permission.MANAGE,
            True,
            False,
            "Clean something up.",
        )
        assert TABLE["add"].direct

    def test_the_signature_is_for_people(self) -> None:
        assert TABLE["cleanUp"].signature == "cleanUp(jobId, limit?, opts?)"
        assert TABLE["countTypes"].signature == "countTypes(...types)"
        assert TABLE["isPaused"].signature == "isPaused()"
        assert TABLE["add"].signature == "add(name, data?)"  # where the result goes is not the client's

    @pytest.mark.parametrize("name", ["cleanup", "clean_up", "", "hasOwnProperty", "__class__", "constructor", "é"])
    def test_what_is_not_in_the_table_cannot_be_called(self, name: str) -> None:
        assert TABLE.get(name) is None
        with pytest.raises(GatewayError) as refused:
            TABLE[name]
        assert refused.value.code is ErrorCode.UNKNOWN_FUNCTION
        assert refused.value.message.startswith(f"Unknown function `{name}`")

    def test_the_nearest_known_name_is_offered(self) -> None:
        assert unknown_function("cleanupp", ["cleanUp"]).message == (
            "Unknown function `cleanupp`, did you mean `cleanUp`? - at `fn`"
        )
        assert nearest("zzz", ["cleanUp"]) == ""

    def test_a_long_name_is_cut(self) -> None:
        assert unknown_function("x" * 10_000, ["cleanUp"]).message == f"Unknown function `{'x' * 100}…` - at `fn`"


class TestBinding:
    @pytest.mark.parametrize(
        ("name", "args", "bound"),
        [
            ("cleanUp", '["7"]', ("7", 5, None)),
            ("cleanUp", '["7",0]', ("7", 0, None)),
            ("cleanUp", '["7",1,null]', ("7", 1, None)),
            ("cleanUp", '["7",null]', ("7", 5, None)),
            ("cleanUp", '["7",2.0,{"maxCount":null,"force":null}]', ("7", 2, Limits())),
            ("cleanUp", '["7",1e3,[]]', ("7", 1000, Limits())),
            ("cleanUp", '["7",-0.0,{"maxCount":3.0e0}]', ("7", 0, Limits(3))),
            ("cleanUp", '["half a pair: \\ud83d"]', ("half a pair: \ufffd", 5, None)),
            ("countTypes", '[null,"a",null]', ("a",)),
            ("nameAll", "[[]]", ({},)),
            ("nameAll", '[{"\\udc00":"\\udc00 \\ud83d\\ude00"}]', ({"\ufffd": "\ufffd \U0001f600"},)),
            ("add", '["a", null]', ("a", Raw(b"null"))),
            ("add", '["a", {"x":"\\ud83d"}]', ("a", Raw(b'{"x":"\\ud83d"}'))),
            ("add", '["a \\ud83d"]', ("a \udced\udca0\udcbd", EMPTY)),
            ("cleanUp", '["7",1,{"maxCount":3}]', ("7", 1, Limits(3))),
            ("countTypes", "[]", ()),
            ("countTypes", '["a","b"]', ("a", "b")),
            ("isPaused", "[]", ()),
            ("add", '["a", {"x": 1.50}]', ("a", Raw(b'{"x": 1.50}'))),
        ],
    )
    def test_an_array_becomes_the_arguments(self, name: str, args: str, bound: tuple[Any, ...]) -> None:
        assert bind(name, args) == bound

    @pytest.mark.parametrize(
        ("name", "args", "message"),
        [
            (
                "cleanUp",
                "[]",
                "Expected an array of at least length 1, got 0 - at `args`: cleanUp(jobId, limit?, opts?)",
            ),
            (
                "cleanUp",
                '["7",1,{},2]',
                "Expected an array of at most length 3 - at `args`: cleanUp(jobId, limit?, opts?)",
            ),
            ("isPaused", "[1]", "Expected an array of at most length 0 - at `args`: isPaused()"),
            ("cleanUp", '[""]', "Expected a string of length >= 1 - at `args[0]`"),
            ("cleanUp", "[7]", "Expected a string, got a whole number - at `args[0]`"),
            ("cleanUp", '["7",-1]', "Expected a whole number >= 0 - at `args[1]`"),
            ("cleanUp", '["7",1.5]', "Expected a whole number, got a number that is not whole - at `args[1]`"),
            ("cleanUp", "[null]", "Expected a string, got null - at `args[0]`"),
            ("nameAll", "[7]", "Expected an object, got a whole number - at `args[0]`"),
            ("cleanUp", '["7",1,{"force":1}]', "Expected true or false, got a whole number - at `args[2].force`"),
            ("cleanUp", '["7",1,{"maxcount":1}]', "Unknown option `maxcount`, did you mean `maxCount`? - at `args[2]`"),
            ("cleanUp", '["7",1,{"zzz":1}]', "Unknown option `zzz` - at `args[2]`"),
            ("countTypes", '["a",7]', "Expected a string, got a whole number - at `args[1]`"),
            ("nameAll", '[{"a":1}]', "Expected a string, got a whole number - at `args[0][...]`"),
            ("nameAll", '[{"long":""}]', "Expected a string of length <= 3 as a key - at `args[0]`"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_place(self, name: str, args: str, message: str) -> None:
        assert refusal(name, args) == message

    @given(st.lists(st.binary(max_size=60) | damaged(st.just(b'{"maxCount":3,"force":true}')) | json_texts()))
    def test_nothing_but_a_refusal_is_ever_raised(self, args: list[bytes]) -> None:
        for row in TABLE:
            try:
                row.bind([Raw(text) for text in args])
            except GatewayError as refused:
                assert refused.code is ErrorCode.INVALID_ARGUMENTS
