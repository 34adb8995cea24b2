"""The codes with which WebSocket connections end."""

from __future__ import annotations

from typing import Final

from bullmq_proxy.gateway.wire.closing import CloseCode

OTHER: Final = 0
"""Stands for codes that a client has made up."""
BROKEN: Final = 1006
"""RFC 6455 §7.1.5: there was no close frame."""
END_CODES: Final[tuple[int, ...]] = (*sorted({*CloseCode, 1002, 1005, BROKEN}), OTHER)
"""1002 is that of broken frames, 1005 that of a close frame without a code."""
