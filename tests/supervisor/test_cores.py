"""The share of the processor that control groups leave, read from files as the kernel writes them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from bullmq_proxy.gateway.cores import cores, quota


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../../of/the/host\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("0::/\n", {"unified/cpu.max": "50000 50000\n"}, 1.0),
        (
            "4:cpu,cpuacct:/c\n0::/\n",
            {"cpu,cpuacct/c/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/c/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "what\n"}, math.inf),
        ("0::/\n", {"cpu.max": "1 0\n"}, math.inf),
    ],
)
def test_the_least_of_all_groups_counts(tmp_path: Path, groups: str, files: dict[str, str], expected: float) -> None:
    write(tmp_path, {"groups": groups})
    write(tmp_path / "mount", files)
    assert quota(tmp_path / "groups", tmp_path / "mount") == expected


def test_where_there_are_no_groups_nothing_is_less(tmp_path: Path) -> None:
    assert quota(tmp_path / "groups", tmp_path) == math.inf
    assert 1 <= cores() <= (os.cpu_count() or 1)
