"""Another version is installed while the service runs: shards that are started from then on are of that version."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bullmq_proxy.gateway.start_message import PROTOCOL
from tests.faults.clients import check_no_job_is_lost
from tests.support.service import ROOT, Service
from tests.support.waiting import TIMEOUT, eventually, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

MakeService = Callable[..., Service]


class Installed:
    """A copy of the program, and a service that runs from it."""

    def __init__(self, place: Path, service: MakeService, *arguments: str) -> None:
        self._place = place / "bullmq_proxy"
        for folder in ("gateway", "supervisor"):
            # With what is compiled already, except what is being compiled right now.
            ignored = shutil.ignore_patterns("*.pyc.*")
            shutil.copytree(ROOT / folder, self._place / folder, ignore=ignored, symlinks=True)
        self.service = service(*arguments, env={"PYTHONPATH": str(place)}).start()

    def change(self, file: str, old: str, new: str) -> None:
        """Install a file with another text, as pip does: the new file takes the place of the old one."""
        path = self._place / file
        text, count = re.subn(old, lambda _: new, path.read_text())
        assert count == 1, f"{old} in {file}"
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)


async def test_a_shard_killed_under_load_comes_back_with_the_new_code_and_no_job_is_lost(
    service: MakeService, tmp_path: Path
) -> None:
    installed = Installed(tmp_path, service, "--procs", "2", "--prefix", "jobs")
    running = installed.service

    def upgrade() -> None:
        installed.change("gateway/__init__.py", r'__version__ = "[^"]+"', '__version__ = "9.9.9"')
        # One setting is gone, one is new, and one is stricter than before.
        installed.change(
            "gateway/settings.py",
            r"    prefix: str = option\(",
            '    wings: int = option(2, "Wings.", value_types.whole(0, 9))\n    prefix: str = option(',
        )
        installed.change("gateway/settings.py", r"    shard_timeout: float = option\((?:.|\n)*?\n    \)\n", "")
        installed.change(
            "gateway/shard.py",
            r"log = logging.getLogger\(__name__\)",
            'log = logging.getLogger(__name__)\nlog.warning("new code in pid %d", __import__("os").getpid())',
        )
        os.kill(running.shards()[0], signal.SIGKILL)

    await check_no_job_is_lost(running, upgrade)

    await eventually(lambda: running.errors.count(" is ready") == 3, "the new shard is ready", TIMEOUT)
    [new] = re.findall(r"new code in pid (\d+)", running.errors)
    assert int(new) in running.shards()
    assert running.errors.count("killed by SIGKILL") == 1
    assert running.errors.count(" ended: ") == 1, "a shard died more than once"
    assert "has no setting wings: its default is used" in running.errors
    assert "version 9.9.9 ignores: shard_timeout" in running.errors
    assert running.stop() == 0


def test_a_shard_that_cannot_serve_under_the_old_supervisor_ends_the_service_once_no_other_serves(
    service: MakeService, tmp_path: Path
) -> None:
    installed = Installed(tmp_path, service, "--procs", "2")
    installed.change("gateway/start_message.py", f"PROTOCOL: Final = {PROTOCOL}", f"PROTOCOL: Final = {PROTOCOL + 1}")
    running = installed.service
    reason = (
        "the installed bullmq-proxy 0.1.0 cannot serve under the running supervisor 0.1.0"
        f" (protocol {PROTOCOL + 1} instead of {PROTOCOL}): restart the service"
    )
    first, other = running.shards()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: f" ended: {reason}; starting it again in " in running.errors, "the new shard has said why")
    assert other in running.shards()
    os.kill(other, signal.SIGKILL)
    assert running.wait() == 1
    assert running.errors.splitlines()[-1] == f"bullmq-proxy: error: {reason}"


def test_a_shard_started_alone_is_a_process_of_the_supervisor(service: MakeService) -> None:
    running = service("--procs", "3").start()
    for victim in running.shards()[:2]:
        os.kill(victim, signal.SIGKILL)
    wait_for(lambda: running.errors.count(" is ready") == 5, "both are back")
    assert len(running.shards()) == 3
    for pid in running.shards():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: running.errors.count(" is ready") == 8, "all are back")
    assert running.stop() == 0
