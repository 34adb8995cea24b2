"""A maker of tokens: keys of each algorithm, the set of their public parts, and tokens signed with them."""

from __future__ import annotations

import json
import secrets
import time
from functools import cache
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER: Final = "https://login.example.org/"
AUDIENCE: Final = "bullmq-proxy"
ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
SETTINGS: Final[dict[str, Any]] = {"token_issuer": ISSUER, "token_audience": AUDIENCE}
EVERYTHING: Final = ("produce", "consume", "observe", "tune", "manage")


def signer(algorithm: str, name: str = "") -> Any:
    """Return a private key, or a secret; another one for each name."""
    return _make(algorithm, name)


@cache
def _make(algorithm: str, name: str) -> Any:
    match algorithm:
        case "HS256":
            return secrets.token_bytes(32)
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    raise AssertionError(algorithm)


def public(algorithm: str, name: str = "") -> Any:
    """Return what verifies; a secret does so itself."""
    key = signer(algorithm, name)
    return key if algorithm == "HS256" else key.public_key()


def jwk(algorithm: str, name: str = "", **more: Any) -> dict[str, Any]:
    """Return a key for the set; its id is its algorithm and name."""
    makers: dict[str, Any] = {
        "HS256": HMACAlgorithm,
        "RS256": RSAAlgorithm,
        "ES256": ECAlgorithm,
        "EdDSA": OKPAlgorithm,
    }
    found = makers[algorithm].to_jwk(public(algorithm, name), as_dict=True)
    found.pop("key_ops", None)
    return {**found, "kid": algorithm + name, "use": "sig", **more}


def key_set(*keys: dict[str, Any]) -> str:
    """Return a JSON Web Key Set."""
    return json.dumps({"keys": keys})


def write_set(path: Path, *keys: dict[str, Any]) -> str:
    """Write a set that nobody else can read; returns its path."""
    path.write_text(key_set(*keys))
    path.chmod(0o600)
    return str(path)


def token(
    sub: str = "ada",
    *,
    algorithm: str = "EdDSA",
    key: str = "",
    lifetime: float = 600.0,
    headers: dict[str, Any] | None = None,
    **claims: Any,
) -> str:
    """Return a token that may do everything in every queue, unless its claims say else; None leaves one out."""
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": sub,
        "exp": time.time() + lifetime,
        "queues": ["*"],
        "permissions": list(EVERYTHING),
    }
    whole = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    shown = {"kid": algorithm + key} if headers is None else headers
    return jwt.encode(whole, signer(algorithm, key), algorithm, shown)
