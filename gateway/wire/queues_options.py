"""The list of queues comes in pages: what a client may ask for, by the query string or as an argument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from bullmq_proxy.gateway.values.validation import matching
from bullmq_proxy.gateway.wire.asked_lists import QueuesOptions
from bullmq_proxy.gateway.wire.connection_options import (
    TOKEN,
    Limits,
    OptionSet,
    QueryOption,
    parse_flag,
    whole,
)

PAGE: Final = 100
"""Queues, about, of one answer, where nothing else is asked for."""

LARGEST_PAGE: Final = 1000

_CURSOR: Final = r"^[0-9a-f]{8}-[0-9]{1,20}$(?!\n)"
_WANTED: Final = "the `cursor` of an earlier answer"
Cursor = Annotated[str, matching(_CURSOR, _WANTED)]
"""Where a page of queues has ended."""


def _parse_cursor(text: str) -> str:
    if not re.match(_CURSOR, text):
        raise ValueError(f"Expected {_WANTED}")
    return text


_CURSOR_OPTION: Final[QueryOption[str | None]] = QueryOption(
    name="cursor",
    description="That of the answer before, to go on behind it.",
    type=Cursor,
    default=None,
    parse=_parse_cursor,
    acting=None,
)
_LIMIT: Final = whole("limit", "About how many queues.", least=1, most=LARGEST_PAGE, default=PAGE)


def _flag(name: str, description: str) -> QueryOption[bool]:
    return QueryOption(name=name, description=description, type=bool, default=False, parse=parse_flag, acting=None)


_COUNTS: Final = _flag("counts", "1: with the number of jobs in each state.")
_OLDEST: Final = _flag("oldest", "1: with how long the job next in line has waited, and whether the queue is paused.")
_CONNECTED: Final = _flag("connected", "1: with how many workers and watchers are connected.")


def _read(path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> QueuesOptions:
    return QueuesOptions(
        cursor=_CURSOR_OPTION.read(query),
        limit=_LIMIT.read(query),
        counts=_COUNTS.read(query),
        oldest=_OLDEST.read(query),
        connected=_CONNECTED.read(query),
    )


QUEUES_OPTIONS: Final = OptionSet((_CURSOR_OPTION, _LIMIT, _COUNTS, _OLDEST, _CONNECTED, TOKEN), _read)
