"""The clock by which a shard knows how long a registration is its own."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

BOOT: Final = getattr(time, "CLOCK_BOOTTIME", None)
"""A clock of Linux that goes on while the machine is suspended."""

clock: Final = time.monotonic if BOOT is None else partial(time.clock_gettime, BOOT)
"""Return seconds that have passed, also while this process or its machine stood still.

A loop's time is that of the beginning of a turn: a process that is stopped and goes on would not see that it was.
"""
