"""The README's examples, as they stand there, against a real gateway; only port and Redis are the test's own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.docs.markdown import README, section
from tests.support.service import ROOT, Service, clean_environment
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import TIMEOUT, wait_for

KEY = "my-auth-key"
PAIR = [Subprotocol("bullmq-proxy.v1"), Subprotocol(f"bearer.{KEY}")]
ORIGIN = "http://localhost:8000"
SUFFIX = {"python": "py", "js": "mjs"}

NODE = shutil.which("node")


def node_command() -> list[str]:
    """Node with a WebSocket: built in since 22, behind a flag in 20."""
    assert NODE is not None
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout
    return [NODE] if int(version.removeprefix("v").split(".")[0]) >= 22 else [NODE, "--experimental-websocket"]


needs_node = pytest.mark.skipif(NODE is None, reason="node is missing: the README's JavaScript is not run")
languages = pytest.mark.parametrize("language", ["python", pytest.param("js", marks=needs_node)])


class Example:
    """A program of the README in a process of its own."""

    def __init__(self, name: str, language: str, text: str, home: Path) -> None:
        path = home / f"{name}.{SUFFIX[language]}"
        path.write_text(text)
        self._output = home / f"{name}.{language}.txt"
        command = [sys.executable, "-u"] if language == "python" else node_command()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, path], env=clean_environment(home), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        """What it printed so far, errors too."""
        return self._output.read_text()

    def prints(self, words: str) -> None:
        """Wait until it has printed a line with these words."""

        def printed() -> bool:
            if words in self.output:
                return True
            assert self._process.poll() in (None, 0), self.output
            return False

        wait_for(printed, f"{self._output.stem} prints {words!r}; it printed {self.output!r}")

    def ends(self) -> None:
        """Wait until it has ended well."""
        assert self._process.wait(TIMEOUT) == 0, self.output

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(TIMEOUT)


class Run(Protocol):
    """Starts an example; `replaced` are texts that stand for something of the reader's."""

    def __call__(self, name: str, language: str, text: str, replaced: dict[str, str]) -> Example: ...


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started: list[Example] = []

    def start(name: str, language: str, text: str, replaced: dict[str, str]) -> Example:
        for old, new in replaced.items():
            assert old in text, f"{old} does not stand in the example {name}"
            text = text.replace(old, new)
        started.append(Example(name, language, text, tmp_path))
        return started[-1]

    yield start
    for example in started:
        example.close()


@pytest.fixture
def gateway(service: Callable[..., Service], valkey: ValkeyProcess, prefix: str) -> dict[str, str]:
    """A gateway that serves as the README has its reader serve; the value is what an example has to replace."""
    flags = ("--procs", "1", "--redis-url", valkey.url, "--prefix", prefix, "--allowed-origin", ORIGIN)
    running = service(*flags, env={"AUTH_KEYS": KEY}).start()
    return {"127.0.0.1:8080": f"127.0.0.1:{running.port}"}


@languages
def test_a_job_goes_from_the_queue_example_to_the_worker_and_to_the_watcher(
    language: str, gateway: dict[str, str], run: Run
) -> None:
    texts = {name: section(README, f"{name} API").block(language) for name in ("Queue", "Worker", "Events")}
    watcher = run("watch", language, texts["Events"], gateway)
    watcher.prints("watching")
    worker = run("work", language, texts["Worker"], gateway)
    queue = run("add", language, texts["Queue"], gateway)
    queue.ends()
    assert queue.output == "added job 1\n"
    worker.prints("sending to ada@example.org")
    watcher.prints("completed")
    watcher.prints("sent")


@needs_node
def test_the_page_adds_a_job_processes_it_and_sees_the_event(gateway: dict[str, str], run: Run) -> None:
    page = section(README, "In a browser").block("html")
    [script] = re.findall(r'<script type="module">\n(.*?)</script>', page, re.DOTALL)
    example = run("page", "js", script, gateway)
    example.prints("added job 1")
    example.prints("Hello, Ada!")


def test_a_page_of_the_shown_origin_may_connect(gateway: dict[str, str]) -> None:
    assert ORIGIN in section(README, "In a browser").block("sh")
    address = gateway["127.0.0.1:8080"]
    with connect(f"ws://{address}/queue/mails", origin=Origin(ORIGIN), subprotocols=PAIR) as queue:
        assert queue.subprotocol == "bullmq-proxy.v1"


def test_the_embedded_gateway_serves(valkey: ValkeyProcess, port: int, run: Run) -> None:
    text = section(README, "Embedding").block("python")
    example = run("embedding", "python", text, {"redis://localhost:6379": valkey.url, "port=8080": f"port={port}"})
    example.prints(f"serving on ws://127.0.0.1:{port}")
    with connect(f"ws://127.0.0.1:{port}/queue/mails", additional_headers={"Authorization": f"Bearer {KEY}"}) as queue:
        queue.send('{"id":1,"data":{"fn":"isPaused"}}')
        assert queue.recv(TIMEOUT) == '{"id":1,"data":{"ok":false}}'
