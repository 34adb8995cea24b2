"""Values as clients of all languages write them, read as the types that we want.

msgspec reads what is written as those types are. What it refuses is looked at once more, for what some languages write
for the same thing:

* `1000.0` or `1e3` for a whole number: they have one kind of number;
* `null` for a member that may be left out: they have no way to leave one out;
* `[]` for an object without members, `{}` for a list without elements: they have one kind of empty table;
* half a surrogate pair in a string, such as `"\\ud83d"`, which is valid JSON (RFC 8259 §8.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from contextlib import suppress
from functools import cache
from typing import Any, Final, Generic, TypeVar, cast

import msgspec
from msgspec import Raw, Struct, field, inspect

from bullmq_proxy.gateway.values.json_text import SURROGATE, UNREADABLE
from bullmq_proxy.gateway.values.text import in_half_pairs

T = TypeVar("T")


class Shape(Struct):
    """What a type takes, as far as the second look needs to know it.

    Attributes:
        kinds: of JSON, in msgspec's words; `raw` and `any` take all of them.
        enum: the values that a string may be one of.
        members: of an object, by name.
        optional: names of members that may be left out, and for which `null` is no value.
        values: of any other members.
        items: of a list.
        decode: the quick way to read an object; None for one without a fixed type.
    """

    kinds: set[str] = field(default_factory=set)
    enum: list[str] = field(default_factory=list)
    members: dict[str, Shape] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    values: Shape | None = None
    items: Shape | None = None
    decode: Callable[[bytes], Any] | None = None

    def at(self, place: str) -> Shape | None:
        """Return the shape of a part, by its place in an error of msgspec's, such as `.children[...].name`."""
        shape: Shape | None = self
        for name, index in _STEP.findall(place):
            if shape is not None:
                shape = (shape.items or shape.values) if index else (shape.members.get(name) or shape.values)
        return shape


_STEP: Final = re.compile(r"\.([^.\[\]]+)|(\[(?:\.\.\.|\d+)\])")
_KINDS: Final = {
    inspect.NoneType: "null",
    inspect.BoolType: "bool",
    inspect.IntType: "int",
    inspect.FloatType: "float",
    inspect.StrType: "str",
    inspect.LiteralType: "str",
    inspect.RawType: "raw",
    inspect.AnyType: "any",
    inspect.ListType: "array",
    inspect.DictType: "object",
    inspect.StructType: "object",
}


def shape_of(hint: Any) -> Shape:
    """Return the shape of a type."""
    shape = Shape()
    _add(shape, inspect.type_info(hint), {})
    return shape


def _shape(type: inspect.Type, structs: dict[Any, Shape]) -> Shape:
    shape = Shape()
    if isinstance(type, inspect.StructType):
        shape = structs.setdefault(type.cls, shape)  # one that holds itself is read once
        if shape.kinds:
            return shape
    _add(shape, type, structs)
    return shape


def _add(shape: Shape, type: inspect.Type, structs: dict[Any, Shape]) -> None:
    match type:
        case inspect.Metadata():
            _add(shape, type.type, structs)
            return
        case inspect.UnionType():
            for each in type.types:
                _add(shape, each, structs)
            return
        case inspect.LiteralType():
            shape.enum += [value for value in type.values if isinstance(value, str)]
        case inspect.ListType():
            shape.items = _shape(type.item_type, structs)
        case inspect.DictType():
            shape.values = _shape(type.value_type, structs)
        case inspect.StructType():
            structs[type.cls] = shape
            shape.decode = msgspec.json.Decoder(type.cls).decode
            shape.kinds.add("object")
            shape.members.update({each.encode_name: _shape(each.type, structs) for each in type.fields})
            shape.optional.update(
                each.encode_name
                for each in type.fields
                if not each.required and not shape.members[each.encode_name].kinds & {"null", "raw", "any"}
            )
    shape.kinds.add(_KINDS.get(type.__class__, "any"))


class Reader(Generic[T]):
    """Reads JSON text as a type.

    Attributes:
        decode: the quick way, which is msgspec's: an error of UNREADABLE is for `read_again`.
    """

    def __init__(self, hint: Any, *, packed: bool = False) -> None:
        """Make a reader of values of the type `hint`.

        Half a surrogate pair becomes U+FFFD, which Node writes where a text is an argument of Redis. With `packed` it
        becomes three bytes of Redis, which Node writes where msgpackr packs the text.
        """
        self._packed = packed
        self.decode: Callable[[bytes | Raw], T] = msgspec.json.Decoder(hint).decode
        self._hint = hint
        self._made: Shape | None = None

    @property
    def shape(self) -> Shape:
        """The shape of the type; made when it is first asked for."""
        if self._made is None:
            self._made = shape_of(self._hint)
        return self._made

    def read(self, text: bytes | Raw) -> T:
        """Return the value of a text.

        Raises:
            UNREADABLE: it is no such value.
        """
        try:
            return self.decode(text)
        except UNREADABLE as error:
            return self.read_again(text, error)

    def read_again(self, text: bytes | Raw, error: Exception) -> T:
        """Return the value of a text that `decode` has refused with `error`, if a second look helps; else raise."""
        raw = bytes(text)
        halves = SURROGATE.search(raw) is not None
        if not halves and not (isinstance(error, msgspec.ValidationError) and _HELPFUL.search(str(error))):
            raise _copy(error)
        try:
            look = _LookAtHalves(raw, packed=self._packed) if halves else _Look(raw)
            value = look.value(look.text, self.shape)
        except _TooMuch:
            raise
        except UNREADABLE:
            raise _copy(error) from None
        return cast("T", msgspec.convert(value, self._hint))


def _copy(error: Exception) -> Exception:
    """Return an error to raise in place of one that a caller's frame holds: its traceback would hold that frame."""
    return type(error)(*error.args)


# The kinds that something else can stand for.
_HELPFUL: Final = re.compile(r"got `(?:float|null|array|object)`")

_MOST: Final = 20_000  # values taken apart, or halves, of one text: some hundreds of them cost a millisecond


_BYTES: Final = 4096  # of a part that is taken apart count as a value: each level of it is looked through again


class _TooMuch(msgspec.ValidationError):
    """A text is too large for a second look."""


class _Look:
    """The second look at one text."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._looked = 0

    def value(self, text: bytes, shape: Shape) -> Any:
        """Return what msgspec can convert to the type of a shape, of a text that stands for that.

        A level of a flow is two calls deep: its 200 levels have to stay below Python's limit.
        """
        self._count(1 + len(text) // _BYTES)
        kinds = shape.kinds
        if "raw" in kinds:
            return Raw(self.as_sent(text))
        start = text.lstrip()[:1]
        if start == b"{" and "object" in kinds:
            found: dict[str, Any] = {}
            for name, member in _members(text).items():
                value = self.value(bytes(member), shape.members.get(name) or shape.values or _ANYTHING)
                if value is not None or name not in shape.optional:
                    found[self.string(name)] = value
            return found
        if start == b"[" and "array" in kinds and shape.items is not None:
            if not shape.items.kinds & {"raw", "object", "array"}:
                return self._plain_items(text, shape.items.kinds)
            items: list[Any] = []
            for item in map(bytes, _items(text)):
                quick = self._as_it_is(item, shape.items)
                items.append(self.value(item, shape.items) if quick is None else quick)
            return items
        return self._fitting(_any(text), kinds)

    def _plain_items(self, text: bytes, kinds: Container[str]) -> list[Any]:
        values = _any(text)
        self._count(len(values))
        return [self._fitting(value, kinds) for value in values]

    def _as_it_is(self, text: bytes, shape: Shape) -> Any:
        """Return an element of a list that is written as its type is, as nearly all are, or None."""
        if shape.decode is not None and not self.may_stand_in(text):
            with suppress(*UNREADABLE):
                return shape.decode(text)
        return None

    def _count(self, values: int) -> None:
        self._looked += values
        if self._looked > _MOST:
            raise _TooMuch(
                f"There are more than {_MOST} values beside one that is written in an uncommon way, such as 1.0 for 1,"
                " or half a surrogate pair: send fewer at a time"
            )

    def _fitting(self, value: Any, kinds: Container[str]) -> Any:
        """Return what stands for a value where one of some kinds is wanted."""
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, float):
            return int(value) if "int" in kinds and "float" not in kinds and value.is_integer() else value
        if value == [] and "object" in kinds:
            return {}
        if value == {} and "array" in kinds:
            return []
        return value

    def may_stand_in(self, text: bytes) -> bool:
        """Return whether something in a part of the text may stand for something else."""
        return False

    def string(self, value: str) -> str:
        """Return a string as its sender meant it."""
        return value

    def as_sent(self, text: bytes) -> bytes:
        """Return a part of the text as its sender wrote it."""
        return text


_HEX: Final = rb"[0-9a-fA-F]"
_HALF: Final = rb"[dD][89a-fA-F]%b{2}" % _HEX
_PAIR: Final = rb"\\u[dD][89abAB]%b{2}\\u[dD][c-fC-F]%b{2}" % (_HEX, _HEX)


def _escapes(digits: bytes, passed: bytes = rb"(?!)") -> re.Pattern[bytes]:
    """Return a pattern that takes JSON text up to and with each escape of some digits, and its rest.

    Its first group is what stands before the escape, its second one the digits. What is `passed` is none. It takes all
    of a text, in time that grows with the text and not with its square, whatever is in it.
    """
    return re.compile(rb"((?:[^\\]++|\\[^u]|\\u(?!%b)|%b)*+)(?:\\u(%b)|\\|\Z)" % (digits, passed, digits))


_HALVES: Final = _escapes(_HALF, passed=_PAIR)
_AREAS: Final = (0xE000, 0xE800, 0xF000)
_AREA: Final = 2048  # characters


class _LookAtHalves(_Look):
    """The second look at a text with halves of surrogate pairs, which msgspec does not read.

    Characters of a private area, one that the text does not use itself, stand in for their escapes meanwhile.
    """

    def __init__(self, text: bytes, *, packed: bool) -> None:
        self._packed = packed
        self._first = next((first for first in _AREAS if not _uses(first).search(text)), 0)
        self._sent: list[bytes] = []
        self._numbers: dict[bytes, int] = {}  # of the digits in `_sent`
        super().__init__(b"")
        self.text = _HALVES.sub(self._stand_in, text)
        if not self._first or len(self._sent) > _AREA:
            raise msgspec.DecodeError("nothing can stand in for all of them")
        self._escape = _escapes(_digits(self._first))
        self._character = re.compile(f"[{chr(self._first)}-{chr(self._first + _AREA - 1)}]")

    def _stand_in(self, found: re.Match[bytes]) -> bytes:
        if found[2] is None:
            return found[0]
        self._count(1)
        number = self._numbers.setdefault(found[2], len(self._sent))
        if number == len(self._sent):
            self._sent.append(found[2])
        return b"%b\\u%04x" % (found[1], self._first + number)

    def may_stand_in(self, text: bytes) -> bool:
        """Return whether something in a part of the text may stand for something else."""
        return b"\\u" in text

    def string(self, value: str) -> str:
        """Return a string as Node writes it into Redis."""
        return self._character.sub(self._half if self._packed else "\ufffd", value)

    def _half(self, found: re.Match[str]) -> str:
        return in_half_pairs(chr(int(self._sent[ord(found[0]) - self._first], 16)))

    def as_sent(self, text: bytes) -> bytes:
        """Return a part of the text as its sender wrote it."""
        return self._escape.sub(self._restored, text) if self.may_stand_in(text) else text

    def _restored(self, found: re.Match[bytes]) -> bytes:
        if found[2] is None:
            return found[0]
        return b"%b\\u%b" % (found[1], self._sent[int(found[2], 16) - self._first])


@cache
def _uses(first: int) -> re.Pattern[bytes]:
    """Return a pattern that finds a use of an area: a character as such (64 begin alike), or as an escape."""
    characters = b"|".join(re.escape(chr(first + each).encode()[:2]) for each in range(0, _AREA, 64))
    return re.compile(rb"%b|\\u%b" % (characters, _digits(first)))


def _digits(first: int) -> bytes:
    """Return a pattern of the digits of an area's escapes."""
    letter = b"[eE]" if first < 0xF000 else b"[fF]"
    return b"%b[%b]%b{2}" % (letter, b"89a-fA-F" if first & 0x800 else b"0-7", _HEX)


_ANYTHING: Final = Shape({"raw"})
_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_items: Final = msgspec.json.Decoder(list[Raw]).decode
_any: Final = msgspec.json.Decoder().decode
