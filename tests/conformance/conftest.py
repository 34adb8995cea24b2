"""What the tests of clients share: a process that starts Python programs quickly, and where to find what they need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.waiting import TIMEOUT, wait_for

Start = Callable[[Path], list[str]]


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Return a function that returns the command for a Python program, which starts in no time."""
    path = tmp_path_factory.mktemp("warm") / "socket"
    command = [sys.executable, str(warm.__file__), str(path)]
    with subprocess.Popen(
        [*command, "websockets.asyncio.client", "bullmq_proxy.gateway.client"], stdin=subprocess.PIPE
    ) as process:
        wait_for(path.exists, "the process that starts programs listens")
        yield lambda program: [sys.executable, "-S", *command[1:], str(program)]
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
