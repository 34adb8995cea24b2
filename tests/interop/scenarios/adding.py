"""Adding jobs that are there already, or are kept out: what only the newest scripts of BullMQ do."""

from __future__ import annotations

from typing import Any, Final

from tests.interop.scenarios.steps import LATER, Call, Scenario, add, call, complete, flow, node, take

RESCHEDULE: Final = {"id": "a", "reschedule": True}


def again(id: str, delay: int | None = None, **options: Any) -> Call:
    """A job that the delayed one with the same deduplication id keeps out, and makes wait anew."""
    given = {} if delay is None else {"delay": delay}
    return add({**given, "deduplication": {"id": id, "reschedule": True, **options}})


RESCHEDULING: Final = Scenario(
    "deduplication that reschedules",
    (
        again("a", LATER),
        again("a", 2 * LATER),
        call("getJob", "1"),
        again("a", 3 * LATER, ttl=LATER),
        again("a", LATER, ttl=LATER, extend=True),
        again("a", LATER, keepLastIfActive=True),
        again("a", 4 * LATER, replace=True),
        call("getDelayed"),
        again("b", LATER),
        add({"delay": LATER, "deduplication": {"id": "b", "reschedule": False}}),
        add({"delay": 5 * LATER, "jobId": "mine", "deduplication": {"id": "b", "reschedule": True}}),
        add({"delay": LATER, "jobId": "own", "deduplication": {"id": "c", "reschedule": True}}),
        add({"delay": 2 * LATER, "jobId": "own", "deduplication": {"id": "c", "reschedule": True}}),
        add({"delay": 3 * LATER, "jobId": "own", "deduplication": {"id": "b", "reschedule": True}}),
        call("getDelayed"),
        add({"delay": 2 * LATER, "timestamp": 1_650_000_000_000, "deduplication": {"id": "c", "reschedule": True}}),
        again("b", LATER, ttl=0),
        # Without a delay of its own the other is due now.
        again("b"),
        call("getDelayed"),
        again("w"),
        again("w", LATER),
        take(),
        again("w", LATER),
        again("w", LATER, keepLastIfActive=True),
        add({"priority": 3, "deduplication": {"id": "p", "reschedule": True}}),
        add({"priority": 2, "deduplication": {"id": "p", "reschedule": True}}),
        call(
            "addBulk",
            [{"name": "n", "data": 1, "opts": {"delay": LATER, "deduplication": RESCHEDULE}}],
        ),
        call("getJobs"),
    ),
)

FLOW: Final = Scenario(
    "flows: deduplication that reschedules",
    tuple(
        flow(
            "add",
            {"name": "n", "queueName": "NAME", "opts": {"jobId": id, "delay": delay, "deduplication": RESCHEDULE}},
        )
        for id, delay in (("i", LATER), ("j", 2 * LATER), ("i", 3 * LATER))
    ),
)

NEW_PARENTS: Final = Scenario(
    "children that find new parents",
    (
        add({"jobId": "p1"}),
        add({"jobId": "p2"}),
        add({"jobId": "waits", "parent": {"id": "p1", "queue": "QUEUE"}, "delay": LATER}),
        add({"jobId": "waits", "parent": {"id": "p2", "queue": "QUEUE"}, "delay": LATER}),
        node("remove", "p1", {"removeChildren": False}),
        call("getJob", "waits"),
        add({"jobId": "waits", "parent": {"id": "none", "queue": "QUEUE"}, "delay": LATER}),
        add({"jobId": "waits", "parent": {"id": "p2", "queue": "QUEUE"}, "delay": LATER}),
        call("getJob", "waits"),
        call("getJobDependencies", "p2"),
        add({"jobId": "p3"}),
        add({"jobId": "p4"}),
        add({"jobId": "done", "parent": {"id": "p3", "queue": "QUEUE"}, "lifo": True}),
        take(),
        take(),
        complete("done"),
        node("remove", "p3", {"removeChildren": False}),
        add({"jobId": "done", "parent": {"id": "p4", "queue": "QUEUE"}}),
        call("getJobDependencies", "p4"),
        call("getJobs"),
    ),
)

SCENARIOS: Final = (RESCHEDULING, FLOW, NEW_PARENTS)
