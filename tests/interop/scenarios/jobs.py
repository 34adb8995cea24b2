"""One job by its id: each function on a job in each state."""

from __future__ import annotations

from typing import Any, Final

from tests.interop.scenarios.steps import (
    FLAGS,
    JSON_VALUES,
    LATER,
    ONE_IN_EACH_STATE,
    PARENT,
    STATES,
    Call,
    Scenario,
    Work,
    add,
    call,
    complete,
    fail,
    node,
    take,
    wait_for_children,
)

_STATES: Final = ("Active", "Completed", "Delayed", "Failed", "Waiting", "WaitingChildren")
_START: Final = 4_102_444_800_000  # ms: a scheduler's first job has it in its id


def _child_fails(parent: str, option: str, then: tuple[Call | Work, ...] = ()) -> tuple[Call | Work, ...]:
    """A parent that waits for one child more, after the first has failed with an option; and what comes `then`."""
    kin = {**PARENT, "id": parent}
    return (
        add({"jobId": parent}),
        take(),
        add({"jobId": f"{parent}-1", "parent": kin, **({option: True} if option else {})}),
        add({"jobId": f"{parent}-2", "parent": kin, "delay": LATER}),
        wait_for_children(parent),
        take(),
        fail(f"{parent}-1", "why"),
        *then,
    )


PARENTS: Final = (
    *_child_fails("p-waits", ""),
    *_child_fails("p-failed", FLAGS[0], (take(), fail("p-failed", "its child failed"))),
    *_child_fails("p-goes-on", FLAGS[1], (take(), wait_for_children("p-goes-on"))),
    *_child_fails("p-ignores", FLAGS[2]),
    *_child_fails("p-drops", FLAGS[3]),
)

# A job in each state that there is, and in each place in a family.
EVERY_STATE: Final = (
    *PARENTS,
    add({"jobId": "mother-done"}),
    take(),
    add({"jobId": "child-done", "parent": {**PARENT, "id": "mother-done"}}),
    wait_for_children("mother-done"),
    take(),
    complete("child-done", {"sum": [1.5, None, "ü"]}),
    take(),
    complete("mother-done"),
    add({"jobId": "is-retried", "attempts": 2, "backoff": LATER}),
    take(),
    fail("is-retried"),
    add({"jobId": "held-by-nobody"}),
    take(),
    Work("dropLock", {"job": "held-by-nobody"}),
    *ONE_IN_EACH_STATE,
    node("upsertJobScheduler", "later", {"every": LATER, "startDate": _START}),
)
IDS: Final = (
    *STATES,
    "child",
    "child-done",
    "mother-done",
    "held-by-nobody",
    "is-retried",
    f"repeat:later:{_START}",
    *(f"p-{name}{child}" for name in ("waits", "failed", "goes-on", "ignores", "drops") for child in ("", "-1", "-2")),
    "missing",
)


def in_every_state(fn: str, *args: Any, paused: bool = False) -> Scenario:
    """A function on a job in each state, twice where it changes them."""
    calls = tuple(call(fn, id, *args) for _ in range(1 if fn.startswith("get") else 2) for id in IDS)
    name = f"{fn}({', '.join(map(str, args))})" + (" on a paused queue" if paused else "")
    return Scenario(name, (*EVERY_STATE, *([call("pause")] if paused else []), *calls, call("getJobCounts")))


WAITING: Final = (
    *(add({"jobId": f"w{n}"}) for n in range(3)),
    *(add({"jobId": f"p{n}", "priority": n}) for n in (1, 2, 3)),
    add({"jobId": "second-p2", "priority": 2}),
    add({"jobId": "lifo", "lifo": True}),
)

PRIORITIES: Final = Scenario(
    "changing priorities",
    (
        *WAITING,
        call("changeJobPriority", "w0", {"priority": 2}),
        call("changeJobPriority", "w1", {"priority": 2, "lifo": True}),
        call("changeJobPriority", "w2", {"priority": 2**21 - 1, "lifo": False}),
        call("changeJobPriority", "p1", {"priority": 0}),
        call("changeJobPriority", "p2", {"lifo": True}),
        call("changeJobPriority", "p3", {"priority": 3}),
        call("changeJobPriority", "lifo", {}),
        call("getJobs", ["waiting", "prioritized"], 0, -1, True),
        call("changeJobPriority", "w0", {"priority": 1}),
        call("changeJobPriority", "second-p2", {"priority": 1, "lifo": True}),
        *(step for _ in range(9) for step in (take(), call("getJobCounts"))),
    ),
)

DELAYS: Final = Scenario(
    "changing delays",
    (
        *(add({"jobId": f"d{n}", "delay": LATER * (n + 1)}) for n in range(4)),
        add({"jobId": "urgent", "delay": LATER, "priority": 4}),
        call("changeJobDelay", "d3", LATER // 2),
        call("getDelayed"),
        call("changeJobDelay", "d0", LATER * 9),
        call("changeJobDelay", "urgent", LATER * 9),
        call("changeJobDelay", "d1", 10**12),
        call("getDelayed"),
        call("getJob", "d0"),
        call("changeJobDelay", "d2", 0),
        call("getJob", "d2"),
        take(),
        call("getJobState", "d2"),
        call("changeJobDelay", "d2", 0),
        call("changeJobDelay", "d3", 2**53 - 1),
        call("getDelayed"),
    ),
)

LOGS: Final = Scenario(
    "clearing logs",
    (
        add({"jobId": "j"}),
        call("clearJobLogs", "j"),
        *(call("addJobLog", "j", f"row {n}") for n in range(5)),
        call("clearJobLogs", "j", 3),
        call("getJobLogs", "j"),
        call("clearJobLogs", "j", 9),
        call("getJobLogs", "j"),
        call("clearJobLogs", "j", 0),
        call("getJobLogs", "j"),
        call("addJobLog", "j", "last"),
        call("clearJobLogs", "j", None),
        call("addJobLog", "j", "last"),
        call("clearJobLogs", "j"),
        call("clearJobLogs", "missing", 1),
        call("getJobLogs", "j"),
        add({"jobId": "k", "keepLogs": 2}),
        *(call("addJobLog", "k", f"row {n}") for n in range(3)),  # the queue's `addJobLog` does not know of the option
        call("addJobLog", "k", "last", 1),
        call("getJobLogs", "k"),
    ),
)

DEDUPLICATION: Final = Scenario(
    "freeing a deduplication id",
    (
        add({"jobId": "first", "deduplication": {"id": "x"}}),
        call("removeJobDeduplicationKey", "first"),
        call("removeJobDeduplicationKey", "first"),
        add({"jobId": "second", "deduplication": {"id": "x", "ttl": LATER}}),
        call("removeJobDeduplicationKey", "first"),
        add({"jobId": "third", "deduplication": {"id": "x"}}),
        call("removeJobDeduplicationKey", "second"),
        add({"jobId": "fourth", "delay": LATER, "deduplication": {"id": "ü:y", "ttl": LATER, "replace": True}}),
        call("removeJobDeduplicationKey", "fourth"),
        add({"jobId": "fifth", "delay": LATER, "deduplication": {"id": "ü:y", "ttl": LATER, "replace": True}}),
        add({"jobId": "none"}),
        call("removeJobDeduplicationKey", "none"),
        call("removeJobDeduplicationKey", "missing"),
        add({"jobId": "held", "lifo": True, "deduplication": {"id": "k", "keepLastIfActive": True}}),
        take(),
        add({"jobId": "kept", "deduplication": {"id": "k", "keepLastIfActive": True}}),
        call("removeJobDeduplicationKey", "held"),
        complete("held"),
        call("removeJobDeduplicationKey", "held"),
        call("getJobs"),
    ),
)

RETRYING: Final = Scenario(
    "retrying in turn",
    (
        *(add({"jobId": f"w{n}"}) for n in range(2)),
        *(
            step
            for id, opts in (
                ("lifo", {"lifo": True}),
                ("fifo", {"lifo": False, "priority": 0}),
                ("with priority", {"priority": 7}),
                ("both", {"priority": 7, "lifo": True}),
                ("in the data", {"telemetry": {"metadata": '{"lifo":true}'}}),
            )
            for step in (
                call("pause"),
                call("drain"),
                add({"jobId": id, **opts}),
                call("resume"),
                take(),
                fail(id),
            )
        ),
        *(
            step
            for id, lifo in (("one", 1), ("zero", 0), ("text", "no"), ("empty", ""), ("array", []), ("deep", False))
            for step in (node("add", "job", {}, {"jobId": id, "lifo": lifo, "mine": {"lifo": True}}), take(), fail(id))
        ),
        *(add({"jobId": f"w{n}"}) for n in range(2, 4)),
        *(call("retryJob", id) for id in ("lifo", "fifo", "with priority", "both", "in the data")),
        *(call("retryJob", id) for id in ("one", "zero", "text", "empty", "array", "deep")),
        call("getJobs", ["waiting", "prioritized"]),
    ),
)

_RESET: Final = {"resetAttemptsMade": True, "resetAttemptsStarted": True}

SCENARIOS: Final = (
    in_every_state("changeJobDelay", LATER * 2),
    in_every_state("changeJobDelay", 0),
    in_every_state("changeJobPriority", {"priority": 3}),
    in_every_state("changeJobPriority", {"priority": 5, "lifo": True}, paused=True),
    in_every_state("changeJobPriority", {}),
    in_every_state("changeJobPriority", {"lifo": True}),
    in_every_state("clearJobLogs"),
    in_every_state("addJobLog", "row", 1),
    in_every_state("getJobLogs"),
    in_every_state("promoteJob"),
    in_every_state("promoteJob", paused=True),
    in_every_state("removeJobDeduplicationKey"),
    in_every_state("retryJob"),
    in_every_state("retryJob", "failed", _RESET, paused=True),
    in_every_state("retryJob", "completed"),
    in_every_state("retryJob", "completed", {"resetAttemptsMade": True}),
    in_every_state("remove"),
    in_every_state("remove", {"removeChildren": False}),
    in_every_state("removeJob"),
    in_every_state("removeJob", {"removeChildren": False}),
    in_every_state("removeJob", {"removeChildren": True}, paused=True),
    in_every_state("updateJobData", JSON_VALUES[0]),
    in_every_state("updateJobProgress", {"half": True}),
    Scenario(
        "in which state a job is",
        (
            *EVERY_STATE,
            *(call(f"isJob{state}", id) for id in IDS for state in _STATES),
            call("pause"),
            *(call("isJobWaiting", id) for id in IDS),
        ),
    ),
    PRIORITIES,
    DELAYS,
    LOGS,
    DEDUPLICATION,
    RETRYING,
)
