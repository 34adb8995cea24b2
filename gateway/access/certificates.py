"""The certificate of the listener: files in, a checked certificate out; and the names in a certificate of a client."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, Final, NamedTuple, NoReturn

from bullmq_proxy.gateway.access.keys_file import KeysError, read_file
from bullmq_proxy.gateway.access.private import exposure

LARGEST: Final = 2**20
"""Bytes of a file of certificates or of a key at most."""

SOON: Final = 14 * 86_400.0
"""Seconds before the end of a certificate from which on the log says so."""

# Forward secrecy and authenticated encryption only; TLS 1.3 has nothing else (RFC 9325 §4.2).
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_OF_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_OF_KEY: Final = "PRIVATE KEY-----"
_OF_PASSWORD: Final = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED")  # RFC 5958 and RFC 1421


class CertificateError(Exception):
    """A certificate cannot be used; one line that names the setting, the file and the remedy."""


class Certificate(NamedTuple):
    """All that a listener needs to speak TLS, as PEM: files may change, and shards that start later need the same.

    Attributes:
        chain: the certificate, and those between it and its root.
        key: the private key.
        client_ca: who signs the certificates of clients; None asks them for none.
        clients_need_one: a client without a certificate is refused.
    """

    chain: str
    key: str
    client_ca: str | None
    clients_need_one: bool

    def __repr__(self) -> str:
        return f"Certificate({self.chain!r})"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, for a shard."""
        return self._asdict()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Certificate:
        """Return what `to_json` wrote."""
        return cls(**values)

    def context(self) -> ssl.SSLContext:
        """Return what handshakes are made with; raises ssl.SSLError for what OpenSSL cannot use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION
        # A ticket would be good at one shard only, costs a third of a handshake, and outlives a client's certificate.
        context.num_tickets = 0
        with _at_path(self.chain) as chain, _at_path(self.key) as key:
            context.load_cert_chain(chain, key, _ask_nobody)
        if self.client_ca is not None:
            context.load_verify_locations(cadata=self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if self.clients_need_one else ssl.CERT_OPTIONAL
        return context


def read(
    cert: str | None, key: str | None, client_ca: str | None, client_cert: str
) -> tuple[Certificate | None, tuple[str, ...]]:
    """Return the certificate in these files, and remarks for the log on what clients will not like.

    Args:
        cert: path of the chain, the listener's own certificate first; None for no TLS.
        key: path of the private key; None where it is in the same file.
        client_ca: path of the certificates that sign those of clients; None to ask for none.
        client_cert: `required`, if clients without one are refused.

    Raises:
        CertificateError: they cannot be used.
    """
    if cert is None:
        for setting, path in (("tls_key", key), ("tls_client_ca", client_ca)):
            if path is not None:
                raise CertificateError(f"{setting}: needs tls_cert, the certificate of the gateway")
        return None, ()
    chain, key_path = _read("tls_cert", cert, _OF_CERTIFICATE), cert if key is None else key
    if key is None and _OF_KEY not in chain:
        raise CertificateError(f"tls_cert: {cert} holds no private key: name the file that does in tls_key")
    private = _read("tls_key", key_path, _OF_KEY, is_secret=True)
    if any(mark in private for mark in _OF_PASSWORD):
        raise CertificateError(
            f"tls_key: the key in {key_path} has a password, which nobody can type at a restart: write it without"
            " one (`openssl pkey -in KEY -out NEW`), and let its mode protect it"
        )
    found = Certificate(
        chain=chain,
        key=private,
        client_ca=None if client_ca is None else _read("tls_client_ca", client_ca, _OF_CERTIFICATE),
        clients_need_one=client_cert == "required",
    )
    try:
        found.context()
    except ssl.SSLError as error:
        raise CertificateError(_explained(error, found, cert, key_path, client_ca)) from None
    return found, _remarks(found, cert)


def _read(setting: str, path: str, mark: str, *, is_secret: bool = False) -> str:
    try:
        content, status = read_file(path)
    except OSError as error:
        raise CertificateError(f"{setting}: cannot read {path}: {error.strerror}") from None
    except KeysError as error:
        raise CertificateError(f"{setting}: {error}") from None
    if is_secret and (exposed := exposure(status, path)):
        raise CertificateError(f"{setting}: {exposed}")
    text = content[:LARGEST].decode("ascii", "replace")
    if mark not in text:
        what, command = ("private key", "pkey") if is_secret else ("certificate", "x509")
        raise CertificateError(
            f"{setting}: {path} holds no {what} in the form PEM: convert it"
            f" (`openssl {command} -inform DER -in FILE -out NEW`)"
        )
    return text


def _explained(error: ssl.SSLError, found: Certificate, cert: str, key: str, client_ca: str | None) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return (
            f"tls_key: the key in {key} does not fit the first certificate in {cert}: name the one that does, and put"
            " the gateway's own certificate first in its file"
        )
    if client_ca is not None:
        with suppress(ssl.SSLError):
            Certificate(chain=found.chain, key=found.key, client_ca=None, clients_need_one=False).context()
            return f"tls_client_ca: OpenSSL cannot use {client_ca}: {reason(error)}"
    return f"tls_cert: OpenSSL cannot use {cert} with the key in {key}: {reason(error)}"


def reason(error: ssl.SSLError) -> str:
    """Return the reason of an error in OpenSSL's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return (error.reason or "a text that is no certificate or key").partition(":")[0].lower().replace("_", " ")


def _remarks(found: Certificate, path: str) -> tuple[str, ...]:
    """Return what a client would say of the certificate that knows nothing but this certificate itself."""
    own = Certificate(chain=found.chain, key=found.key, client_ca=None, clients_need_one=False)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=own.chain)
    ways = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(ways[0], ways[1], server_side=False),
        own.context().wrap_bio(ways[1], ways[0], server_side=True),
    )
    try:
        for end in (*ends, *ends):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
        shown = ends[0].getpeercert()
    except ssl.SSLCertVerificationError as error:
        return (f"tls_cert: clients will refuse the certificate in {path}: {error.verify_message}",)
    left = ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time() if shown else SOON
    return (f"tls_cert: the certificate in {path} ends in {left / 86_400:.1f} days",) if left < SOON else ()


def names(shown: Mapping[str, Any] | None) -> list[str]:
    """Return the names of keys that a client's certificate may stand for: its common name, and its URIs.

    Args:
        shown: the certificate, in the form of `ssl.SSLSocket.getpeercert`; None for none.
    """
    if not shown:
        return []
    common = [value for part in shown.get("subject", ()) for kind, value in part if kind == "commonName"]
    return common + [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]


@contextmanager
def _at_path(text: str) -> Iterator[str]:
    """Yield a path at which OpenSSL, which takes certificates from files alone, reads a text."""
    with _nameless() as file:
        file.write(text.encode())
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _nameless() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pem"), "w+b")
    import tempfile  # noqa: PLC0415 - Linux does without

    return tempfile.TemporaryFile()


def _ask_nobody() -> NoReturn:
    raise ssl.SSLError("the key has a password")
