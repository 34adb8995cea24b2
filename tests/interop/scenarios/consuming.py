"""Consuming by hand: jobs are taken, and moved on by their tokens; and waiting for their ends."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

from tests.interop.scenarios.steps import (
    JSON_VALUES,
    LATER,
    ONE_IN_EACH_STATE,
    PARENT,
    STATES,
    TOKEN,
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

STALE: Final = "not-the-token"
SOON: Final = 4_102_444_800_000  # ms: the year 2100
FAR: Final = 10 * LATER
LIMIT: Final = 2_000_000_000  # ms; long enough that what is left of it compares as times do
ERR: Final = {"message": "no luck", "stack": "Error: no luck\n    at work (work.js:1:1)"}
HOPELESS: Final = {**ERR, "unrecoverable": True}

Steps = tuple[Call | Work, ...]


def next_job(token: str = TOKEN) -> Call:
    return call("getNextJob", token)


def moves(job: str, token: str) -> Steps:
    """Every way to move a job, none of which may succeed."""
    return (
        call("moveJobToCompleted", job, {"n": 1}, token),
        call("moveJobToCompleted", job, {"n": 1}, token, True),
        call("moveJobToFailed", job, ERR, token),
        call("moveJobToFailed", job, HOPELESS, token, True),
        call("moveJobToDelayed", job, SOON, token),
        call("moveJobToWait", job, token),
        call("moveJobToWaitingChildren", job, token),
        call("moveJobToWaitingChildren", job, token, {"child": {"id": "child", "queue": "QUEUE"}}),
        call("extendJobLock", job, token, LATER),
    )


TAKING: Final = Scenario(
    "taking jobs by hand",
    (
        next_job(),
        add({"jobId": "plain"}, "welcome", {"to": ["ü", 1.5]}),
        add(
            {"jobId": "prio", "priority": 3, "attempts": 3, "backoff": 100, "keepLogs": 3, "failParentOnFailure": True}
        ),
        add({"jobId": "late", "delay": LATER}),
        add({"jobId": "again", "attempts": 2}),
        add({"jobId": "told", "telemetry": {"metadata": "m", "omitContext": True}, "deduplication": {"id": "d"}}),
        next_job(),
        next_job("another"),
        call("updateJobProgress", "again", {"half": True}),
        call("moveJobToFailed", "again", "once more", "another"),
        next_job(),
        next_job(),
        next_job(),
        next_job(),
        call("getActive"),
        call("pause"),
        add({"jobId": "kept"}),
        next_job(),
        call("resume"),
        node("setGlobalConcurrency", 1),
        next_job(),
        node("removeGlobalConcurrency"),
        next_job(),
        call("getJobCounts"),
    ),
)

ENDS: Final = Scenario(
    "moving jobs on by hand",
    (
        *(step for value in JSON_VALUES for step in (add(), next_job())),
        *(
            call("moveJobToCompleted", str(index), value, TOKEN)
            for index, value in enumerate(JSON_VALUES, 1)
            if value != 1e21
        ),
        call("moveJobToCompleted", "8", None, TOKEN),
        call("getCompleted"),
        *(step for job in "abcdefghi" for step in (add({"jobId": f"job-{job}"}), next_job())),
        call("moveJobToFailed", "job-a", ERR, TOKEN),
        call("moveJobToFailed", "job-b", HOPELESS, TOKEN),
        call("moveJobToFailed", "job-c", {"message": "grüße\n"}, TOKEN),
        call("moveJobToFailed", "job-d", "only a text", TOKEN),
        call("moveJobToDelayed", "job-e", SOON, TOKEN),
        call("moveJobToDelayed", "job-f", 1, TOKEN),
        call("moveJobToWait", "job-g", TOKEN),
        call("moveJobToWaitingChildren", "job-h", TOKEN),
        call("extendJobLock", "job-h", TOKEN, LATER),
        call("extendJobLock", "job-h", STALE, LATER),
        *(call("getJob", f"job-{job}") for job in "abcdefghi"),
        *(call("getJobState", f"job-{job}") for job in "abcdefghi"),
        next_job(),
        next_job(),
        node("rateLimit", LIMIT),
        call("moveJobToWait", "job-g", TOKEN),
        call("getFailed"),
    ),
)

STATES_AND_TOKENS: Final = Scenario(
    "moving jobs that cannot be moved",
    (
        *ONE_IN_EACH_STATE,
        *(step for job in (*STATES, "missing") for step in moves(job, STALE)),
        *(step for job in (*STATES[1:], "missing") for step in moves(job, TOKEN)),
        call("moveJobToWaitingChildren", "is-active", TOKEN),
        call("moveJobToCompleted", "is-active", 1, TOKEN),
        *moves("is-active", TOKEN),
        call("getJobCounts"),
    ),
)

PRIORITY_BACK: Final = Scenario(
    "giving back jobs with a priority",
    (
        *(add({"jobId": f"prio-{priority}", "priority": priority}) for priority in (2, 1, 3)),
        next_job(),
        next_job("other"),
        call("moveJobToWait", "prio-2", "other"),
        call("moveJobToWait", "prio-1", TOKEN),
        next_job(),
        call("moveJobToDelayed", "prio-1", SOON, TOKEN),
        next_job(),
        call("moveJobToFailed", "prio-2", ERR, TOKEN, True),
        call("getJobs"),
    ),
)

ATTEMPTS: Final[tuple[dict[str, Any], ...]] = (
    {"attempts": 3},
    {"attempts": 3, "lifo": True},
    {"attempts": 3, "priority": 2},
    {"attempts": 3, "backoff": FAR},
    {"attempts": 3, "backoff": {"type": "fixed", "delay": FAR}},
    {"attempts": 3, "backoff": {"type": "exponential", "delay": FAR}},
    {"attempts": 3, "backoff": {"type": "exponential"}},
    {"attempts": 3, "backoff": 0},
    {"attempts": 1, "backoff": FAR},
    {"attempts": 0},
    {"attempts": 3, "backoff": FAR, "stackTraceLimit": 1},
    {"attempts": 3, "stackTraceLimit": 0},
    {"attempts": 2, "removeOnFail": True},
    {"removeOnFail": True},
    {"removeOnFail": 1},
    {"removeOnFail": {"count": 1}, "attempts": 2},
)


def retried(opts: dict[str, Any], err: Any, fetch_next: bool) -> Steps:
    """Let a job fail as often as it may."""
    return (
        add({"jobId": "job", **opts}),
        next_job(),
        call("moveJobToFailed", "job", err, TOKEN, fetch_next),
        call("getJob", "job"),
        node("promoteJobs"),
        next_job(),
        call("moveJobToFailed", "job", err, TOKEN, fetch_next),
        node("promoteJobs"),
        next_job("third"),
        call("moveJobToFailed", "job", HOPELESS, "third", fetch_next),
        call("getJob", "job"),
        call("getJobs"),
        call("obliterate", {"force": True}),
        call("resume"),
    )


RETRIES: Final = tuple(
    Scenario(
        f"failing by hand {'and fetching ' if fetch_next else ''}{'for good' if err is HOPELESS else ''}".strip(),
        tuple(step for opts in ATTEMPTS for step in retried(opts, err, fetch_next)),
    )
    for err, fetch_next in product((ERR, HOPELESS), (False, True))
)

FETCHING: Final = Scenario(
    "finishing and fetching the next",
    (
        *(add({"jobId": f"job-{number}", "attempts": number}, data=[number]) for number in range(4)),
        add({"jobId": "back", "attempts": 2, "backoff": FAR}),
        add({"jobId": "at-once", "attempts": 2}),
        add({"jobId": "gone", "removeOnComplete": True}),
        add({"jobId": "prio", "priority": 7, "keepLogs": 2, "telemetry": {"metadata": "m"}}),
        next_job(),
        call("moveJobToCompleted", "job-0", "done", TOKEN, True),
        call("moveJobToCompleted", "job-1", None, TOKEN, True),
        call("moveJobToFailed", "job-2", ERR, TOKEN, True),
        call("moveJobToFailed", "job-3", HOPELESS, TOKEN, True),
        call("moveJobToFailed", "back", ERR, TOKEN, True),
        call("moveJobToFailed", "at-once", ERR, TOKEN, True),
        next_job(),
        call("moveJobToCompleted", "gone", 1, TOKEN, True),
        call("moveJobToCompleted", "prio", 1, TOKEN, True),
        call("getActive"),
        next_job("x"),
        call("moveJobToCompleted", "at-once", 1, "x", True),
        next_job("x"),
        add({"jobId": "while-paused"}),
        next_job("y"),
        add({"jobId": "behind"}),
        call("pause"),
        call("moveJobToCompleted", "while-paused", 1, "y", True),
        call("resume"),
        next_job("y"),
        add({"jobId": "limited"}),
        node("rateLimit", LIMIT),
        node("setGlobalRateLimit", 1, LIMIT),
        call("moveJobToCompleted", "behind", 1, "y", True),
        next_job("y"),  # the last one: Node's Worker remembers the limit, whatever becomes of it
        node("removeGlobalRateLimit"),
        call("getJobCounts"),
        call("getJobs"),
    ),
)


def child(id: str, **opts: Any) -> Call:
    return add({"jobId": id, "parent": PARENT, **opts})


PARENTS: Final = Scenario(
    "parents by hand",
    (
        add({"jobId": "mother"}),
        next_job("m"),
        call("moveJobToWaitingChildren", "mother", "m"),
        child("pending", delay=LATER),
        child("good"),
        call("moveJobToCompleted", "mother", 1, "m"),
        call("moveJobToWaitingChildren", "mother", "m", {"child": {"id": "nobody", "queue": "QUEUE"}}),
        call("moveJobToWaitingChildren", "mother", STALE, {"child": {"id": "good", "queue": "QUEUE"}}),
        call("moveJobToWaitingChildren", "mother", "m", {"child": {"id": "good", "queue": "QUEUE"}}),
        next_job(),
        call("moveJobToCompleted", "good", {"grown": "up"}, TOKEN),
        call("getJobState", "mother"),
        call("promoteJob", "pending"),
        next_job(),
        call("moveJobToCompleted", "pending", None, TOKEN, True),
        call("moveJobToCompleted", "mother", "all", TOKEN, True),
        call("getJob", "mother"),
    ),
)


def failed_child(flag: str | None) -> Scenario:
    flags = {flag: True} if flag else {}
    return Scenario(
        f"a child that fails by hand: {flag}",
        (
            add({"jobId": "mother"}),
            next_job("m"),
            child("bad", **flags),
            child("other", delay=LATER),
            call("moveJobToWaitingChildren", "mother", "m"),
            next_job(),
            call("moveJobToFailed", "bad", ERR, TOKEN, True),
            call("getJobState", "mother"),
            next_job("m2"),
            call("moveJobToWaitingChildren", "mother", "m2"),
            call("moveJobToWaitingChildren", "mother", TOKEN),
            call("moveJobToCompleted", "mother", 1, "m2"),
            call("moveJobToFailed", "mother", "child failed", "m2"),
            call("getJob", "mother"),
            call("getJobs"),
        ),
    )


FAILED_CHILDREN: Final = tuple(
    failed_child(flag)
    for flag in (
        None,
        "failParentOnFailure",
        "continueParentOnFailure",
        "ignoreDependencyOnFailure",
        "removeDependencyOnFailure",
    )
)

KEPT: Final[tuple[Any, ...]] = (False, 1, {"age": 60}, {"count": 2}, {"age": 60, "count": 3, "limit": 1}, True)
KEEPING: Final = Scenario(
    "finishing by hand and keeping few",
    (
        *(
            step
            for number, keep in enumerate(KEPT)
            for step in (
                add({"jobId": f"good-{number}", "removeOnComplete": keep}),
                next_job(),
                call("moveJobToCompleted", f"good-{number}", 1, TOKEN),
                add({"jobId": f"bad-{number}", "removeOnFail": keep}),
                next_job(),
                call("moveJobToFailed", f"bad-{number}", ERR, TOKEN),
            )
        ),
        call("getCompleted"),
        call("getFailed"),
    ),
)

WAITING: Final = Scenario(
    "waiting for ends",
    (
        call("waitUntilJobFinished", "missing"),
        call("waitUntilJobFinished", "missing", 50),
        *(step for value in JSON_VALUES for step in (add(), take())),
        *(complete(str(index), value) for index, value in enumerate(JSON_VALUES, 1)),
        *(call("waitUntilJobFinished", str(index)) for index in range(1, len(JSON_VALUES) + 1)),
        add({"jobId": "void"}),
        take(),
        complete("void", None),
        call("waitUntilJobFinished", "void"),
        add({"jobId": "unlucky"}),
        take(),
        fail("unlucky", "grüße\nand more"),
        call("waitUntilJobFinished", "unlucky"),
        call("waitUntilJobFinished", "unlucky", 1000),
        add({"jobId": "removed", "removeOnComplete": True}),
        take(),
        complete("removed", 1),
        call("waitUntilJobFinished", "removed"),
        add({"jobId": "open"}, 'name "quoted"'),
        call("waitUntilJobFinished", "open", 20),
        take(),
        call("waitUntilJobFinished", "open", 20),
        add({"jobId": "mother"}),
        take(),
        child("child", delay=LATER),
        wait_for_children("mother"),
        call("waitUntilJobFinished", "mother", 20),
        call("waitUntilJobFinished", "child", 20),
    ),
)

SCENARIOS: Final[tuple[Scenario, ...]] = (
    TAKING,
    ENDS,
    STATES_AND_TOKENS,
    PRIORITY_BACK,
    *RETRIES,
    FETCHING,
    PARENTS,
    *FAILED_CHILDREN,
    KEEPING,
    WAITING,
)
