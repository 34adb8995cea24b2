"""Writes at the end of a turn of the loop: what one turn sends to a socket leaves in one write.

All flushes of a turn are done together, before anybody who has much to do goes on: what is short is on its way
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_FLUSHES: Final[dict[asyncio.AbstractEventLoop, list[Callable[[], None]]]] = {}


def flush_soon(loop: asyncio.AbstractEventLoop, flush: Callable[[], None]) -> None:
    """Call `flush` when this turn of the loop ends."""
    flushes = _FLUSHES.get(loop)
    if flushes is None:
        loop.call_soon(flush_now, loop)
        _FLUSHES[loop] = [flush]
    else:
        flushes.append(flush)


def flush_now(loop: asyncio.AbstractEventLoop) -> None:
    """Do all flushes that are due; one that fails is reported to the loop, and holds up no other."""
    for flush in _FLUSHES.pop(loop, ()):
        try:
            flush()
        except Exception as error:
            loop.call_exception_handler({"message": "a flush failed", "exception": error})
