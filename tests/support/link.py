"""The limits of a link as the gateway sets them by default."""

from __future__ import annotations

from typing import Final

from bullmq_proxy.gateway.app import link_options
from bullmq_proxy.gateway.settings import Settings

OPTIONS: Final = link_options(Settings(), slot=0)
