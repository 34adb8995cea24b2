"""The ancestor's routes for jobs: every status and form of answer that its clients know."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint
from tests.net.support import Answer, RawClient
from tests.sessions.peer import Gateway
from tests.support.keys import entry, write_keys
from tests.support.valkey import ValkeyProcess

TEXT = "text/plain;charset=utf-8"
JOB = {"name": "mail", "data": {"to": "ann"}}
HOLDERS = [endpoint for endpoint in AncestorEndpoint if endpoint.is_for_holders]


class Client:
    """A client of the ancestor's, which connects again where the gateway does not wait for a body that it refuses."""

    def __init__(self, port: int, raw: RawClient) -> None:
        self.raw = raw
        self._port = port

    async def fetch(self, method: str, target: str, key: str = "key-1", body: bytes | str = b"") -> Answer:
        answer = await self.raw.fetch(method, target, f"Authorization: Bearer {key}", body=body)
        if answer.headers.get("connection") == "close":
            await self.raw.close()
            self.raw = await RawClient.connect(self._port)
        assert answer.headers["content-type"] == TEXT, answer
        assert not answer.body.startswith(b'{"err"')
        return answer

    async def get(self, target: str, key: str = "key-1") -> Any:
        answer = await self.fetch("GET", target, key)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    async def post(self, target: str, value: Any, key: str = "key-1") -> Answer:
        return await self.fetch("POST", target, key, json.dumps(value))

    async def add(self, *jobs: Any, queue: str = "mails") -> list[Any]:
        answer = await self.post(f"/queues/{queue}/jobs", jobs)
        assert answer.status == 200, answer
        added: list[Any] = json.loads(answer.body)
        return added


@pytest.fixture
async def proxy(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    keys = [entry(permission, permission, queues=["mails-*"]) for permission in Permission]
    path = write_keys(tmp_path / "keys.toml", *keys, entry("nothing", queues=["*"]))
    async with Gateway(valkey.url, prefix=prefix, keys_file=path) as gateway:
        yield gateway


@pytest.fixture
async def client(proxy: Gateway) -> AsyncIterator[Client]:
    client = Client(proxy.port, await RawClient.connect(proxy.port))
    yield client
    await client.raw.close()


@pytest.fixture
async def redis(valkey: ValkeyProcess) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url, decode_responses=True) as client:
        yield client


def asked(endpoint: AncestorEndpoint, queue: str = "mails", job: str = "1") -> tuple[str, str]:
    """The method and path of a request."""
    path = endpoint.value.path.replace("{queue}", queue).replace("{job}", job)
    return endpoint.value.methods[0], path


class TestAddingJobs:
    async def test_jobs_are_added_and_come_back_as_json(self, client: Client, prefix: str) -> None:
        opts = {"delay": 60_000, "attempts": 3, "backoff": {"type": "fixed", "delay": 500}, "removeOnComplete": True}
        first, second = await client.add(JOB, {**JOB, "opts": opts})
        shape = {
            "name": "mail",
            "data": {"to": "ann"},
            "progress": 0,
            "returnvalue": None,
            "stacktrace": None,
            "attemptsStarted": 0,
            "attemptsMade": 0,
            "stalledCounter": 0,
            "priority": 0,
            "queueQualifiedName": f"{prefix}:mails",
        }
        assert first.pop("timestamp") and second.pop("timestamp")
        assert first == {**shape, "id": "1", "opts": {"attempts": 0}}
        assert second == {**shape, "id": "2", "opts": opts, "delay": 60_000}
        assert (await client.get("/queues/mails/jobs/2"))["opts"] == opts
        assert await client.add() == []

    @pytest.mark.parametrize("data", [0, "", False, [], {}, "text", 1.5])
    async def test_any_value_but_null_is_data(self, client: Client, data: Any) -> None:
        [job] = await client.add({"name": "mail", "data": data})
        assert job["data"] == data

    @pytest.mark.parametrize(
        ("opts", "stored"),
        [
            (None, {}),
            ({}, {}),
            ([], {}),
            ({"delay": 0, "attempts": 0}, {"delay": 0}),
            ({"delay": None, "backoff": None, "jobId": None, "deduplication": None}, {}),
            ({"attempts": 2.0}, {"attempts": 2}),
            ({"priority": 1}, {"priority": 1}),
            ({"priority": 2_097_152}, {"priority": 2_097_151}),
            ({"lifo": True}, {"lifo": True}),
            ({"jobId": "mine"}, {"jobId": "mine"}),
            ({"backoff": 1000}, {"backoff": {"type": "fixed", "delay": 1000}}),
            ({"backoff": {"type": "exponential"}}, {"backoff": {"type": "exponential"}}),
            ({"deduplication": {"id": "once", "ttl": 500}}, {"deduplication": {"id": "once", "ttl": 500}}),
            ({"removeOnFail": {"count": 5, "age": 60}}, {"removeOnFail": {"count": 5, "age": 60}}),
            ({"removeOnComplete": "yes", "removeOnFail": 0}, {"removeOnComplete": True, "removeOnFail": 0}),
        ],
    )
    async def test_options_are_taken(self, client: Client, opts: Any, stored: dict[str, Any]) -> None:
        [job] = await client.add({**JOB, "opts": opts})
        assert job["opts"] == {"attempts": 0, **stored}

    @pytest.mark.parametrize(
        ("job", "message"),
        [
            (None, "Expected an object"),
            (5, "Expected an object"),
            ("mail", "Expected an object"),
            ({"data": 1}, "Expected a name"),
            ({"name": "", "data": 1}, "name is required"),
            ({"name": "mail"}, "data is required"),
            ({"name": "mail", "data": None}, "data is required"),
            ({**JOB, "id": "1"}, "Unexpected field: id"),
            *(
                ({**JOB, "opts": opts}, message)
                for opts, message in (
                    ("text", "Expected an object as opts"),
                    ({"repeat": {"every": 1000}}, "Unexpected field: opts.repeat"),
                    ({"keepLogs": 1}, "Unexpected field: opts.keepLogs"),
                    ({"delay": -1}, "Invalid opts.delay"),
                    ({"delay": 1.5}, "Invalid opts.delay"),
                    ({"delay": "1"}, "Invalid opts.delay"),
                    ({"delay": True}, "Invalid opts.delay"),
                    ({"attempts": -1}, "Invalid opts.attempts"),
                    ({"priority": 0}, "Invalid opts.priority"),
                    ({"priority": 2_097_153}, "Invalid opts.priority"),
                    ({"priority": None}, "Invalid opts.priority"),
                    ({"lifo": 1}, "Invalid opts.lifo"),
                    ({"lifo": None}, "Invalid opts.lifo"),
                    ({"jobId": 5}, "Invalid opts.jobId"),
                    ({"jobId": "5"}, "Custom Id cannot be integers"),
                    ({"backoff": "1"}, "Invalid opts.backoff"),
                    ({"backoff": {}}, "Invalid opts.backoff"),
                    ({"backoff": {"type": "other", "delay": 1}}, "Invalid opts.backoff"),
                    ({"backoff": {"type": ["fixed"]}}, "Invalid opts.backoff"),
                    ({"backoff": {"type": "fixed", "delay": -1}}, "Invalid opts.backoff"),
                    ({"backoff": {"type": "fixed", "x": 1}}, "Invalid opts.backoff: unexpected field x"),
                    ({"deduplication": {}}, "Invalid opts.deduplication"),
                    ({"deduplication": {"id": "a", "ttl": -1}}, "Invalid opts.deduplication"),
                    ({"deduplication": {"id": "a", "extend": True}}, "unexpected field extend"),
                )
            ),
        ],
    )
    async def test_all_are_checked_before_one_is_added(self, client: Client, job: Any, message: str) -> None:
        answer = await client.post("/queues/mails/jobs", [JOB, job])
        assert answer.status == 400
        assert message in answer.body.decode()
        assert (await client.get("/queues/mails/jobs"))["counts"]["waiting"] == 0

    async def test_the_first_error_wins_among_many_jobs(self, client: Client) -> None:
        jobs = [JOB] * 300 + [{"name": "mail"}, {"data": 1}]
        answer = await client.post("/queues/mails/jobs", jobs)
        assert (answer.status, answer.body) == (400, b"data is required - at [300]")
        assert len(await client.add(*jobs[:300])) == 300

    @pytest.mark.parametrize("body", [b"", b"[", b"{}", b"1", b"null", b'"text"', b"\xff", b"[1e999]"])
    async def test_what_is_no_array_is_refused(self, client: Client, body: bytes) -> None:
        assert (await client.fetch("POST", "/queues/mails/jobs", body=body)).status == 400

    async def test_half_a_surrogate_pair_does_no_harm(self, client: Client) -> None:
        body = '[{"name":"a\\ud83d","data":"\\ud83d","opts":{"jobId":"b\\ud83d"}}]'
        assert (await client.fetch("POST", "/queues/mails/jobs", body=body)).status == 200


class TestReading:
    async def test_a_page_has_jobs_of_each_status(self, proxy: Gateway, client: Client) -> None:
        await client.add(*[{**JOB, "name": f"job-{number}"} for number in range(3)])
        await client.add({**JOB, "opts": {"delay": 60_000}})
        page = await client.get("/queues/mails/jobs")
        assert [job["name"] for job in page["jobs"]] == ["job-2", "job-1", "job-0"]
        counts = {"waiting": 3, "active": 0, "completed": 0, "failed": 0, "paused": 0}
        assert (page["counts"], page["start"], page["length"]) == (counts, 0, 10)
        page = await client.get("/queues/mails/jobs?statuses=waiting,delayed&length=1&other=1")
        assert [job["id"] for job in page["jobs"]] == ["3", "4"]
        assert (page["counts"], page["length"]) == ({"waiting": 3, "delayed": 1, "paused": 0}, 1)
        page = await client.get("/queues/mails/jobs?statuses=waiting&start=1&length=100")
        assert [job["id"] for job in page["jobs"]] == ["2", "1"]
        assert (page["start"], page["counts"]) == (1, {"waiting": 3, "paused": 0})
        assert len((await client.get("/queues/mails/jobs?start=0&length=0"))["jobs"]) == 3
        assert (await client.get("/queues/mails/jobs?start=2&length=0"))["jobs"] == []
        assert (await client.get("/queues/mails/jobs?start=&length=&statuses="))["length"] == 10

    @pytest.mark.parametrize(
        "query",
        [
            *("start=-1", "start=x", "start=" + "9" * 30, "length=-1", "length=x", "length=101"),
            *("statuses=paused", "statuses=waiting,other", "statuses=Waiting", "statuses=waiting-children"),
        ],
    )
    async def test_a_page_that_there_is_not_is_refused(self, client: Client, query: str) -> None:
        assert (await client.fetch("GET", f"/queues/mails/jobs?{query}")).status == 400
        if not query.startswith("statuses"):
            assert (await client.fetch("GET", f"/queues/mails/jobs/1/logs?{query}")).status == 400

    async def test_a_job_is_shown_or_missing(self, client: Client) -> None:
        await client.add(JOB)
        job = await client.get("/queues/mails/jobs/1")
        assert (job["id"], job["data"], job["opts"], job["stacktrace"]) == ("1", JOB["data"], {"attempts": 0}, [])
        missing = await client.fetch("GET", "/queues/mails/jobs/7")
        assert (missing.status, missing.body) == (404, b"Job not found")

    async def test_names_are_percent_encoded_but_for_three_characters(
        self, proxy: Gateway, client: Client, prefix: str
    ) -> None:
        [job] = await client.add(JOB, queue="m%C3%A4ils%20%2Fa%3ab%23")
        assert job["queueQualifiedName"] == f"{prefix}:mäils %2Fa%3ab%23"
        assert (await client.fetch("GET", "/queues/mails%ff/jobs")).status == 400
        assert (await client.fetch("GET", "/queues/mai:ls/jobs")).status == 400
        await client.add({**JOB, "opts": {"jobId": "a%2Fb é"}})
        assert (await client.get("/queues/mails/jobs/a%2Fb%20%C3%A9"))["id"] == "a%2Fb é"

    async def test_logs_come_in_pages(self, proxy: Gateway, client: Client) -> None:
        await client.add(JOB)
        queue = await proxy.queue("mails")
        for number in range(12):
            await queue.call("addJobLog", "1", f"row {number}")
        rows = [f"row {number}" for number in range(12)]
        logs = "/queues/mails/jobs/1/logs"
        assert await client.get(logs) == {"logs": rows[:10], "count": 12}
        assert await client.get(f"{logs}?start=9&length=2") == {"logs": rows[9:11], "count": 12}
        assert await client.get(f"{logs}?start=0&length=0") == {"logs": rows, "count": 12}
        assert await client.get("/queues/mails/jobs/7/logs") == {"logs": [], "count": 0}


class TestHolders:
    """Who shows the token of a job's lock writes its progress and its log."""

    @pytest.fixture
    async def token(self, proxy: Gateway, client: Client) -> str:
        """The token of the lock of job 1."""
        await client.add(JOB)
        await (await proxy.queue("mails")).call("getNextJob", "token 1")
        return "token 1"

    @pytest.mark.parametrize("progress", [50, 0, {"percent": 50}, "half", None, [1]])
    async def test_any_json_is_a_progress(self, client: Client, token: str, progress: Any) -> None:
        answer = await client.post("/queues/mails/jobs/1/progress", progress, token)
        assert (answer.status, answer.body) == (200, b"OK")
        assert (await client.get("/queues/mails/jobs/1"))["progress"] == (progress or 0)

    async def test_a_row_of_a_log_is_text(self, client: Client, token: str) -> None:
        for row in ('"begin"', ' "ä\\n" ', '{"a": 1}', "5"):
            answer = await client.fetch("POST", "/queues/mails/jobs/1/logs", token, row)
            assert (answer.status, answer.body) == (200, b"OK")
        logs = await client.get("/queues/mails/jobs/1/logs")
        assert logs == {"logs": ["begin", "ä\n", '{"a": 1}', "5"], "count": 4}

    async def test_a_worker_connection_holds_its_jobs_by_their_tokens(
        self, proxy: Gateway, client: Client, redis: Redis, prefix: str
    ) -> None:
        await client.add(JOB)
        worker = await proxy.worker("mails")
        job = await worker.job()
        token = job.shown["token"]
        assert await redis.get(f"{prefix}:mails:1:lock") == token
        assert (await client.post("/queues/mails/jobs/1/progress", 7, token)).status == 200

    @pytest.mark.parametrize("endpoint", HOLDERS)
    async def test_nothing_else_is_the_key(
        self, client: Client, token: str, endpoint: AncestorEndpoint, redis: Redis, prefix: str
    ) -> None:
        method, path = asked(endpoint)
        before = await redis.hgetall(f"{prefix}:mails:1")
        for key in ("", "key-1", "consume", "manage", "token", "token 1x", "x", "é"):
            assert (await client.fetch(method, path, key, "[")).status == 401, key
        for queue, job in (("mails", "2"), ("other", "1"), ("mails", "meta"), ("m", "1"), ("m" * 101, "1")):
            assert (await client.fetch(*asked(endpoint, queue, job), token, "[")).status == 401
        assert await redis.hgetall(f"{prefix}:mails:1") == before

    @pytest.mark.parametrize("endpoint", HOLDERS)
    async def test_the_lock_comes_before_the_name_and_the_name_before_the_body(
        self, client: Client, token: str, redis: Redis, prefix: str, endpoint: AncestorEndpoint
    ) -> None:
        for queue in ("m", "m" * 101):
            await redis.set(f"{prefix}:{queue}:1:lock", "t")
            answer = await client.fetch(*asked(endpoint, queue), "t", "[")
            assert answer.status == 400
            assert "queue name" in answer.body.decode()
        assert (await client.fetch(*asked(endpoint), token, "[")).status == 400
        assert (await client.fetch(*asked(endpoint), token, "")).status == 400
        assert (await client.fetch(*asked(endpoint), token, b'"\xff"')).status == 400
        await redis.set(f"{prefix}:mails:9:lock", "t")
        assert (await client.fetch(*asked(endpoint, job="9"), "t", '"x"')).status == 500  # there is no such job
        await redis.set(f"{prefix}:mails:meta:lock", "t")
        assert (await client.fetch(*asked(endpoint, job="meta"), "t", '"x"')).status == 400

    async def test_a_token_opens_nothing_else(self, client: Client, token: str) -> None:
        for endpoint in AncestorEndpoint:
            if endpoint not in HOLDERS:
                assert (await client.fetch(*asked(endpoint), token)).status == 401


class TestKeys:
    @pytest.mark.parametrize("endpoint", AncestorEndpoint)
    async def test_each_route_needs_its_permission_and_the_queue(
        self, client: Client, endpoint: AncestorEndpoint
    ) -> None:
        if endpoint in HOLDERS:
            return
        method, path = asked(endpoint, "mails-1", "none")
        allowed = {200} if endpoint is not AncestorEndpoint.GET_JOB else {404}
        for permission in Permission:
            answer = await client.fetch(method, path, permission, "[]" if method == "POST" else "")
            may = permission in (endpoint.value.permissions or ())
            assert answer.status in (allowed if may else {403}), permission
            other = await client.fetch(*asked(endpoint, "orders"), permission, "[]" if method == "POST" else "")
            assert other.status == 403
        assert (await client.fetch(method, path, "nothing", "[]" if method == "POST" else "")).status == 403

    @pytest.mark.parametrize("endpoint", AncestorEndpoint)
    async def test_the_key_stands_behind_bearer_and_nowhere_else(
        self, proxy: Gateway, endpoint: AncestorEndpoint
    ) -> None:
        method, path = asked(endpoint, queue="m")  # the key comes before the name
        shown = ["Bearer wrong", "Bearer ", "bearer key-1", "Basic key-1", "key-1", ""]
        async with await RawClient.connect(proxy.port) as client:
            for value in shown:
                for query in ("", "?token=key-1"):
                    answer = await client.fetch(method, path + query, f"Authorization: {value}")
                    assert (answer.status, answer.headers["content-type"]) == (401, TEXT), value
            if endpoint not in HOLDERS:
                answer = await client.fetch(method, path, "Authorization: x Bearer key-1")
                assert answer.status == 400  # it is let in, and the name is too short

    @pytest.mark.parametrize("endpoint", AncestorEndpoint)
    @pytest.mark.parametrize("name", ["a", "ab", "x" * 101])
    async def test_a_name_has_3_to_100_characters(self, client: Client, endpoint: AncestorEndpoint, name: str) -> None:
        answer = await client.fetch(*asked(endpoint, name), body="[]" if endpoint.value.methods[0] == "POST" else "")
        assert answer.status == (401 if endpoint in HOLDERS else 400)

    async def test_shorter_names_may_be_allowed(self, valkey: ValkeyProcess, prefix: str) -> None:
        async with Gateway(valkey.url, prefix=prefix, min_queue_name=1) as gateway:
            client = Client(gateway.port, await RawClient.connect(gateway.port))
            await client.add(JOB, queue="m")
            worker = {"queue": "m", "endpoint": {"url": "http://127.0.0.1:9/", "method": "POST"}}
            assert (await client.post("/workers", worker)).status == 200
            await client.raw.close()

    @pytest.mark.parametrize("path", sorted({endpoint.value.path for endpoint in AncestorEndpoint}))
    async def test_a_wrong_method_is_nowhere(self, proxy: Gateway, path: str) -> None:
        target = path.replace("{queue}", "mails").replace("{job}", "1")
        served = {name for row in AncestorEndpoint if row.value.path == path for name in row.value.methods}
        for method in {"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"} - served:
            async with await RawClient.connect(proxy.port) as client:
                answer = await client.fetch(method, target, "Authorization: Bearer wrong")
                assert (answer.status, answer.headers["content-type"]) == (404, TEXT), method
                assert "access-control-allow-methods" not in answer.headers
        async with await RawClient.connect(proxy.port) as client:
            assert (await client.fetch("GET", f"{target}/")).status == 404

    async def test_requests_of_both_kinds_share_a_connection(self, proxy: Gateway, client: Client) -> None:
        raw = client.raw
        await client.add(JOB)
        raw.request("GET", "/queue/mails/count")
        raw.request("GET", "/queues/mails/jobs/1")
        raw.request("GET", "/queues")
        raw.request("GET", "/queues/mails/jobs/7")
        raw.request("POST", "/queues/mails/jobs/1/progress", body="1")
        answers = [await raw.answer() for _ in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 404, 401]
        assert json.loads(answers[0].body) == {"ok": 1}
        assert json.loads(answers[1].body)["id"] == "1"
