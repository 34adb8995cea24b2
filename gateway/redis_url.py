"""The URL of Redis as text: one server, the sentinels of one, or a cluster. Nothing here connects.

The settings are checked by it before anything starts, and `broker/redis/address.py` makes addresses from it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

WANTED: Final = (
    "a URL such as redis://host:6379/0, rediss://user:password@host, unix:///path/to/socket,"
    " redis+sentinel://h1,h2:26379/NAME/0 or redis+cluster://h1,h2:6379, in which `/`, `#`, `?`, `@` and `:` of the"
    " password are percent-encoded"
)
MOST_HOSTS: Final = 100
_MOST: Final = 4096  # characters


class Kind(Enum):
    """How many servers a URL stands for, and who says which of them takes writes."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


# Kind, TLS, and the port where none is given; 0 for a unix socket.
_SCHEMES: Final = {
    "redis": (Kind.SINGLE, False, 6379),
    "rediss": (Kind.SINGLE, True, 6379),
    "unix": (Kind.SINGLE, False, 0),
    "redis+unix": (Kind.SINGLE, False, 0),
    "redis+sentinel": (Kind.SENTINEL, False, 26379),
    "rediss+sentinel": (Kind.SENTINEL, True, 26379),
    "redis+cluster": (Kind.CLUSTER, False, 6379),
    "rediss+cluster": (Kind.CLUSTER, True, 6379),
}
_LOGIN: Final = ("username", "password")
_TLS: Final = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_server_name",
)
_OF_KIND: Final = {
    Kind.SINGLE: ("db", *_LOGIN),
    Kind.SENTINEL: ("db", *_LOGIN, "sentinel_username", "sentinel_password"),
    Kind.CLUSTER: _LOGIN,
}
_DATABASE: Final = re.compile(r"\d{1,9}", re.ASCII)


class RedisUrl(NamedTuple):
    """What a URL says. `repr` never holds a password.

    Attributes:
        kind: of what it stands for.
        tls: whether the connections are encrypted.
        hosts: with their ports: the server, or where to ask for it.
        path: of a unix socket; there are no hosts then.
        name: of the master that the sentinels watch.
        db: the number of the database.
        username: of an ACL user.
        password: of that user, or of the default one.
        parameters: those of TLS, and the login at sentinels.
    """

    kind: Kind = Kind.SINGLE
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    name: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    parameters: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"RedisUrl({self.kind}, {self.hosts or self.path})"


def parse(url: str) -> RedisUrl:
    """Read a URL; `valkey` may stand for `redis` in its scheme.

    Raises:
        ValueError: it cannot be used; the text completes "expected …", and repeats no value.
    """
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower().replace("valkeys", "rediss").replace("valkey", "redis")
    if scheme not in _SCHEMES or not rest.startswith("//") or len(url) > _MOST or not url.isprintable() or " " in url:
        raise ValueError(WANTED)
    kind, tls, port = _SCHEMES[scheme]
    try:
        parts = urlsplit(f"redis:{rest}")
        login, _, places = parts.netloc.rpartition("@")
        hosts = tuple(_host(place, port) for place in places.split(",")) if places else ()
    except ValueError:  # whose text may repeat a part of the password, such as what follows a `/` in it
        raise ValueError(WANTED) from None
    if parts.fragment or "@" in parts.path or (kind is Kind.SINGLE and len(hosts) > 1) or len(hosts) > MOST_HOSTS:
        raise ValueError(WANTED)
    parameters = _parameters(parts.query, kind, tls=tls)
    username, _, password = login.partition(":")
    name, path, db = _path(kind, unquote(parts.path), is_socket=not port)
    if path is not None and hosts:
        raise ValueError(WANTED)
    if not hosts and kind is not Kind.SINGLE:
        raise ValueError(f"a host, as in redis+{kind.value}://h1,h2")
    return RedisUrl(
        kind=kind,
        tls=tls,
        hosts=hosts,
        path=path,
        name=name,
        db=_database(parameters.pop("db", "") or db),
        username=parameters.pop("username", "") or unquote(username) or None,
        password=parameters.pop("password", "") or unquote(password) or None,
        parameters=parameters,
    )


def _host(place: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")  # knows IPv6
    if not parts.hostname or parts.port == 0 or not default:
        raise ValueError
    return parts.hostname, parts.port or default


def _path(kind: Kind, text: str, *, is_socket: bool) -> tuple[str, str | None, str]:
    """Return the sentinels' name for the master, the path of a socket, and the database, as a path says them."""
    if is_socket:
        if text in ("", "/"):
            raise ValueError("the path of a socket, as in unix:///run/redis.sock")
        return "", text, ""
    if kind is Kind.SENTINEL:
        name, _, db = text.strip("/").partition("/")
        if not name:
            raise ValueError("the name of the master behind the hosts, as in redis+sentinel://h1,h2/mymaster")
        return name, None, db
    if kind is Kind.CLUSTER and text.strip("/") not in ("", "0"):
        raise ValueError("no database: a cluster has only one")
    return "", None, text.strip("/")


def _database(text: str) -> int:
    if text and not _DATABASE.fullmatch(text):
        raise ValueError(f"the number of a database where the path ends; {WANTED}")
    return int(text or 0)


def _parameters(query: str, kind: Kind, *, tls: bool) -> dict[str, str]:
    known = (*_OF_KIND[kind], *(_TLS if tls else ()))
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name in found:
        if name in _TLS and not tls:
            raise ValueError(f"a scheme with TLS, such as rediss://, for the parameter {name}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"only parameters of {', '.join(known)}: {name[:40]!r} is not known{hint}")
    return found
