"""How a job carries a trace from its producer to its worker: W3C's Trace Context, as `bullmq-otel` writes it.

The text `telemetry.metadata` of a job's options is a JSON object of headers, `traceparent` and perhaps `tracestate`,
which BullMQ stores as `tm`. Others may stand beside them, such as `baggage`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

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


class Carried(NamedTuple):
    """The part of a trace that a job carries.

    Attributes:
        headers: of the trace.
        others: what else stands beside them, such as `baggage`.
        options: of the job, as stored, without them.
    """

    headers: Headers
    others: Mapping[str, Any]
    options: bytes


def carried(options: bytes) -> Carried:
    """Return what a job carries.

    Args:
        options: of the job, as stored.
    """
    if b'"tm"' not in options:
        return Carried(NO_HEADERS, {}, options)
    if (parts := cut(options)) is not None:
        metadata = _read(read_json(parts[0]))
        options = parts[1]
    else:
        stored = read_json(options)
        metadata = _read(stored.get("tm")) if isinstance(stored, Mapping) else None
    found = headers(metadata)
    others = (
        {name: value for name, value in metadata.items() if name not in (PARENT, STATE)}
        if isinstance(metadata, dict)
        else {}
    )
    return Carried(found, others, options)


def metadata(carried: Headers) -> str:
    """Return headers as the text that a job carries."""
    return encode(carried).decode()


_PLAIN: Final = rb'"[ !#-\[\]-~]*(?:\\["\\/bfnrt][ !#-\[\]-~]*)*"'  # a JSON text that every reader reads alike
_METADATA: Final = re.compile(rb'"tm":(%b)' % _PLAIN)
_FIRST: Final = re.compile(rb'\{"telemetry":\{"metadata":(%b)\}(,|(?=\}))' % _PLAIN)


def cut(options: bytes) -> tuple[bytes, bytes] | None:
    """Return the metadata in stored options, JSON text, and the options without it; None unless that is plain to see.

    Jobs that carry traces differ in nothing else, as a rule: who remembers options need read the rest only once.
    """
    found = _METADATA.search(options)
    if found is None or options[:1] != b"{" or options.count(b'"tm"') > 1:
        return None
    start, end = found.span()
    if options.find(b"{", 1, start) >= 0 or options.find(b"[", 1, start) >= 0:  # it may be in a value of another one
        return None
    before, behind = options[:start], options[end:]
    if behind[:1] == b",":
        behind = behind[1:]
    elif before[-1:] == b",":
        before = before[:-1]
    return found[1], before + behind


def cut_given(options: bytes) -> tuple[bytes, bytes] | None:
    """Return the same of a producer's options, where `carrying` has written the metadata."""
    found = _FIRST.match(options)
    if found is None or options.count(b"telemetry") > 1 or b"\\u" in options:
        return None
    return found[1], b"{" + options[found.end() :]


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


def may_carry(options: Raw, metadata: str) -> Raw:
    """Return a producer's options with telemetry metadata, unless they say something about it themselves."""
    return carrying(options, metadata) if own_telemetry(options)[1] else options


def carrying(options: Raw, metadata: str) -> Raw:
    """Return a producer's options with telemetry metadata; only for those that may carry it, see `own_telemetry`."""
    telemetry = b'{"metadata":%b}' % encode(metadata)
    if bytes(options) == b"null":
        return Raw(b'{"telemetry":%b}' % telemetry)
    return Raw(with_member(bytes(options), "telemetry", telemetry))


def handed_on(carried: Carried, others: Headers) -> bytes:
    """Return a job's stored options with the headers of another trace, or span, in place of those that it carries."""
    text = encode(encode({**carried.others, **others}).decode())
    return with_member(carried.options, "tm", text)


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
