"""Keys with permissions: the text of a keys file in, checked keys out, and the way they take to the shards.

A file holds digests instead of secrets. A plain SHA-256 is right for them, and a slow password hash would be of no
use: a secret is 256 random bits, which nobody can try out, whereas people choose passwords that can be guessed.
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import ipaddress
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bullmq_proxy.gateway.access.grants import Grant, Permission
from bullmq_proxy.gateway.access.private import exposure
from bullmq_proxy.gateway.shared_memory import COLUMNS
from bullmq_proxy.gateway.value_types import parse_address

FIELDS: Final = ("hash", "queues", "permissions", "expires", "messages_per_second", "connections", "addresses")
PERMISSIONS: Final = tuple(permission.value for permission in Permission)
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
NAME_RULE: Final = "a name has 1 to 64 letters, digits, - and _"

_HASH: Final = re.compile(r"sha256:([0-9A-Fa-f]{64})", re.ASCII)
_MOST: Final = 1_000_000  # calls per second, and connections
SECRETS: Final = 4
"""Secrets that one key may have at a time."""
_NETWORKS: Final = 100  # of one key


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class KeysError(Exception):
    """A keys file cannot be used; one line that says where and what to do. Never holds secrets or hashes."""


class Key(NamedTuple):
    """One key of the file.

    Attributes:
        name: for people: in the file, in logs, in messages.
        digests: SHA-256 of each of its secrets.
        grant: what it may do.
        expires: Unix time in seconds.
        messages_per_second: calls of all its connections.
        connections: how many may be open at a time.
        addresses: networks that its clients may come from; none for any.
        column: of the board, where they are counted.
    """

    name: str
    digests: tuple[bytes, ...]
    grant: Grant
    expires: float | None = None
    messages_per_second: float | None = None
    connections: int | None = None
    addresses: tuple[Network, ...] = ()
    column: int = 0

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.grant})"

    def admits(self, address: str) -> bool:
        """Return whether a client at an address may use the key; it is empty on a Unix socket."""
        if not self.addresses:
            return True
        client = parse_address(address)
        return client is not None and any(client in network for network in self.addresses)

    def to_json(self) -> dict[str, Any]:
        """Return the key as JSON, for a shard."""
        return {
            "name": self.name,
            "digests": [digest.hex() for digest in self.digests],
            "permissions": sorted(self.grant.permissions),
            "queues": self.grant.queues,
            "expires": self.expires,
            "messages_per_second": self.messages_per_second,
            "connections": self.connections,
            "addresses": list(map(str, self.addresses)),
            "column": self.column,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Key:
        """Return what `to_json` wrote."""
        rest = {name: values[name] for name in ("name", "expires", "messages_per_second", "connections", "column")}
        grant = Grant(values["name"], frozenset(map(Permission, values["permissions"])), tuple(values["queues"]))
        digests = tuple(map(bytes.fromhex, values["digests"]))
        addresses = tuple(map(ipaddress.ip_network, values["addresses"]))
        return cls(digests=digests, grant=grant, addresses=addresses, **rest)


def digest(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


_OF_NOTHING: Final = digest("")


class KeysFile:
    """The keys file of a running gateway. Each name keeps its column of the board for as long as the gateway runs.

    Attributes:
        path: of the file.
        keys: as they were read last.
        remarks: for the log, on what can be used and is not right.
    """

    def __init__(self, path: str, auth_keys: Iterable[str] = ()) -> None:
        """Make a reader of the file; `read` reads it. `auth_keys` are the keys that may do everything."""
        self.path = path
        self.keys: tuple[Key, ...] = ()
        self.remarks: tuple[str, ...] = ()
        self._unlimited = {digest(key) for key in auth_keys}
        self._columns: dict[str, int] = {}

    def read(self) -> None:
        """Read the file, again or for the first time.

        Raises:
            KeysError: it cannot be used; what was read before stays in force.
        """
        keys = parse(_load(self.path), self.path)
        for key in keys:
            if not self._unlimited.isdisjoint(key.digests):
                raise _bad(
                    self.path, key.name, "hash", "is that of one of auth_keys, which may do everything: make another"
                )
        columns = self._columns | {
            name: column
            for column, name in enumerate(
                (key.name for key in keys if key.name not in self._columns), len(self._columns)
            )
        }
        if len(columns) > COLUMNS:
            raise KeysError(
                f"{self.path}: more than {COLUMNS} names of keys since the gateway started: use fewer, or restart it"
            )
        now = time.time()
        expired = (key.name for key in keys if key.expires is not None and key.expires <= now)
        self._columns, self.remarks = columns, tuple(f"{self.path}: key {name} has expired" for name in expired)
        self.keys = tuple(key._replace(column=columns[key.name]) for key in keys)


def read_file(path: str | os.PathLike[str]) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a file, and what `fstat` says of it.

    Raises:
        KeysError: it is no regular file, such as a pipe, on which reading would wait for ever, and not a second time.
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise KeysError(f"{os.fspath(path)} is no regular file")
        with open(fd, "rb", closefd=False) as file:
            return file.read(), found
    finally:
        os.close(fd)


def _load(path: str) -> str:
    """Return the file's text; it is refused when other users can get at it."""
    try:
        content, found = read_file(path)
        if exposed := exposure(found, path):
            raise KeysError(exposed)
        return content.decode()
    except OSError as error:
        raise KeysError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path} is not UTF-8 text") from None


def parse(text: str, path: str) -> tuple[Key, ...]:
    """Return the keys of a file.

    Args:
        text: TOML.
        path: for messages.

    Raises:
        KeysError: naming file, key and field.
    """
    import tomllib  # noqa: PLC0415 - shards get the keys as JSON

    try:
        whole = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: endless numbers and brackets
        raise KeysError(f"{path} is not valid TOML: {error}") from None
    for name in whole:
        if name != "keys":
            raise KeysError(f"{path}: unknown field {name[:64]!r}: the file has tables [keys.NAME] and nothing else")
    tables = whole.get("keys", {})
    if not isinstance(tables, dict):
        raise KeysError(f"{path}: keys: expected tables [keys.NAME]")
    keys = [_key(name, table, path) for name, table in tables.items()]
    if len(keys) > COLUMNS:
        raise KeysError(f"{path} has {len(keys)} keys, {COLUMNS} are the most")
    owners: dict[bytes, str] = {}
    for key in keys:
        for known in key.digests:
            other = owners.setdefault(known, key.name)
            if other != key.name:
                raise _bad(
                    path, key.name, "hash", f"is the same as that of key {other}: each key needs a secret of its own"
                )
    return tuple(keys)


def _key(name: str, table: object, path: str) -> Key:
    if not NAME.fullmatch(name):
        raise KeysError(f"{path}: key {name[:64]!r}: {NAME_RULE}")
    if not isinstance(table, dict):
        raise KeysError(f"{path}: key {name}: expected a table [keys.{name}] with the fields {', '.join(FIELDS)}")
    for given in table:
        if given not in FIELDS:
            near = difflib.get_close_matches(given, FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIELDS)}"
            raise KeysError(f"{path}: key {name}: unknown field {given[:64]!r}; {hint}")
    try:
        return read_key(name, table, _digests(table), _expires(table), _addresses(table))
    except InvalidFieldError as invalid:
        raise _bad(path, name, invalid.field, invalid.problem) from None


def read_key(
    name: str,
    fields: Mapping[str, Any],
    digests: tuple[bytes, ...],
    expires: float | None,
    addresses: tuple[Network, ...] = (),
) -> Key:
    """Return a key with the rights and limits that its fields say; so are the claims of a token read.

    Raises:
        InvalidFieldError: one cannot be used.
    """
    return Key(
        name=name,
        digests=digests,
        grant=Grant(name, frozenset(_permissions(fields)), tuple(_queues(fields))),
        expires=expires,
        messages_per_second=_rate(fields),
        connections=_connections(fields),
        addresses=addresses,
    )


def _bad(path: str, name: str, field: str, problem: str) -> KeysError:
    return KeysError(f"{path}: key {name}: {field}: {problem}")


class InvalidFieldError(Exception):
    """A field of a key, or a claim of a token, cannot be used: which one, and what would be right."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem


def _digests(table: dict[str, Any]) -> tuple[bytes, ...]:
    given = table.get("hash")
    hashes = given if isinstance(given, list) else [given]
    if not 1 <= len(hashes) <= SECRETS:
        raise InvalidFieldError("hash", f"expected one hash, or a list of up to {SECRETS}")
    found = tuple(map(_digest, hashes))
    if len(set(found)) < len(found):
        raise InvalidFieldError("hash", "lists the same hash twice")
    return found


def _digest(given: object) -> bytes:
    match = _HASH.fullmatch(given) if isinstance(given, str) else None
    if match is None:
        what = "is missing" if given is None else "cannot be used"
        raise InvalidFieldError(
            "hash", f'{what}: expected "sha256:" and the 64 hexadecimal digits of the secret\'s SHA-256, not the secret'
        )
    found = bytes.fromhex(match[1])
    if found == _OF_NOTHING:
        raise InvalidFieldError("hash", "is that of an empty secret: make one with `bullmq-proxy key create`")
    return found


def _addresses(table: dict[str, Any]) -> tuple[Network, ...]:
    words = _words(table, "addresses", 'a list of addresses and networks, such as ["10.0.0.0/8", "2001:db8::1"]')
    if "addresses" in table and not 1 <= len(words) <= _NETWORKS:
        raise InvalidFieldError("addresses", f"expected 1 to {_NETWORKS} of them; leave it out to admit any")
    try:
        return tuple(map(ipaddress.ip_network, words))
    except ValueError as error:
        raise InvalidFieldError("addresses", str(error)) from None


def _queues(table: Mapping[str, Any]) -> Sequence[str]:
    queues: list[str] = _words(table, "queues", 'a list of names, such as ["mails-*"], where * stands for any text')
    for pattern in queues:
        if not pattern or ":" in pattern:
            raise InvalidFieldError(
                "queues", f"{pattern[:100]!r} fits no queue: names are not empty, and have no prefix and no :"
            )
    return queues


def _permissions(table: Mapping[str, Any]) -> Iterable[Permission]:
    words = _words(table, "permissions", f"a list of {', '.join(PERMISSIONS)}")
    for word in words:
        if word not in PERMISSIONS:
            near = difflib.get_close_matches(word, PERMISSIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(PERMISSIONS)}"
            raise InvalidFieldError("permissions", f"unknown permission {word[:64]!r}; {hint}")
    return map(Permission, words)


def _words(table: Mapping[str, Any], field: str, wanted: str) -> list[str]:
    given = table.get(field, [])
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise InvalidFieldError(field, f"expected {wanted}")
    return given


def _expires(table: dict[str, Any]) -> float | None:
    given = table.get("expires")
    if given is None:
        return None
    if not isinstance(given, datetime.date):  # a datetime is a date, too
        raise InvalidFieldError("expires", "expected a date-time without quotes, such as 2027-01-01T00:00:00Z")
    try:
        return timestamp(given)
    except ValueError as error:
        raise InvalidFieldError("expires", str(error)) from None


def timestamp(moment: datetime.date) -> float:
    """Unix time of a date-time, in UTC unless it says otherwise, or of the begin of a date.

    Raises:
        ValueError: it is before the year 1 or after the year 9999 in UTC.
    """
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return moment.astimezone(datetime.UTC).timestamp()
    except (OverflowError, ValueError):
        raise ValueError(f"{moment.isoformat()} is not within the years 1 to 9999 in UTC") from None


def _rate(table: Mapping[str, Any]) -> float | None:
    given = table.get("messages_per_second")
    if given is None:
        return None
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not 0 < given <= _MOST:
        raise InvalidFieldError(
            "messages_per_second", f"expected a number above 0 and up to {_MOST}; leave it out for no limit"
        )
    return float(given)


def _connections(table: Mapping[str, Any]) -> int | None:
    given = table.get("connections")
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= _MOST:
        raise InvalidFieldError("connections", f"expected a whole number from 1 to {_MOST}; leave it out for no limit")
    return given
