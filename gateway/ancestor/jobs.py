"""The jobs that a client of the ancestor adds: what one may consist of, and what BullMQ gets of it."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from msgspec import Raw

from bullmq_proxy.gateway.broker.functions.adding import BulkJob
from bullmq_proxy.gateway.errors import GatewayError, invalid_arguments
from bullmq_proxy.gateway.rules.options import PRIORITY_LIMIT
from bullmq_proxy.gateway.values.json_text import UNREADABLE, encode_as_node
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import shortened

T = TypeVar("T")

_LEAST_URGENT: Final = 2**21  # BullMQ had one priority more when the ancestor was written
_BACKOFFS: Final = ("fixed", "exponential")

_array: Final[Reader[list[Raw]]] = Reader(list[Raw])
_members: Final[Reader[dict[str, Raw]]] = Reader(dict[str, Raw])
_name: Final[Reader[str | int | float]] = Reader(str | int | float, packed=True)
_values: Final[Reader[dict[str, Any]]] = Reader(dict[str, Any], packed=True)
_json: Final[Reader[Raw]] = Reader(Raw)
_string: Final[Reader[str]] = Reader(str)


def _read(reader: Reader[T], text: bytes | Raw, wanted: str) -> T:
    """Return the value of JSON text.

    Raises:
        GatewayError: INVALID_ARGUMENTS, it is not what is `wanted`.
    """
    try:
        if not bytes(text).isascii():
            text = bytes(text).removeprefix(BOM_UTF8)
            text.decode()
        return reader.read(text)
    except UNREADABLE:
        raise invalid_arguments(f"Expected {wanted}") from None


def read_json(body: bytes | Raw) -> bytes:
    """Return a body that is JSON of any kind."""
    return bytes(_read(_json, bytes(body).strip(), "JSON")).strip()


def read_row(body: bytes | Raw) -> str:
    """Return the row of a log: a string as it is, anything else as its JSON text."""
    text = read_json(body)
    return _read(_string, text, "a string") if text.startswith(b'"') else text.decode()


def read_array(body: bytes | Raw) -> list[Raw]:
    """Return the jobs in a body, which are still to be read."""
    wanted = "a JSON array of jobs"
    if not bytes(body).removeprefix(BOM_UTF8).lstrip().startswith(b"["):  # an empty object is no array here
        raise invalid_arguments(f"Expected {wanted}")
    return _read(_array, body, wanted)


def read_job(text: Raw, place: int) -> BulkJob:
    """Return a job for `addBulk`.

    Args:
        text: JSON.
        place: of the job in the array.

    Raises:
        GatewayError: INVALID_ARGUMENTS, which names the job and what is wrong with it.
    """
    try:
        return _read_job(text)
    except GatewayError as error:
        raise invalid_arguments(f"{error.message} - at [{place}]") from None


def _read_job(text: Raw) -> BulkJob:
    job = _read(_members, text, "an object with name, data and opts")
    name = _read(_name, job.get("name", _NOTHING), "a name")
    if not name:
        raise invalid_arguments("name is required")
    data = job.get("data", _NOTHING)
    if bytes(data) == b"null":
        raise invalid_arguments("data is required")
    for member in job:
        if member not in ("name", "data", "opts"):
            raise invalid_arguments(f"Unexpected field: {shortened(member)}")
    opts = job.get("opts", _NOTHING)
    if bytes(opts) == b'""' or bytes(opts)[:1] not in (b"{", b"[", b'"'):  # JavaScript finds no member in these
        return BulkJob(str(name), data)
    options = _read_options(_read(_values, opts, "an object as opts"))
    return BulkJob(str(name), data, Raw(encode_as_node(options)))


_NOTHING: Final = Raw(b"null")


def _read_options(given: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in _OPTIONS:
            raise invalid_arguments(f"Unexpected field: opts.{shortened(name)}")
    options = {}
    for name, value in given.items():
        if _is_left_out(name, value):
            continue
        try:
            options[name] = _OPTIONS[name](value)
        except ValueError as error:
            raise invalid_arguments(f"Invalid opts.{name}: {error}") from None
    return options


def _is_left_out(name: str, value: Any) -> bool:
    """Return whether a value counts as none: the ancestor looks at most options only if they are true to JavaScript."""
    if value is None:
        return name not in _NEVER_NULL
    return (value is False or value == "") and name not in _NEVER_FALSE


def _whole(value: Any) -> int:
    if not _is_number(value) or value < 0 or value != int(value):
        raise ValueError("expected a whole number from 0 on")
    return int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _priority(value: Any) -> int:
    if not _is_number(value) or not 1 <= value <= _LEAST_URGENT or value != int(value):
        raise ValueError(f"expected a whole number from 1 to {_LEAST_URGENT}")
    return min(int(value), PRIORITY_LIMIT)


def _lifo(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def _backoff(value: Any) -> Any:
    if _is_number(value) and value >= 0:
        return int(value)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ValueError("expected a number, or an object with a type, and a delay")
    _check_members(value, ("type", "delay"))
    delay = value.get("delay", 0)
    if not _is_number(delay) or delay < 0:
        raise ValueError("expected a number from 0 on as delay")
    if "delay" in value and value["type"] not in _BACKOFFS:  # else it is the name of a strategy of the worker's
        raise ValueError("expected `fixed` or `exponential` as type where there is a delay")
    return value


def _deduplication(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise ValueError("expected an object with a string as id")
    _check_members(value, ("id", "ttl"))
    if "ttl" in value and not (_is_number(value["ttl"]) and value["ttl"] >= 0):
        raise ValueError("expected a number from 0 on as ttl")
    return value


def _check_members(value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in value:
        if name not in known:
            raise ValueError(f"unexpected field {shortened(name)}")


def _keep(value: Any) -> Any:
    """Return what BullMQ takes a value for: anything else than a number or an object counts as true or false."""
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if name in _KEPT}
    return value if _is_number(value) else bool(value)


_OPTIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "delay": _whole,
    "attempts": _whole,
    "priority": _priority,
    "lifo": _lifo,
    "jobId": _text,
    "backoff": _backoff,
    "deduplication": _deduplication,
    "removeOnComplete": _keep,
    "removeOnFail": _keep,
}
"""The options that a job may have, each with what reads its value."""

_NEVER_NULL: Final = ("priority", "lifo")
_NEVER_FALSE: Final = (*_NEVER_NULL, "removeOnComplete", "removeOnFail")
_KEPT: Final = ("age", "count", "limit")
