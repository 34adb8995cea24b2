"""What a worker says about a job: from a message to one typed verdict.

The oldest clients know only `{"result": …}` and `{"err": …}` or `{"message", "stack"}`; newer ones use `type`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import UNSET, Raw, Struct, UnsetType

from bullmq_proxy.gateway.values.json_text import UNREADABLE, encode
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER
from bullmq_proxy.gateway.values.reading import Reader
from bullmq_proxy.gateway.values.validation import nearest
from bullmq_proxy.gateway.wire.envelope import InvalidMessage, decode_as


class _Data(Struct, frozen=True, gc=False):
    """Every member that the `data` of a worker's message may have; unknown ones are ignored."""

    type: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    err: Raw | UnsetType = UNSET
    message: Raw | UnsetType = UNSET
    stack: Raw | UnsetType = UNSET
    unrecoverable: bool = False
    progress: Raw | UnsetType = UNSET
    row: str | UnsetType = UNSET
    delay: int | float | UnsetType = UNSET  # languages with one kind of number write 5000.0, or 1e15
    fn: str | UnsetType = UNSET
    args: list[Raw] = []


class WorkerMessage(Struct, frozen=True, gc=False):
    """A message on a Worker connection."""

    id: Raw
    data: _Data


class Ack(Struct, frozen=True):
    """The job has started."""


class Completed(Struct, frozen=True, gc=False):
    """The job is done; `result` is JSON text."""

    result: Raw


class Failed(Struct, frozen=True):
    """The job failed."""

    message: str
    stack: str | None = None
    unrecoverable: bool = False


class Progress(Struct, frozen=True):
    """How far the job is; `value` is JSON text."""

    value: Raw


class Log(Struct, frozen=True):
    """One row for the job's log."""

    row: str


class Release(Struct, frozen=True):
    """Take the job back, no attempt charged."""


class Delay(Struct, frozen=True):
    """Take the job back and let it wait for `milliseconds`, no attempt charged."""

    milliseconds: int


class WaitChildren(Struct, frozen=True):
    """Let the job wait for its children."""


class Pause(Struct, frozen=True):
    """No new jobs on this connection."""


class Resume(Struct, frozen=True):
    """New jobs again."""


class Invoke(Struct, frozen=True):
    """A Queue API request on the Worker connection."""

    fn: str
    args: list[Raw]


JobAnswer = Ack | Completed | Failed | Progress | Log | Release | Delay | WaitChildren
Answer = JobAnswer | Pause | Resume | Invoke

_NULL: Final = Raw(b"null")
_reader: Final[Reader[WorkerMessage]] = Reader(WorkerMessage)
_TYPES: Final = ("ack", "progress", "log", "release", "delay", "waitChildren", "pause", "resume")


def decode_answer(message: bytes) -> tuple[bytes, Answer]:
    """Read a worker's message: its id as text, and what it says.

    Raises:
        InvalidMessage: with the id where it could be read.
    """
    envelope = decode_as(_reader, message)
    id, data = bytes(envelope.id), envelope.data
    if data.type is UNSET:
        return id, _untyped(id, data) or _unsaid(id, message)
    return id, _typed(id, data, data.type)


def _untyped(id: bytes, data: _Data) -> Answer | None:
    # A client that always sends both means the error, unless that is null: a failure taken for a success loses the job.
    if data.err is not UNSET and (data.result is UNSET or bytes(data.err) != b"null"):
        return _failed(data.err, data.unrecoverable)
    if data.result is not UNSET:
        return Completed(data.result)
    if data.fn is not UNSET:
        return Invoke(data.fn, data.args)
    if data.message is not UNSET or data.stack is not UNSET:
        return Failed(_text(data.message), _stack(data.stack), data.unrecoverable)
    return None


class _Empty(Struct, forbid_unknown_fields=True):
    pass


class _Unsaid(Struct):
    data: _Empty


_unsaid_reader: Final[Reader[_Unsaid]] = Reader(_Unsaid)


def _unsaid(id: bytes, message: bytes) -> Answer:
    """Take `{}` for a job that is done: JavaScript leaves out a `result` that is undefined."""
    try:
        _unsaid_reader.read(message)
    except UNREADABLE:
        said = "Expected one of `result`, `err`, `fn`, or a `type` such as `ack` - at `$.data`"
        raise InvalidMessage(said, id) from None
    return Completed(_NULL)


def _typed(id: bytes, data: _Data, type: str) -> Answer:
    match type:
        case "ack":
            return Ack()
        case "progress" if data.progress is not UNSET:
            return Progress(data.progress)
        case "log" if data.row is not UNSET:
            return Log(data.row)
        case "release":
            return Release()
        case "delay" if data.delay is not UNSET and 0 <= data.delay <= MAX_SAFE_INTEGER:
            return Delay(int(data.delay))
        case "waitChildren":
            return WaitChildren()
        case "pause":
            return Pause()
        case "resume":
            return Resume()
        case "progress":
            raise InvalidMessage("Object missing required field `progress` - at `$.data`", id)
        case "log":
            raise InvalidMessage("Object missing required field `row` - at `$.data`", id)
        case "delay":
            raise InvalidMessage("Expected a whole number >= 0 - at `$.data.delay`", id)
    if answer := _untyped(id, data):  # a client may label its answer as it likes: what is in it speaks for itself
        return answer
    raise InvalidMessage(f"Unknown type `{type[:100]}`{nearest(type, _TYPES)} - at `$.data.type`", id)


class _Error(Struct):
    message: Raw | UnsetType = UNSET
    stack: Raw | UnsetType = UNSET
    unrecoverable: bool = False


def read_failure(err: Raw) -> Failed:
    """Read the `err` of an answer: `{"message", "stack"?, "unrecoverable"?}`, a text, or any JSON shown as one."""
    return _failed(err, False)


def _failed(err: Raw, unrecoverable: bool) -> Failed:
    try:
        error = _error.read(err)
    except UNREADABLE:  # `err` is a text, or anything else that can be shown as one
        return Failed(_text(err), None, unrecoverable)
    return Failed(_text(error.message), _stack(error.stack), error.unrecoverable or unrecoverable)


_error: Final[Reader[_Error]] = Reader(_Error)
_string: Final[Reader[str]] = Reader(str, packed=True)


def _text(value: Raw | UnsetType) -> str:
    """Return a message as text: a JSON string's content, anything else as its JSON."""
    if value is UNSET:
        return ""
    try:
        return _string.read(value)
    except UNREADABLE:
        return bytes(value).decode(errors="replace")


def _stack(value: Raw | UnsetType) -> str | None:
    return None if value is UNSET or bytes(value) == b"null" else _text(value)


def finished(job_id: str, state: str, delay: int | None = None) -> bytes:
    """Return the `data` that confirms a final answer once Redis has stored it; `delay`, in ms, of a delayed job."""
    data: dict[str, str | int] = {"type": "finished", "state": state, "jobId": job_id}
    return encode(data if delay is None else {**data, "delay": delay})


def lost(error: bytes) -> bytes:
    """Return the `data` that says: your answer could not be stored; `error` is `{"message", "code"}` as JSON text."""
    return b'{"type":"lost","err":%b}' % error


def cancel(reason: str) -> bytes:
    """Return the `data` that says: this job is no longer yours."""
    return encode({"type": "cancel", "reason": reason})


def welcome(secret: str, grace: int, jobs: Sequence[Mapping[str, object]]) -> bytes:
    """Return the `data` that says: come back with this secret within `grace` milliseconds, and hold what you held.

    Args:
        secret: of the connection.
        grace: its option.
        jobs: that the client holds already, each with its `jobId`, the `number` of its message, and its `token`.
    """
    return encode({"type": "welcome", "consumer": secret, "grace": grace, "jobs": jobs})


def drain(deadline: int | None) -> bytes:
    """Return the `data` that says: finish what you have, nothing new comes.

    Args:
        deadline: the shard is going away in so many milliseconds; None when it stays.
    """
    return encode({"type": "drain"} if deadline is None else {"type": "drain", "deadline": deadline})
