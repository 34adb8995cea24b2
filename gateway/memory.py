"""A shard's memory: managed for speed while there is work, and given back to the system once it is quiet."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_STATM: Final = Path("/proc/self/statm")
_OOM: Final = Path("/proc/self/oom_score_adj")
_EXPENDABLE: Final = 500  # thousandths of the machine's memory that count beside what a shard takes (proc(5))
_PERIOD: Final = 2.0  # s between two looks
_QUIET_LOOKS: Final = 5  # in a row, before memory is given back: a shard that is busy now and then needs it again
_QUIET: Final = 0.2  # of a core, at most
_SPARE: Final = 32 * 2**20  # bytes that stay, to be used again
_STEADY: Final = 2**20  # bytes of growth between two looks that do not count


def tune() -> None:
    """Tune the garbage collector and malloc, once everything is imported.

    What is loaded now stays, so the collector, which was off until now, never looks at it. What comes later frees
    itself: the collector is for the cycles of references that libraries make in errors, and looks at everything after 5
    million new objects that stay; that saves 1 to 3 us per add and job. glibc returns each large block to the system at
    once and clears the pages of the next one: that took 4 of 6 ms for a payload of 1 MB.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    gc.enable()
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)


def die_first() -> None:
    """Let the system, when memory is short, end a shard before what cannot be replaced: the embedded Valkey."""
    with suppress(OSError):  # not Linux, or somebody has set more already
        _OOM.write_text(str(_EXPENDABLE))


class Spikes:
    """Gives memory back that was needed for a while.

    malloc keeps what lies below anything that is still in use: of a flood 729 MiB stayed for good, and 62 were in use.
    To give back as much takes 0.15 s, and makes its next use slower: it is done for much at a time, in quiet times.
    """

    def __init__(self, period: float = _PERIOD) -> None:
        """Make it; it looks at the memory each `period` seconds."""
        self._period = period
        self._least = 0  # bytes that were in use since memory was given back last
        self._before = 0  # at the last look
        self._quiet_looks = 0
        self._cpu = 0.0

    async def watch(self) -> None:
        """Give memory back until cancelled; where that cannot be done, return."""
        libc = _glibc()
        if libc is None or not _STATM.exists():
            return
        self._least = self._before = _resident()
        while True:
            await asyncio.sleep(self._period)
            if self._is_due():
                gc.collect(1)
                libc.malloc_trim(0)
                self._least = self._before = _resident()

    def _is_due(self) -> bool:
        """Return whether there is much to give back, or to find out that all of it is in use, and time for it."""
        cpu, self._cpu = self._cpu, time.process_time()
        before, self._before = self._before, _resident()
        self._least = min(self._least, self._before)
        is_quiet = self._cpu - cpu < _QUIET * self._period and self._before < before + _STEADY
        self._quiet_looks = self._quiet_looks + 1 if is_quiet else 0
        return self._quiet_looks >= _QUIET_LOOKS and self._before - self._least > _SPARE


def _resident() -> int:
    return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()


def _glibc() -> Any:
    """Return the C library, if it is one whose malloc can be told."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if libc.mallopt and libc.malloc_trim:
            return libc
    return None
