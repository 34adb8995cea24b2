"""Where Redis is and how to get in: from a URL or from somebody's own client to one frozen address."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio.connection import parse_url

if TYPE_CHECKING:
    from redis.asyncio import Redis

_WANTED: Final = (
    "expected a URL such as redis://host:6379/0 or rediss://user:password@host, in which `/`, `#`, `?`, `@` and `:` of"
    " the password are percent-encoded"
)
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss", "valkey+unix": "unix", "redis+unix": "unix"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One Redis or Valkey server. `repr` and `shown` never hold the password."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None  # of a unix socket; host and port do not count then
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The address for people and logs."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"

    @classmethod
    def from_url(cls, url: str) -> Address:
        """Read `redis://`, `rediss://`, `unix://` and their `valkey` spellings, options as redis-py has them.

        Raises:
            ValueError: no URL of these schemes; the text repeats nothing of it.
        """
        try:
            parts = urlsplit(url)
            known = parts._replace(scheme=_SCHEMES.get(parts.scheme, parts.scheme))
            options = dict(parse_url(urlunsplit(known) if parts.netloc else _plain(url, known.scheme)))
        except ValueError:  # whose text may repeat a part of the password, such as what follows a `/` in it
            raise ValueError(_WANTED) from None
        return cls.from_options(options)

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
        )


def _plain(url: str, scheme: str) -> str:
    """Return a URL without an authority, as `unix:///path`, of which urlunsplit would drop slashes."""
    return f"{scheme}:{url.partition(':')[2]}"


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(
        cafile=options.get("ssl_ca_certs"),
        capath=options.get("ssl_ca_path"),
        cadata=options.get("ssl_ca_data"),
    )
    required = options.get("ssl_cert_reqs", "required")
    if required in ("none", ssl.CERT_NONE):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif str(options.get("ssl_check_hostname", True)).lower() in ("false", "0", "no"):
        context.check_hostname = False
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    return context
