"""Tokens of a service: what stops its start, in one line, and how other keys come into force."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bullmq_proxy.gateway.access.token_keys import TokenKeysError, read_token_keys
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.supervisor.keys import check_tokens, require_keys
from bullmq_proxy.supervisor.sources import UsageError
from tests.net.support import upgrade
from tests.support.service import Service, run_here
from tests.support.tokens import AUDIENCE, ISSUER, SETTINGS, jwk, token, write_set
from tests.support.valkey import ValkeyProcess

URL = "https://login.example.org/keys"


def test_they_let_nobody_need_a_key(tmp_path: Path) -> None:
    path = write_set(tmp_path / "tokens.json", jwk("EdDSA"))
    for host in ("127.0.0.1", "0.0.0.0"):
        settings = Settings(host=host, token_keys=path, **SETTINGS)
        assert require_keys(settings) == (settings, None)


def test_a_missing_package_stops_the_start_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    remedy = "the packages PyJWT and cryptography are missing: pip install 'bullmq-proxy[jwt]'"
    for place in (URL, str(tmp_path / "tokens.json")):
        with pytest.raises(UsageError, match=f"^token_keys: {remedy.replace('[', '.')}"):
            require_keys(Settings(token_keys=place, **SETTINGS))
    with pytest.raises(TokenKeysError, match="PyJWT"):
        read_token_keys(str(tmp_path / "tokens.json"))
    require_keys(Settings(auth_keys=("a",)))  # nobody else needs it


def test_a_file_that_cannot_be_used_is_found_by_config(tmp_path: Path) -> None:
    flags = ("--token-keys", "tokens.json", "--token-issuer", ISSUER, "--token-audience", AUDIENCE)
    result = run_here(tmp_path, "config", *flags)
    assert result.returncode == 2
    assert result.stderr == "bullmq-proxy: error: token_keys: cannot read tokens.json: No such file or directory\n"
    write_set(tmp_path / "tokens.json", jwk("EdDSA"))
    assert run_here(tmp_path, "config", *flags).returncode == 0
    check_tokens(Settings(token_keys=URL, **SETTINGS), whole=True)  # nobody is asked


@pytest.mark.parametrize(
    "place", ["http://login.example.org/keys", "ftp://127.0.0.1/x", "https://", "https://a:b@c/", "https://h/a b"]
)
def test_keys_come_by_https_or_from_this_machine(place: str) -> None:
    with pytest.raises(ValueError, match=r"^token_keys: expected the path of a JSON Web Key Set or its https URL"):
        Settings(token_keys=place, **SETTINGS)
    Settings(token_keys="http://127.0.0.1:8000/keys", **SETTINGS)


async def test_a_service_lets_tokens_in_without_a_key(
    service: Callable[..., Service], valkey: ValkeyProcess, tmp_path: Path
) -> None:
    path = write_set(tmp_path / "tokens.json", jwk("EdDSA"))
    flags = ("--token-keys", path, "--token-issuer", ISSUER, "--token-audience", AUDIENCE)
    running = service("--redis-url", valkey.url, "--procs", "1", *flags).start()
    for secret, status in (token(), 101), (token(algorithm="ES256"), 401):
        assert (await upgrade(running.port, "/queue/q", f"Authorization: Bearer {secret}")).status == status
