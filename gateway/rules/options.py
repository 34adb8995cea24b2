"""Job options: what a client may set, checked as Node's BullMQ checks it, packed as BullMQ stores it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Final, Never

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from bullmq_proxy.gateway.access.grants import Effect
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.effects import effects_of
from bullmq_proxy.gateway.rules.ids import is_reserved
from bullmq_proxy.gateway.rules.trace_context import cut_given
from bullmq_proxy.gateway.values.json_text import encode
from bullmq_proxy.gateway.values.numbers import Count, Milliseconds, Whole
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.text import as_packed_by_node, bytes_of, with_texts
from bullmq_proxy.gateway.values.validation import read, shows

PRIORITY_LIMIT: Final = 2**21 - 1
NO_OPTIONS: Final = Raw(b"{}")

# Read as any number, and checked in Node's words.
_Priority = Annotated[float, shows(Annotated[int, Meta(ge=0, le=PRIORITY_LIMIT)])]
_Jitter = Annotated[float, shows(Annotated[float, Meta(ge=0, le=1)])]


Refused = Annotated[bool | int | float | str | list[Any] | dict[str, Any], shows(Never)]
"""An option that is known only to be refused; null is none."""


class _Options(Struct, forbid_unknown_fields=True, rename="camel", omit_defaults=True, frozen=True):
    """The base of all option objects: unknown names are refused, unset ones are not stored."""


class KeepJobs(_Options, frozen=True):
    """How many finished jobs stay. `age` in seconds."""

    age: Count | UnsetType = UNSET
    count: Whole | UnsetType = UNSET
    limit: Count | UnsetType = UNSET


class Backoff(_Options, frozen=True):
    """The wait before a retry: `fixed`, `exponential`, or a name that a custom worker knows. `delay` in ms."""

    type: str
    delay: Milliseconds | UnsetType = UNSET
    jitter: _Jitter | UnsetType = UNSET


class Deduplication(_Options, frozen=True):
    """One job per id at a time. `ttl` in milliseconds."""

    id: str = ""
    ttl: Milliseconds | UnsetType = UNSET
    extend: bool | UnsetType = UNSET
    replace: bool | UnsetType = UNSET
    reschedule: bool | UnsetType = UNSET
    keep_last_if_active: bool | UnsetType = UNSET


class Parent(_Options, frozen=True):
    """The job that waits for this one. `queue` is the qualified name, `<prefix>:<queue>`."""

    id: str
    queue: str


class Telemetry(_Options, frozen=True):
    """What a tracer hands on from producer to worker."""

    metadata: str | UnsetType = UNSET
    omit_context: bool | UnsetType = UNSET


class JobOptions(_Options, frozen=True):
    """BullMQ's JobsOptions. Times in milliseconds, sizes in bytes.

    Attributes:
        job_id: the job's id; no integer, and without `:` (but with two of them, as BullMQ's own ids have).
        priority: 0 is none; smaller ones come first.
        delay: before the first attempt.
        attempts: how often it is tried; 0 and 1 are once.
        backoff: between attempts.
        lifo: put in front of those that wait.
        remove_on_complete: how many completed jobs stay; true: none, false: all.
        remove_on_fail: how many failed jobs stay; true: none, false: all.
        keep_logs: how many rows of its log are kept.
        stack_trace_limit: how many stack traces are kept.
        size_limit: most bytes of data.
        timestamp: when it was created, instead of now.
        parent: the job that waits for this one.
        fail_parent_on_failure: its failure fails the parent.
        continue_parent_on_failure: its failure lets the parent go on at once.
        ignore_dependency_on_failure: its failure counts for the parent as done.
        remove_dependency_on_failure: its failure takes it off the parent's children.
        deduplication: while one job of this id is there, no other is added.
        telemetry: handed on to the worker.
    """

    job_id: str | UnsetType = UNSET
    priority: _Priority | UnsetType = UNSET
    delay: Milliseconds | UnsetType = UNSET
    attempts: Count | UnsetType = UNSET
    backoff: Milliseconds | Backoff | UnsetType = UNSET
    lifo: bool | UnsetType = UNSET
    remove_on_complete: bool | Whole | KeepJobs | UnsetType = UNSET
    remove_on_fail: bool | Whole | KeepJobs | UnsetType = UNSET
    keep_logs: Count | UnsetType = UNSET
    stack_trace_limit: Count | UnsetType = UNSET
    size_limit: Count | UnsetType = UNSET
    timestamp: Milliseconds | UnsetType = UNSET
    parent: Parent | UnsetType = UNSET
    fail_parent_on_failure: bool | UnsetType = UNSET
    continue_parent_on_failure: bool | UnsetType = UNSET
    ignore_dependency_on_failure: bool | UnsetType = UNSET
    remove_dependency_on_failure: bool | UnsetType = UNSET
    deduplication: Deduplication | UnsetType = UNSET
    telemetry: Telemetry | UnsetType = UNSET
    # Removed in BullMQ 6: known only to be refused with Node's words.
    debounce: Refused | UnsetType = UNSET


OptionsText = Annotated[Raw, shows(JobOptions | None)]
"""Job options that `OptionsCache` checks."""


# Options that at most one of may be set, in the order in which Node lists them.
_EXCLUSIVE: Final = (
    "removeDependencyOnFailure",
    "failParentOnFailure",
    "continueParentOnFailure",
    "ignoreDependencyOnFailure",
)

# How options are called inside Redis (`optsEncodeMap` of both BullMQ packages).
SHORT_NAMES: Final = {
    "failParentOnFailure": "fpof",
    "continueParentOnFailure": "cpof",
    "ignoreDependencyOnFailure": "idof",
    "removeDependencyOnFailure": "rdof",
    "keepLogs": "kl",
    "deduplication": "de",
}
LONG_NAMES: Final = {short: long for long, short in SHORT_NAMES.items()}

# The flags of a job that its parent keeps, in the order in which Node writes them.
_PARENT_FLAGS: Final = (
    "failParentOnFailure",
    "removeDependencyOnFailure",
    "ignoreDependencyOnFailure",
    "continueParentOnFailure",
)

_KNOWN: Final = frozenset(
    name
    for struct in (JobOptions, KeepJobs, Backoff, Deduplication, Parent, Telemetry)
    for name in struct.__struct_encode_fields__
)
_reader: Final[Reader[JobOptions]] = Reader(JobOptions, packed=True)
_pack: Final = msgspec.msgpack.Encoder().encode
_TRACE: Final = _pack("tm")
_ROOMY: Final = range(0x80, 0x8F)  # a map of msgpack with up to 14 members, whose number may be one more


def pack(value: Any) -> bytes:
    """Write a value in msgpack, as the scripts read it; texts from Redis that are no UTF-8 as the bytes they were."""
    return _pack_with(value, _pack_text)


def pack_given(value: Any) -> bytes:
    """Write a value of a client's in msgpack, halves of surrogate pairs as Node writes them."""
    return _pack_with(value, lambda text: _pack_text(as_packed_by_node(text)))


def _pack_with(value: Any, pack_text: Callable[[str], Raw]) -> bytes:
    try:
        return _pack(value)
    except UnicodeEncodeError:
        return _pack(with_texts(value, pack_text))


def _pack_text(text: str) -> Raw:
    """Pack a text as a string whose bytes may be no UTF-8; the scripts know no other type for bytes."""
    raw = bytes_of(text)
    size = len(raw)
    if size < 32:
        return Raw(bytes((0xA0 + size,)) + raw)
    return Raw((b"\xda" + size.to_bytes(2) if size < 0x10000 else b"\xdb" + size.to_bytes(4)) + raw)


class Prepared(Struct, frozen=True, gc=False):
    """Job options after the checks, in the forms that an `add` needs."""

    packed: bytes  # msgpack, as the scripts store them
    shown: bytes  # JSON, as the reply shows them
    job_id: str = ""
    priority: int = 0
    delay: int = 0
    has_delay: bool = False  # a delay of 0 shows in the reply, one that was not given does not
    timestamp: int = 0
    size_limit: int = 0
    deduplication_id: str | None = None
    parent_key: str | None = None
    parent: dict[str, Any] | None = None
    effects: tuple[Effect, ...] = ()  # on the jobs of others
    reschedules: bool = False  # a delayed job that keeps this one out waits once more from the start

    @property
    def may_be_duplicate(self) -> bool:
        """Whether an `add` with these options can meet a job that is there already."""
        return bool(self.job_id) or self.deduplication_id is not None

    def check_size(self, name: str, data: Raw) -> None:
        """Refuse data over `sizeLimit`, as Node does.

        Raises:
            GatewayError: INVALID_ARGUMENTS.
        """
        _check_size(name, data, self.size_limit)


class OptionsCache:
    """Prepared options by their JSON text: producers send the same few over and over.

    Checking and packing costs 3.3 µs, a look-up 0.4 µs. Texts that can hardly come again (long ones, and those that
    carry a trace) are not kept.
    """

    _MAX_TEXT = 256
    _MAX_ENTRIES = 1024

    def __init__(self) -> None:
        self._prepared: dict[bytes, Prepared] = {}

    def prepare(
        self, text: Raw, place: str = "args[2]", *, name: str = "", data: Raw = NO_OPTIONS, bulk: bool = False
    ) -> Prepared:
        """Check and pack the options in `text`.

        Args:
            text: a JSON object, or `null` for none.
            place: where it stands in the arguments, for the error.
            name: of the job that the options are for.
            data: of that job, whose size is checked.
            bulk: they are of an `addBulk`, which has one check less than `add`, as in Node.

        Raises:
            GatewayError: INVALID_ARGUMENTS that names the place, or in Node's words where Node checks too.
        """
        key = bytes(text)
        prepared = self._prepared.get(key)
        if prepared is not None:
            if not bulk:
                _check_reserved(prepared.job_id)
            prepared.check_size(name, data)
        else:
            if (parts := cut_given(key)) is not None:
                rest = self.prepare(Raw(parts[1]), place, name=name, data=data, bulk=bulk)
                if rest.packed[0] in _ROOMY:
                    return _with_trace(rest, parts[0])
            prepared = _prepare(text, place, name, data, bulk)
            if len(key) <= self._MAX_TEXT and b'"telemetry"' not in key:
                if len(self._prepared) >= self._MAX_ENTRIES:
                    self._prepared.clear()
                self._prepared[key] = prepared
        return prepared


def _with_trace(options: Prepared, metadata: bytes) -> Prepared:
    """Return options that a job has with telemetry metadata, which is JSON text."""
    packed = options.packed
    return msgspec.structs.replace(
        options,
        packed=bytes((packed[0] + 1,)) + packed[1:] + _TRACE + _pack(msgspec.json.decode(metadata)),
        shown=b'%b,"telemetry":{"metadata":%b}}' % (options.shown[:-1], metadata),
    )


def _prepare(text: Raw, place: str, name: str, data: Raw, bulk: bool) -> Prepared:
    options = read(_reader, text, place, _KNOWN) if bytes(text) != b"null" else JobOptions()
    stored = msgspec.to_builtins(options)
    if not bulk:
        _check_reserved(stored.get("jobId", ""))
    _check_size(name, data, stored.get("sizeLimit", 0))
    if message := _wrong(stored):
        raise invalid_arguments(message)
    if isinstance(backoff := stored.get("backoff"), int):
        stored["backoff"] = {"type": "fixed", "delay": backoff}
    stored = {"attempts": 0, **stored}
    deduplication = stored.get("deduplication")
    parent = stored.get("parent")
    if parent:
        parent["id"] = as_packed_by_node(parent["id"])
    return Prepared(
        packed=pack_given(short_names(stored)),
        shown=encode(stored),
        job_id=as_packed_by_node(stored.get("jobId", "")),
        priority=int(stored.get("priority", 0)),
        delay=stored.get("delay", 0),
        has_delay="delay" in stored,
        timestamp=stored.get("timestamp", 0),
        size_limit=stored.get("sizeLimit", 0),
        deduplication_id=deduplication["id"] if deduplication else None,
        parent_key=f"{parent['queue']}:{parent['id']}" if parent else None,
        parent=kept_parent(parent, stored) if parent else None,
        effects=effects_of(stored),
        reschedules=bool(deduplication and deduplication.get("reschedule") and not deduplication.get("replace")),
    )


_RESERVED_FOR_MARKERS: Final = "JobId cannot be '0' or start with '0:'"


def _check_reserved(job_id: str) -> None:
    """Refuse as the first check of Node's `Queue.add` does; `addBulk` does not have it."""
    if job_id == "0" or job_id.startswith("0:"):
        raise invalid_arguments(_RESERVED_FOR_MARKERS)


def _check_size(name: str, data: Raw, limit: int) -> None:
    if limit and len(data) > limit:
        raise invalid_arguments(f"The size of job {name} exceeds the limit {limit} bytes")


def _wrong(options: dict[str, Any]) -> str | None:
    """Return what Node's `Job.validateOptions` refuses after the check of the size, in its order and words."""
    job_id = options.get("jobId", "")
    exclusive = [name for name in _EXCLUSIVE if options.get(name)]
    if len(exclusive) > 1:
        return f"The following options cannot be used together: {', '.join(exclusive)}"
    if _is_integer(job_id):
        return "Custom Id cannot be integers"
    if ":" in job_id and job_id.count(":") != 2:
        return "Custom Id cannot contain :"
    # Here Node does not look. An id that begins with `0:` would be taken for a marker, also in an `addBulk`.
    if job_id.startswith("0:"):
        return _RESERVED_FOR_MARKERS
    if is_reserved(job_id):
        return f"Custom Id cannot be `{job_id[:100]}`: it is one of BullMQ's own keys"
    return _wrong_priority(options) or _wrong_deduplication(options) or _wrong_backoff(options)


def wrong_template(options: dict[str, Any]) -> str | None:
    """Return what would break the jobs of a scheduler: Node does not check their options. In its words for jobs."""
    return _wrong_priority(options) or _wrong_backoff(options)


def _wrong_priority(options: dict[str, Any]) -> str | None:
    priority = options.get("priority", 0)
    if priority != int(priority):
        return "Priority should not be float"
    if not 0 <= priority <= PRIORITY_LIMIT:
        return f"Priority should be between 0 and {PRIORITY_LIMIT}"
    if "priority" in options:
        options["priority"] = int(priority)  # 3.0 is 3
    return None


def _wrong_deduplication(options: dict[str, Any]) -> str | None:
    if (deduplication := options.get("deduplication")) is not None:
        if not deduplication.get("id"):
            return "Deduplication id must be provided"
        if "parent" in options:
            return "Deduplication and parent options cannot be used together"
    if "debounce" in options:
        return "Debounce option has been removed. Use deduplication option instead"
    return None


def _wrong_backoff(options: dict[str, Any]) -> str | None:
    backoff = options.get("backoff")
    if isinstance(backoff, dict) and not 0 <= backoff.get("jitter", 0) <= 1:
        return "Jitter should be between 0 and 1"
    return None


def _is_integer(job_id: str) -> bool:
    """Return whether JavaScript's `parseInt` gives back the very same text: "12" and "-5" yes, "012" and "1e3" no."""
    digits = job_id.removeprefix("-")
    return digits.isascii() and digits.isdigit() and (digits == "0" or not digits.startswith("0")) and job_id != "-0"


def short_names(options: dict[str, Any]) -> dict[str, Any]:
    """Options under the names that they are stored by."""
    stored = {SHORT_NAMES.get(name, name): value for name, value in options.items()}
    if telemetry := stored.pop("telemetry", None):
        if "metadata" in telemetry:
            stored["tm"] = telemetry["metadata"]
        if "omitContext" in telemetry:
            stored["omc"] = telemetry["omitContext"]
    return stored


def kept_parent(parent: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return what a job keeps of its parent."""
    kept: dict[str, Any] = {"id": parent["id"], "queueKey": parent["queue"]}
    kept.update({SHORT_NAMES[flag]: True for flag in _PARENT_FLAGS if options.get(flag)})
    return kept


def now_ms() -> int:
    """Return the wall clock in milliseconds, as BullMQ's timestamps are."""
    return time.time_ns() // 1_000_000
