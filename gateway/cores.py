"""The processor cores that this process may use: a container's share is not the whole machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cores() -> int:
    """Return the cores that this process is allowed to run on, or fewer where its quota is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    left = quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(1, math.ceil(min(allowed, left)))


def quota(groups: Path, mount: Path) -> float:
    """Return the cores' worth of time that control groups leave to this process; infinity where none says less.

    Args:
        groups: the file that lists the groups of this process (cgroups(7)).
        mount: where the groups are mounted: version 2 there, or in `unified`, version 1 in a folder for each kind.
    """
    least = math.inf
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return least
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if not kinds:
            roots = [mount, mount / "unified"]
        elif "cpu" in kinds.split(","):
            roots = [mount / kinds, mount / "cpu"]
        else:
            continue
        for folder in (folder for root in roots for folder in _up(root, path)):
            least = min(least, _quota_of(folder))
    return least


def _up(root: Path, path: str) -> Iterator[Path]:
    """Give a group's folder and those above it: each may have a quota. In a container only the root may be there."""
    folder = root / path.lstrip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _quota_of(folder: Path) -> float:
    try:
        try:
            given, period = (folder / "cpu.max").read_text().split()
        except FileNotFoundError:
            given = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(given) / int(period) if int(given) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # `max`, or a kernel that has none
        return math.inf
