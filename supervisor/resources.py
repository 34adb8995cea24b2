"""Descriptors and memory, which the system gives to processes."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)


def raise_descriptor_limit() -> None:
    """Allow as many connections as the system does: the soft limit, often 1,024, is for programs that use select."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the hard limit of macOS is more than its kernel takes
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.debug("descriptors: %d, before %d", resource.getrlimit(resource.RLIMIT_NOFILE)[0], soft)


def resident_memory(pid: int) -> int:
    """Return the bytes of memory that a process has for its own and shares; 0 where the system does not say it."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * resource.getpagesize()
