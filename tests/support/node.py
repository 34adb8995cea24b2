"""Node and npm's packages for tests: installed outside of the source tree, and kept between runs."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

LEAST_NODE = 20
INSTALL_TIMEOUT = 240  # s; whichever test comes first may have to install the packages
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bullmq-proxy"


@functools.cache
def find_node() -> str | None:
    """The program `node`, if it is new enough and has npm beside it."""
    program = shutil.which("node")
    if program is None or shutil.which("npm") is None:
        return None
    version = re.match(r"v(\d+)", _version(program))
    return program if version and int(version[1]) >= LEAST_NODE else None


@functools.cache
def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def answer(script: Path, packages: Path, *files: Path) -> Any:
    """What a script of Node writes as JSON, which it works out from its packages and files alone.

    Scripts that take many seconds are asked once for each version of Node, of themselves, of the packages and of the
    files; after that the answer is read from where the packages are kept.

    Args:
        script: called with the folder of the installed packages, and with the files.
        packages: the folder with package.json and package-lock.json.
        files: what the answer is about.
    """
    node = find_node()
    assert node is not None, "node is missing"
    told = (_version(node).encode(), *(path.read_bytes() for path in (script, packages / "package-lock.json", *files)))
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in told)).hexdigest()
    kept = _CACHE / f"{script.stem}-{digest[:16]}.json"
    if not kept.exists():
        command: list[str | Path] = [node, script, installed(packages), *files]
        done = subprocess.run(command, capture_output=True, check=False, timeout=INSTALL_TIMEOUT)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        fresh = kept.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(done.stdout)
        fresh.rename(kept)
    return json.loads(kept.read_bytes())


def installed(folder: Path) -> Path:
    """The `node_modules` for a folder with package.json and package-lock.json; kept while the lock file is the same."""
    lock_file = folder / "package-lock.json"
    home = _CACHE / f"{folder.name}-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes: one installs, the others wait
        if not home.exists():
            fresh = _CACHE / f"{home.name}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            for file in (folder / "package.json", lock_file):
                shutil.copy(file, fresh)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"npm ci failed:\n{done.stderr}"
            fresh.rename(home)
    return home / "node_modules"
