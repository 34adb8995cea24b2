"""TLS in the whole service: what it prints, the commands that speak to it, and certificates renewed by SIGHUP."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.certificates import OPENSSL, make_certificate
from tests.support.node import find_node
from tests.support.service import Service, run_here
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")

MakeService = Callable[..., Service]
HOST = "localhost"


def trust(path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(path))
    context.load_cert_chain(path, path.with_suffix(".key"))
    return context


def replace(path: Path, by: Path) -> None:
    """Put one certificate and its key in the place of another one, each at once."""
    for suffix in (".pem", ".key"):
        new = path.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(by.with_suffix(suffix).read_bytes())
        os.replace(new, path.with_suffix(suffix))


def ask(socket: ClientConnection) -> dict[str, int]:
    socket.send('{"id": 1, "data": {"fn": "count"}}')
    answer: dict[str, int] = json.loads(socket.recv(10))["data"]
    return answer


def test_a_service_speaks_tls_and_takes_a_renewed_certificate(service: MakeService, tmp_path: Path) -> None:
    first, second = (make_certificate(tmp_path, name, "-nodes") for name in ("first", "second"))
    used = tmp_path / "used.pem"
    replace(used, first)
    paths = ("--tls-cert", str(used), "--tls-key", str(used.with_suffix(".key")))
    running = service("--procs", "2", *paths).start()
    assert running.url.startswith("wss://127.0.0.1:")
    assert f"For people: https://127.0.0.1:{running.port}/" in running.output
    assert "PRIVATE KEY" not in running.errors + running.output
    shards, url = running.shards(), f"wss://{HOST}:{running.port}/queue/q?token={running.token}"

    def show(*more: str) -> tuple[int, str]:
        flags = ("--url", f"https://{HOST}:{running.port}", "--key", running.token, *more)
        ran = run_here(tmp_path, "call", "q", "count", *flags)
        return ran.returncode, ran.stdout.strip() or ran.stderr.strip()

    assert show("--ca", str(first)) == (0, "0")
    code, refused = show()
    assert (code, "its certificate is not trusted: self" in refused, "--ca" in refused) == (1, True, True)
    assert show("--ca", str(tmp_path / "none"))[0] == 2

    def reload(logged: str) -> None:
        running.signal(signal.SIGHUP)
        wait_for(lambda: logged in running.errors, f"{logged} is logged")

    opened = ExitStack()
    old = [opened.enter_context(connect(url, ssl=trust(first))) for _ in range(8)]
    used.write_text("a certificate that is being written")
    reload("holds no certificate in the form PEM: convert it")
    assert "all settings stay as they are" in running.errors
    assert show("--ca", str(first)) == (0, "0")
    replace(used, second)
    reload("the certificate is another one")
    wait_for(lambda: [show("--ca", str(second))[0] for _ in range(8)] == [0] * 8, "all shards have the new one")
    assert show("--ca", str(first))[0] == 1
    assert [ask(client) for client in old] == [{"ok": 0}] * 8, "nobody was disconnected"
    assert running.shards() == shards
    os.kill(shards[0], signal.SIGKILL)
    wait_for(lambda: running.errors.count(" is ready") == 3, "a new shard is ready")
    assert [show("--ca", str(second))[0] for _ in range(8)] == [0] * 8
    opened.close()
    if (node := find_node()) is not None:
        assert of_node(node, f"https://{HOST}:{running.port}/queue/q/count", running.token, second) == '{"ok":0}'
    assert running.stop() == 0


def of_node(node: str, url: str, key: str, ca: Path) -> str:
    """The answer that Node's own client gets."""
    program = """const [url, key] = process.argv.slice(1), headers = { Authorization: `Bearer ${key}` };
        fetch(url, { headers }).then((answer) => answer.text()).then(console.log);"""
    words = [node, "-e", program, url, key]
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(ca)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--tls-cert", "none"), "tls_cert: cannot read none: No such file or directory"),
        (("--tls-key", "none"), "tls_key: needs tls_cert, the certificate of the gateway"),
        (("--tls-client-ca", "none"), "tls_client_ca: needs tls_cert, the certificate of the gateway"),
    ],
)
def test_what_cannot_be_used_is_found_before_the_start(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    for command in ("serve", "config"):
        ran = run_here(tmp_path, command, *words)
        assert (ran.returncode, problem in ran.stderr) == (2, True), ran.stderr
