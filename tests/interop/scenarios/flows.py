"""Flows: trees of jobs over two queues, jobs that are there already, and reading them while work goes on."""

from __future__ import annotations

from typing import Any, Final

from tests.interop.scenarios.steps import (
    BRANCH,
    FLAGS,
    LATER,
    Call,
    Scenario,
    Work,
    add,
    call,
    complete,
    fail,
    flow,
    node,
    take,
)

OTHER: Final = f"NAME{BRANCH}"


def job(id: str | None, *children: Any, queue: str = "NAME", **opts: Any) -> dict[str, Any]:
    """A node; its id is its name, too."""
    made = {"name": id or "leaf", "queueName": queue, "data": {"of": id}, "opts": {"jobId": id, **opts} if id else opts}
    return {**made, "children": list(children)} if children else made


def read(id: str, queue: str = "NAME", **more: Any) -> Call:
    return flow("getFlow", {"queueName": queue, "id": id, **more})


def done(id: str, value: Any = "done", branch: str = "") -> tuple[Work, ...]:
    """The next job, which is this one, completes."""
    return take(branch), complete(id, value, branch)


TREE: Final = job(
    "root",
    job("left", job("ll", queue=OTHER), job("lr"), queue=OTHER),
    job("right", job("rl"), job("rr", queue=OTHER)),
    job("leaf"),
)

OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {"delay": LATER},
    {"delay": 0},
    {"priority": 3},
    {"priority": 0},
    {"priority": 3, "delay": LATER},
    {"lifo": True},
    *({flag: True} for flag in FLAGS),
    *({flag: False} for flag in FLAGS),
    {"removeOnComplete": True, "removeOnFail": {"age": 60}},
    {"attempts": 3, "backoff": 500},
    {"attempts": 3, "backoff": {"type": "exponential", "delay": 500, "jitter": 0.5}},
    {"keepLogs": 3, "stackTraceLimit": 1, "sizeLimit": 1000},
    {"timestamp": 1_650_000_000_000},
    {"telemetry": {"metadata": "m"}},
    {"telemetry": {"omitContext": True}},
)

BAD_OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {"jobId": "12"},
    {"jobId": "0"},
    {"jobId": "-5"},
    {"jobId": "a:b"},
    {"jobId": "a:b:c:d"},
    {"priority": 1.5},
    {"priority": 2**21},
    {"sizeLimit": 1},
    {"failParentOnFailure": True, "ignoreDependencyOnFailure": True},
    {flag: True for flag in FLAGS},
    {"attempts": 2, "backoff": {"type": "fixed", "jitter": 2}},
    {"debounce": {"id": "x"}},
    {"deduplication": {}},
    {"deduplication": {"id": ""}},
    {"jobId": "12", "sizeLimit": 1},
)

ADDING: Final = Scenario(
    "flows: adding",
    (
        flow("add", TREE),
        read("root"),
        read("root", depth=1),
        read("root", depth=2),
        read("left", queue=OTHER),
        read("leaf"),
        read("missing"),
        read("root", prefix="bull"),
        read("root", prefix="nowhere"),
        flow("addBulk", []),
        flow("addBulk", [job("a", job("b", job("c"))), job("d"), job("e", job("f", queue=OTHER), job("g"))]),
        flow("add", {"name": "no data", "queueName": "NAME", "opts": {"jobId": "h"}}),
        flow("add", {"name": "", "queueName": "NAME", "data": None, "opts": {"jobId": "i"}, "children": []}),
        flow("add", {"name": "null", "queueName": "NAME", "data": [1, "ü"], "opts": {"jobId": "j"}, "children": None}),
        flow("add", {**job("k", job("l")), "prefix": "bull"}),
        Work("meet", {"prefix": "other:one"}),
        flow("add", {**job("m", job("n"), {**job("o"), "prefix": "other:one"}), "prefix": "other:one"}),
        read("m", prefix="other:one"),
        flow("add", job("a:b:c", job("d:e:f"))),
        read("a:b:c"),
        call("getJobCounts"),
    ),
)

EVERY_OPTION: Final = Scenario(
    "flows: every option",
    (
        *(flow("add", job(f"leaf-{n}", **opts)) for n, opts in enumerate(OPTIONS)),
        *(flow("add", job(f"mother-{n}", job(f"child-{n}"), **opts)) for n, opts in enumerate(OPTIONS)),
        *(flow("add", job(f"root-{n}", job(f"son-{n}", **opts))) for n, opts in enumerate(OPTIONS)),
        *(flow("add", job(f"top-{n}", job(f"mid-{n}", job(f"low-{n}"), **opts))) for n, opts in enumerate(OPTIONS)),
        call("pause"),
        flow("add", job("in a pause", job("child in a pause"))),
    ),
)

REFUSED: Final = Scenario(
    "flows: refused",
    (
        *(flow("add", job("leaf", **opts)) for opts in BAD_OPTIONS),
        *(flow("add", job("mother", job("child"), **opts)) for opts in BAD_OPTIONS),
        *(flow("add", job("mother", job("first"), job("child", **opts))) for opts in BAD_OPTIONS),
        *(flow("addBulk", [job("well"), job("mother", job("child", **opts))]) for opts in BAD_OPTIONS),
        # Of several wrong ones the first that Node sees: level by level.
        flow("add", job("root", job("a", job("1")), job("b", priority=0.5))),
        flow("addBulk", [job("root", job("a", priority=0.5)), job("1")]),
        flow("add", job("root", job("a", job("b"), deduplication={"id": "x"}), job("1"))),
        flow("addBulk", [job("1"), job("root", job("a"), deduplication={"id": "x"})]),
        flow("add", job("root", job("child", deduplication={"id": "x"}))),
        flow("add", job("root", job("child", deduplication={"id": "x", "keepLastIfActive": True}))),
        flow("add", job("root", job("child", deduplication={"id": "x", "keepLastIfActive": True}, priority=0.5))),
        flow("add", job("leaf", parent={"id": "a", "queue": "QUEUE"}, deduplication={"id": "x"})),
        flow(
            "add",
            job("leaf", parent={"id": "a", "queue": "QUEUE"}, deduplication={"id": "x", "keepLastIfActive": True}),
        ),
        call("getJobCounts"),
    ),
)

QUEUES_OPTIONS: Final[tuple[dict[str, Any] | None, ...]] = (
    None,
    {},
    {"queuesOptions": {}},
    {"queuesOptions": {"NAME": {}}},
    {"queuesOptions": {"NAME": {"defaultJobOptions": {"attempts": 3, "removeOnComplete": True}}}},
    {"queuesOptions": {OTHER: {"defaultJobOptions": {"priority": 7, "delay": LATER}}}},
    {"queuesOptions": {"NAME": {"defaultJobOptions": {"telemetry": {"metadata": "m"}}}}},
    {"queuesOptions": {OTHER: {"defaultJobOptions": {"priority": 0.5}}}},
    {"queuesOptions": {OTHER: {"defaultJobOptions": {"failParentOnFailure": True}}}},
    {"queuesOptions": {OTHER: {"defaultJobOptions": {"parent": {"id": "x", "queue": "y"}}}}},
    {"queuesOptions": {"NAME": {"defaultJobOptions": {"backoff": 5, "lifo": True}}, OTHER: None}},
)

DEFAULTS: Final = Scenario(
    "flows: default options",
    tuple(
        flow("add", job(f"root-{n}", job(f"child-{n}"), job(f"other-{n}", queue=OTHER, priority=2)), opts)
        for n, opts in enumerate(QUEUES_OPTIONS)
    ),
)

PARENTS: Final = Scenario(
    "flows: below a job that is there",
    (
        flow("add", job("orphan", parent={"id": "none", "queue": "QUEUE"})),
        flow("add", job("orphan", job("a"), job("b", job("c")), parent={"id": "none", "queue": "QUEUE"})),
        add({"jobId": "grown"}),
        take(),
        flow("add", job("below", job("low"), parent={"id": "grown", "queue": "QUEUE"}, failParentOnFailure=True)),
        flow("add", job("beside", parent={"id": "grown", "queue": "QUEUE"}, delay=LATER)),
        flow("add", job("own", job("child", parent={"id": "none", "queue": "QUEUE"}))),
        read("grown"),
        read("own"),
        # An existing root, whose new parent is missing: its children are added all the same.
        flow("add", job("own", job("late"), parent={"id": "none", "queue": "QUEUE"})),
        # An existing root that is another's child.
        flow("add", job("low", job("later"), parent={"id": "own", "queue": "QUEUE"})),
        flow("add", job("low", job("latest"))),
        read("grown"),
    ),
)

EXISTING: Final = Scenario(
    "flows: children that are there already",
    (
        add({"jobId": "done-1"}),
        *done("done-1", {"r": [1, None]}),
        add({"jobId": "done-2"}),
        *done("done-2"),
        add({"jobId": "waits"}),
        add({"jobId": "sleeps", "delay": LATER}),
        # Completed: in front of a new one, in the middle, alone.
        flow("add", job("p1", job("done-1"), job("new-1"))),
        read("p1"),
        call("getJobState", "p1"),
        flow("add", job("p2", job("new-2"), job("done-2"), job("new-3"))),
        call("getJobState", "p2"),
        flow("add", job("p3", job("waits"))),
        call("getJobState", "p3"),
        *done("waits"),
        call("getJobState", "p3"),
        *done("p3"),
        flow("add", job("p4", job("sleeps"))),
        call("getJobState", "p4"),
        # Another's.
        flow("add", job("p5", job("sleeps"))),
        flow("add", job("p6", job("sleeps"), job("new-4"))),
        flow("add", job("p7", job("waits"), job("done-1"))),
        flow("add", job("p8", job("done-1", job("under")), job("new-5"))),
        *(call("getJobState", f"p{n}") for n in range(5, 9)),
        *(read(f"p{n}") for n in range(1, 9)),
        flow("addBulk", [job("p9", job("twice")), job("p10", job("twice"), job("once")), job("p11", job("once"))]),
        flow("add", job("p12", job("same"), job("same"), job("more", job("same")))),
        *(read(f"p{n}") for n in range(9, 13)),
        # Completed and of this very parent.
        *done("new-1"),
        call("getJobState", "p1"),
        flow("add", job("p1", job("new-1"), job("done-1"))),
        flow("add", job("p1", job("new-1"), job("new-6"))),
        call("getJobState", "p1"),
        read("p1"),
    ),
)

RELEASED: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"delay": LATER},
    {"priority": 2},
    {"lifo": True},
    {"priority": 2, "delay": LATER},
)


def _alone(n: int, opts: dict[str, Any]) -> tuple[Call | Work, ...]:
    """A parent whose only child has been completed before."""
    return (
        add({"jobId": f"finished-{n}", "lifo": True}),
        *done(f"finished-{n}", n),
        flow("add", job(f"top-{n}", job(f"mother-{n}", job(f"finished-{n}"), **opts), queue=OTHER)),
        call("getJobState", f"mother-{n}"),
        read(f"top-{n}", queue=OTHER),
    )


ALONE: Final = Scenario(
    "flows: nothing left to wait for",
    tuple(step for n, opts in enumerate(RELEASED) for step in _alone(n, opts)),
)

MARKERS: Final = Scenario(
    "flows: a parent is released into a queue that is paused or full",
    (
        add({"jobId": "a"}),
        *done("a"),
        add({"jobId": "b"}),
        *done("b"),
        add({"jobId": "c"}),
        *done("c"),
        add({"jobId": "d"}),
        *done("d"),
        call("pause"),
        flow("add", job("p1", job("a"))),
        flow("add", job("p2", job("b"), priority=1)),
        call("resume"),
        node("setGlobalConcurrency", 1),
        take(),
        flow("add", job("p3", job("c"))),
        node("setGlobalConcurrency", 2),
        flow("add", job("p4", job("d"), priority=1)),
    ),
)

FORMER: Final = Scenario(
    "flows: children of a parent that is gone",
    (
        flow("add", job("old", job("a"), job("b"), job("c"))),
        *done("a"),
        call("remove", "old", {"removeChildren": False}),
        call("getJob", "a"),
        call("getJob", "b"),
        flow("add", job("new", job("a"), job("b", job("d")))),
        read("new"),
        call("getJob", "a"),
        call("getJob", "b"),
        flow("add", job("old", job("c"), job("a"))),
        read("old"),
        flow("add", job("c")),
        flow("add", job("c", parent={"id": "none", "queue": "QUEUE"})),
        call("remove", "old", {"removeChildren": False}),
        # It comes back in the same flow, and keeps its child.
        flow("addBulk", [job("old"), job("other", job("c"), job("e"))]),
        read("other"),
        flow("add", job("other", job("a"))),
        call("getJobState", "other"),
    ),
)

AGAIN: Final = Scenario(
    "flows: the same once more",
    (
        flow("add", TREE),
        flow("add", TREE),
        read("root"),
        *done("leaf"),
        *done("lr"),
        *done("ll", 1, BRANCH),
        flow("add", TREE),
        read("root"),
        call("getJobState", "root"),
        *done("left", 3, BRANCH),
        *done("rr", 2, BRANCH),
        flow("add", TREE),
        *done("rl"),
        *done("right"),
        call("getJobState", "root"),
        flow("add", TREE),
        read("root"),
        *done("root"),
        flow("add", TREE),
        read("root"),
        flow("add", job("root", job("one more"))),
        read("root"),
        call("remove", "root"),
        flow("add", TREE),
        read("root"),
    ),
)

DEDUPLICATED: Final = Scenario(
    "flows: deduplication",
    (
        flow("add", job("a", deduplication={"id": "x"})),
        flow("add", job("b", deduplication={"id": "x"})),
        flow("add", job("a", deduplication={"id": "x"})),
        flow("addBulk", [job("c", deduplication={"id": "x"}), job("d", job("e")), job("f", deduplication={"id": "y"})]),
        flow("add", job("g", deduplication={"id": "z", "ttl": LATER, "extend": True}, delay=LATER)),
        flow("add", job("h", deduplication={"id": "z", "replace": True}, delay=LATER)),
        flow("add", job("i", deduplication={"id": "z", "keepLastIfActive": True})),
        call("getJobs"),
    ),
)

WORKED: Final = Scenario(
    "flows: reading while work goes on",
    (
        flow(
            "add",
            job(
                "root",
                job("completes"),
                job("fails", attempts=1, failParentOnFailure=False, stackTraceLimit=1),
                job("ignored", ignoreDependencyOnFailure=True, stackTraceLimit=1),
                job("removed", removeDependencyOnFailure=True, stackTraceLimit=1),
                job("goes on", continueParentOnFailure=True, stackTraceLimit=1, delay=LATER),
                job("later", delay=LATER),
                job("vanishes", removeOnComplete=True),
                job("mother", job("small", queue=OTHER), job("smaller", queue=OTHER, priority=1)),
            ),
        ),
        read("root"),
        *done("completes", {"value": ["ü", 1.5, None]}),
        read("root"),
        take(),
        fail("fails"),
        read("root"),
        take(),
        fail("ignored", "such is life"),
        read("root"),
        take(),
        fail("removed"),
        read("root"),
        *done("vanishes"),
        read("root"),
        *done("small", branch=BRANCH),
        *done("smaller", branch=BRANCH),
        read("root"),
        read("root", maxChildren=1),
        read("root", maxChildren=100, depth=200),
        take(),
        call("remove", "later"),
        read("root"),
        call("promoteJob", "goes on"),
        complete("mother"),
        take(),
        fail("goes on"),
        read("root"),
        call("getJobState", "root"),
    ),
)

FAILED: Final = Scenario(
    "flows: a child that fails its parent",
    (
        flow(
            "add",
            job("root", job("mother", job("bad", failParentOnFailure=True), job("good"), failParentOnFailure=True)),
        ),
        take(),
        fail("bad", unrecoverable=True),
        read("root"),
        take(),
        read("root"),
        take(),
        read("root"),
        flow("add", job("root", job("mother", job("bad"), job("good")))),
        read("root"),
    ),
)

SCENARIOS: Final = (
    ADDING,
    EVERY_OPTION,
    REFUSED,
    DEFAULTS,
    PARENTS,
    EXISTING,
    ALONE,
    MARKERS,
    FORMER,
    AGAIN,
    DEDUPLICATED,
    WORKED,
    FAILED,
)
