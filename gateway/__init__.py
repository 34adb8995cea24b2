"""bullmq-proxy: BullMQ queues for every language that has WebSockets.

Importing this package does nothing but name the version: the supervisor imports it and stays free of asyncio, redis and
websockets. The other names are looked up when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bullmq_proxy.gateway.embed import Proxy, start_proxy
    from bullmq_proxy.gateway.errors import GatewayError

__version__ = "0.1.0"

__all__ = ["GatewayError", "Proxy", "__version__", "start_proxy"]


def __getattr__(name: str) -> Any:
    if name == "GatewayError":
        from bullmq_proxy.gateway.errors import GatewayError  # noqa: PLC0415 - see above: not at import

        return GatewayError
    if name in ("start_proxy", "Proxy"):
        from bullmq_proxy.gateway import embed  # noqa: PLC0415

        return getattr(embed, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
