"""Certificates by openssl, and what a server needs that demands one of its clients."""

from __future__ import annotations

import base64
import hashlib
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

OPENSSL = shutil.which("openssl")
"""The program, where there is one."""


P_256: Final = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA_2048: Final = ("rsa:2048",)


def make_certificate(
    directory: Path, name: str, *options: str, also: str = "DNS:localhost", kind: tuple[str, ...] = P_256
) -> Path:
    """Make a certificate that vouches for itself, as `NAME.pem`, with its key in `NAME.key`; return its path."""
    assert OPENSSL is not None
    path = directory / f"{name}.pem"
    key = ("-newkey", *kind, "-keyout", str(path.with_suffix(".key")))
    subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},{also}")
    words = (OPENSSL, "req", "-x509", *key, *subject, *(options or ("-nodes",)), "-out", str(path))
    subprocess.run(words, check=True, capture_output=True)
    return path


def public_key(certificate: Path) -> str:
    """Return the SHA-256 of a certificate's public key, as Chromium's list of keys that it trusts has it."""
    key = load_pem_x509_certificate(certificate.read_bytes()).public_key()
    text = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(text).digest()).decode()


def demanding(certificate: Path, trusted: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return the context of a server that shows a certificate, and demands one of its clients that it trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = newest
    return context
