"""Node and npm's packages for tests: installed outside of the source tree, and kept between runs."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

LEAST_NODE = 20
INSTALL_TIMEOUT = 240  # s; whichever test comes first may have to install the packages


@functools.cache
def find_node() -> str | None:
    """The program `node`, if it is new enough and has npm beside it."""
    program = shutil.which("node")
    if program is None or shutil.which("npm") is None:
        return None
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)", shown)
    return program if version and int(version[1]) >= LEAST_NODE else None


def installed(folder: Path) -> Path:
    """The `node_modules` for a folder with package.json and package-lock.json; kept while the lock file is the same."""
    lock_file = folder / "package-lock.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bullmq-proxy"
    home = cache / f"{folder.name}-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes: one installs, the others wait
        if not home.exists():
            fresh = cache / f"{home.name}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            for file in (folder / "package.json", lock_file):
                shutil.copy(file, fresh)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"npm ci failed:\n{done.stderr}"
            fresh.rename(home)
    return home / "node_modules"
