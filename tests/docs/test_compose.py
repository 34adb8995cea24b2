"""`compose.yaml`: what it sets is understood, and its Valkey starts with its flags. Docker itself is not needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from redis import Redis

from bullmq_proxy.supervisor.sources import resolve
from tests.support.service import ROOT
from tests.support.valkey import ValkeyProcess

VARIABLES: Final = {
    "AUTH_KEYS": "a-key-that-is-long-enough",
    "REDIS_PASSWORD": "secret",
    "TLS_CERT": "cert.pem",
    "TLS_KEY": "key.pem",
}


def services() -> dict[str, Any]:
    text = re.sub(r"\$\{(\w+)(?::[^}]*)?\}", lambda found: VARIABLES[found[1]], (ROOT / "compose.yaml").read_text())
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


@pytest.mark.parametrize("name", ["proxy", "proxy-tls"])
def test_the_gateway_understands_what_it_is_told(name: str) -> None:
    service = services()[name]
    settings = resolve({}, {"HOST": "0.0.0.0", "PORT": "8080", **service["environment"]}, None).settings
    assert settings.redis_url == "redis://:secret@valkey:6379"
    assert service["ports"] == [f"{settings.port}:{settings.port}"]
    assert (settings.tls_cert is not None) is (name == "proxy-tls")


def test_valkey_starts_and_wants_the_password(tmp_path: Path) -> None:
    program, *flags = services()["valkey"]["command"]
    assert program == "valkey-server"
    with (
        ValkeyProcess(tmp_path, tcp=True, extra_args=flags) as server,
        Redis(port=server.port, password=VARIABLES["REDIS_PASSWORD"]) as redis,
    ):
        assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
