"""What options do to the jobs of others; a new option, or a new function that writes, has to be judged here first."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.rules.effects import OF_JOBS, effects_of
from bullmq_proxy.gateway.rules.options import Deduplication, JobOptions, KeepJobs
from bullmq_proxy.gateway.wire.connection_options import WORKER_OPTIONS

OF_THE_JOB_ALONE = {
    *("priority", "delay", "attempts", "backoff", "lifo", "timestamp", "telemetry", "sizeLimit", "debounce"),
    *("keepLogs", "stackTraceLimit"),
    # Of the bond to a parent, which is looked at by itself.
    *("failParentOnFailure", "continueParentOnFailure", "ignoreDependencyOnFailure", "removeDependencyOnFailure"),
}
OF_THE_WORKER_ALONE = {
    "consumer",
    "grace",
    "lockDuration",
    "name",
    "ackTimeout",
    "confirm",
    "maxRuntime",
    "overrun",
    "token",
}

ON_ANY_JOB = {"add", "addAndWait", "addBulk"}  # by their options, see above
BY_TOKEN = {
    *("moveJobToCompleted", "moveJobToFailed", "moveJobToDelayed", "moveJobToWait", "moveJobToWaitingChildren"),
    "extendJobLock",
}
ON_WHAT_WAITS = {"getNextJob"}
ON_NO_JOB = {"getJobSchedulers"}  # removes leftovers of schedulers that are gone


def names(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def test_every_option_of_a_job_is_judged() -> None:
    assert names(JobOptions) == {*OF_JOBS, *OF_THE_JOB_ALONE, "parent"}
    assert names(KeepJobs) == {"age", "count", "limit"}
    assert names(Deduplication) == {"id", "ttl", "extend", "replace", "reschedule", "keepLastIfActive"}


def test_every_option_of_a_worker_is_judged() -> None:
    harmless = {option.name for option in WORKER_OPTIONS.known if option.acting is None}
    assert harmless == OF_THE_WORKER_ALONE


def test_every_function_that_writes_without_manage_is_judged() -> None:
    rows = [row for row in (*TABLE, *FLOWS) if row.writes and row.permission is not Permission.MANAGE and not row.held]
    assert {row.name for row in rows} == ON_ANY_JOB | BY_TOKEN | ON_WHAT_WAITS | ON_NO_JOB


@pytest.mark.parametrize(
    ("keep", "acts"),
    [
        *((keep, False) for keep in (True, False, 0, -1, {}, {"count": 0}, {"count": -1}, {"age": 5, "count": 0})),
        *(
            (keep, True)
            for keep in (1, 5000, {"count": 1}, {"age": 0}, {"age": 9, "count": -1}, {"age": 9, "limit": 1})
        ),
        ({"limit": 5}, False),
    ],
)
def test_a_count_or_an_age_acts_on_others(keep: Any, acts: bool) -> None:
    for name in ("removeOnComplete", "removeOnFail"):
        assert [effect.option for effect in effects_of({name: keep})] == ([name] if acts else [])
