"""Sends requests to one endpoint and reads the answers, by aiohttp, which is imported only where a registration is."""

from __future__ import annotations

import os
import socket
from io import BytesIO
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorError, ServerTimeoutError
from aiohttp.connector import AddrInfoType

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.webhooks.answers import Answer
from bullmq_proxy.gateway.webhooks.guard import ForbiddenAddressError, Guard
from bullmq_proxy.gateway.webhooks.registration import Endpoint

LARGEST_ANSWER: Final = 2**20
"""Bytes of an answer's body that are read."""

_KEEPALIVE: Final = 4.0  # s; Node's servers close after 5, and a request on its way then would be lost
_NAMES: Final = 10  # s for which a name stays resolved, for connections that are made meanwhile
_PIECE: Final = 2**16


class UnreachableError(Exception):
    """There is no answer.

    Attributes:
        reason: that the job shows, to whoever may see it: no address of the network here is in it.
        cause: the same for the log, with all that is known.
    """

    def __init__(self, reason: str, cause: str = "") -> None:
        super().__init__(cause or reason)
        self.reason = reason
        self.cause = cause or reason


class Sender:
    """The connections to one endpoint."""

    def __init__(self, endpoint: Endpoint, guard: Guard) -> None:
        """Make it; `guard` says where it may connect to."""
        self._endpoint = endpoint
        self._guard = guard
        self._host = urlsplit(endpoint.url).hostname or ""
        own = {
            "content-type": "application/json",
            "user-agent": f"bullmq-proxy/{__version__}",
            "accept-encoding": "identity",  # a small body that is unpacked can be a large one
        }
        self._headers = own | {name.lower(): value for name, value in endpoint.headers.items()}
        self._session = ClientSession(
            connector=TCPConnector(
                limit=0,  # the registration's concurrency is the limit
                ttl_dns_cache=_NAMES,
                keepalive_timeout=_KEEPALIVE,
                socket_factory=self._open_socket,
            ),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=endpoint.timeout / 1000),
        )

    def _open_socket(self, address: AddrInfoType) -> socket.socket:
        """Return a socket for an address that is about to be connected to: here the name has been resolved."""
        family, kind, protocol, _, place = address
        self._guard.check(self._host, str(place[0]))
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    async def send(self, headers: dict[str, str], body: bytes) -> Answer:
        """Send a request and return the answer.

        Args:
            headers: beside those of every request.
            body: JSON text.

        Raises:
            UnreachableError: there is none, or it has not come in time as a whole.
        """
        endpoint = self._endpoint
        try:
            async with self._session.request(
                endpoint.method,
                endpoint.url,
                headers=self._headers | headers,
                data=BytesIO(body) if len(body) > _PIECE else body,  # a long one is written in pieces
                allow_redirects=False,
            ) as response:
                return Answer(
                    response.status,
                    response.headers.get("Content-Type", ""),
                    response.headers.get("Retry-After", ""),
                    await _read(response),
                )
        except (TimeoutError, ServerTimeoutError):
            raise UnreachableError(f"The endpoint has not answered within {endpoint.timeout} ms") from None
        except (ClientError, OSError, ValueError) as error:
            inner: BaseException = error.os_error if isinstance(error, ClientConnectorError) else error
            said, words = "The endpoint cannot be reached: ", _words(error)
            raise UnreachableError(said + words, f"{said}{inner if isinstance(inner, OSError) else words}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


async def _read(response: ClientResponse) -> bytes:
    """Return the body of an answer; what is longer than `LARGEST_ANSWER` is refused where it is a result."""
    if response.content_length is not None and response.content_length <= LARGEST_ANSWER:
        return await response.read()
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_chunked(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_ANSWER:
            response.close()
            if response.ok:
                raise UnreachableError(f"The endpoint's answer is longer than {LARGEST_ANSWER} bytes")
            break
    return b"".join(pieces)


def _words(error: Exception) -> str:
    """Return what is wrong, without the URL, which may hold a secret."""
    if isinstance(error, ClientConnectorCertificateError):
        return "its certificate is not valid"
    reason: BaseException = error.os_error if isinstance(error, ClientConnectorError) else error
    if isinstance(reason, ForbiddenAddressError):
        return "webhook_allow does not name its address"
    if isinstance(reason, OSError) and reason.errno:
        return os.strerror(reason.errno)
    return type(reason).__name__
