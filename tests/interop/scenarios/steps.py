"""What the differential tests do: the same steps, in the same order, on a queue of Node's and on one of ours.

`QUEUE` in an argument stands for the queue's qualified name, and `NAME` for the one without the prefix. Ids that nobody
chose count up from 1 in each scenario.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final


@dataclass(frozen=True)
class Call:
    """A function of the Queue API: Node's BullMQ on the one queue, the gateway on the other.

    Attributes:
        flows: it is a function of the FlowProducer instead.
    """

    fn: str
    args: tuple[Any, ...]
    flows: bool = False


@dataclass(frozen=True)
class Work:
    """Something that Node does on both queues, so that jobs come into the same states.

    Attributes:
        branch: an end of the queue's name, for a second queue.
        may_fail: if it does on one queue, it has to on the other, in the same words.
    """

    op: str
    members: dict[str, Any] = field(default_factory=dict)
    may_fail: bool = False
    branch: str = ""


@dataclass(frozen=True)
class Scenario:
    """Steps on one fresh pair of queues."""

    name: str
    steps: tuple[Call | Work, ...]


TOKEN: Final = "hand"
BRANCH: Final = "-kids"
"""The end of the second queue's name."""


def call(fn: str, *args: Any) -> Call:
    return Call(fn, args)


def flow(fn: str, *args: Any) -> Call:
    return Call(fn, args, flows=True)


def add(opts: dict[str, Any] | None = None, name: str = "job", data: Any = None) -> Call:
    return Call("add", (name, {"n": 1} if data is None else data, *([] if opts is None else [opts])))


def take(branch: str = "") -> Work:
    """The next job becomes active, locked."""
    return Work("take", {"token": TOKEN}, branch=branch)


def complete(job: str, value: Any = "done", branch: str = "") -> Work:
    return Work("complete", {"job": job, "token": TOKEN, "value": value}, branch=branch)


def fail(job: str, message: str = "no luck", *, unrecoverable: bool = False, branch: str = "") -> Work:
    return Work("fail", {"job": job, "token": TOKEN, "message": message, "unrecoverable": unrecoverable}, branch=branch)


def node(fn: str, *args: Any) -> Work:
    """A call by Node on both queues: of a function or with options that the gateway does not have."""
    return Work("call", {"fn": fn, "args": args})


def redis(name: str, key: str, *args: Any) -> Work:
    """A command of Redis on a key of the queue, such as `("HSET", "meta", "max", 5)`."""
    return Work("redis", {"command": [name, key, *args]})


def wait_for_children(job: str) -> Work:
    return Work("waitForChildren", {"job": job, "token": TOKEN})


def elsewhere(step: Work) -> Work:
    """The same in another queue, `QUEUE-kids`."""
    return replace(step, branch=BRANCH)


GETTERS: Final = ("getWaiting", "getActive", "getDelayed", "getPrioritized", "getCompleted", "getFailed")
TYPES: Final = (
    "active",
    "completed",
    "delayed",
    "failed",
    "paused",
    "prioritized",
    "repeat",
    "wait",
    "waiting",
    "waiting-children",
)
LATER: Final = 3_600_000  # ms
PARENT: Final = {"id": "mother", "queue": "QUEUE"}
FLAGS: Final = (
    "failParentOnFailure",
    "continueParentOnFailure",
    "ignoreDependencyOnFailure",
    "removeDependencyOnFailure",
)

JSON_VALUES: Final[tuple[Any, ...]] = ({"new": ["ü", 1.5]}, [1, [2, {}]], [], "text", "", 0, -1.5, 1e21, True, {})

ONE_IN_EACH_STATE: Final = (
    add({"jobId": "is-active"}),
    take(),
    add({"jobId": "is-completed"}),
    take(),
    complete("is-completed", {"sum": [1, 2.5, None, "ü"]}),
    add({"jobId": "is-failed", "attempts": 1, "stackTraceLimit": 1}),
    take(),
    fail("is-failed"),
    add({"jobId": "mother"}),
    take(),
    add({"jobId": "child", "parent": PARENT, "delay": LATER}),
    wait_for_children("mother"),
    add({"jobId": "is-delayed", "delay": LATER}),
    add({"jobId": "is-prioritized", "priority": 5}),
    add({"jobId": "is-waiting"}),
)
STATES: Final = ("is-active", "is-completed", "is-failed", "mother", "is-delayed", "is-prioritized", "is-waiting")
