"""The keys that tokens are signed with: a file that is read again, a URL that is asked, and what cannot be used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jwt.algorithms import RSAAlgorithm

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.access import tokens as access
from bullmq_proxy.gateway.access.token_keys import LARGEST_SET, TokenKeysError, parse_keys, read_token_keys
from bullmq_proxy.gateway.access.token_source import fetch
from bullmq_proxy.gateway.access.tokens import Tokens
from bullmq_proxy.gateway.errors import GatewayError
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint
from tests.net.conftest import MakeGateway
from tests.net.support import RawClient, upgrade
from tests.support.tokens import ALGORITHMS, AUDIENCE, ISSUER, SETTINGS, jwk, key_set, signer, token, write_set


def bearer(secret: str) -> str:
    return f"Authorization: Bearer {secret}"


class Site:
    """A web server that has a key set, or something else."""

    def __init__(self) -> None:
        self.answer = b""
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server

    def show(self, *keys: dict[str, Any]) -> None:
        self.say("200 OK", key_set(*keys).encode())

    def say(self, status: str, body: bytes, *more: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *more, "", ""]
        self.answer = "\r\n".join(lines).encode() + body

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    async def __aenter__(self) -> Site:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        self.was_asked.set()
        writer.write(self.answer)
        writer.close()


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        site.show(jwk("EdDSA"))
        yield site


async def status(gateway: Proxy, secret: str) -> int:
    return (await upgrade(gateway.port, "/queue/q", bearer(secret))).status


async def becomes(gateway: Proxy, secret: str, wanted: int) -> None:
    """Show a token until the gateway has read the keys that it asked for meanwhile."""
    async with asyncio.timeout(5):
        while (found := await status(gateway, secret)) == 503:
            pass
    assert found == wanted


class TestUrl:
    async def test_keys_are_there_when_the_gateway_serves(self, make_gateway: MakeGateway, site: Site) -> None:
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        assert await status(gateway, token()) == 101

    async def test_a_key_that_is_not_known_is_asked_for(self, make_gateway: MakeGateway, site: Site) -> None:
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        site.show(jwk("EdDSA"), jwk("ES256", "-next"))
        secret = token(algorithm="ES256", key="-next")
        answer = await upgrade(gateway.port, "/queue/q", bearer(secret))
        assert (answer.status, answer.error["code"]) == (503, "KEYS_UNAVAILABLE")
        assert answer.headers["retry-after"] == "1"
        await becomes(gateway, secret, 101)
        assert await status(gateway, token()) == 101

    async def test_one_that_nobody_has_is_asked_for_once_and_then_refused(
        self, make_gateway: MakeGateway, site: Site
    ) -> None:
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        await becomes(gateway, token(key="-foreign"), 401)
        assert site.asked == 2
        for _ in range(5):
            assert await status(gateway, token(key="-foreign")) == 401
        assert site.asked == 2

    async def test_however_many_ids_are_made_up_it_is_asked_a_few_times(
        self, make_gateway: MakeGateway, site: Site
    ) -> None:
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        async with asyncio.timeout(10):
            for number in range(40):
                assert await status(gateway, token(headers={"kid": f"made-up-{number}"})) in (401, 503)
        assert 2 <= site.asked <= 1 + 4 + 1

    async def test_connections_whose_key_is_gone_are_closed(self, make_gateway: MakeGateway, site: Site) -> None:
        site.show(jwk("EdDSA"), jwk("ES256"))
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        async with (
            await RawClient.open(gateway.port, "/queue/q", bearer(token(algorithm="ES256"))) as gone,
            await RawClient.open(gateway.port, "/queue/q", bearer(token())) as kept,
        ):
            site.show(jwk("EdDSA"))
            gateway.reload_keys()
            assert await gone.closed() == (4004, "the key that has signed the token is not valid any more")
            assert "ok" in await kept.ask("count")
        await becomes(gateway, token(algorithm="ES256"), 401)

    @pytest.mark.parametrize(
        ("says", "body"),
        [("500 Broken", b""), ("302 Found", b""), ("200 OK", b"no JSON"), ("200 OK", b" " * (LARGEST_SET + 1))],
    )
    async def test_without_an_answer_the_gateway_serves_keys_and_asks_again(
        self, make_gateway: MakeGateway, site: Site, says: str, body: bytes
    ) -> None:
        site.say(says, body, f"Location: {site.url}")
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        assert site.asked == 1
        assert await status(gateway, "key-1") == 101
        assert await status(gateway, token()) == 503
        site.show(jwk("EdDSA"))
        await becomes(gateway, token(), 101)

    async def test_the_last_keys_stay_when_it_breaks(self, make_gateway: MakeGateway, site: Site) -> None:
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        site.say("500 Broken", b"")
        site.was_asked.clear()
        gateway.reload_keys()
        async with asyncio.timeout(5):
            await site.was_asked.wait()
        assert await status(gateway, token()) == 101

    async def test_a_secret_is_not_taken_from_a_url(self, make_gateway: MakeGateway, site: Site) -> None:
        site.show(jwk("EdDSA"), jwk("HS256"))
        gateway = await make_gateway(token_keys=site.url, **SETTINGS)
        assert await status(gateway, token()) == 101
        await becomes(gateway, token(algorithm="HS256"), 401)

    async def test_what_is_no_http_is_an_error_of_the_system(self, site: Site) -> None:
        site.answer = b"\0\0\0"
        with pytest.raises(OSError, match="no HTTP"):
            await asyncio.to_thread(fetch, site.url)


class TestFile:
    async def test_a_reload_reads_it_again(self, make_gateway: MakeGateway, tmp_path: Path) -> None:
        path = tmp_path / "tokens.json"
        gateway = await make_gateway(token_keys=write_set(path, jwk("EdDSA")), keys=(), **SETTINGS)
        assert await status(gateway, token(algorithm="ES256")) == 401
        write_set(path, jwk("ES256"))
        gateway.reload_keys()
        assert await status(gateway, token(algorithm="ES256")) == 101
        assert await status(gateway, token()) == 401
        path.write_text("")
        with pytest.raises(ValueError, match="expected a JSON Web Key Set"):
            gateway.reload_keys()
        assert await status(gateway, token(algorithm="ES256")) == 101

    async def test_another_key_under_the_same_id_ends_the_tokens_of_the_first(
        self, make_gateway: MakeGateway, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens.json"
        gateway = await make_gateway(token_keys=write_set(path, jwk("EdDSA")), keys=(), **SETTINGS)
        async with await RawClient.open(gateway.port, "/queue/q", bearer(token())) as client:
            write_set(path, {**jwk("EdDSA", "-other"), "kid": "EdDSA"})
            gateway.reload_keys()
            assert (await client.closed())[0] == 4004

    def test_a_key_that_is_gone_lets_nobody_in_whose_handshake_has_begun(self, tmp_path: Path) -> None:
        path = tmp_path / "tokens.json"
        whole = {"issuer": ISSUER, "audience": AUDIENCE, "leeway": 0.0, "lifetime": 1000.0}
        tokens = Tokens(write_set(path, jwk("EdDSA")), **whole)  # type: ignore[arg-type]
        secret = token()
        account = tokens.authenticate(secret)
        write_set(path, jwk("ES256"))
        tokens.source.read_again()
        for each in (account, account.of_connection()):
            with pytest.raises(GatewayError, match="is signed with a key that is not valid any more"):
                each.check(SessionEndpoint.QUEUE, "q", ())
        with pytest.raises(GatewayError, match="is signed with a key that is not known"):
            tokens.authenticate(secret)

    def test_tokens_that_were_verified_are_known_again_up_to_a_number(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(access, "CACHED", 2)
        whole = {"issuer": ISSUER, "audience": AUDIENCE, "leeway": 0.0, "lifetime": 1000.0}
        tokens = Tokens(write_set(tmp_path / "tokens.json", jwk("EdDSA")), **whole)  # type: ignore[arg-type]
        secrets = [token(jti=str(number)) for number in range(3)]
        first, second = map(tokens.authenticate, secrets[:2])
        assert tokens.authenticate(secrets[0]) is first
        tokens.authenticate(secrets[2])  # the second one was shown longest ago
        assert tokens.authenticate(secrets[0]) is first
        assert tokens.authenticate(secrets[1]) is not second

    def test_one_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "tokens.json"
        write_set(path, jwk("EdDSA"))
        path.chmod(0o644)
        with pytest.raises(TokenKeysError, match="other users can read or write"):
            read_token_keys(str(path))
        with pytest.raises(TokenKeysError, match=r"cannot read .*none: No such file"):
            read_token_keys(str(tmp_path / "none"))
        with pytest.raises(TokenKeysError, match="is no regular file"):
            read_token_keys(str(tmp_path))


def private_rsa() -> dict[str, Any]:
    return {**RSAAlgorithm.to_jwk(signer("RS256"), as_dict=True), "kid": "private", "key_ops": ["verify"]}


LEFT_OUT: dict[str, tuple[Any, str]] = {
    "no object": (7, "expected an object"),
    "kid": (jwk("EdDSA", kid=7), "kid: expected 1 to 200 characters"),
    "kty": ({"kty": "X"}, "it is for none of HS256, RS256, ES256, EdDSA, by its kty, crv and alg"),
    "crv": (jwk("ES256", crv="P-384"), "it is for none of HS256, RS256, ES256, EdDSA, by its kty, crv and alg"),
    "a list": ({"kty": []}, "it is for none of HS256, RS256, ES256, EdDSA, by its kty, crv and alg"),
    "alg": (jwk("RS256", alg="RS512"), "it is for none of HS256, RS256, ES256, EdDSA, by its kty, crv and alg"),
    "public as a secret": (
        jwk("RS256", alg="HS256"),
        "it is for none of HS256, RS256, ES256, EdDSA, by its kty, crv and alg",
    ),
    "use": (jwk("ES256", use="enc"), "it does not verify signatures, by its use and key_ops"),
    "key_ops": (jwk("ES256", key_ops=["sign"]), "it does not verify signatures, by its use and key_ops"),
    "private": (private_rsa(), "it has a private part, d: give the gateway the public part alone"),
    "broken": (jwk("ES256", x="AA"), "it is no key of the type EC"),
    "no members": ({"kty": "RSA"}, "it is no key of the type RSA"),
    "short secret": ({"kty": "oct", "k": "c2hvcnQ"}, "k: a secret of HS256 has 32 bytes or more"),
    "short RSA": (jwk("RS256", n="sXch"), "n: a key of RS256 has 2048 to 8192 bits"),
}


class TestSet:
    @pytest.mark.parametrize("name", LEFT_OUT)
    def test_what_is_not_for_us_is_left_out_with_the_reason(self, name: str) -> None:
        key, reason = LEFT_OUT[name]
        whole = json.dumps({"keys": [key, jwk("EdDSA")]}).encode()
        found = parse_keys(whole, "here", secrets=True)
        assert (len(found), found.remarks) == (1, (f"here: keys[0] is left out: {reason}",))
        with pytest.raises(TokenKeysError, match=r"^here: keys\[0\] is left out: "):
            parse_keys(json.dumps({"keys": [key]}).encode(), "here", secrets=True)

    def test_of_two_with_one_id_the_first_counts(self) -> None:
        found = parse_keys(key_set(jwk("EdDSA"), jwk("EdDSA", kid="EdDSA")).encode(), "here", secrets=True)
        assert found.remarks == ("here: keys[1] is left out: another one has the same kid",)

    def test_each_algorithm_has_its_key(self) -> None:
        found = parse_keys(key_set(*map(jwk, ALGORITHMS)).encode(), "here", secrets=True)
        keys = [found.find(algorithm) for algorithm in ALGORITHMS]
        assert [key.algorithm for key in keys if key is not None] == list(ALGORITHMS)
        assert found.find(None) is None

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"keys":{}}', '{"keys":[]}', "[" * 10_000, '{"keys":[' + "1," * 100 + "1]}"]
    )
    def test_what_is_no_set_is_refused(self, text: str) -> None:
        with pytest.raises(TokenKeysError, match=r"^here: expected a JSON Web Key Set"):
            parse_keys(text.encode(), "here", secrets=True)
