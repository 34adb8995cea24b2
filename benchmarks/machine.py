"""The machine and the versions that a result was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path

from benchmarks.lab import npm
from bullmq_proxy.gateway.cores import cores

_PACKAGES = ("bullmq", "hiredis", "msgspec", "redis", "uvloop", "websockets")


def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory, kernel, and how busy the machine was before: noise has a name."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def versions(valkey: str) -> dict[str, str]:
    """Of everything that takes part; what is not here is left out."""
    found = {"python": platform.python_version(), "valkey": valkey}
    found |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    for name, program in (("node", npm.node), ("bun", npm.bun)):
        try:
            found[name] = npm.version_of(program())
        except npm.Missing:
            continue
    found |= {f"npm {name}": version for name, version in _locked().items()}
    return found


def _locked() -> dict[str, str]:
    text = (npm.PEERS / "package.json").read_text()
    return dict(re.findall(r'"(bullmq|ioredis)": "([\d.]+)"', text))


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()
