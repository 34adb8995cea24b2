"""npm packages of the Node and Bun peers: pinned by the lock beside them, installed once into the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).parents[1] / "peers"
_INSTALL_TIMEOUT: Final = 300.0  # s
_OLDEST_NODE: Final = 20


class Missing(Exception):
    """A runtime or a package is not to be had here; the text says which."""


def node() -> Path:
    """The node program; raises Missing."""
    program = shutil.which("node")
    if program is None:
        raise Missing("no node")
    version = version_of(Path(program))
    major = re.match(r"v(\d+)", version)
    if major is None or int(major[1]) < _OLDEST_NODE:
        raise Missing(f"node {version} is older than {_OLDEST_NODE}")
    return Path(program)


def bun() -> Path:
    """The bun program: one on the path, or the one that npm's platform package holds; raises Missing."""
    if found := shutil.which("bun"):
        return Path(found)
    machine = {"x86_64": "x64", "amd64": "x64", "arm64": "aarch64"}.get(platform.machine().lower(), "aarch64")
    for name in (f"bun-{sys.platform}-{machine}", f"bun-{sys.platform}-{machine}-baseline"):
        program = modules() / "@oven" / name / "bin" / "bun"
        if program.is_file() and version_of(program):
            return program
    raise Missing(f"no bun for {sys.platform} on {platform.machine()}")


@cache
def version_of(program: Path) -> str:
    """What a program says to `--version`; empty when it does not run (a processor without AVX2, for one)."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def modules() -> Path:
    """The installed `node_modules`, kept for as long as the lock file stays the same; raises Missing."""
    lock_file = PEERS / "package-lock.json"
    cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bullmq-proxy"
    home = cache_dir / f"bench-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            _install(cache_dir / f"{home.name}.new", home, lock_file)
    return home / "node_modules"


def _install(fresh: Path, home: Path, lock_file: Path) -> None:
    if shutil.which("npm") is None:
        raise Missing("no npm")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for file in (PEERS / "package.json", lock_file):
        shutil.copy(file, fresh)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"npm ci took more than {_INSTALL_TIMEOUT:g} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["without a message"]
        raise Missing(f"npm ci failed: {lines[-1][:200]}")
    fresh.rename(home)
