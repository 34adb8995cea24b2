"""The list of connections, and the history: what a client may ask for by the query string."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from bullmq_proxy.gateway.rules.shapes import ConnectionKind
from bullmq_proxy.gateway.wire.asked_lists import ConnectionsOptions, HistoryOptions, ScaleOptions
from bullmq_proxy.gateway.wire.connection_options import (
    TOKEN,
    Limits,
    OptionSet,
    QueryOption,
    whole,
)

LISTED: Final = 100
"""Connections of one answer, where nothing else is asked for."""

MOST_LISTED: Final = 1000
"""Connections of one answer."""

_QUEUE: Final[QueryOption[str | None]] = QueryOption(
    name="queue",
    description="The name of the only queue to answer for.",
    type=str,
    default=None,
    parse=str,
    acting=None,
)
_KINDS: Final[tuple[ConnectionKind, ...]] = get_args(ConnectionKind)


def _parse_kind(text: str) -> ConnectionKind:
    for kind in _KINDS:
        if kind == text:
            return kind
    raise ValueError(f"Expected one of {', '.join(_KINDS)}")


_KIND: Final[QueryOption[ConnectionKind | None]] = QueryOption(
    name="kind",
    description="The only kind to list.",
    type=ConnectionKind,
    default=None,
    parse=_parse_kind,
    acting=None,
)
_LIMIT: Final = whole("limit", "How many at most.", least=1, most=MOST_LISTED, default=LISTED)


def _read(path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> ConnectionsOptions:
    return ConnectionsOptions(queue=_QUEUE.read(query), kind=_KIND.read(query), limit=_LIMIT.read(query))


CONNECTIONS_OPTIONS: Final = OptionSet((_QUEUE, _KIND, _LIMIT, TOKEN), _read)


def _read_history(path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> HistoryOptions:
    return HistoryOptions(queue=_QUEUE.read(query))


HISTORY_OPTIONS: Final = OptionSet((_QUEUE, TOKEN), _read_history)


def _read_scale(path: Mapping[str, str], query: Mapping[str, str], limits: Limits) -> ScaleOptions:
    return ScaleOptions(queue=_QUEUE.read(query))


SCALE_OPTIONS: Final = OptionSet((_QUEUE, TOKEN), _read_scale)
