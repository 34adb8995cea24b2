"""A job is one request, and its answer ends the job."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.sessions.peer import until
from tests.webhooks.endpoint import Client, Delivery, Endpoint, unanswered

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def delivered(client: Client, endpoint: Endpoint, **opts: Any) -> str:
    """Add a job to a queue whose jobs go to the endpoint."""
    await client.put("mails", endpoint.url + "/jobs?kind=mail")
    return await client.add("mails", {"to": "ada"}, **opts)


class TestTheRequest:
    async def test_it_has_the_job_and_the_token_of_its_lock(
        self, client: Client, endpoint: Endpoint, redis: Redis, prefix: str
    ) -> None:
        endpoint.respond = unanswered
        id = await delivered(client, endpoint)
        delivery = await endpoint.came()
        assert delivery.request.method == "POST"
        assert delivery.request.path_qs == "/jobs?kind=mail"
        assert delivery.headers["content-type"] == "application/json"
        assert delivery.json.keys() == {"job", "token"}
        job = delivery.job
        assert (job["id"], job["name"], job["data"]) == (id, "work", {"to": "ada"})
        assert job["queueQualifiedName"] == f"{prefix}:mails"
        assert job["token"] == delivery.token == await redis.get(f"{prefix}:mails:{id}:lock")
        ancestor = "name data opts id progress returnvalue stacktrace delay priority attemptsStarted attemptsMade"
        ancestor += " stalledCounter timestamp queueQualifiedName processedOn token"
        assert set(ancestor.split()) - job.keys() == set()

    async def test_it_has_the_method_and_the_headers_of_the_registration(
        self, client: Client, endpoint: Endpoint
    ) -> None:
        given = {"method": "PUT", "headers": {"Authorization": "Bearer x", "Content-Type": "application/cloudevents"}}
        await client.put("mails", endpoint.url, endpoint=given)
        await client.add("mails")
        delivery = await endpoint.came()
        assert delivery.request.method == "PUT"
        assert delivery.headers["authorization"] == "Bearer x"
        assert delivery.headers["content-type"] == "application/cloudevents"

    async def test_a_signature_is_one_that_others_verify_by_either_secret(
        self, client: Client, endpoint: Endpoint
    ) -> None:
        await client.put("mails", endpoint.url, secrets=[NEW_SECRET, SECRET])
        await client.add("mails", {"name": "Zoë"})
        delivery = await endpoint.came()
        for secret in (SECRET, NEW_SECRET):
            assert Webhook(secret).verify(delivery.body, delivery.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(delivery.body + b" ", delivery.headers)

    async def test_a_retry_has_the_same_message_id_and_another_job_has_not(
        self, client: Client, endpoint: Endpoint
    ) -> None:
        endpoint.answer(500)
        await delivered(client, endpoint, attempts=2)
        await endpoint.came(2)
        await client.add("mails")
        await endpoint.came(3)
        first, again, other = (delivery.headers["webhook-id"] for delivery in endpoint.deliveries)
        assert first == again != other
        assert "webhook-signature" not in endpoint.deliveries[0].headers
        assert abs(int(endpoint.deliveries[0].headers["webhook-timestamp"]) - time.time()) < 10

    async def test_a_large_job_comes_whole(self, client: Client, endpoint: Endpoint) -> None:
        await client.put("mails", endpoint.url)
        await client.state("mails", await client.add("mails", "x" * 1_000_000), "completed")
        assert endpoint.deliveries[0].job["data"] == "x" * 1_000_000

    async def test_a_trace_goes_on(self, client: Client, endpoint: Endpoint) -> None:
        metadata = json.dumps({"traceparent": PARENT, "tracestate": "a=b"})
        await delivered(client, endpoint, telemetry={"metadata": metadata})
        delivery = await endpoint.came()
        assert (delivery.headers["traceparent"], delivery.headers["tracestate"]) == (PARENT, "a=b")


class TestTheAnswer:
    @pytest.mark.parametrize(
        ("status", "text", "content_type", "result"),
        [
            (200, '{"a":[1,2]}', "application/json", {"a": [1, 2]}),
            (200, "done", "text/plain", "done"),
            (204, "", "text/plain", None),
        ],
    )
    async def test_success_completes_the_job(
        self, client: Client, endpoint: Endpoint, status: int, text: str, content_type: str, result: Any
    ) -> None:
        endpoint.answer(status, text, content_type=content_type)
        job = await client.state("mails", await delivered(client, endpoint), "completed")
        assert job["returnvalue"] == result
        assert job["processedBy"] == "mails"

    async def test_a_refusal_fails_the_job_with_its_text(self, client: Client, endpoint: Endpoint) -> None:
        endpoint.answer(400, "no such address" + "!" * 5000)
        job = await client.state("mails", await delivered(client, endpoint, attempts=2), "failed")
        assert job["failedReason"].startswith("no such address!")
        assert len(job["failedReason"]) == 2000
        assert len(endpoint.deliveries) == 2

    @pytest.mark.parametrize("status", [410, 422])
    async def test_some_refusals_are_for_good(self, client: Client, endpoint: Endpoint, status: int) -> None:
        endpoint.answer(status)
        job = await client.state("mails", await delivered(client, endpoint, attempts=5), "failed")
        assert job["attemptsMade"] == len(endpoint.deliveries) == 1
        assert job["failedReason"].startswith(str(status))

    async def test_whoever_is_busy_is_left_alone_and_no_attempt_is_charged(
        self, client: Client, endpoint: Endpoint
    ) -> None:
        endpoint.answer(429, Retry_After="1")
        id = await delivered(client, endpoint)
        await endpoint.came()
        began = time.monotonic()
        endpoint.answer(204)
        other = await client.add("mails")
        await client.state("mails", other, "completed")
        assert time.monotonic() - began > 0.8
        job = await client.state("mails", id, "completed")
        assert job["attemptsMade"] == 1

    async def test_a_redirect_is_not_followed(self, client: Client, endpoint: Endpoint) -> None:
        endpoint.answer(302, Location=endpoint.url + "/elsewhere")
        job = await client.state("mails", await delivered(client, endpoint), "failed")
        assert job["failedReason"] == "302 Found"
        assert [each.request.path for each in endpoint.deliveries] == ["/jobs"]

    async def test_a_long_answer_is_not_read(self, client: Client, endpoint: Endpoint) -> None:
        endpoint.answer(200, "x" * (2**20 + 1))
        job = await client.state("mails", await delivered(client, endpoint), "failed")
        assert "longer than" in job["failedReason"]

    async def test_a_slow_body_counts_to_the_timeout(self, client: Client, endpoint: Endpoint) -> None:
        async def respond(delivery: Delivery) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(delivery.request)
            await response.write(b"a")
            return await unanswered(delivery)

        endpoint.respond = respond
        await client.put("mails", endpoint.url, endpoint={"timeout": 100})
        job = await client.state("mails", await client.add("mails"), "failed")
        assert job["failedReason"] == "The endpoint has not answered within 100 ms"

    async def test_a_broken_connection_fails_by_attempts(self, client: Client, endpoint: Endpoint) -> None:
        async def respond(delivery: Delivery) -> web.StreamResponse:
            assert delivery.request.transport is not None
            delivery.request.transport.abort()
            return web.Response()

        endpoint.respond = respond
        job = await client.state("mails", await delivered(client, endpoint, attempts=2), "failed")
        assert job["failedReason"].startswith("The endpoint cannot be reached: ")
        assert len(endpoint.deliveries) == 2


class TestAcceptedJobs:
    async def test_the_endpoint_ends_the_job_by_its_token(self, client: Client, endpoint: Endpoint) -> None:
        endpoint.answer(202)
        id = await delivered(client, endpoint)
        token = (await endpoint.came()).token
        await client.call("mails", "updateJobProgress", id, 50, token)
        assert await client.call("mails", "getJobState", id) == "active"
        await client.call("mails", "moveJobToCompleted", id, {"sent": True}, token)
        job = await client.state("mails", id, "completed")
        assert (job["returnvalue"], job["progress"]) == ({"sent": True}, 50)
        endpoint.answer(204)
        await client.state("mails", await client.add("mails"), "completed")  # there is room again

    async def test_its_lock_lasts_for_the_lock_duration_and_then_the_job_goes_back(
        self, client: Client, endpoint: Endpoint
    ) -> None:
        endpoint.answer(202)
        await client.put("mails", endpoint.url, lockDuration=500)
        id = await client.add("mails")
        await endpoint.came(2)
        assert {each.job["id"] for each in endpoint.deliveries} == {id}
        assert endpoint.deliveries[1].job["stalledCounter"] == 1

    async def test_extending_the_lock_keeps_the_job(
        self, client: Client, endpoint: Endpoint, redis: Redis, prefix: str
    ) -> None:
        endpoint.answer(202)
        await client.put("mails", endpoint.url, lockDuration=500)
        id = await client.add("mails")
        token = (await endpoint.came()).token

        async def accepted() -> bool:
            return bool(await redis.exists(f"{prefix}:mails:{id}:accepted"))

        await until(accepted, "the answer is read")
        assert await client.call("mails", "extendJobLock", id, token, 1500) == 1

        async def has_outlived_the_first_duration() -> bool:
            return bool(await redis.pttl(f"{prefix}:mails:{id}:lock") < 700)

        await until(has_outlived_the_first_duration, "the time has passed")
        assert await client.call("mails", "getJobState", id) == "active"
        assert len(endpoint.deliveries) == 1
        await client.call("mails", "moveJobToFailed", id, "no", token)
        await client.state("mails", id, "failed")
        assert not await redis.exists(f"{prefix}:mails:{id}:accepted")

    async def test_a_wrong_token_is_refused(self, client: Client, endpoint: Endpoint) -> None:
        endpoint.answer(202)
        id = await delivered(client, endpoint)
        token = (await endpoint.came()).token
        answer = await client.ask("POST", "/queue/mails/moveJobToCompleted", [id, 1, token + "0"])
        assert (answer.status, answer.json["err"]["code"]) == (409, "NOT_LOCKED")
