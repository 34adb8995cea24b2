"""Results of calls as JSON: long ones are written in slices, between which others have their turns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from bullmq_proxy.gateway.turns import SLICE, Turns
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.lists import OneTime, taken

_SLICE: Final = 100  # entries that are written between two looks at the clock
_TURN: Final = 0.0005  # s of that in one turn of the loop while no turns are taken


async def encoded(result: Any, turns: Turns) -> bytes | tuple[bytes, ...]:
    """Write a result as JSON, in parts where it is long."""
    if not _is_long(result):
        return encode(result)
    parts, end = [], 0.0
    for part in _parts(result):
        parts.append(part)
        if time.perf_counter() > end:
            await turns.wait_for_slice()
            end = time.perf_counter() + (SLICE if turns.are_taken else _TURN)
    return tuple(parts)


def _is_long(value: Any) -> bool:
    """Return whether a list or an object has many entries, or a member that has."""
    if isinstance(value, dict):
        return len(value) > _SLICE or any(map(_is_long, value.values()))
    return isinstance(value, list) and len(value) > _SLICE


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict) and len(value) <= _SLICE:
        yield b"{"
        for place, (name, member) in enumerate(value.items()):
            yield b"%b%b:" % (b"," if place else b"", encode(name))
            yield from _parts(member) if _is_long(member) else (encode(member),)
        yield b"}"
    elif isinstance(value, dict):
        yield from _joined(_slices(value.items(), dict), b"{", b"}")
    elif isinstance(value, OneTime):
        yield from _joined(taken(value, _SLICE), b"[", b"]")
    else:
        yield from _joined(_slices(value, list), b"[", b"]")


def _slices(entries: Iterable[Any], make: type[list[Any] | dict[Any, Any]]) -> Iterator[list[Any] | dict[Any, Any]]:
    rest = iter(entries)
    while some := make(islice(rest, _SLICE)):
        yield some


def _joined(slices: Iterable[list[Any] | dict[Any, Any]], first: bytes, last: bytes) -> Iterator[bytes]:
    before = first
    for some in slices:
        yield before + encode(some)[1:-1]
        before = b","
    yield last
