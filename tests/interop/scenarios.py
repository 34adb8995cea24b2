"""What the differential tests do: the same steps, in the same order, on a queue of Node's and on one of ours.

`QUEUE` in an argument stands for the queue's qualified name. Ids that nobody chose count up from 1 in each scenario.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Call:
    """A function of the Queue API: Node's BullMQ on the one queue, the gateway on the other."""

    fn: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Work:
    """Something that Node does on both queues, so that jobs come into the same states.

    Attributes:
        may_fail: if it does on one queue, it has to on the other, in the same words.
    """

    op: str
    members: dict[str, Any] = field(default_factory=dict)
    may_fail: bool = False


@dataclass(frozen=True)
class Scenario:
    """Steps on one fresh pair of queues."""

    name: str
    steps: tuple[Call | Work, ...]


TOKEN: Final = "hand"


def call(fn: str, *args: Any) -> Call:
    return Call(fn, args)


def add(opts: dict[str, Any] | None = None, name: str = "job", data: Any = None) -> Call:
    return Call("add", (name, {"n": 1} if data is None else data, *([] if opts is None else [opts])))


def take() -> Work:
    """The next job becomes active, locked."""
    return Work("take", {"token": TOKEN})


def complete(job: str, value: Any = "done") -> Work:
    return Work("complete", {"job": job, "token": TOKEN, "value": value})


def fail(job: str, message: str = "no luck", *, unrecoverable: bool = False) -> Work:
    return Work("fail", {"job": job, "token": TOKEN, "message": message, "unrecoverable": unrecoverable})


def node(fn: str, *args: Any) -> Work:
    """A call by Node on both queues: of a function or with options that the gateway does not have."""
    return Work("call", {"fn": fn, "args": args})


def wait_for_children(job: str) -> Work:
    return Work("waitForChildren", {"job": job, "token": TOKEN})


GETTERS: Final = ("getWaiting", "getActive", "getDelayed", "getPrioritized", "getCompleted", "getFailed")
TYPES: Final = (
    "active",
    "completed",
    "delayed",
    "failed",
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

ADDING: Final = Scenario(
    "adding",
    (
        call("add", "welcome", {"to": "a@b.c"}),
        call("add", "grüße 日本 😀", {"ключ": 'quote " slash / back \\ tab \t line \u2028 nul \u0000'}),
        *(add(data=data) for data in JSON_VALUES),
        call("add", "null", None),
        call("add", "no data"),
        call("add", "", {}, {}),
        call("add", "null for options", {}, None),
        call("add", "big", {"text": "x" * 100_000}),
        add({"jobId": "mine"}),
        add({"jobId": "mine"}, "again", {"n": 2}),
        add({"jobId": ""}),
        add({"jobId": "a:b:c"}),
        add({"jobId": "012"}),
        add({"jobId": "1e3"}),
        add({"jobId": "ünïcode id"}),
        call("getJob", "1"),
        call("getJob", 1),
        call("getJob", "mine"),
        call("getJob", "ünïcode id"),
        call("getJobs"),
        call("count"),
    ),
)

OPTIONS: Final = Scenario(
    "options",
    (
        add({"delay": LATER}),
        add({"delay": 0}),
        add({"priority": 1}),
        add({"priority": 2**21 - 1}),
        add({"priority": 0}),
        add({"priority": 3, "delay": LATER}),
        add({"attempts": 0}),
        add({"attempts": 3}),
        add({"attempts": 3, "backoff": 500}),
        add({"attempts": 3, "backoff": 0}),
        add({"attempts": 3, "backoff": {"type": "fixed", "delay": 500}}),
        add({"attempts": 3, "backoff": {"type": "exponential", "delay": 500, "jitter": 0.5}}),
        add({"attempts": 3, "backoff": {"type": "my own"}}),
        add({"lifo": True}),
        add({"lifo": False}),
        add({"lifo": True, "priority": 1}),
        *(
            add({option: value})
            for option in ("removeOnComplete", "removeOnFail")
            for value in (True, False, 0, 10, -1, {"count": 3}, {"age": 60}, {"age": 60, "count": 3, "limit": 10})
        ),
        add({"keepLogs": 3}),
        add({"stackTraceLimit": 1}),
        add({"sizeLimit": 7}),
        add({"timestamp": 1_650_000_000_000}),
        add({"timestamp": 1_650_000_000_000, "delay": LATER}),
        add({"timestamp": 0}),
        add({"telemetry": {"metadata": '{"traceparent":"00-1-2-01"}'}}),
        add({"telemetry": {"metadata": "m", "omitContext": True}}),
        add({"telemetry": {"omitContext": True}}),
        add({"failParentOnFailure": True}),
        add(
            {
                "jobId": "everything",
                "attempts": 7,
                "backoff": {"type": "exponential", "delay": 10},
                "delay": LATER,
                "deduplication": {"id": "all", "ttl": LATER},
                "keepLogs": 5,
                "lifo": True,
                "priority": 9,
                "removeOnComplete": {"age": 1},
                "removeOnFail": 4,
                "sizeLimit": 1000,
                "stackTraceLimit": 2,
                "telemetry": {"metadata": "m"},
                "timestamp": 1_650_000_000_000,
            }
        ),
        call("getJob", "everything"),
        call("getJobs", ["delayed", "prioritized", "waiting"]),
        call("getJobs", "waiting", 0, -1, True),
    ),
)

DEDUPLICATION: Final = Scenario(
    "deduplication",
    (
        add({"deduplication": {"id": "simple"}}),
        add({"deduplication": {"id": "simple"}}, "again", {"n": 2}),
        add({"deduplication": {"id": "ttl", "ttl": LATER}}),
        add({"deduplication": {"id": "ttl", "ttl": LATER}}),
        add({"deduplication": {"id": "extend", "ttl": LATER, "extend": True}}),
        add({"deduplication": {"id": "extend", "ttl": 2 * LATER, "extend": True}}),
        add({"delay": LATER, "deduplication": {"id": "replace", "ttl": LATER, "extend": True, "replace": True}}),
        add({"delay": LATER, "deduplication": {"id": "replace", "ttl": LATER, "extend": True, "replace": True}}),
        add({"delay": LATER, "jobId": "named", "deduplication": {"id": "replace", "replace": True}}),
        add({"deduplication": {"id": "keep", "keepLastIfActive": True}, "lifo": True, "jobId": "first"}),
        take(),
        add({"deduplication": {"id": "keep", "keepLastIfActive": True}}, "kept", {"last": True}),
        add({"deduplication": {"id": "keep", "keepLastIfActive": True}}, "kept", {"last": "really"}),
        call("getJobs", ["delayed", "waiting", "active"]),
        add({"priority": 2, "deduplication": {"id": "first one wins"}}),
        add({"priority": 1, "jobId": "other", "deduplication": {"id": "first one wins"}}),
        call("addBulk", [{"name": "a", "data": {}, "opts": {"deduplication": {"id": "simple"}}}]),
        call("remove", "1"),
        add({"deduplication": {"id": "simple"}}),
    ),
)

PARENTS: Final = Scenario(
    "parents",
    (
        add({"parent": PARENT}),
        add({"jobId": "mother"}),
        take(),
        add({"parent": PARENT}),
        *(add({"parent": PARENT, flag: True}) for flag in FLAGS),
        *(add({"parent": PARENT, flag: False}) for flag in FLAGS[:1]),
        add({"parent": PARENT, "jobId": "child", "delay": LATER}),
        add({"parent": PARENT, "jobId": "child", "delay": LATER}),
        add({"parent": {"id": "elsewhere", "queue": "bull:nowhere"}, "jobId": "child"}),
        add({"parent": PARENT, "priority": 4}),
        call("getJob", "child"),
        wait_for_children("mother"),
        call("getJobState", "mother"),
        call("getJob", "mother"),
        call("getJobs", "waiting-children"),
        call("count"),
        call("remove", "child"),
        call("removeJob", "mother", {"removeChildren": False}),
        call("getJobs"),
    ),
)

BAD_OPTIONS: Final = Scenario(
    "bad options",
    (
        add({"jobId": "0"}),
        add({"jobId": "0:1"}),
        add({"jobId": "12"}),
        add({"jobId": "-5"}),
        add({"jobId": "a:b"}),
        add({"jobId": "a:b:c:d"}),
        add({"priority": 1.5}),
        add({"priority": 2**21}),
        add({"sizeLimit": 6}),
        add({"sizeLimit": 8}, data={"n": "ü"}),
        add({"deduplication": {}}),
        add({"deduplication": {"id": ""}}),
        add({"deduplication": {"id": "x"}, "parent": PARENT}),
        add({"debounce": {"id": "x", "ttl": 5}}),
        add({"backoff": {"type": "fixed", "delay": 1, "jitter": 1.5}}),
        add({"backoff": {"type": "fixed", "delay": 1, "jitter": -0.1}}),
        add({FLAGS[0]: True, FLAGS[1]: True}),
        add(dict.fromkeys(FLAGS, True)),
        add({FLAGS[0]: True, FLAGS[1]: False}),
        add({"jobId": "12", "sizeLimit": 1}),
        add({"jobId": "a:b", "priority": 1.5}),
        add({"priority": 1.5, "deduplication": {}}),
        call("addBulk", [{"name": "a", "data": {}}, {"name": "b", "data": {}, "opts": {"priority": 1.5}}]),
        call("addBulk", [{"name": "a", "data": {}, "opts": {"jobId": "0"}}]),
        call("addBulk", [{"name": "a", "data": {}, "opts": {"jobId": "7"}}]),
        call("addBulk", [{"name": "a", "data": [1, 2, 3], "opts": {"sizeLimit": 3}}]),
        call("getJobCounts"),
    ),
)

BULK: Final = Scenario(
    "addBulk",
    (
        call("addBulk", []),
        call("addBulk", [{"name": "a", "data": {"n": 1}}, {"name": "b"}, {"name": "c", "data": None, "opts": {}}]),
        call(
            "addBulk",
            [
                {"name": "a", "data": 1, "opts": {"delay": LATER}},
                {"name": "b", "data": 2, "opts": {"priority": 3, "attempts": 2, "backoff": 7}},
                {"name": "c", "data": 3, "opts": {"jobId": "twice", "lifo": True}},
                {"name": "d", "data": 4, "opts": {"jobId": "twice"}},
            ],
        ),
        call(
            "addBulk",
            [
                {"name": "a", "data": 1},
                {"name": "b", "data": 2, "opts": {"parent": PARENT}},
                {"name": "c", "data": 3},
            ],
        ),
        call("getJobs", ["waiting", "prioritized", "delayed"], 0, -1, True),
        call("getJobCounts"),
    ),
)

READING: Final = Scenario(
    "reading jobs in every state",
    (
        *ONE_IN_EACH_STATE,
        add({"jobId": "waiting 2"}),
        add({"jobId": "waiting 3"}),
        *(call("getJob", id) for id in STATES),
        *(call("getJobState", id) for id in (*STATES, "child", "missing")),
        *(call(fn) for fn in GETTERS),
        *(call(fn, 0, 0) for fn in GETTERS),
        *(call(fn, 1, 2) for fn in GETTERS[:1]),
        call("getWaiting", -2),
        call("getWaiting", -2, -1),
        call("getWaiting", 5, 9),
        *(call("getJobs", type) for type in TYPES),
        call("getJobs"),
        call("getJobs", []),
        call("getJobs", ["delayed", "failed", "active", "delayed"]),
        call("getJobs", ["waiting", "wait"]),
        call("getJobs", ["waiting"], 0, 1),
        call("getJobs", ["waiting", "prioritized"], 0, 0, True),
        call("getJobs", ["waiting"], 1, -1, True),
        call("getJobCounts"),
        call("getJobCounts", *TYPES),
        call("getJobCounts", "waiting", "wait", "waiting", "failed"),
        call("getJobCountByTypes"),
        call("getJobCountByTypes", "waiting", "active"),
        call("getJobCountByTypes", "waiting", "wait"),
        call("count"),
        call("getJob", "missing"),
        call("getJob", ""),
        call("getJob", 0),
        call("isPaused"),
    ),
)

FINISHED: Final = Scenario(
    "finished jobs",
    (
        *(add({"jobId": id}) for id in ("c1", "c2")),
        *(add({"jobId": id, "attempts": 1, "lifo": lifo}) for id, lifo in (("f1", False), ("f2", True))),
        add({"jobId": "f3", "attempts": 2}),
        take(),
        fail("f2", "first"),
        take(),
        complete("c1", None),
        take(),
        complete("c2", "text"),
        take(),
        fail("f1", "grüße\nsecond line"),
        take(),
        fail("f3", "for good", unrecoverable=True),
        call("getFailed"),
        call("getCompleted"),
        call("getCompleted", 1, 1),
        call("retryJob", "c1"),
        call("retryJob", "f1", "completed"),
        call("retryJob", "missing"),
        call("retryJob", "f1"),
        call("retryJob", "f1"),
        call("getJob", "f1"),
        call("retryJob", "f2", "failed", {"resetAttemptsMade": True, "resetAttemptsStarted": True}),
        call("getJob", "f2"),
        call("retryJob", "c1", "completed", {"resetAttemptsMade": True}),
        call("getJob", "c1"),
        call("promoteJob", "c2"),
        call("retryJobs"),
        call("getJob", "f3"),
        call("retryJobs", {"state": "completed"}),
        call("getJobCounts"),
        take(),
        fail("f2"),
        take(),
        complete("f1"),
        call("retryJobs", {"state": "failed", "timestamp": 1_650_000_000_000}),
        call("retryJobs", {"count": 1, "state": "failed"}),
        call("retryJobs", {}),
        call("getJobs", ["waiting", "failed", "completed"], 0, -1, True),
    ),
)

DELAYED: Final = Scenario(
    "delayed jobs",
    (
        *(add({"jobId": f"d{n}", "delay": LATER * (n + 2)}) for n in range(5)),
        add({"jobId": "first", "delay": LATER, "priority": 2}),
        call("getDelayed"),
        call("getDelayed", 1, 2),
        call("promoteJob", "d3"),
        call("promoteJob", "d3"),
        call("promoteJob", "missing"),
        call("promoteJob", "first"),
        call("getJob", "d3"),
        call("getPrioritized"),
        call("promoteJobs", {"count": 2}),
        call("getJobCounts", "delayed", "waiting", "prioritized"),
        add({"jobId": "d6", "delay": LATER}),
        call("promoteJobs"),
        call("promoteJobs", {}),
        call("getWaiting"),
    ),
)

REMOVING: Final = Scenario(
    "removing",
    (
        *ONE_IN_EACH_STATE,
        call("remove", "is-active"),
        call("removeJob", "is-active"),
        call("remove", "missing"),
        call("removeJob", "missing"),
        *(call("remove", id) for id in ("is-completed", "is-failed", "is-delayed")),
        *(call("removeJob", id) for id in ("is-prioritized", "is-waiting")),
        call("removeJob", "mother", {"removeChildren": True}),
        call("getJobs"),
        call("getJobCounts"),
        *(add({"jobId": f"w{n}"}) for n in range(3)),
        add({"delay": LATER}),
        add({"priority": 1}),
        call("drain"),
        call("getJobCounts"),
        call("drain", True),
        call("drain", False),
        call("getJobCounts"),
    ),
)

CLEANING: Final = Scenario(
    "cleaning",
    (
        *ONE_IN_EACH_STATE,
        add({"jobId": "completed 2", "lifo": True}),
        take(),
        complete("completed 2"),
        call("clean", LATER, 0),
        call("clean", 0, 1),
        call("clean", 0, 0),
        call("clean", 0, 0, "completed"),
        call("clean", 0, 10, "failed"),
        call("clean", 0, 10, "active"),
        call("clean", 0, 10, "paused"),
        call("clean", LATER, 10, "wait"),
        call("clean", 0, 10, "waiting"),
        add({"jobId": "is-waiting"}),
        call("clean", 0, 10, "wait"),
        call("clean", 0, 10, "prioritized"),
        call("clean", 0, 10, "delayed"),
        call("getJobCounts"),
        call("getJobs"),
    ),
)

OBLITERATING: Final = Scenario(
    "obliterating",
    (
        *ONE_IN_EACH_STATE,
        call("obliterate"),
        call("isPaused"),
        call("obliterate", {"force": False}),
        call("obliterate", {"force": True, "count": 2}),
        call("getJobs"),
        call("isPaused"),
        add(),
        call("obliterate", {}),
        call("obliterate"),
        call("count"),
    ),
)

WRITING: Final = Scenario(
    "data, progress and logs",
    (
        add({"jobId": "j"}),
        add({"jobId": "k", "keepLogs": 2}),
        *(call("updateJobData", "j", data) for data in (*JSON_VALUES, None)),
        call("updateJobData", "missing", {}),
        call("getJob", "j"),
        *(call("updateJobProgress", "j", progress) for progress in (50, 33.3, *JSON_VALUES, None)),
        call("updateJobProgress", "missing", 1),
        call("getJob", "j"),
        call("getJobLogs", "j"),
        *(call("addJobLog", "j", row) for row in ("one", "zwei ü", "", "four")),
        call("addJobLog", "j", "five", 3),
        call("addJobLog", "k", "six", 0),
        call("addJobLog", "missing", "row"),
        call("getJobLogs", "j"),
        call("getJobLogs", "j", 0, 0),
        call("getJobLogs", "j", 1),
        call("getJobLogs", "j", 0, 1, False),
        call("getJobLogs", "j", -1, -1),
        call("getJobLogs", "j", 1, -1, False),
        call("getJobLogs", "missing"),
        call("remove", "j"),
        call("getJobLogs", "j"),
    ),
)

PAUSING: Final = Scenario(
    "pausing",
    (
        add(),
        call("isPaused"),
        call("pause"),
        call("isPaused"),
        call("pause"),
        add(),
        add({"priority": 1}),
        add({"delay": LATER}),
        call("getJobCounts"),
        call("getJobState", "2"),
        call("getJobs"),
        call("clean", 0, 1, "paused"),
        call("drain"),
        add(),
        call("resume"),
        call("isPaused"),
        call("resume"),
        call("getWaiting"),
    ),
)

TRIMMING: Final = Scenario(
    "trimming events",
    (
        call("trimEvents", 5),
        call("addBulk", [{"name": "a", "data": n} for n in range(150)]),
        call("trimEvents", 1000),
        call("trimEvents", 100),
        call("trimEvents", 0),
        add(),
        call("getJobCounts"),
    ),
)

KEEPING: Final = Scenario(
    "what stays of finished jobs",
    (
        *(
            step
            for id, keep in (("a", True), ("b", False), ("c", 1), ("d", {"count": 2}), ("e", {"age": 60}), ("f", 0))
            for step in (
                add({"jobId": f"c{id}", "removeOnComplete": keep}),
                take(),
                complete(f"c{id}", {"id": id}),
                add({"jobId": f"f{id}", "removeOnFail": keep, "attempts": 1}),
                take(),
                fail(f"f{id}"),
            )
        ),
        call("getCompleted"),
        call("getFailed"),
        call("getJobCounts"),
    ),
)

READING_NODES: Final = Scenario(
    "reading what only Node writes",
    (
        node("add", "float", {"x": 1}, {"jobId": "float", "delay": 1.5, "attempts": 2.5}),
        node("add", "negative", {}, {"jobId": "negative", "priority": -3, "attempts": -1}),
        node("add", "texts", {}, {"jobId": "texts", "delay": "7", "removeOnComplete": "no"}),
        node("add", "unknown", {}, {"jobId": "unknown", "mine": {"deep": [1, {}]}, "repeat": {"every": 5}}),
        node("add", "", {"to": ["half a pair \ud83d"]}, {"jobId": "surrogate"}),
        node("add", 7, {}, {"jobId": "number"}),
        node("upsertJobScheduler", "yearly", {"pattern": "0 0 1 1 *", "tz": "UTC"}, {"name": "new year", "data": [1]}),
        *(call("getJob", id) for id in ("float", "negative", "texts", "unknown", "surrogate", "number")),
        call("getJobs"),
        call("getDelayed"),
        call("getJobs", "repeat"),
        call("getJobCounts", "repeat", "delayed"),
        call("promoteJobs"),
        call("retryJobs"),
        call("getJobs", ["waiting", "prioritized"]),
        call("clean", 0, 0, "delayed"),
        call("clean", 0, 0, "wait"),
        call("obliterate", {"force": True}),
    ),
)

PROTECTED: Final = Scenario(
    "a scheduler's next job",
    (
        node("upsertJobScheduler", "yearly", {"pattern": "0 0 1 1 *", "tz": "UTC"}),
        call("clean", 0, 0, "delayed"),
        call("getJobCounts"),
        call("drain", True),
        call("getJobCounts"),
    ),
)

SCENARIOS: Final = (
    ADDING,
    OPTIONS,
    DEDUPLICATION,
    PARENTS,
    BAD_OPTIONS,
    BULK,
    READING,
    FINISHED,
    DELAYED,
    REMOVING,
    CLEANING,
    OBLITERATING,
    WRITING,
    PAUSING,
    TRIMMING,
    KEEPING,
    READING_NODES,
    PROTECTED,
)
