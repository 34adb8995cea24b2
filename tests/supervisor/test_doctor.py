"""`bullmq-proxy doctor`: what it finds, and which remedies it names."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from bullmq_proxy.supervisor import doctor
from bullmq_proxy.supervisor.doctor import examine
from bullmq_proxy.supervisor.sources import resolve
from tests.sessions.peer import Gateway
from tests.support.certificates import OPENSSL, make_certificate
from tests.support.keys import entry, write_keys
from tests.support.ports import free_port
from tests.support.service import run_here
from tests.support.tokens import AUDIENCE, ISSUER, SETTINGS, jwk, write_set
from tests.support.valkey import ValkeyProcess


def found(**flags: object) -> dict[str, list[tuple[str, str]]]:
    """Return words and texts by subject."""
    findings: dict[str, list[tuple[str, str]]] = {}
    for finding in examine(resolve({"port": "0", **flags}, {"HOME": "/nowhere"}, None)):
        findings.setdefault(finding.subject, []).append((finding.word, finding.text))
    return findings


def test_a_good_service_has_no_failure(valkey: ValkeyProcess, tmp_path: Path) -> None:
    ran = run_here(tmp_path, "doctor", "--redis-url", valkey.url, "--port", "0")
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert all(line[:6] in ("ok    ", "warn  ") for line in lines)
    assert any(": jobs can be added and worked; a round trip takes " in line for line in lines)
    assert any(
        "it keeps nothing on disk: all jobs are lost when it ends; set appendonly to yes" in line for line in lines
    )


def test_a_failure_is_the_exit_code(tmp_path: Path) -> None:
    ran = run_here(tmp_path, "doctor", "--redis-url", "redis://127.0.0.1:1", "--host", "0.0.0.0", "--port", "0")
    assert ran.returncode == 1
    failed = [line for line in ran.stdout.splitlines() if line.startswith("fail")]
    assert [line.split(":")[0] for line in failed] == ["fail  keys", "fail  redis"]
    assert "cannot be reached: Connection refused; the address is that of --redis-url, or REDIS_URL" in failed[1]


def test_keys(valkey: ValkeyProcess, tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.toml", entry("old", expires="2020-01-01"), entry("new"))
    assert found(redis_url=valkey.url, keys_file=path)["keys"] == [
        ("ok", "0 that may do everything, 2 with permissions"),
        ("warn", f"{path}: key old has expired: `bullmq-proxy key revoke` takes it away"),
    ]
    (tmp_path / "keys.toml").chmod(0o644)
    [(word, text)] = found(redis_url=valkey.url, keys_file=path)["keys"]
    assert word == "fail"
    assert "chmod 600" in text
    assert found(redis_url=valkey.url, no_auth=True)["keys"][0][0] == "warn"


def test_tokens(valkey: ValkeyProcess, tmp_path: Path) -> None:
    path = write_set(tmp_path / "tokens.json", jwk("EdDSA"), {"kty": "X"})
    assert found(redis_url=valkey.url, token_keys=path, **SETTINGS)["tokens"] == [
        ("ok", f"those of {ISSUER} for {AUDIENCE}, by the keys that sign them: 1"),
        (
            "warn",
            f"token_keys: {path}: keys[1] is left out:"
            " it is for none of HS256, RS256, ES256, EdDSA, by its kty, crv and alg",
        ),
    ]
    (tmp_path / "tokens.json").chmod(0o644)
    [(word, text)] = found(redis_url=valkey.url, token_keys=path, **SETTINGS)["tokens"]
    assert (word, "chmod 600" in text) == ("fail", True)
    [(word, text)] = found(redis_url=valkey.url, token_keys=f"http://127.0.0.1:{free_port()}/", **SETTINGS)["tokens"]
    assert (word, "Connection refused" in text) == ("fail", True)


async def test_a_port_where_a_gateway_serves(valkey: ValkeyProcess, prefix: str) -> None:
    async with Gateway(valkey.url, prefix=prefix) as gateway:
        findings = await asyncio.to_thread(found, redis_url=valkey.url, port=str(gateway.port))
    assert findings["port"] == [("ok", f"a gateway serves on 127.0.0.1:{gateway.port} already")]


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
async def test_a_certificate(valkey: ValkeyProcess, prefix: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "gateway", "-nodes", "-days", "3")
    paths = {"tls_cert": str(certificate), "tls_key": str(certificate.with_suffix(".key"))}
    async with Gateway(valkey.url, prefix=prefix, **paths) as gateway:
        findings = await asyncio.to_thread(found, redis_url=valkey.url, port=str(gateway.port), **paths)
    assert findings["TLS"] == [
        ("ok", f"by the certificate in {certificate}; certificates of clients: none"),
        ("warn", f"tls_cert: the certificate in {certificate} ends in 3.0 days: renew it, and reload the service"),
    ]
    assert findings["port"] == [("ok", f"a gateway serves on 127.0.0.1:{gateway.port} already")]
    [(word, text)] = (await asyncio.to_thread(found, redis_url=valkey.url, tls_cert="none"))["TLS"]
    assert (word, text) == ("fail", "tls_cert: cannot read none: No such file or directory")


def test_a_port_that_somebody_else_has(valkey: ValkeyProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        [(word, text)] = found(redis_url=valkey.url, port=str(taken.getsockname()[1]))["port"]
    assert word == "fail"
    assert text.endswith("stop what uses it, or set another --port")


def test_limits_that_are_low(valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    monkeypatch.setattr(doctor, "_number", lambda _: 128)
    monkeypatch.setattr(doctor, "_memory", lambda: 100 << 20)
    monkeypatch.setattr(doctor, "cores", lambda: 1)
    findings = found(redis_url=valkey.url, procs="2")
    assert findings["descriptors"] == [
        ("warn", "1024 for each shard, so fewer connections: LimitNOFILE=65536, or ulimit -n")
    ]
    assert findings["backlog"][0][1].endswith("sysctl net.core.somaxconn=4096")
    assert findings["cores"] == [("warn", "2 shards share 1 cores: --procs 1 is as fast and takes less memory")]
    assert findings["memory"][0][1] == "100 MiB are available, 2 shards may take 512: use fewer --procs"


def test_the_embedded_valkey(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    assert found(data_dir=str(directory))["embedded Valkey"][0][0] == "ok"
    word, text = found(data_dir=str(directory), valkey_server="/nowhere/valkey-server")["embedded Valkey"][0]
    assert (word, text) == ("fail", "valkey_server: /nowhere/valkey-server cannot be run: name another program")
    directory.mkdir()
    directory.chmod(0o777)
    word, text = found(data_dir=str(directory))["embedded Valkey"][0]
    assert (word, text.startswith("data_dir: other users can")) == ("fail", True)
