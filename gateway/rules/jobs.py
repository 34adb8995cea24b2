"""The JSON of a job, built from the raw Redis hash as Node's `Job.toJSON` shows it; never from `bullmq.Job`.

(`bullmq.Job` drops `processedBy`, adds options that nobody set, and raises on hashes that Node reads.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Raw

from bullmq_proxy.gateway.rules.options import LONG_NAMES, Prepared
from bullmq_proxy.gateway.rules.shapes import Job, RawJob
from bullmq_proxy.gateway.rules.trace_context import cut
from bullmq_proxy.gateway.values.json_text import UNREADABLE, encode, encode_utf8, json_text, read_json
from bullmq_proxy.gateway.values.numbers import parse_int
from bullmq_proxy.gateway.values.text import text_of, valid_utf8

Hash = dict[bytes, bytes]

EMPTY_OBJECT: Final = Raw(b"{}")
_SHORT: Final = re.compile(rb'"(?:de|fpof|cpof|idof|kl|rdof|tm|omc|repeatJobKey)":')
# A number that stands for a backoff, or a value that Node takes for none.
_BARE_BACKOFF: Final = re.compile(rb'"backoff":\s*[^{\s]')
_FALSY: Final = (b"null", b"false", b"0", b'""')


def to_hash(flat: Sequence[bytes]) -> Hash:
    """Return the flat reply of HGETALL (field, value, field, …) as a dict."""
    pairs = iter(flat)
    return dict(zip(pairs, pairs, strict=True))


def created_job(
    id: bytes, name: str, data: Raw, options: Prepared, timestamp: int, queue: str, *, duplicate: bool = False
) -> tuple[bytes, Raw, bytes]:
    """Return the JSON text of a job as `add` returns it, in parts: the data is not copied.

    Args:
        id: what the script returned: the new job's id, or the id of the job that was there already.
        timestamp: of the job, in milliseconds.
        queue: the qualified name, `<prefix>:<queue>`.
        duplicate: the job was there already, or was deduplicated: nothing was added.
    """
    head = b'{"id":%b,"name":%b,"data":' % (_text(id), encode(name))
    parts = [
        b',"opts":%b,"progress":0,"returnvalue":null,"stacktrace":null,"priority":%d,"attemptsStarted":0'
        b',"attemptsMade":0,"stalledCounter":0,"timestamp":%d,"queueQualifiedName":%b'
        % (options.shown, options.priority, timestamp, encode_utf8(queue))
    ]
    if options.has_delay:
        parts.append(b',"delay":%d' % options.delay)
    if options.parent_key is not None:
        parts.append(b',"parentKey":%b,"parent":%b' % (encode(options.parent_key), encode(options.parent)))
    if options.deduplication_id is not None:
        parts.append(b',"deduplicationId":%b' % encode(options.deduplication_id))
    if duplicate:
        parts.append(b',"duplicate":true')
    parts.append(b"}")
    return head, data, b"".join(parts)


def _text(value: bytes) -> bytes:
    """Bytes from Redis as a JSON string."""
    return encode_utf8(value.decode(errors="replace"))


def loaded_job(id: str, fields: Hash, queue: str) -> Job:
    """Return the job as `getJob` returns it: a dict ready to be encoded, payloads as stored text.

    Args:
        id: the job's id.
        fields: its hash.
        queue: the qualified name, `<prefix>:<queue>`.
    """
    job: dict[str, Any] = {
        "name": _str(fields.get(b"name")),
        "data": payload(fields.get(b"data")),
        "opts": shown_options(fields.get(b"opts")),
        "id": _str(fields.get(b"id")) or id,
        "progress": _progress(fields.get(b"progress")),
        "returnvalue": _value(fields.get(b"returnvalue"), Raw(b"null")),
        "stacktrace": _shown_stacktrace(fields.get(b"stacktrace")),
        **_numbers(fields),
        "repeatJobKey": _str(fields.get(b"rjk")) or _stored_repeat_key(fields.get(b"opts")),
        "parentKey": _str(fields.get(b"parentKey")) or None,
        "parent": _parent(fields.get(b"parent")),
        "deduplicationId": _str(fields.get(b"deid")) or deduplication_id(fields.get(b"opts")),
        "queueQualifiedName": queue,
        "finishedOn": parse_int(fields.get(b"finishedOn")) or None,
        "processedOn": parse_int(fields.get(b"processedOn")) or None,
        "failedReason": _str(fields.get(b"failedReason")) or None,
        "deferredFailure": _str(fields.get(b"defa")) or None,
        "processedBy": _str(fields.get(b"pb")) or None,
    }
    return cast(Job, {name: value for name, value in job.items() if value is not None or name in _NUMBERS})


def raw_job(fields: Hash) -> RawJob:
    """Return the job as `getDependencies` shows it: what Node calls `JobJson`, payloads as strings of JSON.

    Args:
        fields: its hash; an empty one, of a job that was removed, gives a job without anything.
    """
    job: dict[str, Any] = {
        "id": _str(fields.get(b"id")),
        "name": _str(fields.get(b"name")),
        "data": _str(fields.get(b"data")) or "{}",
        "opts": Raw(encode(long_names(_raw_options(fields.get(b"opts"))))),
        "progress": json_text(fields.get(b"progress") or b"0") or Raw(b"0"),
        **_numbers(fields),
        "finishedOn": _time(fields.get(b"finishedOn")),
        "processedOn": _time(fields.get(b"processedOn")),
        "repeatJobKey": _str(fields.get(b"rjk")),
        "debounceId": _str(fields.get(b"deid")),
        "deduplicationId": _str(fields.get(b"deid")),
        "failedReason": _str(fields.get(b"failedReason")),
        "deferredFailure": _str(fields.get(b"defa")),
        "stacktrace": _str(fields.get(b"stacktrace")),
        "returnvalue": _str(fields.get(b"returnvalue")),
        "parentKey": _str(fields.get(b"parentKey")),
        "parent": _value(fields.get(b"parent"), None),
        "processedBy": _str(fields.get(b"pb")),
    }
    return cast(RawJob, {name: value for name, value in job.items() if value is not None or name in _NUMBERS})


def _numbers(fields: Hash) -> dict[str, int | None]:
    return {
        "delay": parse_int(fields.get(b"delay")),
        "priority": parse_int(fields.get(b"priority")),
        "timestamp": parse_int(fields.get(b"timestamp")),
        "attemptsStarted": parse_int(fields.get(b"ats") or b"0"),
        "attemptsMade": parse_int(fields.get(b"attemptsMade") or fields.get(b"atm") or b"0"),
        "stalledCounter": parse_int(fields.get(b"stc") or b"0"),
    }


# Members that Node writes as null rather than leaving them out (NaN becomes null in JSON).
_NUMBERS: Final = frozenset(("delay", "priority", "timestamp", "attemptsStarted", "attemptsMade", "stalledCounter"))


def payload(text: bytes | None) -> Raw:
    """Return a job's data as the JSON text that the producer wrote; a text that is no JSON goes out as a string."""
    return _value(text or None, EMPTY_OBJECT) or Raw(encode((text or b"").decode(errors="replace")))


def _progress(text: bytes | None) -> Raw:
    """Return a progress as Node reads it: null, and what is no JSON, as 0."""
    return (json_text(text) if text and text != b"null" else None) or Raw(b"0")


def _parent(text: bytes | None) -> Raw | None:
    """Return a parent, or None for what JavaScript takes for none, such as null."""
    return None if text is None or text.strip() in _FALSY else _value(text, None)


def _value(text: bytes | None, absent: Raw | None) -> Raw | None:
    return absent if text is None else json_text(text)


T = TypeVar("T")
_LONGEST_KEPT: Final = 256  # bytes of options; what is longer can hardly come again


def remembered(read: Callable[[bytes | None], T]) -> Callable[[bytes | None], T]:
    """Make a reader of options remember short ones: most jobs of a queue have the same few.

    To read them each time took 0.8 us of each job that is pushed.
    """
    kept = lru_cache(maxsize=1024)(read)

    @wraps(read)
    def read_or_remember(text: bytes | None) -> T:
        return read(text) if text is not None and len(text) > _LONGEST_KEPT else kept(text)

    return read_or_remember


@remembered
def shown_options(text: bytes | None) -> Raw:
    """Return stored options as Node shows them: long names, `attempts` always there, a backoff as an object."""
    if text is not None and b'"attempts":' in text and not (_SHORT.search(text) or _BARE_BACKOFF.search(text)):
        valid = json_text(text)
        if valid is not None and text.lstrip()[:1] == b"{":
            return valid
    if text is not None and b'"omc"' not in text and (parts := cut(text)) is not None:
        return _with_trace(shown_options(parts[1]), parts[0])
    options = long_names(_raw_options(text))
    options.pop("repeatJobKey", None)
    if "backoff" in options:
        _normalize_backoff(options, bytes(options["backoff"]))
    return Raw(encode({"attempts": 0, **options}))


def _with_trace(options: Raw, metadata: bytes) -> Raw:
    return Raw(b'%b,"telemetry":{"metadata":%b}}' % (bytes(options)[:-1], valid_utf8(metadata)))


def _normalize_backoff(options: dict[str, Any], backoff: bytes) -> None:
    """Take a number for a fixed delay, and leave out what JavaScript takes for none."""
    if backoff[:1] in b"-0123456789":
        options["backoff"] = {"type": "fixed", "delay": Raw(backoff)}
    elif backoff in _FALSY:
        del options["backoff"]


_raw_members: Final = msgspec.json.Decoder(dict[str, Raw])
_raw_items: Final = msgspec.json.Decoder(list[Raw])


def _raw_options(text: bytes | None) -> dict[str, Raw]:
    """Return the members of stored options, their values unread; an array's members are numbered, as in JavaScript."""
    text = valid_utf8(text or b"{}")
    try:
        return _raw_members.decode(text)
    except UNREADABLE:
        pass
    try:
        return {str(index): value for index, value in enumerate(_raw_items.decode(text))}
    except UNREADABLE:
        return {name: Raw(encode(value)) for name, value in read_options(text).items()}


def read_options(text: bytes | None) -> dict[str, Any]:
    """Stored options as a dict with their short names; anything that is no JSON object counts as none."""
    options = read_json(text or b"{}")
    return options if isinstance(options, dict) else {}


def long_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Stored options under the names that they have in Node."""
    shown: dict[str, Any] = {LONG_NAMES.get(name, name): value for name, value in options.items()}
    telemetry = {
        long: shown.pop(short) for short, long in (("tm", "metadata"), ("omc", "omitContext")) if short in shown
    }
    if telemetry:
        shown["telemetry"] = telemetry
    return shown


def deduplication_id(text: bytes | None) -> str | None:
    """Return the deduplication id in stored options; BullMQ writes it beside them only since 5.x."""
    if text is None or b'"de":' not in text:
        return None
    deduplication = read_options(text).get("de")
    id = deduplication.get("id") if isinstance(deduplication, dict) else None
    return id if isinstance(id, str) else None


def _stored_repeat_key(text: bytes | None) -> str | None:
    """Return the key of a job scheduler in stored options, where Node leaves it when it makes the next job."""
    key = read_options(text).get("repeatJobKey") if text is not None and b'"repeatJobKey":' in text else None
    return key if isinstance(key, str) else None


def stacktrace(text: bytes | None) -> list[Any]:
    """Return the stored stack traces; what is not a JSON array reads as none, as in Node."""
    traces = read_json(text or b"[]")
    return traces if isinstance(traces, list) else []


def _shown_stacktrace(text: bytes | None) -> Raw | list[Any]:
    traces = json_text(text) if text else None
    return traces if traces is not None and text is not None and text.lstrip()[:1] == b"[" else []


def _time(text: bytes | None) -> int | None:
    return parse_int(text) if text else None


def _str(text: bytes | None) -> str | None:
    return None if text is None else text_of(text)


def pushed_job(id: str, fields: Hash, queue: str, token: str) -> bytes:
    """Return the `data` of the message that pushes a job to a worker.

    Args:
        id: the job's id.
        fields: its hash.
        queue: the queue's name, without the prefix.
        token: of the lease.
    """
    parts = [
        b'{"type":"process","payload":%b,"job":{"id":%b,"name":%b,"opts":%b,"attemptsMade":%d,"attemptsStarted":%d'
        b',"stalledCounter":%d,"timestamp":%d,"processedOn":%d,"delay":%d,"priority":%d,"token":%b,"queue":%b'
        % (
            payload(fields.get(b"data")),
            encode(id),
            _text(fields.get(b"name", b"")),
            shown_options(fields.get(b"opts")),
            parse_int(fields.get(b"atm", b"0")) or 0,
            parse_int(fields.get(b"ats", b"0")) or 0,
            parse_int(fields.get(b"stc", b"0")) or 0,
            parse_int(fields.get(b"timestamp")) or 0,
            parse_int(fields.get(b"processedOn")) or 0,
            parse_int(fields.get(b"delay")) or 0,
            parse_int(fields.get(b"priority")) or 0,
            encode_utf8(token),
            encode_utf8(queue),
        )
    ]
    parts.extend(b',"%b":%b' % (name, _text(fields[field])) for field, name in _PUSHED_TEXTS if field in fields)
    for field, name in _PUSHED_VALUES:
        if field in fields and (value := json_text(fields[field])) is not None:
            parts.append(b',"%b":%b' % (name, value))
    parts.append(b"}}")
    return b"".join(parts)


_PUSHED_TEXTS: Final = (
    (b"parentKey", b"parentKey"),
    (b"rjk", b"repeatJobKey"),
    (b"deid", b"deduplicationId"),
    (b"failedReason", b"failedReason"),
    (b"pb", b"processedBy"),
)
_PUSHED_VALUES: Final = ((b"parent", b"parent"), (b"progress", b"progress"), (b"stacktrace", b"stacktrace"))
