"""The messages of the Worker API as types: what a worker says about a job, and what the gateway says to a worker."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta, Raw

from bullmq_proxy.gateway.rules.shapes import JobParent
from bullmq_proxy.gateway.schema.messages import ErrorObject, Message
from bullmq_proxy.gateway.values.numbers import Milliseconds


class PushedJob(TypedDict):
    """What a worker gets to know of its job.

    Attributes:
        token: BullMQ's lock token.
        queue: the queue's name, without the prefix.
        delay: in milliseconds.
        timestamp: when the job was created, in milliseconds since 1970.
        processed_on: when this worker took it.
        processed_by: this worker's name, if it has one; else that of the last worker that had.
        attempts_started: how often it was started, this time included.
        stalled_counter: how often it has lost its worker.
    """

    id: str
    name: str
    opts: Raw
    attemptsMade: int
    attemptsStarted: int
    stalledCounter: int
    timestamp: int
    processedOn: int
    delay: int
    priority: int
    token: str
    queue: str
    parentKey: NotRequired[str]
    parent: NotRequired[JobParent]
    repeatJobKey: NotRequired[str]
    deduplicationId: NotRequired[str]
    failedReason: NotRequired[str]
    processedBy: NotRequired[str]
    progress: NotRequired[Raw]
    stacktrace: NotRequired[Raw]


class Process(TypedDict):
    """A job for this worker. `payload` is its data."""

    type: Literal["process"]
    payload: Raw
    job: PushedJob


class Finished(TypedDict):
    """Redis has stored the answer (with `?confirm=1` only); `state` is where the job is now.

    Attributes:
        delay: how long a delayed job waits, in milliseconds.
    """

    type: Literal["finished"]
    state: Literal["completed", "failed", "delayed", "waiting", "waiting-children"]
    jobId: str
    delay: NotRequired[Milliseconds]


class Lost(TypedDict):
    """The answer could not be stored, for good: the job is no longer this client's."""

    type: Literal["lost"]
    err: ErrorObject


class Cancel(TypedDict):
    """The job is no longer this client's: stop, do not answer."""

    type: Literal["cancel"]
    reason: str


class HeldJob(TypedDict):
    """A job that the client holds since an earlier connection.

    Attributes:
        number: the id of the message that pushed it, for its answers.
        token: of its lock now.
    """

    jobId: str
    number: int
    token: str


class Welcome(TypedDict):
    """The first message where the option `grace` is set.

    Attributes:
        consumer: a secret, for the option of this name of the connection on which the client comes back.
        grace: for how long its jobs are kept when this connection breaks, in milliseconds.
        jobs: that it holds from the connection whose secret it has shown.
    """

    type: Literal["welcome"]
    consumer: str
    grace: Milliseconds
    jobs: list[HeldJob]


class Drain(TypedDict):
    """Finish what is in hand, nothing new comes.

    Attributes:
        deadline: the gateway goes away within so many milliseconds; missing where `drainConsumer` was called.
    """

    type: Literal["drain"]
    deadline: NotRequired[int]


class Ack(TypedDict):
    """The job has started."""

    type: Literal["ack"]


class Progress(TypedDict):
    """How far the job is: recorded on it, and published as an event."""

    type: Literal["progress"]
    progress: Raw


class Log(TypedDict):
    """A row for the job's log."""

    type: Literal["log"]
    row: str


class Completed(TypedDict):
    """The job is done; `result` is its return value."""

    result: Raw


class Failed(TypedDict):
    """The job failed: tried again as its `attempts` and `backoff` say, unless it is `unrecoverable`."""

    err: Annotated[Any, Meta(description="An object with `message`, `stack` and `unrecoverable`, or a text.")]
    unrecoverable: NotRequired[bool]


class FailedInOldWords(TypedDict):
    """The job failed, in the words of the oldest clients."""

    message: str
    stack: NotRequired[str | None]
    unrecoverable: NotRequired[bool]


class Release(TypedDict):
    """Take the job back: first in line, no attempt charged."""

    type: Literal["release"]


class Delay(TypedDict):
    """Take the job back to wait for `delay` milliseconds, no attempt charged."""

    type: Literal["delay"]
    delay: Milliseconds


class WaitChildren(TypedDict):
    """Let the job wait for its children; `CONFLICT` when none is pending, and the job goes on."""

    type: Literal["waitChildren"]


class Pause(TypedDict):
    """No new jobs on this connection; those in hand go on."""

    type: Literal["pause"]


class Resume(TypedDict):
    """New jobs again."""

    type: Literal["resume"]


class Done(TypedDict):
    """It is done."""

    ok: None


_PUSHED: Final = {
    "type": "process",
    "payload": {"to": "ada@example.org"},
    "job": {
        "id": "1",
        "name": "welcome",
        "opts": {"attempts": 3},
        "attemptsMade": 0,
        "attemptsStarted": 1,
        "stalledCounter": 0,
        "timestamp": 1700000000000,
        "processedOn": 1700000000500,
        "delay": 0,
        "priority": 0,
        "token": "9f3b61c0d2a84e57:0:0:shop:Vt0hQ3m7YkS1x_bN4cD8Rg:1",
        "queue": "mails",
    },
}
_WELCOME: Final = {
    "type": "welcome",
    "consumer": "9f3b61c0d2a84e57:0:0:12:mZ0hQ3m7YkS1x_bN4cD8Rg",
    "grace": 10000,
    "jobs": [{"jobId": "1", "number": 0, "token": "9f3b61c0d2a84e57:0:0:shop:Vt0hQ3m7YkS1x_bN4cD8Rg:1"}],
}
_LOST: Final = {
    "type": "lost",
    "err": {"message": "Missing lock for job 1. moveToFinished", "code": "NOT_LOCKED"},
}

PUSHED: Final = (Message("process", Process, [_PUSHED]),)
TOLD: Final = (
    Message("cancel", Cancel, [{"type": "cancel", "reason": "The lock of this job was lost"}]),
    Message("welcome", Welcome, [_WELCOME]),
    Message("drain", Drain, [{"type": "drain", "deadline": 30000}, {"type": "drain"}]),
)
SETTLED: Final = (
    Message(
        "finished",
        Finished,
        [
            {"type": "finished", "state": "completed", "jobId": "1"},
            {"type": "finished", "state": "delayed", "jobId": "1", "delay": 5000},
        ],
    ),
    Message("lost", Lost, [_LOST]),
)
REPORTS: Final = (
    Message("ack", Ack, [{"type": "ack"}]),
    Message("progress", Progress, [{"type": "progress", "progress": 50}]),
    Message("log", Log, [{"type": "log", "row": "sent to the relay"}]),
)
ANSWERS: Final = (
    Message("completed", Completed, [{"result": {"sent": True}}]),
    Message(
        "failed",
        Failed,
        [
            {"err": {"message": "no such user", "stack": "Error: no such user", "unrecoverable": True}},
            {"err": "no such user", "unrecoverable": True},
        ],
    ),
    Message("failedInOldWords", FailedInOldWords, [{"message": "no such user", "stack": "Error: no such user"}]),
    Message("release", Release, [{"type": "release"}]),
    Message("delay", Delay, [{"type": "delay", "delay": 5000}]),
    Message("waitChildren", WaitChildren, [{"type": "waitChildren"}]),
)
CONTROLS: Final = (
    Message("pause", Pause, [{"type": "pause"}], id=1),
    Message("resume", Resume, [{"type": "resume"}], id=2),
)
DONE: Final = (Message("done", Done, [{"ok": None}], id=1),)
