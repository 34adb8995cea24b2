"""Who is let in: the host that was asked for, the key, and the origin of a browser's page."""

from __future__ import annotations

from asyncio import BaseTransport
from typing import Final

from msgspec import Struct
from websockets.datastructures import Headers

from bullmq_proxy.gateway.access import certificates
from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.authenticator import Authenticator
from bullmq_proxy.gateway.access.credentials import bearer, is_host_allowed, is_origin_allowed, presented_key
from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.net.proxies import TrustedProxies
from bullmq_proxy.gateway.net.unopened import Accepted
from bullmq_proxy.gateway.value_types import is_loopback
from bullmq_proxy.gateway.wire.closing import Refusal, RefusedError
from bullmq_proxy.gateway.wire.connection_options import TOKEN, Limits
from bullmq_proxy.gateway.wire.endpoints import Endpoint, PageEndpoint
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint, WorkersEndpoint
from bullmq_proxy.gateway.wire.routes import Target

_ON_BOTH: Final = (PageEndpoint.HEALTH, PageEndpoint.READY)
_OBSERVERS: Final = frozenset({Permission.OBSERVE})


class Admission(Struct, frozen=True, kw_only=True):
    """The settings of a listener: who is let in, and the limits of a connection."""

    authenticator: Authenticator
    allowed_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...] | None  # None: any
    limits: Limits
    max_message_size: int  # bytes
    max_write_buffer: int  # bytes
    bad_messages_per_second: int
    max_connections: int | None
    max_connections_per_address: int | None
    links: int  # to Redis, as many as there may be
    ping_interval: float  # s
    ping_timeout: float  # s
    access_log: bool
    metrics_auth: bool
    admin: tuple[str, int] | None  # where the pages for those who run the gateway are
    proxies: TrustedProxies
    proxy_protocol: bool
    max_connection_age: float = 0.0  # s; 0 for any
    patience: float = 0.0  # s for a connection that is too old to finish what is under way

    def check_host(self, transport: BaseTransport, headers: Headers) -> None:
        """Refuse, where no key is asked for, a browser that was led here over a loopback address.

        Raises:
            GatewayError: FORBIDDEN.
        """
        allowed, here = self.allowed_hosts, transport.get_extra_info("sockname")
        if allowed is None or not isinstance(here, tuple) or not is_loopback(here[0]):  # of a unix socket: its path
            return
        if not is_host_allowed(headers, allowed):
            raise RefusedError(
                Refusal.ORIGIN,
                "This host name may not be used here without a key: use localhost, or name it in allowed_hosts",
            )

    def check_port(self, transport: BaseTransport, endpoint: Endpoint) -> None:
        """Refuse what is on the other port.

        Raises:
            GatewayError: NOT_FOUND.
        """
        if self.admin is None:
            return
        here = transport.get_extra_info("sockname")
        is_admin = isinstance(here, tuple) and here[1] == self.admin[1]
        if (endpoint not in _ON_BOTH or not is_admin) and (endpoint is PageEndpoint.METRICS) != is_admin:
            raise GatewayError(ErrorCode.NOT_FOUND, "This is not on this port, but on the other one (admin_port)")

    def authenticate(self, target: Target, headers: Headers, client: Accepted) -> Account:
        """Return the account of whoever asks: of the key that is shown, else of the key that a certificate names.

        Raises:
            GatewayError: UNAUTHORIZED, or FORBIDDEN for a page of another origin, or a key of other addresses.
        """
        endpoint = target.endpoint
        if endpoint is PageEndpoint.METRICS and self.metrics_auth:
            account = self._account(presented_key(headers, target.token), client)
            account.rights.grant.check_any_permission(_OBSERVERS, "read the metrics")
            account.rights.grant.check_all_queues("the metrics are of all")
            return account
        if endpoint.value.permissions is None:
            return self.authenticator.nobody
        authenticator = self.authenticator
        if isinstance(endpoint, AncestorEndpoint):
            target.query[TOKEN.name] = key = bearer(headers)  # nothing else shows a key there
            account = authenticator.hear(key) if endpoint.is_for_holders else self._account(key, client)
        elif isinstance(endpoint, WorkersEndpoint):
            account = self._account(bearer(headers), client)
        else:
            account = self._account(presented_key(headers, target.token), client)
        self.check_origin(headers)
        return account

    def _account(self, key: str | None, client: Accepted) -> Account:
        if not key and (names := certificates.names(client.transport.get_extra_info("peercert"))):
            return self.authenticator.authenticate_by_name(names, client.address)
        return self.authenticator.authenticate(key, client.address)

    def check_origin(self, headers: Headers) -> None:
        """Refuse a page of an origin that is not allowed.

        Raises:
            GatewayError: FORBIDDEN.
        """
        if not self.lets_read(headers):
            raise RefusedError(
                Refusal.ORIGIN, "This page's origin is not allowed to connect: name it in allowed_origins"
            )

    def lets_read(self, headers: Headers) -> bool:
        """Return whether a page of this origin may read what is answered; what is no page may."""
        return is_origin_allowed(headers, self.allowed_origins)
