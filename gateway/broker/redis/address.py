"""Where Redis is and how to get in: from a URL or from somebody's own client to frozen addresses."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from bullmq_proxy.gateway.broker.redis.errors import RedisRefused
from bullmq_proxy.gateway.redis_url import Kind, parse

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Address(Struct, frozen=True, kw_only=True):
    """One Redis or Valkey server. `repr` and `shown` never hold the password.

    Attributes:
        host: its name.
        port: its TCP port.
        path: of a unix socket; host and port do not count then.
        db: the number of the database.
        username: of an ACL user.
        password: of that user, or of the default one.
        password_file: holds the password instead; it is read for each connection, so that it may change.
        tls: how to encrypt.
        server_name: that the certificate must have, where it is not that of the host.
        certfile: holds the client's own certificate, which `tls` has read.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    password_file: str | None = None
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    certfile: str | None = None

    def __repr__(self) -> str:
        return f"Address({self.shown})"

    @property
    def shown(self) -> str:
        """The address for people and logs."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.db}"

    def read_password(self) -> str | None:
        """Return the password that counts now.

        Raises:
            RedisRefused: its file cannot be read.
        """
        if self.password_file is None:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise RedisRefused(f"The password file {self.password_file} cannot be read: {why}") from None

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Read the URL of a single server; see `Target.from_url`."""
        target = Target.from_url(url)
        if target.kind is not Kind.SINGLE:
            raise ValueError("expected the URL of a single server")
        return target.seeds[0]

    @classmethod
    def from_client(cls, client: Redis) -> Address:
        """Return the address that an existing client connects to."""
        pool = client.connection_pool
        options = dict(pool.connection_kwargs)
        options.setdefault("connection_class", pool.connection_class)
        return cls.from_options(options)

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Address:
        """Return the address in redis-py's connection options."""
        secure = "SSL" in getattr(options.get("connection_class"), "__name__", "")
        return cls(
            host=options.get("host") or "localhost",
            port=int(options.get("port") or 6379),
            path=options.get("path"),
            db=int(options.get("db") or 0),
            username=options.get("username"),
            password=options.get("password"),
            tls=_tls(options) if secure else None,
            certfile=options.get("ssl_certfile") if secure else None,
        )


class Target(Struct, frozen=True, kw_only=True):
    """What a URL stands for: a server, a master that sentinels know, or a cluster.

    Attributes:
        kind: which of these.
        seeds: the server; or the sentinels; or nodes of the cluster.
        master: of sentinels: how to get into the master; its host and port are theirs to say.
        name: of sentinels: what they call the master.
    """

    kind: Kind
    seeds: tuple[Address, ...]
    master: Address = Address()
    name: str = ""

    @property
    def shown(self) -> str:
        """The target for people and logs."""
        if self.kind is Kind.SINGLE:
            return self.seeds[0].shown
        places = ",".join(f"{seed.host}:{seed.port}" for seed in self.seeds)
        return f"redis+{self.kind.value}://{places}" + (f"/{self.name}/{self.master.db}" if self.name else "")

    @classmethod
    def of(cls, address: Address) -> Target:
        """Return a single server as a target."""
        return cls(kind=Kind.SINGLE, seeds=(address,))

    @classmethod
    def from_url(cls, url: str, password_file: str | None = None) -> Target:
        """Read a URL as `gateway/redis_url.py` knows them.

        Args:
            url: of Redis.
            password_file: holds the password, where the URL has none.

        Raises:
            ValueError: no URL of these schemes, or a file of TLS that cannot be used; the text repeats nothing secret.
        """
        try:
            found = parse(url)
        except ValueError as error:
            raise ValueError(f"expected {error}") from None
        parameters = found.parameters
        address = Address(
            path=found.path,
            db=found.db,
            username=found.username,
            password=found.password,
            password_file=password_file if found.password is None else None,
            tls=_tls(parameters) if found.tls else None,
            server_name=parameters.get("ssl_server_name"),
            certfile=parameters.get("ssl_certfile"),
        )
        seeds = tuple(replace(address, host=host, port=port) for host, port in found.hosts) or (address,)
        if found.kind is Kind.SENTINEL:
            username, password = parameters.get("sentinel_username"), parameters.get("sentinel_password")
            seeds = tuple(
                replace(seed, db=0, username=username, password=password, password_file=None) for seed in seeds
            )
        return cls(kind=found.kind, seeds=seeds, master=address, name=found.name)


@contextmanager
def _used(parameters: str) -> Iterator[None]:
    """Turn what is wrong with files into an error that names their parameters."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{parameters} cannot be used: {error.strerror or error}") from None


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    with _used("ssl_ca_certs, ssl_ca_path or ssl_ca_data"):
        context = ssl.create_default_context(
            cafile=options.get("ssl_ca_certs"),
            capath=options.get("ssl_ca_path"),
            cadata=options.get("ssl_ca_data"),
        )
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if certificate:
        with _used("ssl_certfile, ssl_keyfile or ssl_password"):
            # Without a password OpenSSL asks the terminal for that of a key that has one.
            context.load_cert_chain(certificate, key, options.get("ssl_password") or "")
    elif key:
        raise ValueError("ssl_keyfile needs ssl_certfile, the certificate of that key")
    required = options.get("ssl_cert_reqs", "required")
    if required in ("none", ssl.CERT_NONE):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif str(options.get("ssl_check_hostname", True)).lower() in ("false", "0", "no"):
        context.check_hostname = False
    return context
