"""The examples for other languages add jobs and work on them at a real gateway; that for Go keeps all rules."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.judging import broken_rules
from tests.conformance.languages import FOLDER, LANGUAGES
from tests.docs.markdown import links
from tests.sessions.peer import Gateway
from tests.support.valkey import ValkeyProcess

KEY = "key-1"
LONGEST = 120
TIMEOUT = 20  # s; a JVM on a busy machine
DATA = {"n": 1, "text": "é ☃"}


def needs(name: str) -> pytest.MarkDecorator:
    missing = LANGUAGES[name].missing
    return pytest.mark.skipif(missing is not None, reason=f"{missing} is missing: the example for {name} is not run")


@pytest.fixture
async def gateway(valkey: ValkeyProcess, prefix: str) -> AsyncIterator[Gateway]:
    async with Gateway(valkey.url, prefix=prefix) as running:
        yield running


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in LANGUAGES])
async def test_it_adds_jobs_and_works_on_them(name: str, gateway: Gateway, tmp_path: Path) -> None:
    language = LANGUAGES[name]
    command = await asyncio.to_thread(language.built)
    told = {"BULLMQ_URL": f"ws://127.0.0.1:{gateway.port}", "BULLMQ_QUEUE": f"{name} é 100%"}

    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    keys = {"producer": {"BULLMQ_KEY": KEY}, "worker": {"BULLMQ_KEY_FILE": str(key_file)}}

    async def start(role: str) -> asyncio.subprocess.Process:
        environment, pipe = {**os.environ, **told, **keys[role], "BULLMQ_ROLE": role}, asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )

    async def produce(*calls: tuple[str, list[object]]) -> list[dict[str, object]]:
        producer = await start("producer")
        lines = "".join(f"{json.dumps({'fn': fn, 'args': args})}\n" for fn, args in calls)
        output, errors = await asyncio.wait_for(producer.communicate(lines.encode()), TIMEOUT)
        assert producer.returncode == 0, errors.decode()
        return [json.loads(line) for line in output.splitlines()]

    worker = await start("worker")
    try:
        added, failing, result, reason = await produce(
            ("add", ["letter", DATA, {"jobId": "a"}]),
            ("add", ["letter", {"fail": "nobody to send to"}, {"jobId": "b"}]),
            ("waitUntilJobFinished", ["a", 1000 * TIMEOUT]),
            ("waitUntilJobFinished", ["b", 1000 * TIMEOUT]),
        )
        assert [shown["ok"]["id"] for shown in (added, failing)] == ["a", "b"]  # type: ignore[index]
        assert result == {"ok": DATA}
        assert reason["err"]["code"] == "CONFLICT"  # type: ignore[index]
        assert "nobody to send to" in reason["err"]["message"]  # type: ignore[index]
        os.killpg(worker.pid, signal.SIGTERM)
        if language.speaks_http:  # it looks up when a job comes, or when it has waited for one
            await produce(("add", ["letter", DATA, {"jobId": "c"}]))
        _, errors = await asyncio.wait_for(worker.communicate(), TIMEOUT)
    finally:
        if worker.returncode is None:
            os.killpg(worker.pid, signal.SIGKILL)
            await worker.wait()
    assert KEY not in errors.decode()


@needs("go")
async def test_that_for_go_keeps_the_rules() -> None:
    command = await asyncio.to_thread(LANGUAGES["go"].built)
    assert await broken_rules(command) == []


_COMMENTS = {"php": "//|/\\*\\*|\\*|<\\?php", "rb": "#", "sh": "#", "exs": "#"}
_EMPTY = re.compile(r"\W*(else|end|try|do|begin|return|return null)?\W*")
_IMPORTS = re.compile(r'\s*(import|require|use|using|package)\b|\s*"[\w./-]+"$')


@pytest.mark.parametrize("source", sorted(FOLDER.glob("[cC]lient.*")), ids=lambda path: path.name)
def test_it_is_short_and_has_a_page(source: Path) -> None:
    """Count the lines that say something: no comments, imports, brackets, nor a keyword alone."""
    comment = re.compile(rf"\s*({_COMMENTS.get(source.suffix[1:], '//')})")
    lines = [line for line in source.read_text().splitlines() if not _EMPTY.fullmatch(line)]
    assert sum(not comment.match(line) and not _IMPORTS.match(line) for line in lines) <= LONGEST
    assert any(source.name in links(page) for page in FOLDER.glob("*.md"))
