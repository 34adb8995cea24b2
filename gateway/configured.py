"""Make the options of a gateway's parts from its settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from bullmq_proxy.gateway.access.authenticator import Authenticator
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.access.tokens import Tokens
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.net.admission import Admission
from bullmq_proxy.gateway.net.proxies import TrustedProxies
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.shared_memory import ShardMemory
from bullmq_proxy.gateway.tracing.extra import is_disabled, require_library
from bullmq_proxy.gateway.wire.connection_options import Limits

if TYPE_CHECKING:
    from bullmq_proxy.gateway.tracing.tracing import Tracing

_MAX_BACKLOG_SIZE: Final = 64 * 2**20  # bytes of commands kept while Redis is away


def link_options(settings: Settings, slot: int) -> LinkOptions:
    """Return the limits of the links to Redis of the shard in a slot."""
    return LinkOptions(
        name=f"bullmq-proxy:{slot}",
        deadline=settings.redis_timeout,
        silence=settings.redis_timeout,
        backlog=settings.redis_backlog,
        backlog_size=_MAX_BACKLOG_SIZE,
        backlog_timeout=settings.redis_backlog_timeout,
        seats=settings.queue_links,
        min_replicas=settings.min_replicas,
        replica_timeout=settings.replica_timeout,
    )


def admission(settings: Settings, keys: Iterable[Key], memory: ShardMemory, *, on_cluster: bool = False) -> Admission:
    """Return the settings of a listener, with its keys; `memory` is where it counts their connections."""
    return Admission(
        authenticator=Authenticator(
            settings.auth_keys, keys, memory, no_auth=settings.no_auth, tokens=tokens_of(settings)
        ),
        allowed_origins=settings.allowed_origins,
        allowed_hosts=tuple(map(str.lower, settings.allowed_hosts)) if settings.no_auth else None,
        limits=limits(settings, on_cluster=on_cluster),
        max_message_size=settings.max_message_size,
        max_write_buffer=settings.max_write_buffer,
        bad_messages_per_second=settings.bad_messages_per_second,
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
        links=2 * settings.queue_links + settings.procs,  # and the listeners of the other slots
        ping_interval=settings.ping_interval,
        ping_timeout=settings.ping_timeout,
        max_connection_age=settings.max_connection_age,
        patience=settings.drain_timeout,
        access_log=settings.access_log,
        metrics_auth=settings.metrics_auth,
        admin=None if settings.admin_port is None else (settings.admin_host, settings.admin_port),
        proxies=TrustedProxies(settings.trusted_proxies),
        proxy_protocol=settings.proxy_protocol,
    )


def tokens_of(settings: Settings) -> Tokens | None:
    """Return the tokens that are let in; None where none are.

    Raises:
        TokenKeysError: the file of the keys that sign them cannot be used, or a package is missing.
    """
    if settings.token_keys is None:
        return None
    assert settings.token_issuer is not None
    assert settings.token_audience is not None
    return Tokens(
        settings.token_keys,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        leeway=settings.token_leeway,
        lifetime=settings.token_lifetime,
    )


def limits(settings: Settings, *, on_cluster: bool = False) -> Limits:
    """Return the settings that a path is checked against."""
    return Limits(
        max_queue_name=settings.max_queue_name,
        max_concurrency=settings.max_concurrency,
        min_queue_name=settings.min_queue_name,
        cluster_prefix=settings.prefix if on_cluster else None,
    )


def tracing_of(settings: Settings, instance: str) -> Tracing | None:
    """Return what makes spans; None where there are to be none.

    Args:
        settings: say whether there are.
        instance: names the shard.

    Raises:
        TracingError: packages are missing, or a variable of OpenTelemetry asks for what is not here.
    """
    if not settings.tracing or is_disabled(os.environ):
        return None
    require_library(os.environ)
    from bullmq_proxy.gateway.tracing.tracing import Tracing  # noqa: PLC0415 - only whoever traces has it

    return Tracing(instance, os.environ)
