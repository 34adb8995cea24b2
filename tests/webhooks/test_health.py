"""Endpoints that go down, come back, or must not be asked."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from bullmq_proxy.gateway import start_proxy
from bullmq_proxy.gateway.webhooks import breaker
from bullmq_proxy.gateway.webhooks.breaker import THRESHOLD
from tests.sessions.peer import until
from tests.support.certificates import make_certificate
from tests.support.ports import free_port
from tests.support.valkey import ValkeyProcess
from tests.webhooks.conftest import KEY
from tests.webhooks.endpoint import Client, Delivery, Endpoint, client_of, serving, unanswered


async def figures(client: Client) -> dict[str, int]:
    """The figures of webhooks, by name and outcome."""
    page = (await client.ask("GET", "/metrics")).text
    found = [line.split(" ") for line in page.splitlines() if line.startswith("bullmq_proxy_webhook")]
    return {
        name.removeprefix("bullmq_proxy_webhook_").replace('{slot="0"', "").replace("}", ""): int(value)
        for name, value in found
    }


async def all_completed(client: Client, count: int) -> list[dict[str, Any]]:
    """Wait until all jobs are completed, and return them."""

    async def look() -> bool:
        counts: dict[str, int] = await client.call("mails", "getJobCounts")
        return counts["completed"] == count

    await until(look, f"{count} completed")
    jobs: list[dict[str, Any]] = await client.call("mails", "getJobs", ["completed"], 0, -1)
    return jobs


PAUSE = 0.2
"""Seconds until the first try of an endpoint that is down, here."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try endpoints again sooner."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE", PAUSE)


class TestAnEndpointThatIsDown:
    async def test_it_is_left_alone_and_no_job_is_lost(self, client: Client) -> None:
        port = free_port()
        await client.put("mails", f"http://127.0.0.1:{port}")
        for n in range(12):
            await client.add("mails", n, attempts=THRESHOLD + 1)

        async def is_open() -> bool:
            return (await figures(client))["breakers_open"] == 1

        await until(is_open, "the breaker is open")
        tried = (await figures(client))['deliveries_total,outcome="failed"']
        assert tried == THRESHOLD
        began = time.monotonic()
        async with serving(port) as endpoint:
            jobs = await all_completed(client, 12)
            assert time.monotonic() - began < PAUSE + 1
            assert sorted(each.job["data"] for each in endpoint.deliveries) == list(range(12))
            assert sum(job["attemptsMade"] - 1 for job in jobs) == THRESHOLD
        assert (await figures(client))["breakers_open"] == 0

    async def test_a_try_that_fails_charges_no_attempt(self, client: Client, endpoint: Endpoint) -> None:
        endpoint.answer(503)
        await client.put("mails", endpoint.url)
        for n in range(THRESHOLD + 1):
            await client.add("mails", n)
        await endpoint.came(THRESHOLD + 1)  # the last one is the try
        endpoint.answer(204)
        [job] = await all_completed(client, 1)
        assert (job["data"], job["attemptsMade"]) == (THRESHOLD, 1)

    async def test_a_try_whose_job_is_lost_is_followed_by_another_one(
        self, client: Client, endpoint: Endpoint, redis: Redis, prefix: str
    ) -> None:
        endpoint.answer(503)
        await client.put("mails", endpoint.url, lockDuration=1000)
        for n in range(THRESHOLD):
            await client.add("mails", n)
        await endpoint.came(THRESHOLD)
        endpoint.respond = unanswered
        lost = await client.add("mails")
        await endpoint.came(THRESHOLD + 1)
        endpoint.answer(204)
        await redis.delete(f"{prefix}:mails:{lost}:lock")
        await client.state("mails", await client.add("mails"), "completed")

    async def test_an_endpoint_that_is_killed_under_way_loses_nothing(self, client: Client) -> None:
        async with serving() as endpoint:
            endpoint.respond = unanswered
            await client.put("mails", endpoint.url, concurrency=3)
            for n in range(6):
                await client.add("mails", n, attempts=3)
            await endpoint.came(3)
            port = int(endpoint.url.rpartition(":")[2])
        async with serving(port):
            jobs = await all_completed(client, 6)
        assert sorted(job["data"] for job in jobs) == list(range(6))

    async def test_a_certificate_that_nobody_vouches_for_is_refused(self, client: Client, tmp_path: Path) -> None:
        certificate = make_certificate(tmp_path, "localhost")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        async with serving(context=context) as secured:
            await client.put("mails", secured.url.replace("http:", "https:"))
            job = await client.state("mails", await client.add("mails"), "failed")
            assert job["failedReason"] == "The endpoint cannot be reached: its certificate is not valid"
            assert not secured.deliveries


class TestConcurrency:
    async def test_so_many_requests_are_under_way_and_no_more(self, client: Client, endpoint: Endpoint) -> None:
        gate = asyncio.Event()

        async def respond(delivery: Delivery) -> web.StreamResponse:
            await gate.wait()
            return web.Response(status=204)

        endpoint.respond = respond
        await client.put("mails", endpoint.url, concurrency=4)
        for n in range(12):
            await client.add("mails", n)
        await endpoint.came(4)
        gate.set()
        await all_completed(client, 12)
        assert endpoint.most == 4

    async def test_a_limiter_is_kept(self, client: Client, endpoint: Endpoint) -> None:
        await client.put("mails", endpoint.url, concurrency=5, limiter={"max": 2, "duration": 300})
        began = time.monotonic()
        for n in range(5):
            await client.add("mails", n)
        await all_completed(client, 5)
        assert time.monotonic() - began > 0.55


@pytest.fixture
async def guarded(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Client]:
    """A client of a gateway that may send to the public network only."""
    settings = {"prefix": prefix, "drain_timeout": 0.0}
    async with start_proxy(valkey.url, KEY, port=0, **settings) as proxy, client_of(proxy.port, KEY) as client:
        yield client


class TestWhereNoRequestGoes:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "localhost",
            "LOCALHOST.",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0.0.0.0",
            "0",
            "[::]",
            "[::1]",
        ],
    )
    async def test_notations_and_names_of_this_machine(self, guarded: Client, endpoint: Endpoint, host: str) -> None:
        port = endpoint.url.rpartition(":")[2]
        worker = {"queue": "mails", "endpoint": {"url": f"http://{host}:{port}/", "method": "POST"}}
        taken = await guarded.ask("POST", "/workers", worker)
        assert (taken.status, taken.text) == (200, "OK")
        job = await guarded.state("mails", await guarded.add("mails"), "failed")
        assert job["failedReason"].startswith("The endpoint cannot be reached: ")
        assert not re.search(r"\d+\.\d|::", job["failedReason"])  # an address
        assert not endpoint.deliveries

    async def test_a_name_that_resolves_to_something_else_later(
        self, guarded: Client, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever a resolver says, and however often it is asked: the address is looked at that is connected to."""
        port = int(endpoint.url.rpartition(":")[2])
        asked: list[str] = []
        real = socket.getaddrinfo

        def resolve(host: Any, *more: Any, **options: Any) -> Any:
            if host != "rebinding.example":
                return real(host, *more, **options)
            asked.append(host)
            address = "192.0.2.1" if len(asked) > 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        await guarded.put("mails", f"http://rebinding.example:{port}/")
        for _ in range(2):
            job = await guarded.state("mails", await guarded.add("mails"), "failed")
            assert "webhook_allow" in job["failedReason"]
        assert asked and not endpoint.deliveries

    async def test_a_redirect_into_the_network(self, client: Client, endpoint: Endpoint) -> None:
        async with serving() as inside:
            endpoint.answer(307, Location=inside.url)
            await client.put("mails", endpoint.url)
            job = await client.state("mails", await client.add("mails"), "failed")
            assert job["failedReason"] == "307 Temporary Redirect"
            assert not inside.deliveries


NODE = """
const http = require("node:http");
const server = http.createServer((request, response) => {
  let body = "";
  request.on("data", (piece) => (body += piece));
  request.on("end", () => {
    const { job } = JSON.parse(body);
    if (job.data === "reset") return request.socket.resetAndDestroy();
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ sum: job.data.a + job.data.b, signed: !!request.headers["webhook-id"] }));
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """The URL of an endpoint of Node's own HTTP server."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is missing")
    script = tmp_path / "endpoint.js"
    script.write_text(NODE)
    with subprocess.Popen([program, script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


async def test_an_endpoint_of_node(client: Client, node: str) -> None:
    await client.put("mails", node, concurrency=3)
    ids = [await client.add("mails", {"a": n, "b": 1}) for n in range(20)]
    for n, id in enumerate(ids):
        job = await client.state("mails", id, "completed")
        assert job["returnvalue"] == {"sum": n + 1, "signed": True}
    job = await client.state("mails", await client.add("mails", "reset"), "failed")
    assert job["failedReason"].startswith("The endpoint cannot be reached: ")
