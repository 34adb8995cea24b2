"""The limits of a path as the gateway sets them by default."""

from __future__ import annotations

from typing import Any, Final

from bullmq_proxy.gateway import configured
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.wire.connection_options import Limits


def limits(**settings: Any) -> Limits:
    """Return the limits for these settings."""
    return configured.limits(Settings(**settings))


LIMITS: Final = limits()
