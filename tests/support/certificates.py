"""Certificates by openssl, and a relay that ends TLS in front of a server and demands a certificate of its clients."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

OPENSSL = shutil.which("openssl")
"""The program, where there is one."""
_WAIT = 10.0  # s for a client that says nothing


def make_certificate(directory: Path, name: str, *options: str) -> Path:
    """Make a certificate that vouches for itself, as `NAME.pem`, with its key in `NAME.key`; return its path."""
    assert OPENSSL is not None
    path = directory / f"{name}.pem"
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-keyout", str(path.with_suffix(".key")))
    subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
    words = (OPENSSL, "req", "-x509", *key, *subject, *(options or ("-nodes",)), "-out", str(path))
    subprocess.run(words, check=True, capture_output=True)
    return path


@contextmanager
def demanding(server: str, certificate: Path, trusted: Path, newest: ssl.TLSVersion) -> Iterator[int]:
    """Serve TLS in front of the unix socket of a server; return the port.

    Threads, not asyncio, whose servers close a connection that they refuse without the alert that says why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = newest
    threads: list[Thread] = []

    def accept() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                threads.append(Thread(target=_serve, args=(listener.accept()[0], context, server), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = Thread(target=accept, daemon=True)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(_WAIT)
    for thread in threads:
        thread.join(_WAIT)


def _serve(client: socket.socket, context: ssl.SSLContext, server: str) -> None:
    client.settimeout(_WAIT)
    with context.wrap_socket(client, server_side=True, do_handshake_on_connect=False) as tls, suppress(OSError):
        try:
            tls.do_handshake()
        except ssl.SSLError:
            with socket.socket(fileno=tls.detach()) as raw:
                raw.settimeout(_WAIT)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):  # else the system resets the connection, and the alert is lost
                    pass
            return
        with socket.socket(socket.AF_UNIX) as behind:
            behind.connect(server)
            _pass_on(tls, behind)


def _pass_on(tls: ssl.SSLSocket, behind: socket.socket) -> None:
    while True:
        ready = [tls] if tls.pending() else select.select([tls, behind], [], [])[0]
        for end in ready:
            if not (data := end.recv(65536)):
                return
            (behind if end is tls else tls).sendall(data)
