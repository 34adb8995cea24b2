"""The clients of this project keep the rules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Start
from tests.conformance.judging import FEWER, broken_rules
from tests.support.node import INSTALL_TIMEOUT, find_node, installed
from tests.support.service import ROOT
from tests.support.waiting import TIMEOUT

HERE = Path(__file__).parent


async def test_that_for_python_does(warm_python: Start) -> None:
    assert await broken_rules(warm_python(HERE / "python_client.py")) == []


@pytest.fixture
def javascript(tmp_path: Path) -> Iterator[list[str]]:
    """Return the command for the JavaScript client; one process is all of them."""
    path, node = tmp_path / "socket", find_node()
    assert node is not None
    client = (ROOT / "gateway" / "pages" / "client.js").as_uri()
    ws = (installed(ROOT / "tests" / "interop") / "ws" / "wrapper.mjs").as_uri()
    command: list[str | Path] = [node, HERE / "javascript_client.mjs", client, ws, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield [sys.executable, "-S", str(HERE / "warm_node.py"), str(path)]
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


@pytest.mark.skipif(find_node() is None, reason="node is missing: the JavaScript client is not judged")
@pytest.mark.timeout(INSTALL_TIMEOUT)
async def test_that_for_javascript_does(javascript: list[str]) -> None:
    of_the_library = {"first", "pieces", "failure"}
    assert await broken_rules(javascript, [each for each in FEWER if each.name not in of_the_library]) == []
