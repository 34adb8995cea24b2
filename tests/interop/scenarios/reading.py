"""Reading a queue: counts, pages, children, metrics, its configuration; and what strange hands have left in Redis."""

from __future__ import annotations

from typing import Final

from tests.interop.scenarios.steps import (
    GETTERS,
    LATER,
    ONE_IN_EACH_STATE,
    PARENT,
    TYPES,
    Call,
    Scenario,
    Work,
    add,
    call,
    complete,
    fail,
    redis,
    take,
    wait_for_children,
)

_MOST: Final = 2**53 - 1
_COUNTS: Final = (
    "getActiveCount",
    "getCompletedCount",
    "getFailedCount",
    "getPrioritizedCount",
    "getWaitingCount",
    "getWaitingChildrenCount",
    "getDelayedCount",
)

COUNTING: Final = Scenario(
    "counting",
    (
        *(call(fn) for fn in _COUNTS),
        call("recordJobCountsMetric"),
        call("getCountsPerPriority", [0, 1]),
        *ONE_IN_EACH_STATE,
        *(add({"priority": priority}) for priority in (1, 1, 2**21 - 1)),
        add(),
        *(call(fn) for fn in _COUNTS),
        call("recordJobCountsMetric"),
        call("recordJobCountsMetric", "wait", "waiting", "failed", "wait"),
        *(
            call("getCountsPerPriority", priorities)
            for priorities in ([], [0], [5, 1, 0, 5], [2**21 - 1, 2, 10, 1], [-3, 7, -1], [_MOST, -_MOST])
        ),
        call("getWaitingChildren"),
        call("getWaitingChildren", 0, 0),
        call("getWaitingChildren", 1),
        call("pause"),
        call("getWaitingCount"),
        *(call("getDelayedCount", at) for at in (0, -1, 1, 1_650_000_000_000, _MOST, -_MOST)),
        # A delayed job's score is its time in ms times 4096, plus a number of its own.
        *(redis("ZADD", "delayed", score, f"d{score}") for score in (5000 * 4096, 5000 * 4096 + 4095, 5001 * 4096, -1)),
        *(call("getDelayedCount", at) for at in (0, 4999, 5000, 5001, 5002)),
        *(call("getDelayedCount", at) for at in (1.5, _MOST + 1, -_MOST - 1, 1e300, 0.1)),
        call("getDelayedCount"),
        redis("RPUSH", "wait", "0:100"),  # a marker of older versions
        call("getWaitingCount"),
        call("getCountsPerPriority", [0]),
    ),
)

RANGES: Final = Scenario(
    "ranges of ids",
    (
        *ONE_IN_EACH_STATE,
        *(add({"jobId": f"w{n}"}) for n in range(4)),
        *(add({"jobId": f"p{n}", "priority": 3}) for n in range(3)),
        *(call("getRanges", [type]) for type in TYPES),
        *(call("getRanges", [type], 0, -1, True) for type in TYPES),
        call("getRanges", []),
        call("getRanges", ["paused", "prioritized", "wait"], 0, 9, True),
        call("getRanges", ["paused", "wait", "prioritized"], 0, 9, True),
        call("getRanges", ["waiting", "wait"], 0, -1),
        call("getRanges", ["waiting", "wait"], 0, -1, True),
        call("getRanges", ["prioritized", "waiting", "prioritized"], 1, 2),
        call("getRanges", ["prioritized", "active", "waiting", "failed"], 0, 1, True),
        *(
            call("getRanges", ["waiting", "prioritized"], start, end, asc)
            for start, end in ((1, 0), (-2, -1), (0, 9), (5, 9), (1, -2), (-9, -3), (_MOST, _MOST), (-_MOST, _MOST))
            for asc in (False, True)
        ),
        redis("RPUSH", "wait", "0:100"),
        call("getRanges", ["waiting"], 0, -1),
    ),
)

PAGES: Final = Scenario(
    "pages of jobs",
    (
        *(add({"jobId": f"w{n}"}) for n in range(6)),
        *(add({"jobId": f"d{n}", "delay": LATER * (n + 2)}) for n in range(3)),
        *(
            call("getJobs", ["delayed", "wait", "delayed", "waiting"], start, end, asc)
            for start, end in (
                *((1, 0), (-2, -1), (-1, -1), (0, 99), (4, 99), (6, 7), (-3, 1), (2, -2), (-99, 2)),
                *((_MOST, _MOST), (0, _MOST), (-_MOST, _MOST), (_MOST, -_MOST), (-_MOST, -_MOST)),
            )
            for asc in (False, True)
        ),
        *(call(fn, start, end) for fn in GETTERS for start, end in ((0, _MOST), (-_MOST, -1), (_MOST, 0))),
        call("getJobs", list(TYPES) * 3),
        # Jobs whose hash is gone do not count, as far as five looks go.
        *(redis("DEL", id) for id in ("w0", "w2", "w3", "d1")),
        *(call("getJobs", type, 0, end, asc) for type in TYPES for end in (0, 1, 2) for asc in (False, True)),
        call("getJobs", ["wait", "delayed"], 1, 2),
        call("getJobs"),
        call("getJob", "w0"),
        call("getJobState", "w0"),
        redis("RPUSH", "wait", "0:100"),
        call("getJobs", "wait", 0, 1, True),
        call("getJobs", "wait"),
    ),
)


def _hash(id: str, fields: dict[str, str]) -> tuple[Call | Work, ...]:
    pairs = [part for pair in fields.items() for part in pair]
    return redis("HSET", id, *pairs), redis("RPUSH", "wait", id), call("getJob", id)


STRANGE: Final = Scenario(
    "strange hashes",
    (
        *(
            step
            for number, fields in enumerate(
                (
                    {"other": "thing"},
                    {"name": ""},
                    {"name": "n", "id": "another", "data": "", "opts": ""},
                    *({"delay": text, "priority": text} for text in ("1.5", "-1", "", "x", "0x1F", " 7 days", "1e3")),
                    *({"timestamp": text} for text in ("1.5", "", "later", "1650000000000.9", "9" * 400)),
                    *({"ats": text, "atm": text, "stc": text} for text in ("", "2.5", "many", "-1")),
                    {"attemptsMade": "", "atm": "3"},
                    {"attemptsMade": "4", "atm": "3"},
                    *({"processedOn": text, "finishedOn": text} for text in ("", "0", "x", "-5", "1.5")),
                    *({"opts": opts} for opts in ("[]", '[1,{"a":2}]', "7", "true", "{}", '{"attempts":null}')),
                    *(
                        {"opts": f'{{"attempts":3,"backoff":{backoff}}}'}
                        for backoff in ("5", "0", "-1.5", "null", "false", '""', '"x"', "true", "[1]", '{"type":"x"}')
                    ),
                    {"opts": '{"attempts" : 2, "backoff" : 100}'},
                    {"opts": '{"delay":"x","priority":[],"lifo":0,"deep":{"de":{"id":"d"}}}'},
                    {"opts": '{"fpof":1,"rdof":null,"kl":"5","tm":{"a":1},"omc":0,"x":12345678901234567890}'},
                    {"opts": '{"de":{"id":"d","ttl":5}}'},
                    {"opts": '{"de":{"id":"d"}}', "deid": "e"},
                    {"opts": '{"de":null}', "deid": ""},
                    {"opts": '{"repeatJobKey":"every"}'},
                    {"opts": '{"repeatJobKey":"every"}', "rjk": "hour"},
                    {"opts": '{"parent":{"id":"1","queue":"q"},"fpof":true}'},
                    *({"data": data} for data in ("null", "0", '""', " [1] ", '{"__proto__":1}')),
                    *({"progress": progress} for progress in ("", "null", "false", '""', "1.50", "{}")),
                    *({"returnvalue": value} for value in ("", "null", "undefined", "{", '"x"', "1e2")),
                    *({"stacktrace": traces} for traces in ("", "{}", "null", "[", ' ["a",null,{"b":[1]}] ', '"x"')),
                    *({"parent": parent} for parent in ("", "null", "false", "0", '""', "{}", "[]", '{"id":7}')),
                    {"parentKey": ""},
                    {"parentKey": "elsewhere"},
                    {"failedReason": "", "defa": "", "pb": "", "rjk": ""},
                    {"failedReason": "{", "defa": "0", "pb": " ", "rjk": "null"},
                    {"data": '{"half":"\\ud800"}', "stacktrace": '["\\ud800"]'},
                )
            )
            for step in _hash(f"j{number}", fields)
        ),
        call("getJobs", "waiting"),
        call("getJobs"),
        call("getJob", "meta"),
    ),
)

CONFIGURATION: Final = Scenario(
    "a queue's configuration",
    (
        call("getVersion"),
        call("getMeta"),
        call("pause"),
        call("getMeta"),
        call("setGlobalConcurrency", 3),
        call("setGlobalRateLimit", 5, 1000),
        call("getMeta"),
        redis("HSET", "meta", "mine", "7", "paused", "yes"),
        call("getMeta"),
        call("isPaused"),
        *(
            step
            for text in ("0", "", " 5 ", "1.50", "1e3", "0x10", "-1", "many", "Infinity", ".5", "1e21", "0b2")
            for step in (
                redis("HSET", "meta", "concurrency", text, "opts.maxLenEvents", text, "max", text, "duration", text),
                call("getMeta"),
                call("getGlobalConcurrency"),
                call("getGlobalRateLimit"),
            )
        ),
        redis("DEL", "meta"),
        call("getMeta"),
        call("getVersion"),
    ),
)

DEDUPLICATED: Final = Scenario(
    "deduplication keys",
    (
        call("getDeduplicationJobId", "d"),
        call("removeDeduplicationKey", "d"),
        add({"deduplication": {"id": "d"}, "jobId": "first"}),
        add({"deduplication": {"id": "d"}}),
        call("getDeduplicationJobId", "d"),
        call("removeDeduplicationKey", "d"),
        call("removeDeduplicationKey", "d"),
        call("getDeduplicationJobId", "d"),
        add({"deduplication": {"id": "d", "ttl": LATER}, "jobId": "second"}),
        call("getDeduplicationJobId", "d"),
        call("getDeduplicationJobId", ""),
        add({"deduplication": {"id": "a:b ü"}}),
        call("getDeduplicationJobId", "a:b ü"),
        call("removeDeduplicationKey", "a:b ü"),
    ),
)

CHILDREN: Final = Scenario(
    "children of a job",
    (
        call("getDependencies", "mother", "pending", 0, -1),
        call("getDependencies", "mother", "processed", 0, -1),
        add({"jobId": "mother"}),
        take(),
        *(add({"jobId": f"c{n}", "parent": PARENT, "attempts": 1}, data={"n": n}) for n in range(5)),
        add(
            {
                "jobId": "rich",
                "parent": PARENT,
                "delay": LATER,
                "priority": 2,
                "backoff": 5,
                "failParentOnFailure": True,
                "keepLogs": 3,
                "telemetry": {"metadata": "m"},
            }
        ),
        add({"jobId": "i", "parent": PARENT, "ignoreDependencyOnFailure": True, "attempts": 1}),
        wait_for_children("mother"),
        *(
            call("getDependencies", "mother", "pending", start, end)
            for start, end in (
                (0, -1),
                (0, 0),
                (0, 1),
                (2, 3),
                (6, 6),
                (7, 9),
                (3, -1),
                (3, 1),
                (0, 99),
                (_MOST, _MOST),
            )
        ),
        take(),
        complete("c0", {"sum": [1.5, None, "ü"]}),
        take(),
        complete("c1", None),
        take(),
        fail("c2"),
        call("getDependencies", "mother", "processed", 0, -1),
        call("getDependencies", "mother", "processed", 1, 1),
        call("getDependencies", "mother", "processed", 0, 0),
        call("getDependencies", "mother", "pending", 0, -1),
        redis("DEL", "c0"),
        redis("HSET", "c1", "id", "c1", "deid", "d", "rjk", "r", "finishedOn", "0", "failedReason", "", "pb", "me"),
        redis("DEL", "c3"),
        call("getDependencies", "mother", "processed", 0, -1),
        call("getDependencies", "mother", "pending", 0, -1),
        call("getDependencies", "missing", "pending", 0, 5),
    ),
)

METRICS: Final = Scenario(
    "metrics",
    (
        call("getMetrics", "completed"),
        call("exportPrometheusMetrics"),
        redis("HSET", "metrics:completed", "count", "12", "prevTS", "1700000000000", "prevCount", "10"),
        redis("RPUSH", "metrics:completed:data", "3", "0", "7", "1.5", "x", "", "-0", "1e3"),
        redis("HSET", "metrics:failed", "count", "x", "prevTS", "", "prevCount", "2.9"),
        *(call("getMetrics", type) for type in ("completed", "failed")),
        *(
            call("getMetrics", "completed", start, end)
            for start, end in ((0, 0), (1, 2), (-2, -1), (5, 99), (3, 1), (-_MOST, _MOST))
        ),
        call("getMetrics", "completed", 2),
        *ONE_IN_EACH_STATE,
        call("exportPrometheusMetrics"),
        call("exportPrometheusMetrics", None),
        call("exportPrometheusMetrics", {}),
        call("exportPrometheusMetrics", {"env": "prod", "_a1": 'with " and \\ and \n ü', "empty": ""}),
        redis("HSET", "metrics:failed", "count", "7"),
        call("exportPrometheusMetrics", {"env": "prod"}),
    ),
)

SCENARIOS: Final = (
    COUNTING,
    RANGES,
    PAGES,
    STRANGE,
    CONFIGURATION,
    DEDUPLICATED,
    CHILDREN,
    METRICS,
)
