"""The keys that let clients in, and the certificate that they meet: configured ones and files in, those in force out.

Without any key the answer depends on the address: a key for this run on loopback, a refusal elsewhere.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import replace

from bullmq_proxy.gateway.access import certificates
from bullmq_proxy.gateway.access.certificates import Certificate, CertificateError
from bullmq_proxy.gateway.access.keys_file import KeysError, KeysFile
from bullmq_proxy.gateway.access.private import exposure
from bullmq_proxy.gateway.access.token_keys import TokenKeysError, read_token_keys, require_library
from bullmq_proxy.gateway.settings import SettingError, Settings
from bullmq_proxy.gateway.value_types import is_loopback
from bullmq_proxy.supervisor.sources import Resolution, UsageError

# 192 bits: out of reach for guessing, and short enough to paste.
_KEY_BYTES = 24
_SHORTEST = 16
"""Characters of a key of `auth_keys` where others than this machine can try to guess it."""


def read_auth_keys(path: str) -> tuple[str, ...]:
    """Return the keys of an `auth_keys_file`: one per line, without blank lines and lines that begin with #."""
    try:
        with open(path, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and (exposed := exposure(found, path)):  # a pipe is somebody's own
                raise UsageError(f"auth_keys_file: {exposed}")
            lines = file.read().splitlines()
    except OSError as error:
        raise UsageError(f"auth_keys_file: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"auth_keys_file: {path} is not UTF-8 text") from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise UsageError(f"auth_keys_file: {path} holds no key")
    return tuple(keys)


def with_auth_keys_file(resolution: Resolution) -> Settings:
    """Return the settings with the keys of the `auth_keys_file` added to the others."""
    settings = resolution.settings
    if settings.auth_keys_file is None:
        return settings
    keys = settings.auth_keys + read_auth_keys(settings.auth_keys_file)
    try:
        return replace(settings, auth_keys=keys)
    except SettingError as error:
        raise UsageError(f"auth_keys_file: {error.problem} (in {settings.auth_keys_file})") from None


def open_keys_file(settings: Settings) -> KeysFile | None:
    """Return the file of keys with permissions, read; None where none is configured."""
    if settings.keys_file is None:
        return None
    file = KeysFile(settings.keys_file, settings.auth_keys)
    try:
        file.read()
    except KeysError as error:
        raise UsageError(f"keys_file: {error}") from None
    return file


def check_tokens(settings: Settings, *, whole: bool = False) -> None:
    """Refuse tokens that could not be verified.

    Args:
        settings: say whether there are any.
        whole: read the file of the keys that sign them, too, as each shard does.
    """
    if settings.token_keys is None:
        return
    try:
        require_library()
        if whole and "://" not in settings.token_keys:
            read_token_keys(settings.token_keys)
    except TokenKeysError as error:
        raise UsageError(f"token_keys: {error}") from None


def open_certificate(settings: Settings) -> tuple[Certificate | None, tuple[str, ...]]:
    """Return the certificate, read, and remarks on it for the log; None where there is no TLS."""
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    try:
        return certificates.read(cert, key, client_ca, settings.tls_client_cert)
    except CertificateError as error:
        raise UsageError(str(error)) from None


def require_keys(settings: Settings, file: KeysFile | None = None) -> tuple[Settings, str | None]:
    """Return the settings with a key, unless `no_auth` or `file` makes one needless; and the key that was made."""
    check_tokens(settings)
    if settings.no_auth:
        return settings, None
    if settings.auth_keys:
        if not is_loopback(settings.host) and min(map(len, settings.auth_keys)) < _SHORTEST:
            raise UsageError(
                f"refusing to listen on {settings.host} with a key of fewer than {_SHORTEST} characters among"
                " auth_keys, which can be guessed: make one with `openssl rand -hex 16`"
            )
        return settings, None
    if file is not None and file.keys:
        return settings, None
    if settings.token_keys is not None:
        return settings, None
    if file is not None:
        raise UsageError(
            f"keys_file: {file.path} holds no key, so nobody could connect: make one with"
            f" `bullmq-proxy key create NAME --keys-file {file.path}`, or set AUTH_KEYS"
        )
    if not is_loopback(settings.host):
        raise UsageError(
            f"refusing to listen on {settings.host} without keys: set AUTH_KEYS, --auth-key, --auth-keys-file or"
            " --keys-file (or --no-auth to let everybody in)"
        )
    key = secrets.token_urlsafe(_KEY_BYTES)
    return replace(settings, auth_keys=(key,)), key
