"""The site of an HTTP connection: its listener, which admits requests and opens what answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct
from websockets.http11 import Request, Response

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.net import http
from bullmq_proxy.gateway.sessions.interfaces import CallSession
from bullmq_proxy.gateway.wire.endpoints import Endpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.routes import RouteParameters, Target

if TYPE_CHECKING:
    from bullmq_proxy.gateway.net.http_connection import HttpConnection

Scope = tuple[type[Endpoint], str, Account]
"""What a session is of: a kind of endpoints, the name of the queue, empty for none, and the account of the key."""


class Admitted(Struct, frozen=True):
    """A request that is let in.

    Attributes:
        target: what is asked for.
        parameters: the checked ones of the target.
        account: of whoever asks.
        more: header lines of the response.
        scope: the session that takes the call.
        known: tags of pages that the client has, as in `If-None-Match`.
        path: of the target, for the log.
    """

    target: Target
    parameters: RouteParameters
    account: Account
    more: bytes
    scope: Scope
    known: str
    path: str

    @property
    def is_stream(self) -> bool:
        """Whether a stream of events is asked for."""
        return isinstance(self.target.endpoint, SessionEndpoint)


class Site(Protocol):
    """What an HTTP connection asks of its listener."""

    def admit(self, connection: HttpConnection, request: Request) -> Admitted | Request | Response:
        """Check a request, and return it as it is if it asks for a WebSocket; raises GatewayError."""

    def open_calls(self, admitted: Admitted, connection: HttpConnection) -> CallSession:
        """Return the session for a request; raises GatewayError."""

    def open_stream(self, admitted: Admitted, connection: HttpConnection) -> None:
        """Hand the socket of a connection on to a stream of events; raises GatewayError."""

    def open_websocket(self, transport: asyncio.Transport, address: str, request: Request, early: bytes) -> None:
        """Hand a socket on to a WebSocket, with the first bytes behind its request."""

    def read_page(self, target: Target) -> http.Page | Awaitable[http.Page]:
        """Return a page, or what it has to wait for."""

    @property
    def is_draining(self) -> bool:
        """Whether the gateway stops."""
