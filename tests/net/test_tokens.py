"""Tokens: JSON Web Tokens that let clients in for a while."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bullmq_proxy.gateway import Proxy
from tests.net.conftest import MakeGateway
from tests.net.support import Answer, RawClient, fetch, request, upgrade
from tests.support.tokens import (
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    SETTINGS,
    jwk,
    public,
    signer,
    token,
    write_set,
)

Open = Callable[..., Any]


def bearer(secret: str) -> str:
    return f"Authorization: Bearer {secret}"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The file of the keys that sign tokens: one for each algorithm."""
    path = tmp_path / "tokens.json"
    write_set(path, *map(jwk, ALGORITHMS))
    return path


@pytest_asyncio.fixture
async def gateway(make_gateway: MakeGateway, keys: Path) -> Proxy:
    """A gateway that lets tokens in, and the key `key-1`."""
    return await make_gateway(token_keys=str(keys), **SETTINGS)


@pytest_asyncio.fixture
async def open_with(gateway: Proxy) -> AsyncIterator[Open]:
    """Open connections with a token that are closed with the test."""
    async with AsyncExitStack() as opened:

        async def open(secret: str, target: str = "/queue/q") -> RawClient:
            return await opened.enter_async_context(await RawClient.open(gateway.port, target, bearer(secret)))

        yield open


async def refused(gateway: Proxy, secret: str, target: str = "/queue/q") -> str:
    """Show a token that is refused; the reason."""
    answer = await upgrade(gateway.port, target, bearer(secret))
    assert (answer.status, answer.error["code"]) == (401, "UNAUTHORIZED")
    assert secret not in answer.body.decode()
    return answer.error["message"]


async def ask(gateway: Proxy, secret: str, target: str = "/whoami") -> Answer:
    return await fetch(gateway.port, request("GET", target, bearer(secret), "Connection: close"))


class TestLettingIn:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    async def test_each_algorithm_verifies(self, gateway: Proxy, algorithm: str) -> None:
        answer = await ask(gateway, token("ada", algorithm=algorithm, permissions=["observe"], queues=["mails-*"]))
        assert json.loads(answer.body)["ok"] == {"key": "jwt/ada", "permissions": ["observe"], "queues": ["mails-*"]}

    async def test_a_token_is_shown_wherever_a_key_is(self, gateway: Proxy) -> None:
        secret = token()
        pair = f"Sec-WebSocket-Protocol: bullmq-proxy.v1, bearer.{secret}"
        assert (await upgrade(gateway.port, "/queue/q", "Authorization:", pair)).status == 101
        assert (await upgrade(gateway.port, f"/queue/q?token={secret}", "Authorization:")).status == 101
        assert (await upgrade(gateway.port, "/queue/q", bearer(secret))).status == 101

    async def test_its_claims_are_its_rights(self, gateway: Proxy, open_with: Open) -> None:
        client = await open_with(token(permissions=["produce"], queues=["q"]))
        assert "ok" in await client.ask("add", "job")
        assert (await client.ask("count"))["err"]["code"] == "FORBIDDEN"
        for target in ("/queue/other", "/queue/q/events"):
            answer = await upgrade(gateway.port, target, bearer(token(permissions=["produce"], queues=["q"])))
            assert (answer.status, answer.error["code"]) == (403, "FORBIDDEN")

    async def test_what_is_not_granted_is_denied(self, gateway: Proxy) -> None:
        for secret in (token(queues=None), token(permissions=None)):
            assert (await upgrade(gateway.port, "/queue/q", bearer(secret))).status == 403

    async def test_tokens_of_one_sub_share_their_limits(self, gateway: Proxy, open_with: Open) -> None:
        limits: dict[str, Any] = {"connections": 2, "messages_per_second": 0.001}
        first, second = await open_with(token(jti="1", **limits)), await open_with(token(jti="2", **limits))
        assert (await upgrade(gateway.port, "/queue/q", bearer(token(jti="3", **limits)))).status == 429
        assert (await upgrade(gateway.port, "/queue/q", bearer(token("bob", **limits)))).status == 101
        found = [await client.ask("count") for client in (first, second)]
        assert [reply.get("err", {}).get("code") for reply in found] == [None, "TOO_MANY_REQUESTS"]

    async def test_no_sub_takes_the_name_of_a_key_or_of_another_sub(self, gateway: Proxy) -> None:
        names = set()
        for sub in ("shop", "a:b", "a%3Ab", "a\nb", "ä", "auth0|1", "*", "\ud800"):
            names.add(json.loads((await ask(gateway, token(sub))).body)["ok"]["key"])
        assert names == {
            "jwt/shop",
            "jwt/a%3Ab",
            "jwt/a%253Ab",
            "jwt/a%0Ab",
            "jwt/%C3%A4",
            "jwt/auth0|1",
            "jwt/%2A",
        } | {"jwt/%ED%A0%80"}

    async def test_one_without_a_kid_is_of_the_only_key(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        gateway = await make_gateway(token_keys=write_set(tmp_path / "one.json", jwk("ES256")), keys=(), **SETTINGS)
        assert (await ask(gateway, token(algorithm="ES256", headers={}))).status == 200

    async def test_a_header_may_be_written_with_spaces(self, gateway: Proxy) -> None:
        head = encoded(b'{ "kid" : "HS256", "alg" : "HS256" }')
        signed = f"{head}.{token().split('.')[1]}"
        secret = f"{signed}.{encoded(hmac.digest(signer('HS256'), signed.encode(), 'sha256'))}"
        assert (await ask(gateway, secret)).status == 200

    async def test_keys_are_keys_still(self, gateway: Proxy) -> None:
        assert (await ask(gateway, "key-1")).status == 200
        assert await refused(gateway, "key-2") == "This key is not known"


def encoded(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def confused() -> str:
    """A token that is signed by HS256 with what everybody knows of a key of RS256."""
    pem = public("RS256").public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(token(), options={"verify_signature": False})
    signed = f"{encoded({'alg': 'HS256', 'kid': 'RS256'})}.{encoded(claims)}"
    return f"{signed}.{encoded(hmac.digest(pem, signed.encode(), 'sha256'))}"


def unsigned(algorithm: str) -> str:
    claims = jwt.decode(token(), options={"verify_signature": False})
    return f"{encoded({'alg': algorithm, 'kid': 'EdDSA'})}.{encoded(claims)}."


def other_claims() -> str:
    """A token with other claims than those that were signed."""
    head, _, signature = token().split(".")
    return f"{head}.{token('root').split('.')[1]}.{signature}"


FORGED: dict[str, tuple[Callable[[], str], str]] = {
    "alg none": (lambda: unsigned("none"), "is signed by another algorithm than its key is for"),
    "alg None": (lambda: unsigned("None"), "is signed by another algorithm than its key is for"),
    "alg confusion": (confused, "is signed by another algorithm than its key is for"),
    "another algorithm": (
        lambda: jwt.encode({"exp": 1}, signer("RS256"), "RS512", {"kid": "RS256"}),
        "is signed by another algorithm than its key is for",
    ),
    "unknown kid": (lambda: token(headers={"kid": "x"}), "is signed with a key that is not known, by its kid"),
    "no kid": (lambda: token(headers={}), "is signed with a key that is not known, by its kid"),
    "kid of another": (
        lambda: token(headers={"kid": "RS256"}),
        "is signed by another algorithm than its key is for",
    ),
    "foreign signature": (
        lambda: token(key="foreign", headers={"kid": "EdDSA"}),
        "has a wrong signature",
    ),
    "other claims": (other_claims, "has a wrong signature"),
    "no signature": (lambda: token().rpartition(".")[0] + ".", "has a wrong signature"),
    "truncated": (lambda: token()[:-2], "has a wrong signature"),
    "expired": (lambda: token(lifetime=-11), "has expired: get a fresh one"),
    "not yet": (
        lambda: token(nbf=time.time() + 60),
        "is not valid yet, by its nbf or iat: is a clock wrong?",
    ),
    "issued later": (
        lambda: token(iat=time.time() + 60),
        "is not valid yet, by its nbf or iat: is a clock wrong?",
    ),
    "wrong aud": (lambda: token(aud="other"), f"is for somebody else: its aud is not {AUDIENCE}"),
    "wrong iss": (lambda: token(iss=ISSUER + "x"), f"is of somebody else: its iss is not {ISSUER}"),
    "no aud": (lambda: token(aud=None), "has no aud"),
    "no iss": (lambda: token(iss=None), "has no iss"),
    "no exp": (lambda: token(exp=None), "has no exp"),
    "no sub": (lambda: token(sub=None), "has no sub"),  # type: ignore[arg-type]
    "empty sub": (lambda: token(""), "cannot be used: sub: expected a name that is not empty, and not that long"),
    "long sub": (
        lambda: token("ä" * 100),
        "cannot be used: sub: expected a name that is not empty, and not that long",
    ),
    "exp of text": (
        lambda: token(exp=str(int(time.time()) + 60)),
        "cannot be used: exp: expected a number of seconds",
    ),
    "endless exp": (lambda: token(exp=float("inf")), "is malformed"),
    "far exp": (lambda: token(lifetime=90_000), "is valid for longer than 86400 s (token_lifetime)"),
    "long life": (
        lambda: token(iat=time.time() - 90_000),
        "is valid for longer than 86400 s (token_lifetime)",
    ),
    "unknown permission": (
        lambda: token(permissions=["produse"]),
        "cannot be used: permissions: unknown permission 'produse'; did you mean produce?",
    ),
    "queues of text": (
        lambda: token(queues="*"),
        'cannot be used: queues: expected a list of names, such as ["mails-*"], where * stands for any text',
    ),
    "no object": (lambda: f"{encoded({'alg': 'EdDSA', 'kid': 'EdDSA'})}.{encoded([])}.AA", "has a wrong signature"),
    "unknown crit": (
        lambda: token(headers={"kid": "EdDSA", "crit": ["x"], "x": 1}),
        "is malformed",
    ),
    "kid of a list": (lambda: f"{encoded({'alg': 'EdDSA', 'kid': []})}.{encoded({})}.AA", "is malformed"),
    "deep": (lambda: f"eyJ{'W' * 4000}.{encoded({})}.AA", "is malformed"),
}


class TestRefusing:
    async def test_each_forged_or_malformed_one_is_refused_with_the_reason(self, gateway: Proxy) -> None:
        found = {name: await refused(gateway, make()) for name, (make, _) in FORGED.items()}
        assert found == {name: f"This token {reason}" for name, (_, reason) in FORGED.items()}

    async def test_a_huge_one_costs_no_signature(self, gateway: Proxy) -> None:
        secret = token(padding="x" * 7000)
        assert len(secret) > 8192
        answer = await upgrade(gateway.port, "/queue/q", bearer(secret))
        assert answer.status in (401, 431)
        answer = await upgrade(gateway.port, f"/queue/q?token={secret}", "Authorization:")
        assert answer.status in (401, 414)

    @pytest.mark.parametrize("change", [".x{}", "{}.x", "{}.", "x.{}", "{}.x.y"])
    async def test_what_has_more_dots_or_fewer_is_no_token(self, gateway: Proxy, change: str) -> None:
        assert await refused(gateway, change.format(token())) == "This key is not known"
        assert await refused(gateway, token().replace(".", "", 1)) == "This key is not known"

    async def test_without_token_keys_a_token_is_a_key_that_is_not_known(self, make_gateway: MakeGateway) -> None:
        assert await refused(await make_gateway(), token()) == "This key is not known"

    async def test_leeway_lets_in_for_as_long_as_it_says(self, make_gateway: MakeGateway, keys: Path) -> None:
        gateway = await make_gateway(token_keys=str(keys), token_leeway=0, **SETTINGS)
        assert await refused(gateway, token(lifetime=-1)) == "This token has expired: get a fresh one"
        gateway = await make_gateway(token_keys=str(keys), token_leeway=60, **SETTINGS)
        assert (await ask(gateway, token(lifetime=-30, nbf=time.time() + 30))).status == 200


KINDS = ("/queue/q", "/queue/q/process/1", "/queue/q/events", "/flows")


class TestExpiry:
    async def test_each_kind_of_connection_is_told_and_goes_on_with_a_fresh_token_or_ends(
        self, gateway: Proxy, open_with: Open
    ) -> None:
        secret = token(exp=time.time() - 7)  # three seconds are left, by the leeway
        ending, renewed = [[await open_with(secret, target) for target in KINDS] for _ in range(2)]
        stream = await RawClient.connect(gateway.port)
        stream.request("GET", "/queue/q/events", bearer(secret), "Accept: text/event-stream")
        calls = await RawClient.connect(gateway.port)
        assert (await calls.fetch("GET", "/queue/q/count", bearer(secret))).status == 200
        for client in (*ending, *renewed):
            told = await client.message()
            assert (told["id"], told["data"]["type"], 0 <= told["data"]["in"] <= 3000) == (None, "expires", True)
        for number, client in enumerate(renewed):
            found = await client.ask("renew", token(permissions=["observe", "consume"]), id=number)
            assert found == {"ok": {"key": "jwt/ada", "permissions": ["consume", "observe"], "queues": ["*"]}}
        assert await ending[1].message() == {"id": 0, "data": {"type": "drain", "deadline": 0}}
        for client in ending:
            assert await client.closed() == (4004, "the token has expired")
        for client, function in zip(renewed, ("count", "count", "off", "whoami"), strict=True):
            assert "ok" in await client.ask(function)
        assert b'\nevent: expires\ndata: {"in":' in (await stream._reader.read()).replace(b"\r\n", b"\n")
        assert (await calls.fetch("GET", "/queue/q/count", bearer(secret))).status == 401
        assert await refused(gateway, secret) == "This token has expired: get a fresh one"
        for client in (stream, calls):
            await client.close()

    async def test_jobs_of_a_worker_go_back_and_nothing_is_charged(self, gateway: Proxy, open_with: Open) -> None:
        producer = await open_with(token())
        worker = await open_with(token(exp=time.time() - 9), "/queue/q/process/1")
        await producer.ask("add", "job")
        job = await worker.message()
        while "job" not in job["data"]:
            job = await worker.message()
        worker.send(json.dumps({"id": job["id"], "data": {"type": "ack"}}))
        while (await worker.message())["data"] != {"type": "drain", "deadline": 0}:
            pass
        assert (await worker.closed())[0] == 4004
        async with asyncio.timeout(5):
            while (await producer.ask("getJobState", "1"))["ok"] != "waiting":
                pass
        stored = (await producer.ask("getJob", "1"))["ok"]
        assert (stored["attemptsMade"], stored["stalledCounter"]) == (0, 0)


class TestRenewing:
    async def test_the_new_rights_hold_from_the_next_call_on(self, open_with: Open) -> None:
        client = await open_with(token(permissions=["produce"]))
        assert (await client.ask("pause"))["err"]["code"] == "FORBIDDEN"
        assert (await client.ask("renew", token(permissions=["manage"])))["ok"]["permissions"] == ["manage"]
        assert "ok" in await client.ask("pause")
        assert (await client.ask("add", "job"))["err"]["code"] == "FORBIDDEN"

    async def test_other_connections_with_the_same_token_keep_theirs(self, open_with: Open) -> None:
        secret = token(permissions=["produce"])
        first, second = await open_with(secret), await open_with(secret)
        await first.ask("renew", token(permissions=["observe"]))
        assert "ok" in await second.ask("add", "job")
        assert "ok" in await first.ask("count")

    @pytest.mark.parametrize(
        ("target", "fresh", "code", "message"),
        [
            ("/queue/q", lambda: token("bob"), "UNAUTHORIZED", "This token is of jwt/bob, not of jwt/ada"),
            (
                "/queue/q",
                lambda: token(lifetime=-11),
                "UNAUTHORIZED",
                "This token has expired: get a fresh one",
            ),
            ("/queue/q", lambda: token(key="x", headers={}), "UNAUTHORIZED", None),
            ("/queue/q", lambda: "no.token.it-is", "UNAUTHORIZED", "This token is malformed"),
            (
                "/queue/q",
                lambda: token(queues=["r"]),
                "FORBIDDEN",
                "The key jwt/ada is not for the queue q",
            ),
            (
                "/queue/q/process/1",
                lambda: token(permissions=["observe"]),
                "FORBIDDEN",
                "The key jwt/ada may not process jobs: it needs the permission consume",
            ),
            (
                "/queue/q/events",
                lambda: token(permissions=["consume"]),
                "FORBIDDEN",
                "The key jwt/ada may not watch events: it needs the permission observe",
            ),
        ],
    )
    async def test_what_is_not_for_the_connection_changes_nothing(
        self, open_with: Open, target: str, fresh: Callable[[], str], code: str, message: str | None
    ) -> None:
        client = await open_with(token(), target)
        refusal = (await client.ask("renew", fresh()))["err"]
        assert refusal["code"] == code
        assert message in (None, refusal["message"])
        assert "ok" in await client.ask("off" if target.endswith("events") else "count")

    async def test_who_came_with_a_key_or_by_a_request_has_none(self, gateway: Proxy, open_with: Open) -> None:
        for target in KINDS:
            client = await open_with("key-1", target)
            assert (await client.ask("renew", token()))["err"]["code"] == "CONFLICT"
        async with await RawClient.connect(gateway.port) as client:
            answer = await client.fetch("POST", "/queue/q/renew", bearer(token()), body=json.dumps([token()]))
            assert (answer.status, answer.error["code"]) == (409, "CONFLICT")

    async def test_its_arguments_are_checked(self, open_with: Open) -> None:
        for target in KINDS:
            client = await open_with(token(), target)
            for args in ((), (7,), ("",), ("x" * 8193,), ("a", "b")):
                assert (await client.ask("renew", *args))["err"]["code"] == "INVALID_ARGUMENTS"
