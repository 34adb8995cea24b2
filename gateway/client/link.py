"""One connection to the gateway, made again when it breaks: when that is, after which pause, and when no more."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Response

from bullmq_proxy.gateway.client.errors import CLASSES, ClosedError, ProxyError, UnreachableError

log = logging.getLogger("bullmq_proxy.client")

URL: Final = "ws://127.0.0.1:8080"
"""Where a gateway serves that nothing was said to."""

OPEN_TIMEOUT: Final = 10.0
"""Seconds for a handshake."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds for the end of a connection."""
FIRST_PAUSE: Final = 0.2
"""Seconds before the second try to connect; each further pause is twice as long, and random from its half on."""
LONGEST_PAUSE: Final = 10.0
"""Seconds that a pause has at most: a call, which waits for 30 s, sees more tries than one."""
SETTLED: Final = 1.0
"""Seconds after which a connection counts as one that works: the pauses begin with the first one again."""

# docs/failures.md, "After a refusal"; what is not here means: later.
_STATUSES_TO_STOP: Final = frozenset({400, 401, 403, 404, 405, 413, 414, 426, 431, 505})
_CODES_TO_STOP: Final = frozenset({1002, 1003, 1007, 1008, 1009, 4000, *range(4500, 4506), *range(4510, 5000)})
_CODES_AT_ONCE: Final = frozenset({1001, 4002, 4003, 4004})
_WRONG_KEY: Final = 401
_BROKEN: Final = 1006  # RFC 6455 §7.1.5: there was no close frame


Key = str | Callable[[], str | Awaitable[str]]
"""A key, or a function that returns a token: asked before each connection, and when the token ends soon."""


class Owner(Protocol):
    """Whoever a link is for."""

    async def opened(self) -> None:
        """Go on: the link is open."""

    async def received(self, id: Any, data: dict[str, Any]) -> None:
        """Take a message."""

    def broke(self) -> None:
        """Send nothing: the link that was open is gone."""

    def waits(self, trouble: ProxyError) -> None:
        """Know why there is no link; another try follows."""

    def stopped(self, error: ProxyError) -> None:
        """End: the link will not be made again."""


class Link:
    """A connection for as long as it is wanted.

    Attributes:
        error: why there is no connection any more; None while there may be one again.
        was_closed: by `close`, not by the gateway.
        trouble: why there was none at the last try.
    """

    def __init__(
        self,
        owner: Owner,
        url: str,
        key: Key | None,
        ca: str | None,
        path: str,
        query: Callable[[], dict[str, str]],
    ) -> None:
        """Prepare a link.

        Args:
            owner: gets what comes.
            url: of the gateway, as `ws://127.0.0.1:8080`.
            key: shown to it, or a function that returns one; None for a gateway without keys.
            ca: path of the certificates to trust in place of the system's, where the URL begins with `wss`.
            path: on the gateway.
            query: returns the options of the next connection.
        """
        self.error: ProxyError | None = None
        self.was_closed = False
        self.trouble: ProxyError = UnreachableError("The gateway has not been asked yet")
        self._owner = owner
        self._url = f"ws{url.rstrip('/')[4:]}" if url.startswith("http") else url.rstrip("/")
        self._tls: ssl.SSLContext | bool | None = True if self._url.startswith("wss:") else None
        if self._tls and ca is not None:
            self._tls = ssl.create_default_context(cafile=ca)
            self._tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the gateway's own certificate may be named
        self._key = key
        self._was_wrong = False  # the last key that a function has returned
        self._renewing: asyncio.Task[None] | None = None
        self._path = path
        self._query = query
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent now."""
        return self._socket is not None

    def start(self) -> None:
        """Connect, and again whenever the connection breaks, until `close`; a second call does nothing."""
        if self._task is None and self.error is None:
            self._task = asyncio.create_task(self._run(), name=f"link {self._path}")

    async def send(self, message: str) -> None:
        """Send a message, if the connection is there; whether it has arrived only an answer tells."""
        if self._socket is not None and not self._socket.transport.is_closing():
            with suppress(ConnectionClosed):  # the reader sees it, too, and tells the owner
                await self._socket.send(message)

    def restart(self) -> None:
        """Let the connection break: what is under way is asked for again on the next one."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def wait(self) -> None:
        """Wait until there will be no connection any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """Close the connection for good, and wait until it is closed."""
        self.was_closed = self.was_closed or self.error is None
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        self._stop(ClosedError("This client was closed"))

    def _stop(self, error: ProxyError) -> None:
        if self.error is None:
            self.error = error
            self._owner.stopped(error)

    async def _run(self) -> None:
        tries = 0
        while True:
            self._opened_at = None
            try:
                trouble, code, least = await self._connect()
            except Exception as error:  # a bug here, or no gateway there: no task may die unheard
                log.exception("%s: the connection is given up", self._path)
                self._stop(ProxyError(f"The connection is given up: {error!r}", "INTERNAL"))
                return
            self.trouble = trouble
            # A token may have expired on its way: once the next one is tried.
            is_wrong = code == _WRONG_KEY and callable(self._key)
            if (code in _STATUSES_TO_STOP or code in _CODES_TO_STOP) and (not is_wrong or self._was_wrong):
                self._stop(trouble)
                return
            self._was_wrong = is_wrong
            if self._opened_at is not None and asyncio.get_running_loop().time() - self._opened_at >= SETTLED:
                tries = 0
            pause = max(least, 0.0 if code in _CODES_AT_ONCE and not tries else pause_before(tries))
            tries += 1
            log.info("%s: %s; connecting again in %.1f s", self._path, trouble, pause)
            self._owner.waits(trouble)
            await asyncio.sleep(pause)

    async def _connect(self) -> tuple[ProxyError, int, float]:
        """Be connected until that ends; return why it did, with the status or close code, and the least pause in s."""
        try:
            key = await self._show()
        except Exception as error:  # of the user's function, whatever it does
            return UnreachableError(f"There is no key: {error or type(error).__name__}"), 0, 0.0
        query = urlencode(self._query())
        url = f"{self._url}{self._path}{'?' if query else ''}{query}"
        try:
            socket = await connect(
                url,
                additional_headers={} if key is None else {"Authorization": f"Bearer {key}"},
                open_timeout=OPEN_TIMEOUT,
                close_timeout=CLOSE_TIMEOUT,
                ssl=self._tls,
                compression=None,
                max_size=None,
            )
        except InvalidStatus as refusal:
            response = refusal.response
            return _told(response), response.status_code, _retry_after(response)
        except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
            return UnreachableError(f"No connection to {self._url}: {error or type(error).__name__}"), 0, 0.0
        try:
            await self._read(socket)
        finally:
            self._socket = None
            if self._renewing is not None:
                self._renewing.cancel()
            await socket.close()
            self._owner.broke()
        code, reason = socket.close_code or _BROKEN, socket.close_reason or "the connection broke"
        kind = ClosedError if code in _CODES_TO_STOP else UnreachableError
        return kind(f"The connection was closed with {code}: {reason}"), code, 0.0

    async def _read(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._opened_at = asyncio.get_running_loop().time()
        try:
            await self._owner.opened()
            while True:
                message = json.loads(await socket.recv())
                if message["id"] is None and message["data"].get("type") == "expires":
                    self._renewing = asyncio.create_task(self._renew(), name=f"token {self._path}")
                else:
                    await self._owner.received(message["id"], message["data"])
        except ConnectionClosed:
            pass  # the caller looks at the code

    async def _show(self) -> str | None:
        """Return the key to show; a plain function runs in a thread, since it may ask somebody, too."""
        if self._key is None or isinstance(self._key, str):
            return self._key
        async with asyncio.timeout(OPEN_TIMEOUT):
            key = self._key() if inspect.iscoroutinefunction(self._key) else await asyncio.to_thread(self._key)
            return key if isinstance(key, str) else await key

    async def _renew(self) -> None:
        """Hand in a fresh token before the present one ends; without one the connection is closed then."""
        if not callable(self._key):
            return
        try:
            token = await self._show()
        except Exception as error:  # of the user's function, whatever it does
            log.warning("%s: there is no fresh token: %s", self._path, error or type(error).__name__)
        else:
            await self.send(json.dumps({"id": "renew", "data": {"fn": "renew", "args": [token]}}))


def pause_before(tries: int) -> float:
    """Return the seconds to wait after so many tries before this one that have failed."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries, 16)) * random.uniform(0.5, 1)


def _told(response: Response) -> ProxyError:
    """Return the error that a refused handshake tells, in the gateway's own words."""
    body = bytes(response.body or b"")
    try:
        told = json.loads(body)["err"]
        return CLASSES.get(told["code"], ProxyError)(told["message"], told["code"])
    except (ValueError, KeyError, TypeError):  # somebody else between us and the gateway
        phrase = HTTPStatus(response.status_code).phrase if response.status_code in _PHRASES else ""
        text = body[:200].decode(errors="replace")
        return UnreachableError(f"The handshake was refused with {response.status_code} {phrase}: {text}")


_PHRASES: Final = frozenset(map(int, HTTPStatus))


def _retry_after(response: Response) -> float:
    text = response.headers.get("Retry-After", "0")
    return min(float(text), LONGEST_PAUSE) if text.isdecimal() else 0.0


def queue_path(name: str, rest: str = "") -> str:
    """Return the path of a queue."""
    return f"/queue/{quote(name, safe='')}{rest}"
