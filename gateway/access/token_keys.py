"""The keys that tokens are signed with: a JSON Web Key Set in, keys that can verify out (RFC 7517).

A key is for one algorithm, which its own type says, and never a token. PyJWT is imported when a set is read:
whoever lets no tokens in need not have it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bullmq_proxy.gateway.access.keys_file import KeysError, read_file
from bullmq_proxy.gateway.access.private import exposure

if TYPE_CHECKING:
    from jwt import PyJWK

MOST_KEYS: Final = 100
"""Keys of a set."""
LARGEST_SET: Final = 2**18
"""Bytes of a set."""
_KEY_ID: Final = 200  # characters

_ALGORITHMS: Final = {
    ("oct", None): "HS256",
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
ALGORITHMS: Final = tuple(_ALGORITHMS.values())
_SHORTEST_SECRET: Final = 32  # bytes; RFC 7518 §3.2
_SHORTEST_RSA: Final = 2048  # bits; RFC 7518 §3.3
_LONGEST_RSA: Final = 8192  # bits; a longer one takes milliseconds for each token
_NEEDED: Final = ("jwt", "cryptography")


class TokenKeysError(ValueError):
    """The keys of tokens cannot be used; one line that says where and what to do. Never holds secrets."""


class _UnusableKeyError(Exception):
    """One key of a set is not for us."""


class TokenKey(NamedTuple):
    """A key that verifies tokens.

    Attributes:
        algorithm: the only one that it is for.
        verifier: the key as PyJWT has it.
        fingerprint: of all that makes the key; another key under the same id has another one.
    """

    algorithm: str
    verifier: PyJWK
    fingerprint: bytes


class TokenKeys:
    """A set of keys that verify tokens.

    Attributes:
        fingerprints: of all of them.
        remarks: for the log, on keys of the set that are left out.
    """

    def __init__(self, keys: Mapping[str | None, TokenKey], remarks: tuple[str, ...]) -> None:
        """Make a set of keys by their ids."""
        self._keys = keys
        self.fingerprints = frozenset(key.fingerprint for key in keys.values())
        self.remarks = remarks

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, id: str | None) -> TokenKey | None:
        """Return the key of an id; a token without one is signed with the only key."""
        if id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(id)


def require_library() -> None:
    """Check, without importing anything, that tokens can be verified.

    Raises:
        TokenKeysError: a package is missing.
    """
    if not all(map(importlib.util.find_spec, _NEEDED)):
        raise TokenKeysError("the packages PyJWT and cryptography are missing: pip install 'bullmq-proxy[jwt]'")


def load_library() -> None:
    """Import what verifies tokens, where it is there: 9 MiB, which shards share that are forked after that."""
    with suppress(ImportError):
        import jwt.algorithms  # noqa: F401, PLC0415 - only whoever lets tokens in has it


def read_token_keys(path: str) -> TokenKeys:
    """Return the keys of a file.

    Raises:
        TokenKeysError: it cannot be used, or other users can get at it.
    """
    require_library()
    try:
        text, found = read_file(path)
    except KeysError as error:
        raise TokenKeysError(str(error)) from None
    except OSError as error:
        raise TokenKeysError(f"cannot read {path}: {error.strerror}") from None
    if exposed := exposure(found, path):
        raise TokenKeysError(exposed)
    return parse_keys(text, path, secrets=True)


def parse_keys(text: bytes, place: str, *, secrets: bool) -> TokenKeys:
    """Return the keys of a set. Those that are not for signatures, or for other algorithms, are left out.

    Args:
        text: JSON.
        place: where it comes from, for messages.
        secrets: whether keys of HS256 may be in it.

    Raises:
        TokenKeysError: it is no set, or none of its keys can be used.
    """
    try:
        whole = json.loads(text) if len(text) <= LARGEST_SET else None
    except (ValueError, RecursionError):
        whole = None
    listed = whole.get("keys") if isinstance(whole, dict) else None
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_KEYS:
        raise TokenKeysError(
            f'{place}: expected a JSON Web Key Set, {{"keys": [...]}} with 1 to {MOST_KEYS} keys, of up to'
            f" {LARGEST_SET // 1024} KiB"
        )
    keys: dict[str | None, TokenKey] = {}
    remarks = []
    for number, given in enumerate(listed):
        try:
            id, key = _read(given, secrets=secrets)
            if id in keys:
                raise _UnusableKeyError("another one has the same kid")
            keys[id] = key
        except _UnusableKeyError as error:
            remarks.append(f"{place}: keys[{number}] is left out: {error}")
    if not keys:
        raise TokenKeysError(remarks[0])
    return TokenKeys(keys, tuple(remarks))


def _read(given: Any, *, secrets: bool) -> tuple[str | None, TokenKey]:
    from jwt import PyJWK, PyJWTError  # noqa: PLC0415 - only whoever lets tokens in has it

    if not isinstance(given, dict):
        raise _UnusableKeyError("expected an object")
    id, type, curve = given.get("kid"), given.get("kty"), given.get("crv")
    if id is not None and not (isinstance(id, str) and 1 <= len(id) <= _KEY_ID):
        raise _UnusableKeyError(f"kid: expected 1 to {_KEY_ID} characters")
    found = [name for of, name in _ALGORITHMS.items() if of == (type, curve)]
    if not found or given.get("alg", found[0]) != found[0]:
        raise _UnusableKeyError(f"it is for none of {', '.join(ALGORITHMS)}, by its kty, crv and alg")
    algorithm = found[0]
    if given.get("use", "sig") != "sig" or "verify" not in given.get("key_ops", ["verify"]):
        raise _UnusableKeyError("it does not verify signatures, by its use and key_ops")
    if algorithm == "HS256" and not secrets:
        raise _UnusableKeyError("a secret that is read by everybody is none: HS256 needs a file")
    if algorithm != "HS256" and "d" in given:
        raise _UnusableKeyError("it has a private part, d: give the gateway the public part alone")
    try:
        verifier = PyJWK(given, algorithm)
    except (PyJWTError, ValueError, TypeError, OverflowError, AttributeError):
        raise _UnusableKeyError(f"it is no key of the type {type}") from None
    if algorithm == "HS256" and len(verifier.key) < _SHORTEST_SECRET:
        raise _UnusableKeyError(f"k: a secret of HS256 has {_SHORTEST_SECRET} bytes or more")
    if algorithm == "RS256" and not _SHORTEST_RSA <= verifier.key.key_size <= _LONGEST_RSA:
        raise _UnusableKeyError(f"n: a key of RS256 has {_SHORTEST_RSA} to {_LONGEST_RSA} bits")
    made_of = json.dumps(given, sort_keys=True).encode()
    return id, TokenKey(algorithm, verifier, hashlib.sha256(made_of).digest())
