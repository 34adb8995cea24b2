"""Job schedulers: setting up, changing, removing and reading them, and what their jobs allow.

The calls on the two queues are milliseconds apart. So patterns are for one instant of the year, and the multiples of
`every` are far from each other: hardly ever does one of them lie between the two.
"""

from __future__ import annotations

from typing import Any, Final

from tests.interop.scenarios.steps import (
    JSON_VALUES,
    LATER,
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
)

YEAR: Final = 31_536_000_000  # ms
YEARLY: Final = {"pattern": "0 0 1 1 *", "tz": "UTC"}
FAR: Final = 4_102_444_800_000  # the beginning of 2100
PAST: Final = 1_650_000_000_000


def upsert(id: str, repeat: dict[str, Any], *template: dict[str, Any]) -> Call:
    return call("upsertJobScheduler", id, repeat, *template)


def finish(*, fail: bool = False) -> Work:
    """The active job is completed, or has failed."""
    return Work("finish", {"token": TOKEN, "fail": fail})


def seen(*ids: str) -> tuple[Call, ...]:
    """What is to be seen of some schedulers, and of their jobs."""
    return (
        *(call("getJobScheduler", id) for id in ids),
        call("getJobSchedulers"),
        call("getJobs", ["waiting", "delayed", "prioritized"]),
    )


EVERY: Final = Scenario(
    "schedulers with every",
    (
        upsert("s", {"every": YEAR}),
        *seen("s"),
        upsert("data", {"every": YEAR}, {"name": "beat", "data": {"n": [1, "ü"]}}),
        upsert("offset", {"every": YEAR, "offset": LATER}),
        upsert("no offset", {"every": YEAR, "offset": 0}),
        upsert("limited", {"every": YEAR, "limit": 3}),
        upsert("one", {"every": YEAR, "limit": 1}),
        upsert("none", {"every": YEAR, "limit": 0}),
        upsert("counted", {"every": YEAR, "limit": 3, "count": 2}),
        upsert("counted out", {"every": YEAR, "limit": 3, "count": 3}),
        upsert("started", {"every": YEAR, "startDate": PAST}),
        upsert("starts", {"every": YEAR, "startDate": FAR}),
        upsert("starts by text", {"every": YEAR, "startDate": "2100-01-01T00:00:00.500Z"}),
        upsert("starts on a day", {"every": YEAR, "startDate": "2100-01-01"}),
        upsert("ends", {"every": YEAR, "endDate": FAR}),
        upsert("ends by text", {"every": YEAR, "endDate": "2100-01-01T02:00+02:00"}),
        upsert("no dates", {"every": YEAR, "startDate": 0, "endDate": 0}),
        upsert("zone", {"every": YEAR, "tz": "Europe/Berlin"}),
        upsert("at once", {"every": YEAR, "immediately": True}),
        upsert("not at once", {"every": YEAR, "immediately": False}),
        upsert("empty pattern", {"every": YEAR, "pattern": ""}),
        upsert("all", {"every": YEAR, "limit": 9, "startDate": FAR, "endDate": FAR + YEAR, "offset": 7, "count": 1}),
        upsert("many:colons::in:it:", {"every": YEAR}),
        upsert("ünïcode 日本 id", {"every": YEAR}),
        upsert("a:b:12:UTC:5", {"every": YEAR}),
        *seen("offset", "limited", "none", "starts", "all", "many:colons::in:it:", "ünïcode 日本 id", "a:b:12:UTC:5"),
        call("getJobSchedulersCount"),
    ),
)

PATTERNS: Final = Scenario(
    "schedulers with patterns",
    (
        upsert("s", YEARLY),
        *seen("s"),
        upsert("named", YEARLY, {"name": "new year", "data": ["happy"]}),
        upsert("no zone", {"pattern": "0 0 1 1 *"}),
        upsert("summer", {"pattern": "30 2 1 7 *", "tz": "America/New_York"}),
        upsert("six fields", {"pattern": "15 30 9 24 12 *", "tz": "utc+5:30"}),
        upsert("macro", {"pattern": "@yearly", "tz": "Asia/Tokyo"}),
        upsert("last friday", {"pattern": "0 0 * 6 5L", "tz": "UTC"}),
        upsert("limited", {**YEARLY, "limit": 2}),
        upsert("none", {**YEARLY, "limit": 0}),
        upsert("offset", {**YEARLY, "offset": 1000}),
        upsert("started", {**YEARLY, "startDate": PAST}),
        upsert("starts", {**YEARLY, "startDate": FAR}),
        upsert("starts by text", {**YEARLY, "startDate": "2099-12-31T23:00:00-01:00"}),
        upsert("starts by text, in a zone", {**YEARLY, "startDate": "2100-06-01T12:30"}),
        upsert("zoned", {"pattern": "0 0 * * *", "tz": "Asia/Tokyo", "startDate": "2100-06-01"}),
        upsert("zoned time", {"pattern": "0 0 * * *", "tz": "Asia/Tokyo", "startDate": "2100-06-01T12:30:00"}),
        upsert("between its zones", {"pattern": "0 0 * * *", "tz": "America/New_York", "startDate": "2100-06-01"}),
        upsert("ends", {**YEARLY, "endDate": FAR}),
        upsert("ends by text", {**YEARLY, "endDate": "2100-01-01T00:00:00Z"}),
        upsert("ends too early", {**YEARLY, "startDate": FAR, "endDate": FAR + LATER}),
        upsert("never", {"pattern": "0 0 31 2,4 *", "tz": "UTC"}),
        upsert("at once", {**YEARLY, "immediately": True}),
        upsert("at once and limited", {**YEARLY, "immediately": True, "limit": 5, "endDate": FAR}),
        upsert("at once, never again", {"pattern": "0 0 31 2,4 *", "tz": "UTC", "immediately": True}),
        *seen("named", "limited", "none", "offset", "starts", "starts by text", "ends", "at once", "between its zones"),
        call("getJobSchedulersCount"),
    ),
)

TEMPLATE_OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"attempts": 3},
    {"attempts": 0, "lifo": True},
    {"attempts": 3, "backoff": 500},
    {"attempts": 3, "backoff": 0},
    {"attempts": 3, "backoff": {"type": "exponential", "delay": 500, "jitter": 0.5}},
    {"priority": 0},
    {"priority": 5},
    {"priority": 2**21 - 1, "lifo": True},
    {"removeOnComplete": True, "removeOnFail": {"age": 60, "count": 3}},
    {"keepLogs": 3, "stackTraceLimit": 1, "sizeLimit": 1},
    {"timestamp": PAST},
    {"telemetry": {"metadata": "m", "omitContext": True}},
    {"failParentOnFailure": True, "removeDependencyOnFailure": True},
    {"parent": {"id": "mother", "queue": "QUEUE"}, "failParentOnFailure": True},
)

TEMPLATES: Final = Scenario(
    "templates of schedulers",
    (
        *(
            step
            for index, opts in enumerate(TEMPLATE_OPTIONS)
            for step in (
                upsert(f"every {index}", {"every": YEAR}, {"opts": opts}),
                upsert(f"pattern {index}", YEARLY, {"name": "job", "opts": opts}),
                call("getJobScheduler", f"every {index}"),
                call("getJobScheduler", f"pattern {index}"),
            )
        ),
        *(
            step
            for index, data in enumerate((*JSON_VALUES, None))
            for step in (
                upsert(f"data {index}", YEARLY, {"data": data}),
                call("getJobScheduler", f"data {index}"),
            )
        ),
        upsert("nothing", YEARLY, {}),
        upsert("nulls", YEARLY, {"name": None, "data": None, "opts": None}),
        upsert("no name", YEARLY, {"name": "", "data": "x"}),
        *seen("nothing", "nulls", "no name"),
    ),
)

REFUSED: Final = Scenario(
    "schedulers that cannot be",
    (
        upsert("s", {}),
        upsert("s", {"pattern": ""}),
        upsert("s", {"every": 0}),
        upsert("s", {"tz": "UTC", "limit": 0}),
        upsert("s", {"every": YEAR, "pattern": "* * * * *"}),
        upsert("s", {"every": YEAR, "startDate": FAR, "immediately": True}),
        upsert("s", {**YEARLY, "startDate": "2100-01-01", "immediately": True}),
        upsert("s", {"every": YEAR, "endDate": PAST}),
        upsert("s", {"every": YEAR, "endDate": "2020-01-01"}),
        upsert("s", {"endDate": 1, "every": YEAR, "pattern": "* * * * *"}),
        upsert("s", {"every": YEAR}, {"opts": {"debounce": {"id": "x"}}}),
        upsert("s", {"every": YEAR, "limit": 0}, {"opts": {"debounce": {"id": "x"}}}),
        upsert("s", {}, {"opts": {"debounce": {"id": "x"}}}),
        upsert("s", {"pattern": "* * * bog *"}),
        upsert("s", {"pattern": "99 * * * *"}),
        upsert("s", {"pattern": "* * * * * * *"}),
        upsert("s", {"pattern": "99 * * * *", "immediately": True}),
        upsert("s", {"pattern": "99 * * * *", "limit": 0}),
        upsert("s", {"pattern": "99 * * * *", "tz": "Nowhere/Else"}),
        upsert("s", {"pattern": "0 0 1 1 *", "tz": "Nowhere/Else", "startDate": FAR}),
        upsert("s", {"pattern": "0 0 1 1 *", "tz": "Nowhere/Else", "startDate": "2100-01-01T00:00Z"}),
        upsert("s", {"pattern": "0 0 1 1 *", "tz": "", "endDate": "2100-01-01"}),
        *seen("s"),
        call("getJobSchedulersCount"),
        call("removeJobScheduler", "s"),
    ),
)

# What a scheduler is changed into, with its next job in whatever state.
CHANGES: Final[tuple[dict[str, Any], ...]] = (
    {"every": YEAR},
    {"every": YEAR, "offset": LATER},
    {"every": 2 * YEAR},
    {"every": 2 * YEAR, "startDate": FAR, "limit": 4},
    YEARLY,
    {"pattern": "0 0 2 2 *", "tz": "UTC"},
    {**YEARLY, "immediately": True},
    {"every": YEAR, "limit": 0},
)


def changed(state: str, first: dict[str, Any], *steps: Call | Work, opts: dict[str, Any] | None = None) -> Scenario:
    """A scheduler that is changed again and again, beginning with its first job in some state."""
    template = {"name": "first", "data": {"n": 1}, "opts": opts or {}}
    return Scenario(
        f"changing a scheduler whose job {state}",
        (
            upsert("s", first, template),
            *steps,
            *(
                step
                for number, repeat in enumerate(CHANGES)
                for step in (
                    upsert("s", repeat, {"name": f"change {number}", "data": {"n": number}}),
                    call("getJobScheduler", "s"),
                    call("getJobCounts"),
                )
            ),
            upsert("s", CHANGES[0]),
            *seen("s"),
            call("removeJobScheduler", "s"),
            call("removeJobScheduler", "s"),
            *seen("s"),
        ),
    )


EVERY_ONE: Final = {"every": YEAR}
TAKE: Final = (take(),)
DONE: Final = (*TAKE, finish())
FAILED: Final = (*TAKE, finish(fail=True))

CHANGING: Final = (
    changed("waits", EVERY_ONE),
    changed("waits in a paused queue", EVERY_ONE, call("pause")),
    changed("has a priority", EVERY_ONE, opts={"priority": 3}),
    changed("is active", EVERY_ONE, *TAKE),
    changed("is completed", EVERY_ONE, *DONE),
    changed("has failed", EVERY_ONE, *FAILED, opts={"attempts": 1}),
    changed("is delayed", {"every": YEAR, "startDate": FAR}),
    changed("is delayed by a pattern", YEARLY),
    changed("waits by a pattern", {**YEARLY, "immediately": True}),
    changed("is active by a pattern", {**YEARLY, "immediately": True}, *TAKE),
    changed("is completed by a pattern", {**YEARLY, "immediately": True}, *DONE),
    changed("has been promoted", YEARLY, Work("promoteAll")),
    changed("has been promoted and taken", YEARLY, Work("promoteAll"), *TAKE),
)

REMOVING: Final = Scenario(
    "removing schedulers and their jobs",
    (
        call("removeJobScheduler", "missing"),
        call("removeJobScheduler", ""),
        call("removeJobScheduler", "a:b:12:UTC:5"),
        upsert("new year", YEARLY),
        call("remove", "repeat:new year:4102444800000"),
        call("removeJobScheduler", "new year"),
        call("removeJobScheduler", "new year"),
        upsert("2100", {**YEARLY, "startDate": FAR - 1}),
        call("remove", f"repeat:2100:{FAR}"),
        call("removeJob", f"repeat:2100:{FAR}"),
        call("getJob", f"repeat:2100:{FAR}"),
        call("getJobState", f"repeat:2100:{FAR}"),
        call("clean", 0, 0, "delayed"),
        call("drain", True),
        call("promoteJob", f"repeat:2100:{FAR}"),
        call("remove", f"repeat:2100:{FAR}"),
        call("removeJob", f"repeat:2100:{FAR}"),
        call("clean", 0, 0, "wait"),
        call("removeJobScheduler", "2100"),
        call("getJobs"),
        call("removeJob", f"repeat:2100:{FAR}"),
        upsert("2100", {**YEARLY, "startDate": FAR - 1}),
        call("promoteJobs"),
        take(),
        call("remove", f"repeat:2100:{FAR}"),
        call("removeJobScheduler", "2100"),
        complete(f"repeat:2100:{FAR}"),
        *seen("2100"),
        call("getJobs"),
        call("retryJob", f"repeat:2100:{FAR}", "completed"),
        take(),
        fail(f"repeat:2100:{FAR}"),
        call("removeJob", f"repeat:2100:{FAR}"),
        call("getJobCounts"),
        upsert("waits", EVERY_ONE),
        call("removeJobScheduler", "waits"),
        call("getWaiting"),
        upsert("waits", EVERY_ONE),
        call("obliterate", {"force": True}),
        call("getJobSchedulersCount"),
    ),
)

COLLIDING: Final = Scenario(
    "schedulers whose next job is there already",
    (
        upsert("s", {**YEARLY, "startDate": FAR - 1}),
        call("promoteJobs"),
        take(),
        upsert("s", {**YEARLY, "startDate": FAR - 1}),
        call("removeJobScheduler", "s"),
        upsert("s", {**YEARLY, "startDate": FAR - 1}),
        call("getJobScheduler", "s"),
        upsert("s", {"every": YEAR, "startDate": FAR}),
        complete(f"repeat:s:{FAR}"),
        upsert("s", {**YEARLY, "startDate": FAR - 1}),
        call("removeJobScheduler", "s"),
        upsert("s", {**YEARLY, "startDate": FAR - 1}),
        *(step for _ in range(34) for step in (upsert("t", {"every": 5, "startDate": FAR}), Work("loseSchedulers"))),
        call("getJobCounts"),
    ),
)

ITERATING: Final = Scenario(
    "schedulers whose jobs are taken",
    (
        upsert("limited", {"every": YEAR, "limit": 2}, {"data": {"n": 1}, "opts": {"attempts": 2, "backoff": 9}}),
        *TAKE,
        *seen("limited"),
        finish(),
        Work("promoteAll"),
        *TAKE,
        *seen("limited"),
        finish(),
        upsert("pattern", {**YEARLY, "limit": 3, "endDate": FAR}, {"opts": {"priority": 2, "keepLogs": 3}}),
        Work("promoteAll"),
        *TAKE,
        *seen("pattern"),
        finish(),
        call("removeJobScheduler", "pattern"),
        upsert("removed", EVERY_ONE),
        call("removeJobScheduler", "removed"),
        *TAKE,
        *seen("removed"),
    ),
)

READING: Final = Scenario(
    "reading schedulers",
    (
        call("getJobSchedulers"),
        call("getJobSchedulersCount"),
        call("getJobScheduler", "missing"),
        call("getJobScheduler", ""),
        call("getJobScheduler", "a:b:c"),
        call("getJobScheduler", "a:b:12:UTC:5"),
        call("getJobScheduler", "a:b::UTC:* * * * *"),
        call("getJobScheduler", "a:b:x:UTC:5"),
        call("getJobScheduler", "a:b:1:UTC:x"),
        *(upsert(f"s{n}", {"every": YEAR, "startDate": FAR + n * LATER}) for n in range(5)),
        upsert("a:b:12:UTC:5", {"every": YEAR, "startDate": FAR}),
        call("getJobScheduler", "a:b:12:UTC:5"),
        *(
            call("getJobSchedulers", *args)
            for args in ((), (0, 0), (1, 2), (1, 2, True), (0, -1, True), (-2, -1), (3, 1), (9, 12), (2,))
        ),
        call("getJobs", "repeat"),
        call("getJobCounts", "repeat"),
        Work("loseHash", {"scheduler": "s1"}),
        call("getJobScheduler", "s1"),
        call("getJobSchedulersCount"),
        call("getJobSchedulers"),
        call("getJobSchedulersCount"),
        call("getDelayed"),
        Work("loseHash", {"scheduler": "s2"}),
        Work("loseHash", {"scheduler": "a:b:12:UTC:5"}),
        call("getJobScheduler", "a:b:12:UTC:5"),
        call("getJobSchedulers"),
        call("getJobSchedulers", 0, 0),
        call("getJobSchedulersCount"),
        call("removeJobScheduler", "a:b:12:UTC:5"),
        call("getJobSchedulers"),
        add(),
    ),
)

READING_NODES: Final = Scenario(
    "reading schedulers that only Node makes",
    (
        node("upsertJobScheduler", "negative", {"every": -YEAR, "offset": -7}),
        node("upsertJobScheduler", "text", {"every": YEAR, "limit": "7"}),
        node(
            "upsertJobScheduler",
            "options",
            YEARLY,
            {"opts": {"deduplication": {"id": "x"}, "delay": 9, "mine": {"deep": [1]}, "priority": 1.5}},
        ),
        *seen("negative", "text", "options"),
        call("removeJobScheduler", "options"),
        *seen("options"),
    ),
)

SCENARIOS: Final = (
    EVERY,
    PATTERNS,
    TEMPLATES,
    REFUSED,
    *CHANGING,
    REMOVING,
    COLLIDING,
    ITERATING,
    READING,
    READING_NODES,
)
