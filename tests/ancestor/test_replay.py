"""The ancestor's answers to these requests, as version 1.5.3 and BullMQ 5 give them, and that ours are the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.net.support import RawClient
from tests.sessions.peer import Gateway
from tests.support.valkey import ValkeyProcess

JOB: dict[str, Any] = {"name": "mail", "data": {"to": "ann"}}
WORKER: dict[str, Any] = {"queue": "mails", "endpoint": {"url": "https://example.com/x", "method": "POST"}}
JOBS, ONE, WORKERS = "/queues/mails/jobs", "/queues/mails/jobs/1", "/workers"
TEXT = "text/plain;charset=utf-8"
KEY, HOLDER = "Bearer key-1", "Bearer token-1"

Row = tuple[str, str, Any, str | None, int]
"""Method, target, body, Authorization, and the status of the answer."""


def posts(status: int, *bodies: Any, to: str = JOBS, key: str = KEY) -> list[Row]:
    return [("POST", to, body, key, status) for body in bodies]


def gets(status: int, *targets: str) -> list[Row]:
    return [("GET", target, None, KEY, status) for target in targets]


def jobs_with(status: int, **options: list[Any]) -> list[Row]:
    """Adding a job with each value of each option."""
    bodies = [[{**JOB, "opts": {name: value}}] for name, values in options.items() for value in values]
    return posts(status, *bodies)


def workers_with(status: int, part: str, **members: list[Any]) -> list[Row]:
    """Registering a worker with each value of each member of its endpoint or its opts, or its own."""
    changed = [({name: value}) for name, values in members.items() for value in values]
    bodies = [
        {**WORKER, **change} if not part else {**WORKER, part: {**WORKER.get(part, {}), **change}} for change in changed
    ]
    return posts(status, *bodies, to=WORKERS)


ROUTES: list[Row] = [
    *((method, path, None, None, 404) for path in (JOBS, ONE, f"{ONE}/logs") for method in ("PUT", "HEAD", "OPTIONS")),
    *((method, WORKERS, None, KEY, 404) for method in ("PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")),
    *gets(404, f"{JOBS}/", f"{ONE}/", f"{ONE}/logs/", f"{ONE}/other", f"{ONE}/logs/2", "/queues//jobs", "/workers/"),
    *gets(404, "/queues/mails/Jobs", f"{ONE}/progress", "/workers/a/b"),
    *posts(404, [], to=ONE),
    *posts(404, WORKER, to="/workers/mails"),
    *gets(400, "/queues/ab/jobs", f"/queues/{'x' * 101}/jobs", "/queues/ab/jobs/1", "/queues/ab/jobs/1/logs"),
    *gets(200, "/queues/a%2Fb/jobs", "/queues/a%3Ab/jobs", "/queues/a%40b/jobs", "/queues/m%C3%A4s/jobs/1/logs"),
    *gets(404, "/queues/none/jobs/1", f"{JOBS}/x", f"{JOBS}/0"),
]

SHOWN_KEYS: list[Row] = [
    ("GET", target, None, value, status)
    for target in (JOBS, WORKERS, f"{ONE}/logs")
    for value, status in (
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("bearer key-1", 401),
        ("Bearer  key-1", 401),
        ("Bearer key-1x", 401),
        ("Bearer key-1 ", 200),
        ("Bearer key-1,key-2", 401),
        ("Bearer Bearer key-1", 401),
        ("Bearer wrong, Bearer key-1", 401),
        ("Bearer key-1Bearer wrong", 200),
        ("x Bearer key-1", 200),
        (HOLDER, 401),
    )
]

_NO_OPTIONS: list[Any] = [None, {}, [], 0, 1, "", False, True]

ADDED: list[Row] = [
    *posts(200, "[]", " [] ", "\ufeff[]", [JOB], [JOB] * 20),
    *posts(400, "{}", "null", "1", '"x"', "[1]", "[null]", '["x"]', "[{}]", "[[]]", JOB),
    *posts(400, [{"data": 1}], [{**JOB, "name": ""}], [{"name": "a"}], [{"name": "a", "data": None}]),
    *posts(400, [{**JOB, "id": "1"}], [{**JOB, "": 1}], [JOB, {"name": "a"}]),
    *posts(200, *([{**JOB, "opts": each}] for each in _NO_OPTIONS)),
    *posts(400, *([{**JOB, "opts": opts}] for opts in ("text", [1]))),
    *jobs_with(200, delay=[0, 5, None, False, ""], attempts=[0, 3, 2.0, None, False, ""], priority=[1, 2_097_151]),
    *jobs_with(400, delay=[-1, 1.5, "5", True, [], {}], attempts=[-1, 1.5, "3", True]),
    *jobs_with(400, priority=[0, -1, 1.5, "1", "", None, True, 2_097_153], lifo=[None, 0, "true"]),
    *jobs_with(200, lifo=[True, False], jobId=["mine", "a:b:c", "05x", ""], backoff=[0, None, "", False]),
    *jobs_with(400, jobId=[5, True, []], backoff=[-1, "1", True, [], {}]),
    *jobs_with(200, backoff=[{"type": "fixed"}, {"type": "fixed", "delay": 0}, {"type": "mine"}]),
    *jobs_with(400, backoff=[{"delay": 1}, {"type": "mine", "delay": 1}, {"type": "fixed", "jitter": 1}]),
    *jobs_with(400, backoff=[{"type": "fixed", "delay": delay} for delay in (-1, "1", None, True)]),
    *jobs_with(200, deduplication=[{"id": "a"}, {"id": "b", "ttl": 5}, {"id": "c", "ttl": 0}, None, "", False]),
    *jobs_with(400, deduplication=[{}, {"id": 5}, {"id": "a", "ttl": -1}, {"id": "a", "ttl": "1"}, "x", True, []]),
    *jobs_with(400, deduplication=[{"id": "a", "extend": True}, {"id": "a", "replace": True}]),
    *jobs_with(200, removeOnComplete=[True, False, 0, 5, -1, None, "yes", "", {}, {"age": 1}, {"x": 1}, []]),
    *jobs_with(400, repeat=[None, {"every": 5}], keepLogs=[1], timestamp=[1], debounce=[{"id": "a"}]),
]

READ: list[Row] = [
    *gets(200, *(f"{JOBS}?start={start}" for start in ("", "0", "5", "1.5", "5x", "%205", "%2B5", "-0", "00", "1e1"))),
    *gets(200, *(f"{JOBS}?length={length}" for length in ("", "0", "1", "100", "1.5", "100.9"))),
    *gets(400, *(f"{JOBS}?{query}" for query in ("start=-1", "start=x", "start=NaN", "length=-1", "length=101"))),
    *gets(400, f"{ONE}/logs?start=x", f"{ONE}/logs?length=101"),
    *gets(200, f"{ONE}/logs?start=1;length=2", f"{JOBS}?length=1&length=x", f"{JOBS}?START=-1", f"{JOBS}?start"),
    *gets(200, *(f"{JOBS}?statuses={names}" for names in ("", ",", "waiting,", "waiting,,failed", "waiting,waiting"))),
    *gets(200, f"{JOBS}?statuses=waiting&statuses=unknown", f"{JOBS}?status=unknown"),
    *gets(
        400, *(f"{JOBS}?statuses={name}" for name in ("wait", "paused", "Waiting", "prioritized", "waiting,%20failed"))
    ),
    *gets(400, f"{JOBS}?statuses=unknown&statuses=waiting"),
]

HELD: list[Row] = [
    row
    for path in (f"{ONE}/progress", f"{ONE}/logs")
    for row in (
        *posts(
            200, "1", "0", "1.5", "true", "null", '""', '"half"', "{}", "[1]", " 5 ", "\ufeff5", to=path, key=HOLDER
        ),
        *posts(401, "1", "[", to=path),
        *(("POST", path, "1", value, 401) for value in (None, "token-1", "Bearer  token-1", "bearer token-1")),
        ("POST", f"{path}?token=token-1", "1", None, 401),
        ("POST", path.replace("1", "2"), "1", HOLDER, 401),
        ("POST", path.replace("1", "%31"), "1", HOLDER, 200),
    )
]

REGISTERED: list[Row] = [
    *posts(200, WORKER, to=WORKERS),
    *posts(400, "{}", "1", "[]", [WORKER], to=WORKERS),
    *workers_with(400, "", queue=["", "ab", "x" * 101, None, 0, False, []], endpoint=[None, {}, "", "x", 5]),
    *workers_with(400, "", name=["x"], secrets=[[]], concurrency=[1]),
    *workers_with(200, "", opts=[None, {}, []], queue=["a b", "ä☃x"]),
    *workers_with(400, "endpoint", url=["", None, 5, "x", "/x", "ftp://h/", "http:", "http://127.0.0.1:99999/"]),
    *workers_with(200, "endpoint", url=["HTTP://127.0.0.1:9/", "http://[::1]:9/", "http://127.0.0.1:9/?a=1#b"]),
    *workers_with(400, "endpoint", method=["", None, "GET", "DELETE", "HEAD", "FOO", " POST"], body=["x"]),
    *workers_with(200, "endpoint", method=["post", "Put", "PATCH"], headers=[{}, None, {"A": "b"}, {"A": 5}]),
    *workers_with(200, "endpoint", timeout=[None, 0, 1, 10**12, 2.0]),
    *workers_with(400, "endpoint", timeout=[-1, 1.5, "5", True, []]),
    *workers_with(200, "opts", concurrency=[None, 1, 100], maxStalledCount=[None, 0, 5]),
    *workers_with(400, "opts", concurrency=[-1, 1.5, "5", True], maxStalledCount=[-1, 1.5, "5", True]),
    *workers_with(
        400, "opts", limiter=[{}, [], "x", {"max": 1}, {"max": 0, "duration": 1}, {"max": "1", "duration": 1}]
    ),
    *workers_with(200, "opts", limiter=[None, {"max": 1, "duration": 1000}]),
    *(
        row
        for name in ("removeOnComplete", "removeOnFail")
        for row in (
            *workers_with(200, "opts", **{name: [None, True, False, 0, 5, {}, {"count": 0}, {"age": 1, "count": 1}]}),
            *workers_with(400, "opts", **{name: [{"x": 1}, {"count": -1}, {"count": 1.5}, {"age": -1}, {"age": "1"}]}),
        )
    ),
    *workers_with(400, "opts", lockDuration=[1], prefix=["x"], autorun=[False], name=["x"]),
]

OURS: list[Row] = [  # the ancestor's defects: it answers these with another status
    *posts(400, "", "[", "[]x", b"\xff"),  # 500
    *posts(400, "", "[", "\ufeff[", to=WORKERS),  # 500
    *posts(400, "", "[", to=f"{ONE}/progress", key=HOLDER),  # 500
    *posts(200, *([{**JOB, "data": data}] for data in (0, "", False))),  # 400
    *jobs_with(200, backoff=[1000]),  # 400
    *jobs_with(400, jobId=["5", "a:b", "wait"]),  # 500
    *jobs_with(400, jobId=["meta"]),  # 200, and the queue is broken
    *posts(400, [{**JOB, "name": True}], [{**JOB, "name": ["a"]}]),  # 500
    *jobs_with(200, priority=[2_097_152]),  # 500 with the last versions of BullMQ 5
    *gets(400, "/queues/%ff%ff%ff/jobs", "/queues/a:b/jobs"),  # 500
    *gets(404, f"{JOBS}/meta", f"{JOBS}/wait", f"{JOBS}/1:lock"),  # 200, and 500
    *workers_with(400, "opts", concurrency=[0]),  # 200, and nothing is worked any more
    *workers_with(400, "endpoint", url=["http://a:b@example.com/", "http://example.com/ä"]),  # 200
    *workers_with(400, "endpoint", headers=[{"A": "x\ny"}, {"Host": "x"}], url=["http://127.0.0.1:9/" + "x" * 2100]),
    *workers_with(400, "opts", limiter=[{"max": 10**12, "duration": 1}], removeOnFail=[1.5]),  # 200
]


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Gateway]:
    async with Gateway(valkey.url, prefix=prefix) as gateway, Redis.from_url(valkey.url) as redis:
        await redis.set(f"{prefix}:mails:1:lock", "token-1")
        yield gateway


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(rows, id=name)
        for name, rows in {
            "routes": ROUTES,
            "keys": SHOWN_KEYS,
            "adding": ADDED,
            "reading": READ,
            "holders": HELD,
            "workers": REGISTERED,
            "defects": OURS,
        }.items()
    ],
)
async def test_statuses_and_content_types_are_the_ancestors(proxy: Gateway, rows: list[Row]) -> None:
    client = await RawClient.connect(proxy.port)
    wrong = {}
    for method, target, body, key, status in [*posts(200, [JOB]), *rows]:  # job 1, which somebody holds
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        answer = await client.fetch(method, target, f"Authorization: {key or ''}", body="" if body is None else text)
        if (answer.status, answer.headers["content-type"]) != (status, TEXT):
            wrong[f"{method} {target[:60]} {key} {text[:100]!r}"] = f"{answer}, not {status}"
        if answer.headers.get("connection") == "close":
            await client.close()
            client = await RawClient.connect(proxy.port)
    await client.close()
    assert wrong == {}


async def test_a_job_with_a_deduplication_is_read_with_both_names_of_its_id(proxy: Gateway) -> None:
    async with await RawClient.connect(proxy.port) as client:
        body = json.dumps([{**JOB, "opts": {"deduplication": {"id": "once"}}}, JOB])
        added = await client.fetch("POST", JOBS, body=body)
        assert "debounceId" not in json.loads(added.body)[0]
        page = json.loads((await client.fetch("GET", f"{JOBS}?statuses=waiting")).body)
        one = json.loads((await client.fetch("GET", ONE)).body)
        assert "debounceId" not in page["jobs"][0]
        for job in (page["jobs"][1], one):
            assert (job["debounceId"], job["deduplicationId"]) == ("once", "once")


async def test_a_job_that_was_there_already_looks_like_one_that_was_added(proxy: Gateway) -> None:
    async with await RawClient.connect(proxy.port) as client:
        job = {"name": "mail", "data": {"a": 1, "duplicate": True}, "opts": {"jobId": "mine"}}
        first, second = [
            json.loads((await client.fetch("POST", JOBS, body=json.dumps([job, JOB]))).body) for _ in range(2)
        ]
        assert [each.keys() for each in first] == [each.keys() for each in second]
        assert second[0]["data"] == job["data"]


async def test_a_name_that_the_ancestor_cannot_decode_is_deleted_by_who_asks_for_json(proxy: Gateway) -> None:
    async with await RawClient.connect(proxy.port) as client:
        assert (await client.fetch("POST", WORKERS, body=json.dumps({**WORKER, "queue": "a/b"}))).status == 200
        assert (await client.fetch("DELETE", "/workers/a%2Fb")).status == 404  # as there
        assert (await client.fetch("GET", "/workers/a%2Fb")).status == 200
        assert (await client.fetch("DELETE", "/workers/a%2Fb", "Accept: application/json")).status == 200
