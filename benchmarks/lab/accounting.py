"""What the operating system says about a process: processor time in nanoseconds, memory now and at its peak. Linux."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CPUCLOCK_SCHED: Final = 2  # clockid of a process: (~pid << 3) | 2, see clock_getcpuclockid(3)
_KB: Final = re.compile(r"^(\w+):\s+(\d+) kB", re.MULTILINE)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of all threads of these processes. `/proc/<pid>/stat` would count in steps of 10 ms."""
    return sum(time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one or several processes: resident, proportional (shared pages divided among their users), peak."""

    rss: int = 0
    pss: int = 0
    peak: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.peak + other.peak)


def memory(pids: Iterable[int]) -> Memory:
    """The memory of these processes; the peak is the sum of each one's since `forget_peak`."""
    total = Memory()
    for pid in pids:
        rollup = _kilobytes(pid, "smaps_rollup")
        status = _kilobytes(pid, "status")
        total += Memory(rollup["Rss"] * 1024, rollup["Pss"] * 1024, status["VmHWM"] * 1024)
    return total


def forget_peak(pids: Iterable[int]) -> None:
    """Let the peak begin anew (proc(5), clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _kilobytes(pid: int, file: str) -> dict[str, int]:
    return {name: int(value) for name, value in _KB.findall(Path(f"/proc/{pid}/{file}").read_text())}
