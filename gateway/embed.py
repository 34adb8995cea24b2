"""The gateway inside somebody else's program: one shard in their event loop."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from bullmq_proxy.gateway.access import certificates
from bullmq_proxy.gateway.access.certificates import Certificate, CertificateError
from bullmq_proxy.gateway.access.keys_file import KeysError, KeysFile
from bullmq_proxy.gateway.app import App
from bullmq_proxy.gateway.broker.consuming.tokens import Identity, new_run
from bullmq_proxy.gateway.broker.redis.address import Address, Target
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.wire.closing import CloseCode

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)


class Proxy:
    """A gateway in the running event loop; an asynchronous context manager.

    Attributes:
        port: that it listens on, once it has started.
    """

    def __init__(
        self,
        settings: Settings,
        where: Address | Target,
        keys_file: KeysFile | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """Make a proxy; entering the context starts it. The files have been read."""
        self._settings = settings
        self._where = where
        self._keys_file = keys_file
        self._certificate = certificate
        self._app: App | None = None
        self.port = settings.port

    @property
    def url(self) -> str:
        """`ws://host:port`, or `wss://…`, to which paths such as `/queue/NAME` are added."""
        host, scheme = self._settings.host, "ws" if self._certificate is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def start(self) -> Proxy:
        """Connect to Redis and accept clients.

        Raises:
            GatewayError: Redis is not reachable within `redis_start_timeout`, or refuses the login.
            OSError: the port is taken.
        """
        identity = Identity(new_run())
        keys = self._keys_file.keys if self._keys_file else ()
        app = App(self._settings, self._where, identity, keys, certificate=self._certificate)
        await app.start((self._settings.host, self._settings.port), redis_timeout=self._settings.redis_start_timeout)
        for remark in app.broker.remarks:
            log.warning("%s", remark)
        self._app = app
        self.port = app.listener.port
        return self

    def reload_keys(self) -> None:
        """Read the keys file again, and the keys of tokens; connections that they do not allow any more are closed.

        Raises:
            ValueError: there is neither, or one cannot be used; then its old keys stay in force.
        """
        if self._keys_file is None and self._settings.token_keys is None:
            raise ValueError("there is no keys_file to read again")
        if self._keys_file is not None:
            _read(self._keys_file)
        if self._app is not None:
            self._app.replace_keys(self._keys_file.keys if self._keys_file is not None else ())

    def reload_certificate(self) -> None:
        """Read the certificate again, for the next handshakes; open connections stay.

        Raises:
            ValueError: there is none, or it cannot be used; then the old one stays in force.
        """
        if self._certificate is None:
            raise ValueError("there is no tls_cert to read again")
        self._certificate = certificate = _read_certificate(self._settings)
        if self._app is not None and certificate is not None:
            self._app.use_certificate(certificate)

    async def stop(self) -> None:
        """Drain: let clients answer what they hold for up to `drain_timeout`, give the rest back, close."""
        app, self._app = self._app, None
        if app is not None:
            await app.drain(self._settings.drain_timeout, CloseCode.GOING_AWAY)

    async def __aenter__(self) -> Proxy:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


def start_proxy(connection: str | Redis, auth_keys: str | Iterable[str] = (), **settings: Any) -> Proxy:
    """Return a gateway for `async with`, or to be started and stopped by hand.

    Args:
        connection: a URL, as for `redis_url`, or a `redis.asyncio.Redis` whose server and login are used; the client
            itself is left alone and stays yours.
        auth_keys: a key, or several, that clients come in with and that may do everything. None at all needs
            `keys_file` with a key in it, `token_keys`, or `no_auth=True`.
        settings: any field of `bullmq_proxy.gateway.settings.Settings`, such as `host`, `prefix` or `port`, of which 0
            picks a free one.

    Raises:
        ValueError: neither keys nor `no_auth`, or a setting that cannot be used.
    """
    for name, instead in _NOT_HERE.items():
        if name in settings:
            raise ValueError(f"start_proxy takes no {name}: {instead}")
    keys = (auth_keys,) if isinstance(auth_keys, str) else tuple(auth_keys)
    if not keys and not any(map(settings.get, ("no_auth", "keys_file", "token_keys"))):
        raise ValueError("start_proxy needs auth_keys, keys_file or token_keys; no_auth=True lets everybody in")
    checked = Settings(auth_keys=keys, procs=1, **settings)
    if isinstance(connection, str):
        where: Address | Target = Target.from_url(connection, checked.redis_password_file)
    else:
        where = Address.from_client(connection)
    keys_file = None
    if checked.keys_file is not None:
        keys_file = KeysFile(checked.keys_file, keys)
        _read(keys_file)
        if not keys_file.keys and not keys and checked.token_keys is None:
            raise ValueError(f"{checked.keys_file} holds no key, and there are no auth_keys: nobody could connect")
    return Proxy(checked, where, keys_file, _read_certificate(checked))


_NOT_HERE: Final = {
    "procs": "it serves in this event loop alone",
    "redis_url": "give it as the first argument",
    "auth_keys_file": "read it and give the keys as the second argument, or give a keys_file",
}


def _read_certificate(settings: Settings) -> Certificate | None:
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    try:
        certificate, remarks = certificates.read(cert, key, client_ca, settings.tls_client_cert)
    except CertificateError as error:
        raise ValueError(str(error)) from None
    for remark in remarks:
        log.warning("%s", remark)
    return certificate


def _read(keys_file: KeysFile) -> None:
    try:
        keys_file.read()
    except KeysError as error:
        raise ValueError(str(error)) from None
    for remark in keys_file.remarks:
        log.warning("%s", remark)
