"""How a job carries a trace from its producer to its worker: W3C's Trace Context, as `bullmq-otel` writes it.

The text `telemetry.metadata` of a job's options is a JSON object of headers, `traceparent` and perhaps `tracestate`,
which BullMQ stores as `tm`. Others may stand beside them, such as `baggage`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from bullmq_proxy.gateway.values.json_text import UNREADABLE, encode, read_json

Headers = Mapping[str, str]
"""`traceparent`, and `tracestate` where there is one; empty for no trace."""

NO_HEADERS: Final[Headers] = {}
PARENT: Final = "traceparent"
STATE: Final = "tracestate"

_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]*)?")
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")


def headers(carried: object) -> Headers:
    """Return the headers of a trace among others; empty where there are none that can be used."""
    if not isinstance(carried, Mapping):
        return NO_HEADERS
    parent, state = carried.get(PARENT), carried.get(STATE)
    if not isinstance(parent, str) or not _PARENT.fullmatch(parent):
        return NO_HEADERS
    return {PARENT: parent, STATE: state} if isinstance(state, str) and _STATE.fullmatch(state) else {PARENT: parent}


def stored_headers(options: bytes | None) -> Headers:
    """Return the headers that a job carries.

    Args:
        options: of the job, as stored.
    """
    return headers(_stored(options))


def metadata(carried: Headers) -> str:
    """Return headers as the text that a job carries."""
    return encode(carried).decode()


def _stored(options: bytes | None) -> Any:
    """Return what the metadata of a stored job says, of whatever kind."""
    if options is None or b'"tm"' not in options:
        return None
    stored = read_json(options)
    return _read(stored.get("tm")) if isinstance(stored, Mapping) else None


def _read(text: Any) -> Any:
    return read_json(text.encode(errors="replace")) if isinstance(text, str) else text


class _Telemetry(Struct, rename="camel"):
    metadata: Any = None
    omit_context: Any = None


class _Own(Struct):
    telemetry: _Telemetry | None = None


_own: Final = msgspec.json.Decoder(_Own)
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_NONE: Final = _Telemetry()


def own_telemetry(options: Raw) -> tuple[Headers, bool]:
    """Return the trace that a producer's own options name, and whether a job with these options may carry another.

    Args:
        options: as the producer has sent them, unchecked.
    """
    if b"telemetry" not in bytes(options):
        return NO_HEADERS, True
    try:
        own = _own.decode(options).telemetry or _NONE
    except UNREADABLE:  # the check of the options says what is wrong with them
        return NO_HEADERS, False
    return headers(_read(own.metadata)), not (own.metadata or own.omit_context)


def carrying(options: Raw, metadata: str) -> Raw:
    """Return a producer's options with telemetry metadata; only for those that may carry it, see `own_telemetry`."""
    telemetry = b'{"metadata":%b}' % encode(metadata)
    if bytes(options) == b"null":
        return Raw(b'{"telemetry":%b}' % telemetry)
    return Raw(with_member(bytes(options), "telemetry", telemetry))


def handed_on(options: bytes, carried: Headers) -> bytes:
    """Return a job's stored options with the headers of another trace, or span, in place of those that it carries.

    What else its metadata says stays.
    """
    before = _stored(options)
    rest = {name: value for name, value in before.items() if name not in (PARENT, STATE)} if _is_text(before) else {}
    return with_member(options, "tm", encode(encode({**rest, **carried}).decode()))


def _is_text(carried: Any) -> bool:
    return isinstance(carried, dict)


def with_member(text: bytes, name: str, value: bytes) -> bytes:
    """Return the JSON text of an object with a further member, or another value of it; of what is none, the same."""
    quoted = b'"%b"' % name.encode()
    if quoted not in text and b"\\u" not in text:
        before, brace, behind = text.partition(b"{")
        if brace and not before.strip():
            separator = b"" if behind.lstrip()[:1] == b"}" else b","
            return b"{%b:%b%b%b" % (quoted, value, separator, behind)
        return text
    try:
        return encode({**_members.decode(text), name: Raw(value)})
    except UNREADABLE:
        return text
