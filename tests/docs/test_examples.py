"""The worked examples of the pages, run as they stand against a real gateway; only addresses are the test's own."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.docs.markdown import README, only_block, sections
from tests.support.service import ROOT, Service, clean_environment
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import TIMEOUT, wait_for

KEY = "my-auth-key"
PAIR = [Subprotocol("bullmq-proxy.v1"), Subprotocol(f"bearer.{KEY}")]
ORIGIN = "http://localhost:8000"
ADDRESS = "127.0.0.1:8080"
SUFFIX = {"python": "py", "js": "mjs"}
DOCS = ROOT / "docs"
CLIENT = {"./client.js": (ROOT / "gateway" / "pages" / "client.js").as_uri()}
"""The place of the client that the JavaScript examples import."""

NODE = shutil.which("node")


@functools.cache
def node_command() -> list[str]:
    """Return the command that runs Node with a WebSocket: built in since 22, behind a flag in 20."""
    assert NODE is not None
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True, timeout=TIMEOUT).stdout
    return [NODE] if int(version.removeprefix("v").split(".")[0]) >= 22 else [NODE, "--experimental-websocket"]


needs_node = pytest.mark.skipif(NODE is None, reason="node is missing: the JavaScript examples are not run")
languages = pytest.mark.parametrize("language", ["python", pytest.param("js", marks=needs_node)])


class Example:
    """A program of a page in a process of its own.

    Args:
        name: the page's name; output and program are kept in files of this name.
        language: `python` or `js`.
        text: the program.
        home: the directory for its files, and its HOME.
    """

    def __init__(self, name: str, language: str, text: str, home: Path) -> None:
        path = home / f"try_{name}.{SUFFIX[language]}"  # a `queue.py` would hide the module of this name
        path.write_text(text)
        self._output = home / f"{name}.{language}.txt"
        command = [sys.executable, "-u"] if language == "python" else node_command()
        environment = clean_environment(home, {"WEBSOCKETS_BACKOFF_INITIAL_DELAY": "0.1"})
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, path], env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        """Output and errors so far."""
        return self._output.read_text()

    def prints(self, words: str) -> None:
        """Wait until a line with these words was printed."""

        def printed() -> bool:
            if words in self.output:
                return True
            assert self._process.poll() in (None, 0), self.output
            return False

        wait_for(printed, f"{self._output.stem} prints {words!r}; it printed {self.output!r}")

    def ends(self, code: int = 0) -> None:
        """Wait until the program ends, with this exit code and without a Python traceback."""
        assert self._process.wait(TIMEOUT) == code, self.output
        assert "Traceback" not in self.output

    def interrupt(self) -> None:
        """Send what Ctrl-C sends."""
        self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait(TIMEOUT)


class Run(Protocol):
    """Starts the only program in this language of a page, with texts replaced by others."""

    def __call__(self, page: Path, language: str, replaced: dict[str, str]) -> Example: ...


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started: list[Example] = []

    def start(page: Path, language: str, replaced: dict[str, str]) -> Example:
        text = only_block(page, "html" if page.stem == "browser" else language)
        if page.stem == "browser":
            [text] = re.findall(r'<script type="module">\n(.*?)</script>', text, re.DOTALL)
        for old, new in replaced.items():
            assert old in text, f"{old} does not stand in the example of {page.name}"
            text = text.replace(old, new)
        started.append(Example(page.stem, language, text, tmp_path))
        return started[-1]

    yield start
    for example in started:
        example.close()


def serves(home: Path, valkey: ValkeyProcess, prefix: str, port: int = 0) -> Service:
    """Return a service that serves as the README has its reader serve, on a port, 0 for a free one."""
    flags = ("--procs", "1", "--redis-url", valkey.url, "--prefix", prefix, "--allowed-origin", ORIGIN)
    return Service(home, "--port", str(port), *flags, env={"AUTH_KEYS": KEY})


@pytest.fixture(scope="module")
def served(valkey: ValkeyProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serves(tmp_path_factory.mktemp("examples"), valkey, "examples") as running:
        yield running


@pytest.fixture
def gateway(served: Service) -> Iterator[dict[str, str]]:
    """Texts that an example has to replace; ends when the gateway has noticed that the test's programs left."""
    yield {ADDRESS: f"127.0.0.1:{served.port}"}

    def left() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=TIMEOUT) as page:
            return b'\nbullmq_proxy_connections{slot="0"} 0\n' in page.read()

    wait_for(left, "no connection is open")


@languages
def test_the_worker_of_the_readme_completes_the_job_that_the_console_adds(
    language: str, gateway: dict[str, str], run: Run
) -> None:
    worker = run(README, language, gateway | (CLIENT if language == "js" else {}))
    with connect(f"ws://{gateway[ADDRESS]}/queue/letters?token={KEY}") as queue:

        def call(fn: str, *args: object) -> object:
            queue.send(json.dumps({"id": 1, "data": {"fn": fn, "args": args}}))
            return json.loads(queue.recv())["data"]["ok"]

        call("add", "welcome", {"to": "ada@example.org"}, {"jobId": language})
        assert call("waitUntilJobFinished", language, TIMEOUT * 1000) == {"sent": True}
        assert call("getJobLogs", language) == {"logs": ["sending to ada@example.org"], "count": 1}
    assert all("Warning" in line or "--trace-warnings" in line for line in worker.output.splitlines())
    worker.close()  # the gateway's other jobs are not for this one


@languages
def test_worker_and_watcher_wait_for_the_gateway_and_see_the_job_of_the_queue_example(
    language: str, port: int, valkey: ValkeyProcess, prefix: str, tmp_path: Path, run: Run
) -> None:
    here = {ADDRESS: f"127.0.0.1:{port}"}
    watcher = run(DOCS / "events.md", language, here)
    worker = run(DOCS / "worker.md", language, here)
    watcher.prints("no connection")
    worker.prints("connect failed" if language == "python" else "no connection")
    with serves(tmp_path / "service", valkey, prefix, port):
        watcher.prints("watching")
        worker.prints("waiting for jobs")
        queue = run(DOCS / "queue.md", language, here)
        queue.ends()
        assert queue.output == "added job 1\n"
        worker.prints("sending to ada@example.org")
        watcher.prints("completed")
        watcher.prints("sent")
        if language == "python":
            for example in (watcher, worker):
                example.interrupt()
                example.ends()


@languages
def test_examples_report_a_wrong_key(language: str, gateway: dict[str, str], run: Run) -> None:
    wrong = gateway | {KEY: "wrong"}
    queue, worker, watcher = (run(DOCS / f"{page}.md", language, wrong) for page in ("queue", "worker", "events"))
    queue.ends(1)
    assert "no reply: " in queue.output
    for example in (worker, watcher):
        if language == "python":
            example.ends(1)
            assert "UNAUTHORIZED" in example.output
        else:
            example.prints("closed: 4501 This key is not known")


@languages
def test_the_clients_add_process_and_watch(language: str, gateway: dict[str, str], run: Run) -> None:
    example = run(DOCS / "clients.md", language, gateway | (CLIENT if language == "js" else {}))
    example.ends()
    assert re.sub(r"[' ]", "", example.output).lower().splitlines() == [
        "result:{sent:true}",
        "event:{sent:true}",
        "counts:{completed:1,failed:0}",
    ]


def test_a_flow_is_added_and_read(gateway: dict[str, str], run: Run) -> None:
    example = run(DOCS / "flows.md", "python", gateway)
    example.ends()
    assert example.output == "added report with 2 children\nchildren: plot sum\n"


def test_schedulers_are_made_read_and_removed(gateway: dict[str, str], run: Run) -> None:
    example = run(DOCS / "schedulers.md", "python", gateway)
    example.ends()
    lines = example.output.splitlines()
    assert lines[0].startswith("the next report is job repeat:report:")
    assert lines[1].startswith("heartbeat 60000 next at ")
    assert lines[2].startswith("report 0 7 * * 1-5 next at ")
    assert lines[3:] == [
        "one of them: {'data': {'format': 'pdf'}, 'opts': {'attempts': 3}}",
        "removed: True",
        "left: 1",
    ]


def test_the_requests_of_the_pages_are_answered(gateway: dict[str, str], tmp_path: Path) -> None:
    """Those of each page in their order, in a queue of the page's own, whose first job is there for the worker."""
    for page in (README, *(DOCS / f"{name}.md" for name in ("http", "queue", "worker", "flows", "schedulers"))):
        blocks = [text for part in sections(page) for known, text in part.blocks if known == "sh" and "curl" in text]
        calls = "".join(text for text in blocks if "curl -N" not in text).replace(ADDRESS, gateway[ADDRESS])
        calls = calls.replace("/mails", f"/{page.stem}")
        if page.stem == "worker":
            calls = (
                f'curl -H "Authorization: Bearer {KEY}" http://{gateway[ADDRESS]}/queue/worker/add -d \'["a"]\'\n'
                + calls
            )
        made = calls.count("curl")
        script = f"""curl() {{ command curl -sS --fail-with-body -w '\\n' "$@"; }}\n{calls}"""
        ran = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=False, timeout=TIMEOUT)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
        answers = ran.stdout.splitlines()
        assert made == len(answers) > 1, ran.stdout
        assert "Hello, Ada!" in answers[-1] or page != README
        assert not any('"err"' in answer for answer in answers), ran.stdout


def test_the_streams_of_the_pages_have_the_events(gateway: dict[str, str]) -> None:
    pages = [DOCS / f"{name}.md" for name in ("http", "events")]
    commands = [text for page in pages for part in sections(page) for _, text in part.blocks if "curl -N" in text]
    with contextlib.ExitStack() as stack:
        streams = []
        for command in commands:
            shell = command.replace(ADDRESS, gateway[ADDRESS]).replace("curl", "exec curl -s -v", 1)
            curl = subprocess.Popen(["bash", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            stack.callback(curl.communicate)
            stack.callback(curl.kill)
            assert curl.stdout is not None and curl.stderr is not None
            assert b"< \r\n" in iter(curl.stderr.readline, b"")  # the head has ended: the stream is open
            streams.append(curl.stdout)
        with connect(f"ws://{gateway[ADDRESS]}/queue/mails?token={KEY}") as queue:
            for fn, args in ("add", ["a"]), ("getNextJob", ["t"]), ("moveJobToCompleted", ["1", None, "t"]):
                queue.send(json.dumps({"id": 1, "data": {"fn": fn, "args": args}}))
                assert "ok" in json.loads(queue.recv(TIMEOUT))["data"]
        assert len(streams) == len(pages)
        for stream in streams:
            assert any(b'"event":"completed"' in line for line in iter(stream.readline, b""))


@needs_node
def test_the_page_adds_a_job_processes_it_and_sees_the_event(gateway: dict[str, str], run: Run) -> None:
    example = run(DOCS / "browser.md", "js", gateway)
    example.prints("added job 1")
    example.prints("Hello, Ada!")


def test_a_page_of_the_shown_origin_may_connect(gateway: dict[str, str]) -> None:
    assert ORIGIN in only_block(DOCS / "browser.md", "sh")
    with connect(f"ws://{gateway[ADDRESS]}/queue/mails", origin=Origin(ORIGIN), subprotocols=PAIR) as queue:
        assert queue.subprotocol == "bullmq-proxy.v1"


def test_the_embedded_gateway_serves_until_ctrl_c(valkey: ValkeyProcess, port: int, run: Run) -> None:
    replaced = {"redis://localhost:6379": valkey.url, "port=8080": f"port={port}"}
    example = run(DOCS / "embedding.md", "python", replaced)
    example.prints(f"serving on ws://127.0.0.1:{port}")
    with connect(f"ws://127.0.0.1:{port}/queue/mails", additional_headers={"Authorization": f"Bearer {KEY}"}) as queue:
        queue.send('{"id":1,"data":{"fn":"isPaused"}}')
        assert queue.recv(TIMEOUT) == '{"id":1,"data":{"ok":false}}'
    example.interrupt()
    example.ends()
