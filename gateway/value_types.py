"""The kinds of value that a setting can have: text or a native value in, the checked value out.

A value_type takes both forms, because the same setting comes as text from a flag or the environment and as a native
value from TOML or Python. Nothing here knows a setting's name or where its value came from.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bullmq_proxy.gateway.redis_url import WANTED as WANTED_REDIS_URL
from bullmq_proxy.gateway.redis_url import parse as parse_redis_url


class InvalidValueError(ValueError):
    """A value is not of the value_type that was wanted; `wanted` completes the sentence "expected …"."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(f"expected {wanted}, got {value!r}")
        self.wanted = wanted
        self.value = value


class ValueType(NamedTuple):
    """How to read a value, and how to speak about it.

    `read` raises ValueError, TypeError or OverflowError for what it cannot use. `show` writes the value as it
    would stand in the configuration file.
    """

    wanted: str
    metavar: str
    read: Callable[[Any], Any]
    show: Callable[[Any], str]

    def __call__(self, value: object) -> Any:
        try:
            return self.read(value)
        except InvalidValueError:
            raise
        except (ValueError, TypeError, OverflowError):
            raise InvalidValueError(self.wanted, value) from None


def quoted(value: object) -> str:
    """Return a TOML basic string; settings hold no control characters that would need more escaping."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def text(wanted: str, metavar: str, *, pattern: str = r"\S.*", most: int = 4096) -> ValueType:
    """Return the type of a string that matches `pattern` as a whole and is at most `most` characters long."""
    shape = re.compile(pattern)

    def read(value: Any) -> str:
        if not isinstance(value, str) or len(value) > most or not shape.fullmatch(value):
            raise ValueError
        return value

    return ValueType(wanted, metavar, read, quoted)


def choice(*words: str) -> ValueType:
    """Return the type of one of a few words, in any case."""

    def read(value: Any) -> str:
        word: str = value.lower()
        if word not in words:
            raise ValueError
        return word

    return ValueType(f"one of {', '.join(words)}", "|".join(words), lambda v: read(str(v)), quoted)


def whole(least: int, most: int) -> ValueType:
    """Return the type of a whole number within bounds. `True` is none, although Python counts it among the integers."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise TypeError
        number = int(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return ValueType(f"a whole number from {least} to {most}", "NUMBER", read, str)


_SECONDS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.ASCII)


def duration(least: float, most: float, *, or_never: bool = False) -> ValueType:
    """Return the type of seconds as a float, from a number or from text such as `30`, `1.5`, `500ms` or `2m`.

    Args:
        least: a bound, in seconds.
        most: another.
        or_never: whether 0 is good, too, whatever the bounds are.
    """

    def read(value: Any) -> float:
        if isinstance(value, str):
            match = _DURATION.fullmatch(value.strip().lower())
            if match is None or match[2] not in _SECONDS:
                raise ValueError
            value = float(match[1]) * _SECONDS[match[2]]
        if isinstance(value, bool) or not (least <= value <= most or (or_never and value == 0)):
            raise ValueError
        return float(value)

    zero = "0 for never, or " if or_never else ""
    wanted = f"{zero}a time from {least:g} to {most:g} seconds, such as 30, 500ms or 2m"
    return ValueType(wanted, "SECONDS", read, lambda value: f"{value:g}")


_BYTES = {"": 0, "k": 10, "m": 20, "g": 30}
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(?:i?b)?", re.ASCII)


def _show_size(value: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if value and value % (1 << shift) == 0:
            return quoted(f"{value >> shift}{unit}")
    return str(value)


def size(least: int, most: int) -> ValueType:
    """Bytes as an int, from a number or from text such as `512k` or `1MiB`; units are powers of 1024."""

    def read(value: Any) -> int:
        if isinstance(value, str):
            match = _SIZE.fullmatch(value.strip().lower())
            if match is None:
                raise ValueError
            value = int(match[1]) << _BYTES[match[2]]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    bounds = f"{_show_size(least)} to {_show_size(most)}".replace('"', "")
    return ValueType(f"a size from {bounds}, such as 512k or 1MiB", "SIZE", read, _show_size)


_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _read_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[value.lower()]


boolean = ValueType("true or false (also 1/0, yes/no, on/off)", "BOOLEAN", _read_boolean, lambda v: str(v).lower())


def optional(value_type: ValueType) -> ValueType:
    """Return the type of a value, or None for "not set"."""
    return ValueType(
        value_type.wanted,
        value_type.metavar,
        lambda value: None if value is None else value_type(value),
        lambda value: "unset" if value is None else value_type.show(value),
    )


def many(value_type: ValueType) -> ValueType:
    """Return the type of a tuple without repetitions, from a list or from text with commas between the items."""

    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",") if item.strip()]
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(dict.fromkeys(value_type(item) for item in value))

    def show(value: tuple[Any, ...]) -> str:
        return "[" + ", ".join(map(value_type.show, value)) + "]"

    return ValueType(f"a list of {value_type.wanted}", value_type.metavar, read, show)


def tables(wanted: str, metavar: str) -> ValueType:
    """Return the type of tables by their names, from TOML or as a JSON object.

    The value is a tuple of JSON objects, each of one table under its name.
    """

    def read(value: Any) -> tuple[str, ...]:
        found = json.loads(value) if isinstance(value, str) else value
        if isinstance(found, list | tuple):  # read already
            return tuple(map(str, found))
        if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
            raise TypeError
        return tuple(json.dumps({name: table}) for name, table in found.items())

    return ValueType(wanted, metavar, read, lambda value: "[" + ", ".join(map(quoted, value)) + "]")


def _read_host(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\[?[0-9A-Za-z_.:%-]{1,253}\]?", value):
        raise ValueError
    host = value.removeprefix("[").removesuffix("]")
    if ":" in host:
        ipaddress.IPv6Address(host)
    return host


host = ValueType("a host name or an IP address", "HOST", _read_host, quoted)


def _read_place(value: Any) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        return _read_host(value)


def _read_proxy(value: Any) -> str:
    return value if value == "unix" else str(ipaddress.ip_network(value, strict=False))


proxy = ValueType("addresses, networks such as 10.0.0.0/8, or `unix`", "PLACE", _read_proxy, quoted)
place = ValueType("addresses, networks such as 10.0.0.0/8, or names of hosts", "PLACE", _read_place, quoted)


def is_loopback(name: str) -> bool:
    """Can only this machine reach the address? A name other than `localhost` is not trusted to say so."""
    if name.lower() == "localhost":
        return True
    address = parse_address(name)
    return address is not None and address.is_loopback


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a text is, or None: without the interface of IPv6, and IPv4 that is mapped as IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _read_redis_url(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    try:
        found = parse_redis_url(value)
    except ValueError as error:
        raise InvalidValueError(str(error), value) from None
    if not found.hosts and found.path is None:
        raise ValueError
    return value


redis_url = ValueType(WANTED_REDIS_URL, "URL", _read_redis_url, quoted)


def _read_token_keys(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\S.{0,4095}", value):
        raise ValueError
    if "://" in value:
        parts = urlsplit(value)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not is_safe or not parts.hostname or parts.username is not None or parts.port == 0 or " " in value:
            raise ValueError
    return value


token_keys = ValueType(
    "the path of a JSON Web Key Set or its https URL; http for a loopback address", "PATH|URL", _read_token_keys, quoted
)


def _read_origin(value: Any) -> str:
    parts = urlsplit(value.rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError
    if parts.path or parts.query or parts.fragment or parts.port == 0:
        raise ValueError
    return f"{parts.scheme}://{parts.netloc}".lower()


origin = ValueType(
    "an origin such as https://app.example.org (scheme, host and port only)", "ORIGIN", _read_origin, quoted
)
