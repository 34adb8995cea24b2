"""Processes that tests start end with the tests, however these end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def ending_with_us(signum: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` by which Linux sends the child a signal when this thread ends; None elsewhere."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # it ended before we could ask
            os._exit(1)

    return prepare
