"""Where settings come from: flags, environment and a file in, `Settings` and the place of each value out.

Flag beats environment beats file beats default. `load` touches the disk, and `resolve` only to see
whether systemd has put a password there.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from bullmq_proxy.gateway.access.private import exposure
from bullmq_proxy.gateway.settings import ENVIRONMENT_PREFIX, Option, SettingError, Settings, options
from bullmq_proxy.gateway.value_types import InvalidValueError, ValueType, boolean, host, whole

CONFIG_VARIABLE = "BULLMQ_PROXY_CONFIG"
_OF_SERVICE = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)")
REDIS_PARTS = ("REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_TLS")


class UsageError(Exception):
    """What the user gave cannot be used; one line that says what and where. Exit code 2."""


class Level(IntEnum):
    """Who wins: the greater."""

    DEFAULT, FILE, ENVIRONMENT, FLAG = range(4)


class Place(NamedTuple):
    """Where a value was found, in words for the user."""

    level: Level
    words: str


DEFAULT = Place(Level.DEFAULT, "default")


class ConfigFile(NamedTuple):
    """A parsed configuration file.

    Attributes:
        path: of the file.
        values: by the names of the options.
        exposed: how other users can get at it; None when they cannot.
    """

    path: str
    values: Mapping[str, Any]
    exposed: str | None = None


class Resolution(NamedTuple):
    """The settings in force, and where each of them comes from."""

    settings: Settings
    places: Mapping[str, Place]
    remarks: tuple[str, ...] = ()
    """For the log: on what was given but is not in force, and on secrets that others can read."""


class _Found(NamedTuple):
    value: Any
    place: Place


def load(path: str) -> ConfigFile:
    """Read and parse the configuration file."""
    import tomllib  # noqa: PLC0415 - few have such a file

    try:
        return ConfigFile(path, tomllib.loads(Path(path).read_text(encoding="utf-8")), exposure(os.stat(path), path))
    except OSError as error:
        raise UsageError(f"cannot read the configuration file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the configuration file {path} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: endless numbers and brackets
        raise UsageError(f"the configuration file {path} is not valid TOML: {error}") from None


def resolve(flags: Mapping[str, Any], environ: Mapping[str, str], file: ConfigFile | None) -> Resolution:
    """Choose each setting's value.

    Args:
        flags: by field name; None or absent where the flag was not given.
        environ: the process environment; empty variables count as not set.
        file: the configuration file, if any.

    Raises UsageError, which names the option and the place of the value.
    """
    _refuse_unknown_variables(environ)
    if file is not None:
        _refuse_unknown_keys(file)
    found: dict[str, _Found] = {}
    for option in options():
        candidate = _find(option, flags, environ, file)
        if candidate is not None:
            found[option.name] = _Found(_checked(option, candidate), candidate.place)
    remarks = [*_decide_no_auth(found), *_exposed_secrets(found, file)]
    if "data_dir" not in found:
        found["data_dir"] = _data_dir(environ)
    if "redis_password_file" not in found and (credential := _credential(environ)) is not None:
        found["redis_password_file"] = credential
    places = {option.name: DEFAULT for option in options()} | {name: hit.place for name, hit in found.items()}
    try:
        settings = Settings(**{name: hit.value for name, hit in found.items()})
    except SettingError as error:
        raise _bad(error, places[error.name]) from None
    return Resolution(settings, places, tuple(remarks))


def _exposed_secrets(found: Mapping[str, _Found], file: ConfigFile | None) -> list[str]:
    """Return a remark on secrets that stand in a file of which other users can read or write."""
    if file is None or file.exposed is None:
        return []
    secret = [option for option in options() if option.secret and option.name in file.values and option.name in found]
    values = [(option, found[option.name].value) for option in secret]
    names = [option.name for option, value in values if option.show(value) != option.value_type.show(value)]
    return [f"the configuration file holds {' and '.join(names)}, and {file.exposed}"] if names else []


def _bad(error: SettingError, place: Place) -> UsageError:
    return UsageError(f"{error.name}: {error.problem} ({place.words})")


def _checked(option: Option, found: _Found) -> Any:
    try:
        return option.check(found.value)
    except SettingError as error:
        raise _bad(error, found.place) from None


def _refuse_unknown_keys(file: ConfigFile) -> None:
    known = [option.name for option in options()]
    for key in file.values:
        if key not in known:
            hint = _nearest(key.replace("-", "_").lower(), known)
            raise UsageError(f"unknown key {key!r} in {file.path}{hint}")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = [CONFIG_VARIABLE, *(option.environment[0] for option in options())]
    for name, value in environ.items():
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known and not _is_from_kubernetes(name, value):
            raise UsageError(f"unknown environment variable {name}{_nearest(name, known)}")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _is_from_kubernetes(name: str, value: str) -> bool:
    """Return whether a variable is one that Kubernetes sets for a service named `bullmq-proxy…`."""
    return _is_service_link(value) or _OF_SERVICE.fullmatch(name) is not None


def _find(
    option: Option, flags: Mapping[str, Any], environ: Mapping[str, str], file: ConfigFile | None
) -> _Found | None:
    """Return the highest level that gives the option a value."""
    given = flags.get(option.name)
    if given is not None and given != ():
        return _Found(given, Place(Level.FLAG, f"flag {option.flag}"))
    from_environment = _from_environment(option, environ)
    if from_environment is not None:
        return from_environment
    if file is not None and option.name in file.values:
        return _Found(file.values[option.name], Place(Level.FILE, f"key {option.name} in {file.path}"))
    return None


def _from_environment(option: Option, environ: Mapping[str, str]) -> _Found | None:
    names = [name for name in option.environment if environ.get(name) and not _is_service_link(environ[name])]
    if not names:
        return _redis_url_from_parts(environ) if option.name == "redis_url" else None
    if option.shape == "repeat":
        together = ",".join(environ[name] for name in names)
        return _Found(together, _variables(names))
    return _Found(environ[names[0]], _variables(names[:1]))


def _variables(names: list[str]) -> Place:
    word = "environment variable" if len(names) == 1 else "environment variables"
    return Place(Level.ENVIRONMENT, f"{word} {', '.join(names)}")


def _is_service_link(value: str) -> bool:
    """Kubernetes gives every pod REDIS_PORT=tcp://10.0.0.1:6379 for a service named `redis`, and the like for
    one named `bullmq-proxy`. Nobody wrote that for us."""
    return value.startswith("tcp://")


def _redis_url_from_parts(environ: Mapping[str, str]) -> _Found | None:
    """REDIS_HOST and its sisters as one URL; a lone part speaks of a Redis on this machine."""
    parts = {name: environ[name] for name in REDIS_PARTS if environ.get(name)}
    if _is_service_link(parts.get("REDIS_PORT", "")):
        del parts["REDIS_PORT"]
    tls = _part(parts, "REDIS_TLS", boolean, False)
    if not parts.keys() - {"REDIS_TLS"} and not tls:
        return None
    name = _part(parts, "REDIS_HOST", host, "localhost")
    port = _part(parts, "REDIS_PORT", whole(1, 65535), 6379)
    username, password = parts.get("REDIS_USERNAME", ""), parts.get("REDIS_PASSWORD")
    credentials = quote(username, safe="")
    if password is not None:
        credentials += ":" + quote(password, safe="")
    place = f"{credentials}@" if credentials else ""
    place += f"[{name}]" if ":" in name else name
    return _Found(f"{'rediss' if tls else 'redis'}://{place}:{port}", _variables(list(parts)))


def _part(parts: Mapping[str, str], name: str, kind: ValueType, default: Any) -> Any:
    try:
        return kind(parts[name]) if name in parts else default
    except InvalidValueError as invalid:
        raise UsageError(f"redis_url: {invalid} (environment variable {name})") from None


def _decide_no_auth(found: dict[str, _Found]) -> list[str]:
    """Return the higher level wins between `no_auth` and keys; on one level they contradict each other."""
    no_auth = found.get("no_auth")
    if no_auth is None or not no_auth.value:
        return []
    remarks = []
    for name in ("auth_keys", "auth_keys_file", "keys_file", "token_keys"):
        keys = found.get(name)
        if keys is None or not keys.value:
            continue
        if keys.place.level == no_auth.place.level:
            raise UsageError(f"no_auth: contradicts {name} ({no_auth.place.words}; {keys.place.words})")
        loser = name if no_auth.place.level > keys.place.level else "no_auth"
        remarks.append(f"{loser} ({found[loser].place.words}) is overruled")
        del found[loser]
        if loser == "no_auth":
            return remarks
    return remarks


def _credential(environ: Mapping[str, str]) -> _Found | None:
    """Return the password that systemd's LoadCredential= has put there."""
    path = os.path.join(environ.get("CREDENTIALS_DIRECTORY", ""), "redis_password")
    return _Found(path, _variables(["CREDENTIALS_DIRECTORY"])) if os.path.isabs(path) and os.path.exists(path) else None


def _data_dir(environ: Mapping[str, str]) -> _Found:
    """systemd's StateDirectory=, else the place where a user's programs keep their data."""
    if environ.get("STATE_DIRECTORY"):
        return _Found(environ["STATE_DIRECTORY"].split(":")[0], _variables(["STATE_DIRECTORY"]))
    if os.path.isabs(environ.get("XDG_DATA_HOME", "")):  # the XDG specification: ignore relative ones
        return _Found(os.path.join(environ["XDG_DATA_HOME"], "bullmq-proxy"), _variables(["XDG_DATA_HOME"]))
    home = environ.get("HOME") or os.path.expanduser("~")
    return _Found(os.path.join(home, ".local", "share", "bullmq-proxy"), DEFAULT)
