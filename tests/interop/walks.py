"""Random steps on a pair of queues: what nobody thought of when writing the scenarios."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from tests.interop.scenarios.steps import (
    GETTERS,
    LATER,
    TYPES,
    Call,
    Work,
    call,
    complete,
    fail,
    take,
    wait_for_children,
)

_IDS: Final = ("a", "b", "c", "d", "e")
_PARENTS: Final = ("p", "q")  # never children themselves: BullMQ's scripts do not survive a job among its own ancestors

_KINDS: Final = ("processed", "unprocessed", "ignored", "failed")
_ASKED: Final = (
    "getJobChildrenValues",
    "getJobDependencies",
    "getJobDependenciesCount",
    "getJobIgnoredChildrenFailures",
    "isJobActive",
    "isJobCompleted",
    "isJobDelayed",
    "isJobFailed",
    "isJobWaiting",
    "isJobWaitingChildren",
)

# Each option is set with its probability, to one of its values.
_OPTIONS: Final[dict[str, tuple[float, tuple[Any, ...]]]] = {
    "attempts": (0.3, (0, 1, 2, 3)),
    "backoff": (0.25, (0, LATER, {"type": "fixed", "delay": LATER}, {"type": "exponential", "delay": LATER})),
    "continueParentOnFailure": (0.1, (True,)),
    "delay": (0.25, (0, LATER, 2 * LATER)),
    "failParentOnFailure": (0.1, (True, False)),
    "ignoreDependencyOnFailure": (0.1, (True,)),
    "jobId": (0.5, (*_IDS, *_PARENTS)),
    "keepLogs": (0.1, (1, 2)),
    "lifo": (0.2, (True, False)),
    "parent": (0.2, tuple({"id": id, "queue": "QUEUE"} for id in _PARENTS)),
    "priority": (0.25, (0, 1, 2, 5)),
    "removeDependencyOnFailure": (0.1, (True,)),
    "removeOnComplete": (0.2, (True, 1, {"count": 1}, {"age": 100})),
    "removeOnFail": (0.2, (True, 1, {"count": 0})),
    "stackTraceLimit": (0.1, (0, 1)),
    "telemetry": (0.05, ({"metadata": "m"},)),
    "timestamp": (0.1, (1_650_000_000_000,)),
}


class Walk:
    """An endless random walk.

    Args:
        seed: the same one gives the same walk.
        active: asks for the jobs that a worker holds now.
    """

    def __init__(self, seed: int, active: Callable[[], list[str]]) -> None:
        self._random = random.Random(seed)
        self._active = active

    def steps(self) -> Iterator[Call | Work]:
        """One step after the other."""
        yield call("add", "first")  # the gateway, too, marks a queue when it meets it, which is when it adds to it
        kinds = (self._add, self._bulk, self._work, self._read, self._change, self._manage)
        while True:
            [kind] = self._random.choices(kinds, (30, 6, 20, 24, 15, 5))
            yield kind()

    def _options(self) -> dict[str, Any]:
        options = {
            name: self._random.choice(values)
            for name, (probability, values) in _OPTIONS.items()
            if self._random.random() < probability
        }
        if options.get("jobId") in _PARENTS:
            options.pop("parent", None)
        if self._random.random() < 0.2:
            options["deduplication"] = self._deduplication()
        return options

    def _deduplication(self) -> dict[str, Any]:
        flags = ("extend", "replace", "reschedule", "keepLastIfActive")
        chosen: dict[str, Any] = {flag: self._chance(0.7) for flag in flags if self._chance(0.3)}
        return {"id": self._random.choice("xy"), **chosen, **({"ttl": LATER} if self._chance(0.4) else {})}

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _id(self) -> str:
        ids: tuple[str, ...] = (*_IDS, *_PARENTS, *"123456", "missing")
        return self._random.choice(ids)

    def _index(self) -> int:
        return self._random.choice((-2, -1, 0, 1, 2, 5, 10))

    def _add(self) -> Call:
        return call(
            "add", self._random.choice("nm"), self._random.choice((1, {"x": 1}, None, "s", [1])), self._options()
        )

    def _bulk(self) -> Call:
        jobs = []
        for n in range(self._random.randint(0, 4)):
            options = self._options()
            options.pop("parent", None)  # one that is missing is an allowed difference
            jobs.append({"name": "bulk", "data": n, "opts": options})
        return call("addBulk", jobs)

    def _work(self) -> Work:
        active = self._active()
        if not active or self._chance(0.5):
            return take()
        id = self._random.choice(active)
        step = self._random.choice(
            (
                complete(id, {"r": [1]}),
                complete(id, None),
                fail(id),
                fail(id, unrecoverable=True),
                wait_for_children(id),
            )
        )
        return replace(step, may_fail=True)  # with pending children a job cannot complete

    def _read(self) -> Call:
        types = self._random.sample(TYPES, self._random.randint(0, 4))
        page = (self._index(), self._index())
        return self._random.choice(
            (
                call("getJob", self._id()),
                call("getJobs"),
                call("getJobs", types, *page, self._chance(0.5)),
                call("getJobCounts", *types),
                call("getJobCountByTypes", *types),
                call("getJobLogs", self._id(), *page, self._chance(0.5)),
                call("getJobState", self._id()),
                call(self._random.choice(GETTERS)),
                call(self._random.choice(GETTERS), *page),
                call("count"),
                call("isPaused"),
                call(self._random.choice(_ASKED), self._id()),
                call("getJobDependencies", self._id(), {self._random.choice(_KINDS): {"count": 1000}}),
                call("getJobDependenciesCount", self._id(), {self._random.choice(_KINDS): True}),
                call("isMaxed"),
                call("getCountsPerPriority", self._random.sample(range(8), 4)),
                call("getDeduplicationJobId", self._random.choice("xy")),
                call(
                    "getDependencies",
                    self._random.choice(_PARENTS),
                    self._random.choice(("pending", "processed")),
                    0,
                    -1,
                ),
                call("getMeta"),
                call("getRanges", types, *page, self._chance(0.5)),
                call("getWaitingChildren", *page),
            )
        )

    def _change(self) -> Call:
        resets = {"resetAttemptsMade": self._chance(0.5), "resetAttemptsStarted": self._chance(0.5)}
        value: Any = self._random.choice((1, {"a": 1.5}, "x", True, 0, []))
        return self._random.choice(
            (
                call("addJobLog", self._id(), "row", self._random.choice((0, 1, 2))),
                call("changeJobDelay", self._id(), self._random.choice((0, LATER, 2 * LATER))),
                call(
                    "changeJobPriority",
                    self._id(),
                    {"priority": self._random.choice((0, 1, 5)), "lifo": self._chance(0.5)},
                ),
                call("clearJobLogs", self._id(), self._random.choice((0, 1))),
                call("removeJobChildDependency", self._id()),
                call("removeJobDeduplicationKey", self._id()),
                call("removeJobUnprocessedChildren", self._id()),
                call("promoteJob", self._id()),
                call("remove", self._id()),
                call("remove", self._id(), {"removeChildren": self._chance(0.5)}),
                call("removeJob", self._id()),
                call("retryJob", self._id()),
                call("retryJob", self._id(), self._random.choice(("failed", "completed")), resets),
                call("updateJobData", self._id(), value),
                call("updateJobProgress", self._id(), value),
            )
        )

    def _manage(self) -> Call:
        state = self._random.choice(
            ("completed", "wait", "waiting", "active", "paused", "prioritized", "delayed", "failed")
        )
        return self._random.choice(
            (
                call("clean", self._random.choice((0, LATER)), self._random.choice((0, 1, 2, 10)), state),
                call("drain", self._chance(0.3)),
                call("obliterate"),
                call("obliterate", {"force": self._chance(0.5), "count": self._random.randint(1, 3)}),
                call("pause"),
                call("promoteJobs", {"count": self._random.choice((1, 1000))}),
                call("removeDeduplicationKey", self._random.choice("xy")),
                call("removeGlobalConcurrency"),
                call("removeOrphanedJobs"),
                call("resume"),
                call("resume"),
                call("setGlobalConcurrency", self._random.choice((1, 2, 5))),
                call("retryJobs", {"count": 1, "state": self._random.choice(("failed", "completed"))}),
                call("retryJobs"),
                call("trimEvents", self._random.choice((0, 1000))),
            )
        )
