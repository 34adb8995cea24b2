"""Registrations: made, seen, replaced and deleted, in our form and in the ancestor's, and by the configuration."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from bullmq_proxy.gateway import Proxy, start_proxy
from bullmq_proxy.gateway.app import App
from bullmq_proxy.gateway.broker.consuming.tokens import Identity
from bullmq_proxy.gateway.broker.redis.address import Target
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.webhooks import workers
from bullmq_proxy.gateway.wire.closing import CloseCode
from bullmq_proxy.supervisor.sources import ConfigFile, resolve
from tests.sessions.peer import until
from tests.support.valkey import ValkeyProcess
from tests.webhooks.conftest import KEY
from tests.webhooks.endpoint import Client, Delivery, Endpoint, client_of, unanswered
from tests.webhooks.test_delivery import SECRET

JSON = "application/json"
URL = "https://example.com/hooks/s3cret"
WORKER = {"queue": "mails", "endpoint": {"url": URL, "headers": {"Authorization": "Bearer hunter2"}}}


class TestOurForm:
    async def test_a_worker_is_registered_seen_and_deleted(self, client: Client) -> None:
        put = await client.ask("PUT", "/workers/w", {**WORKER, "concurrency": 3, "secrets": [SECRET]})
        shown = {
            "name": "w",
            "queue": "mails",
            "endpoint": {"url": URL, "method": "POST", "headers": {"Authorization": "***"}, "timeout": 30000},
            "concurrency": 3,
            "lockDuration": 30000,
            "maxStalledCount": 3,
            "secrets": ["***"],
        }
        assert (put.status, put.json) == (200, {"ok": shown})
        assert (await client.ask("GET", "/workers/w")).json == {"ok": shown}
        assert (await client.ask("GET", "/workers", accept=JSON)).json == {"ok": [shown]}
        deleted = await client.ask("DELETE", "/workers/w", accept=JSON)
        assert (deleted.status, deleted.json) == (200, {"ok": None})
        missing = await client.ask("DELETE", "/workers/w", accept=JSON)
        assert (missing.status, missing.json["err"]["code"]) == (404, "NOT_FOUND")
        assert (await client.ask("GET", "/workers/w")).status == 404

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"queue": ""}, "`body.queue`"),
            ({"queue": "a:b"}, "`body.queue`"),
            ({"colour": 1}, "Unknown option `colour`"),
            ({"concurrency": 0}, "`body.concurrency`"),
            ({"concurrency": 1001}, "max_concurrency"),
            ({"lockDuration": 1}, "`body.lockDuration`"),
            ({"limiter": {"max": 1}}, "`duration`"),
            ({"secrets": ["whsec_short"]}, "`body.secrets[0]`"),
            ({"secrets": [SECRET] * 3}, "`body.secrets`"),
            ({"endpoint": {"url": "ftp://example.com"}}, "`body.endpoint.url`"),
            ({"endpoint": {"url": "https://user:pw@example.com"}}, "Authorization"),
            ({"endpoint": {"url": "http://10.0.0.1/"}}, "webhook_allow"),
            ({"endpoint": {"url": URL, "method": "GET"}}, "`PUT`"),
            ({"endpoint": {"url": URL, "timeout": 0}}, "`body.endpoint.timeout`"),
            ({"endpoint": {"url": URL, "headers": {"Host": "x"}}}, "header Host"),
            ({"endpoint": {"url": URL, "headers": {"X": "a\r\nY: b"}}}, "`body.endpoint.headers`"),
        ],
    )
    async def test_what_cannot_be_used_is_refused_with_the_place(
        self, client: Client, change: dict[str, Any], place: str
    ) -> None:
        refused = await client.ask("PUT", "/workers/w", {**WORKER, **change})
        assert (refused.status, refused.json["err"]["code"]) == (400, "INVALID_ARGUMENTS")
        assert place in refused.json["err"]["message"]
        assert "hunter2" not in refused.text

    async def test_no_json_is_no_message(self, client: Client) -> None:
        refused = await client.ask("PUT", "/workers/w", b"{")
        assert (refused.status, refused.json["err"]["code"]) == (400, "INVALID_MESSAGE")

    async def test_a_new_registration_takes_the_place_of_the_old_one(self, client: Client, endpoint: Endpoint) -> None:
        await client.put("mails", endpoint.url + "/old")
        await client.state("mails", await client.add("mails"), "completed")
        await client.put("mails", endpoint.url + "/new")
        await client.state("mails", await client.add("mails"), "completed")
        assert [each.request.path for each in endpoint.deliveries] == ["/old", "/new"]
        await client.ask("DELETE", "/workers/mails")
        id = await client.add("mails")
        assert await client.call("mails", "getJobState", id) == "waiting"

    async def test_requests_of_the_old_one_count_to_the_concurrency_of_the_new_one(
        self, client: Client, endpoint: Endpoint
    ) -> None:
        gates = [asyncio.Event() for _ in range(7)]

        async def respond(delivery: Delivery) -> web.StreamResponse:
            await gates[delivery.job["data"]].wait()
            return web.Response(status=204)

        endpoint.respond = respond
        await client.put("mails", endpoint.url + "/a", concurrency=3)
        ids = [await client.add("mails", n) for n in range(7)]
        await endpoint.came(3)
        await client.put("mails", endpoint.url + "/b", concurrency=4)
        await endpoint.came(4)
        await client.put("mails", endpoint.url + "/c", concurrency=2)  # 4 are under way, of two older ones
        for n in range(3):
            gates[n].set()
            await client.state("mails", ids[n], "completed")
        await endpoint.came(5)
        for gate in gates:
            gate.set()
        for id in ids:
            await client.state("mails", id, "completed")
        assert endpoint.most == 4
        assert [each.request.path for each in endpoint.deliveries] == ["/a"] * 3 + ["/b"] + ["/c"] * 3

    async def test_a_shard_that_drains_does_not_begin_with_what_it_says_now(
        self, gateway: Proxy, client: Client, endpoint: Endpoint
    ) -> None:
        endpoint.respond = unanswered
        await client.put("mails", endpoint.url)
        await client.add("mails")
        await endpoint.came()
        assert gateway._app is not None
        webhooks = gateway._app._webhooks
        webhooks.drain()
        assert set(webhooks._runners) == {"mails:mails"}, "its request is under way"
        await client.put("mails", endpoint.url, concurrency=3)
        assert not webhooks._runners

    async def test_it_is_among_those_who_work_on_the_queue(self, client: Client, endpoint: Endpoint) -> None:
        endpoint.respond = unanswered
        await client.put("mails", endpoint.url, concurrency=3)
        await client.add("mails")
        await endpoint.came()
        [shown] = (await client.call("mails", "getConsumers"))["consumers"]
        assert shown["connectedSince"] <= shown["lastHeard"]
        expected = {"key": "", "name": "mails", "concurrency": 3, "inHand": 1, "takesJobs": True, "webhook": True}
        assert expected.items() <= shown.items()
        assert len(await client.call("mails", "getWorkers")) == 1
        for function in ("drainConsumer", "disconnectConsumer"):
            refused = await client.ask("POST", f"/queue/mails/{function}", [shown["id"]])
            assert (refused.status, refused.json["err"]["code"]) == (404, "NOT_FOUND")
        await client.ask("DELETE", "/workers/mails")
        [shown] = (await client.call("mails", "getConsumers"))["consumers"]
        assert not shown["takesJobs"]


class TestTheAncestorsForm:
    async def test_a_worker_is_registered_seen_and_deleted(self, client: Client) -> None:
        worker = {"queue": "mails", "endpoint": {"url": URL, "method": "post"}, "opts": {"concurrency": 2}}
        for path, method, body, answer in (
            ("/workers", "POST", worker, "OK"),
            ("/workers", "GET", None, json.dumps({"mails": URL}, separators=(",", ":"))),
            ("/workers/mails", "DELETE", None, "OK"),
            ("/workers", "GET", None, "{}"),
        ):
            said = await client.ask(method, path, body)
            assert (said.status, said.text, said.type) == (200, answer, "text/plain;charset=utf-8")
        missing = await client.ask("DELETE", "/workers/mails")
        assert (missing.status, missing.type) == (404, "text/plain;charset=utf-8")

    @pytest.mark.parametrize(
        "body",
        [
            {"queue": "mails"},
            {"endpoint": {"url": URL, "method": "POST"}},
            {"queue": "ab", "endpoint": {"url": URL, "method": "POST"}},
            {"queue": "mails", "endpoint": {"url": URL}},
            {"queue": "mails", "endpoint": {"url": "mailto:a@example.com", "method": "POST"}},
            {"queue": "mails", "endpoint": {"url": URL, "method": "GET"}},
            {"queue": "mails", "endpoint": {"url": URL, "method": "POST", "timeout": -1}},
            {"queue": "mails", "endpoint": {"url": URL, "method": "POST", "colour": 1}},
            *(
                {"queue": "mails", "endpoint": {"url": URL, "method": "POST"}, "opts": opts}
                for opts in (
                    {"concurrency": 0},
                    {"maxStalledCount": -1},
                    {"limiter": {"max": 1}},
                    {"removeOnFail": {"colour": 1}},
                    {"colour": 1},
                )
            ),
            {"queue": "mails", "endpoint": {"url": URL, "method": "POST"}, "colour": 1},
            b"{",
            b"[]",
        ],
    )
    async def test_what_cannot_be_used_is_refused(self, client: Client, body: Any) -> None:
        refused = await client.ask("POST", "/workers", body)
        assert (refused.status, refused.type) == (400, "text/plain;charset=utf-8")
        assert (await client.ask("GET", "/workers")).text == "{}"

    async def test_a_client_that_would_take_text_gets_it(self, client: Client) -> None:
        assert (await client.ask("GET", "/workers", accept="application/json, text/plain, */*")).text == "{}"

    async def test_every_option_is_taken(self, client: Client) -> None:
        options = {
            "concurrency": 4,
            "maxStalledCount": 2,
            "limiter": {"max": 1, "duration": 1000},
            "removeOnComplete": {"count": 5, "age": 60},
            "removeOnFail": True,
        }
        endpoint = {"url": URL, "method": "PATCH", "headers": {"A": "b"}, "timeout": 10}
        await client.ask("POST", "/workers", {"queue": "mails", "endpoint": endpoint, "opts": options})
        shown = (await client.ask("GET", "/workers/mails")).json["ok"]
        assert {name: shown[name] for name in options} == options
        assert shown["endpoint"]["timeout"] == 10

    @pytest.mark.parametrize(
        ("method", "path"), [("PUT", "/workers"), ("POST", "/workers/x"), ("HEAD", "/workers"), ("OPTIONS", "/workers")]
    )
    async def test_another_method_is_not_found(self, client: Client, method: str, path: str) -> None:
        assert (await client.ask(method, path)).status == 404

    async def test_a_key_is_asked_for(self, client: Client) -> None:
        refused = await client.ask("GET", "/workers", key="wrong")
        assert (refused.status, refused.type) == (401, "text/plain;charset=utf-8")
        assert (await client.ask("GET", f"/workers?token={KEY}", key="")).status == 401


class TestTheConfiguration:
    async def test_workers_of_the_file_are_registered_at_the_start(
        self, valkey: ValkeyProcess, prefix: str, endpoint: Endpoint
    ) -> None:
        table = {"queue": "mails", "endpoint": {"url": endpoint.url}}
        found = resolve({}, {"HOME": "/home/u"}, ConfigFile("proxy.toml", {"webhooks": {"mails": table}}))
        settings: dict[str, Any] = {"prefix": prefix, "webhooks": found.settings.webhooks, "drain_timeout": 0.0}
        async with (
            start_proxy(valkey.url, KEY, port=0, webhook_allow="127.0.0.1", **settings) as proxy,
            client_of(proxy.port, KEY) as client,
        ):
            await client.state("mails", await client.add("mails"), "completed")

    async def test_the_successor_of_a_reload_registers_them_in_whatever_slot(
        self, valkey: ValkeyProcess, prefix: str, endpoint: Endpoint
    ) -> None:
        webhooks = json.dumps({"mails": {"queue": "mails", "endpoint": {"url": endpoint.url}}})
        given: dict[str, Any] = {"prefix": prefix, "webhooks": webhooks, "webhook_allow": "127.0.0.1"}
        settings = Settings(auth_keys=(KEY,), drain_timeout=0, **given)
        app = App(settings, Target.from_url(valkey.url), Identity(prefix, slot=1))
        await app.start(("127.0.0.1", 0), redis_timeout=None)
        try:
            async with client_of(app.listener.port, KEY) as client:
                await client.state("mails", await client.add("mails"), "completed")
        finally:
            await app.drain(0, CloseCode.GOING_AWAY)

    async def test_one_that_cannot_be_used_is_refused_with_its_place(self, valkey: ValkeyProcess) -> None:
        proxy = start_proxy(valkey.url, KEY, port=0, webhooks='{"mails": {"queue": "mails"}}')
        with pytest.raises(ValueError, match=r"`endpoint` - at `webhooks\.mails`"):
            await proxy.start()


class TestIdleCost:
    def test_a_gateway_without_registrations_has_not_imported_the_client(self, valkey: ValkeyProcess) -> None:
        code = (
            "import asyncio, sys\n"
            "from bullmq_proxy.gateway import start_proxy\n"
            "async def run():\n"
            f"    async with start_proxy({valkey.url!r}, 'k', port=0):\n"
            "        await asyncio.sleep(0)\n"
            "asyncio.run(run())\n"
            "print('bullmq_proxy.gateway.webhooks.runner' in sys.modules)\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
        assert ended.stdout == "False\n"

    async def test_secrets_are_not_logged(
        self, client: Client, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("DEBUG"):
            hidden = {"headers": {"Authorization": "Bearer hunter2"}}
            await client.put("mails", endpoint.url + "/s3cret", endpoint=hidden, secrets=[SECRET])
            endpoint.answer(503)
            for _ in range(6):
                await client.add("mails")
            await until(lambda: _is_open(client), "the breaker is open")
        ours = [record.getMessage() for record in caplog.records if record.name.startswith("bullmq_proxy")]
        assert any("is down" in line for line in ours)
        assert not [line for line in ours if "s3cret" in line or "hunter2" in line or SECRET in line]


PERMISSIONS = {
    "manager": (["manage"], ["mails*"]),
    "worker": (["consume"], ["mails*"]),
    "stranger": (["consume", "manage", "produce", "observe"], ["orders"]),
    "producer": (["produce"], ["mails*"]),
}


@pytest.fixture
async def of_keys(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a gateway with keys of few permissions, each of which is its own name."""
    tables = [
        f'[keys.{name}]\nhash = "sha256:{hashlib.sha256(name.encode()).hexdigest()}"\n'
        f"permissions = {permissions}\nqueues = {queues}\n"
        for name, (permissions, queues) in PERMISSIONS.items()
    ]
    path = tmp_path / "keys.toml"
    path.write_text("".join(tables))
    path.chmod(0o600)
    settings: dict[str, Any] = {"prefix": prefix, "keys_file": str(path), "drain_timeout": 0.0}
    async with (
        start_proxy(valkey.url, KEY, port=0, webhook_allow="127.0.0.1", **settings) as proxy,
        client_of(proxy.port, KEY) as client,
    ):
        yield client


class TestRights:
    async def test_a_key_manages_the_workers_of_its_queues_alone(self, of_keys: Client) -> None:
        ask = of_keys.ask
        orders = {**WORKER, "queue": "orders"}
        assert (await ask("PUT", "/workers/m", WORKER, key="manager")).status == 200
        assert (await ask("PUT", "/workers/o", orders)).status == 200
        for method in ("GET", "DELETE"):  # as if it were not there
            answers = [await ask(method, f"/workers/{name}", key="manager", accept=JSON) for name in ("o", "x")]
            assert {each.status for each in answers} == {404}
            assert answers[0].text == answers[1].text.replace("worker x", "worker o")
        refused = [
            await ask("PUT", "/workers/x", orders, key="manager"),
            await ask("PUT", "/workers/m", WORKER, key="worker"),
            await ask("GET", "/workers", key="worker", accept=JSON),
            await ask("GET", "/workers/m", key="worker"),
            await ask("DELETE", "/workers/m", key="worker", accept=JSON),
        ]
        assert {(each.status, each.json["err"]["code"]) for each in refused} == {(403, "FORBIDDEN")}
        post = {"queue": "orders", "endpoint": {"url": URL, "method": "POST"}}
        assert (await ask("POST", "/workers", post, key="manager")).status == 403
        assert (await ask("GET", "/workers", key="manager")).text == json.dumps({"mails": URL}, separators=(",", ":"))
        assert [each["name"] for each in (await ask("GET", "/workers", accept=JSON)).json["ok"]] == ["m", "o"]

    async def test_one_that_another_version_wrote_belongs_to_its_queue_too(
        self, of_keys: Client, redis: Redis, prefix: str
    ) -> None:
        await redis.hset(f"{prefix}:{{gateways}}:workers", "orders:odd", '{"queue":"orders","colour":1}')
        assert (await of_keys.ask("DELETE", "/workers/odd", key="manager", accept=JSON)).status == 404
        assert (await of_keys.ask("DELETE", "/workers/odd", accept=JSON)).status == 200

    async def test_nothing_tells_whether_another_queue_has_a_worker_of_a_name(self, of_keys: Client) -> None:
        async def all_answers() -> list[tuple[int, str]]:
            """The answers that the manager of `mails` gets on each route about the names `o` and `orders`."""
            ask = partial(of_keys.ask, key="manager")
            asked = [
                ("PUT", "/workers/o", WORKER),
                ("GET", "/workers/o", None),
                ("GET", "/workers/o?queue=orders", None),
                ("DELETE", "/workers/o?queue=orders", None),
                ("DELETE", "/workers/o", None),
                ("GET", "/workers/o", None),
                ("PUT", "/workers/orders", {**WORKER, "queue": "orders"}),
                ("POST", "/workers", {"queue": "orders", "endpoint": {"url": URL, "method": "POST"}}),
                ("GET", "/workers/orders", None),
                ("GET", "/workers", None),
            ]
            answers = [await ask(method, path, body, accept=JSON) for method, path, body in asked]
            answers += [
                await ask(method, path) for method, path in (("DELETE", "/workers/orders"), ("GET", "/workers"))
            ]
            return [(each.status, each.text) for each in answers]

        before = await all_answers()
        for name in ("o", "orders"):
            put = await of_keys.ask("PUT", f"/workers/{name}", {**WORKER, "queue": "orders"}, key="stranger")
            assert put.status == 200
        assert await all_answers() == before
        assert [status for status, _ in before] == [200, 200, 404, 404, 200, 404, 403, 403, 404, 200, 404, 200]
        shown = (await of_keys.ask("GET", "/workers", key="stranger", accept=JSON)).json["ok"]
        assert [each["name"] for each in shown] == ["o", "orders"], "theirs are as they were"

    async def test_who_sees_several_of_a_name_says_of_which_queue(self, of_keys: Client) -> None:
        ask = partial(of_keys.ask, accept=JSON)
        for queue in ("mails", "orders"):
            assert (await ask("PUT", "/workers/w", {**WORKER, "queue": queue})).status == 200
        for method in ("GET", "DELETE"):
            several = await ask(method, "/workers/w")
            assert (several.status, several.json["err"]["code"]) == (409, "CONFLICT")
        assert (await ask("GET", "/workers/w?queue=orders")).json["ok"]["queue"] == "orders"
        assert (await ask("GET", "/workers/w", key="manager")).json["ok"]["queue"] == "mails"
        assert (await ask("DELETE", "/workers/w?queue=orders")).status == 200
        assert (await ask("GET", "/workers/w")).json["ok"]["queue"] == "mails"
        assert (await ask("PUT", "/workers/mails", {**WORKER, "queue": "orders"})).status == 200
        assert (await ask("PUT", "/workers/mails", WORKER)).status == 200
        assert (await of_keys.ask("DELETE", "/workers/mails")).text == "OK"
        assert (await ask("GET", "/workers/mails")).json["ok"]["queue"] == "orders", (
            "the one of the queue mails is gone"
        )

    async def test_one_key_can_take_so_many_names(self, of_keys: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers, "MOST_OF_A_KEY", 2)
        put = partial(of_keys.ask, "PUT")
        put_all = await asyncio.gather(*(put(f"/workers/{n}", WORKER, key="manager") for n in range(5)))
        statuses = [each.status for each in put_all]
        assert sorted(statuses) == [200, 200, 409, 409, 409]
        assert "The key has registered" in next(each.text for each in put_all if each.status == 409)
        first = statuses.index(200)
        assert (await put(f"/workers/{first}", WORKER, key="manager")).status == 200  # it has that one
        assert (await put("/workers/x", WORKER)).status == 200
        assert (await put("/workers/x", WORKER, key="manager")).status == 409  # it would have one more
        await of_keys.ask("DELETE", f"/workers/{first}", key="manager")
        assert (await put("/workers/x", WORKER, key="manager")).status == 200

    async def test_a_token_is_good_with_any_key_that_consumes_from_the_queue(
        self, of_keys: Client, endpoint: Endpoint
    ) -> None:
        endpoint.answer(202)
        await of_keys.put("mails", endpoint.url)
        id = await of_keys.add("mails")
        token = (await endpoint.came()).token
        path = "/queue/mails/moveJobToCompleted"
        for key in ("stranger", "producer"):
            assert (await of_keys.ask("POST", path, [id, 1, token], key=key)).status == 403
        lost = await of_keys.ask("POST", "/queue/mails/updateJobProgress", [id, 1, "wrong"], key="worker")
        assert lost.status == 403
        progress = await of_keys.ask("POST", "/queue/mails/updateJobProgress", [id, 1, token], key="worker")
        assert progress.status == 200
        assert (await of_keys.ask("POST", path, [id, 1, token], key="worker")).status == 200
        assert (await of_keys.state("mails", id, "completed"))["returnvalue"] == 1

    async def test_the_token_stands_for_the_key_on_the_ancestors_routes(
        self, client: Client, endpoint: Endpoint
    ) -> None:
        endpoint.respond = unanswered
        await client.put("mails", endpoint.url)
        id = await client.add("mails")
        token = (await endpoint.came()).token
        for part, body in (("progress", {"done": 7}), ("logs", "half")):
            said = await client.ask("POST", f"/queues/mails/jobs/{id}/{part}", body, key=token)
            assert (said.status, said.text) == (200, "OK")
        assert (await client.call("mails", "getJob", id))["progress"] == {"done": 7}


async def _is_open(client: Client) -> bool:
    return 'webhook_breakers_open{slot="0"} 1' in (await client.ask("GET", "/metrics")).text


async def test_a_registration_that_another_version_wrote_is_left_alone(
    gateway: Proxy, client: Client, redis: Redis, prefix: str
) -> None:
    await redis.hset(f"{prefix}:{{gateways}}:workers", "mails:odd", '{"colour":1}')
    assert (await client.ask("GET", "/workers", accept=JSON)).json == {"ok": []}
    assert (await client.ask("GET", "/workers/odd")).status == 404


async def test_one_that_cannot_be_read_is_not_held_and_is_logged_with_each_change(
    gateway: Proxy, client: Client, redis: Redis, prefix: str, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    base = f"{prefix}:{{gateways}}:"
    await client.put("mails", endpoint.url)
    await redis.hset(f"{base}workers", "mails:mails", '{"colour":1}')
    await redis.incr(f"{base}workers:version")

    async def is_released() -> bool:
        return not await redis.exists(f"{base}worker:mails:mails")

    await until(is_released, "the lease is another shard's to take")
    await client.put("other", endpoint.url)
    await until(partial(redis.exists, f"{base}worker:other:other"), "the others are looked after")
    assert not await redis.exists(f"{base}worker:mails:mails")
    told = [record.getMessage() for record in caplog.records if "webhook mails" in record.getMessage()]
    assert sum("cannot be read" in each for each in told) == 2  # once for each change of the registrations
