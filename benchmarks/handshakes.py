"""`python -m benchmarks.handshakes [SECONDS] [ROUNDS]`: how many TLS handshakes a shard makes.

Services of one shard each, one with a key on the curve P-256 and one with RSA of 2048 bits, shake hands in turns with
clients that close right behind that. The processor time of the shard is shown for each handshake, accepting and
closing with it, as the median of the rounds, and how many of them would fill a core. Sessions are resumed with TLS 1.2
alone.
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from benchmarks.lab.accounting import cpu_seconds
from tests.support.certificates import P_256, RSA_2048, make_certificate
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess

_CLIENTS: Final = 4
_KEYS: Final = {"P-256": P_256, "RSA-2048": RSA_2048}
_KINDS: Final = (
    ("connect and close, without a handshake", None, False),
    ("TLS 1.3", ssl.TLSVersion.TLSv1_3, False),
    ("TLS 1.2", ssl.TLSVersion.TLSv1_2, False),
    ("TLS 1.2, resumed", ssl.TLSVersion.TLSv1_2, True),
)


class Side:
    """One of the services."""

    def __init__(self, service: Service, certificate: Path) -> None:
        """Make it of a service that runs with a certificate."""
        self._service = service
        self._certificate = certificate

    def cost(self, version: ssl.TLSVersion | None, resumed: bool, seconds: float) -> float:
        """Return the seconds of the shard for each handshake."""
        shards, counts = self._service.shards(), [0] * _CLIENTS
        before, ends = cpu_seconds(shards), time.monotonic() + seconds

        def work(place: int) -> None:
            context = None if version is None else self._context(version)
            session: ssl.SSLSession | None = None
            while time.monotonic() < ends:
                session = self._shake(context, session if resumed else None)
                counts[place] += 1

        threads = [threading.Thread(target=work, args=(place,)) for place in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (cpu_seconds(shards) - before) / sum(counts)

    def _context(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._certificate))
        context.minimum_version = context.maximum_version = version
        return context

    def _shake(self, context: ssl.SSLContext | None, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with socket.create_connection(("127.0.0.1", self._service.port), 30) as plain:
            if context is None:
                return None
            with context.wrap_socket(plain, server_hostname="localhost", session=session) as secure:
                assert secure.session_reused == (session is not None)
                return secure.session


def run(home: Path, seconds: float, rounds: int) -> None:
    """Measure, and print a table."""
    with ExitStack() as stack:
        valkey = stack.enter_context(closing(ValkeyProcess(home / "valkey").start()))
        sides = []
        for name, kind in _KEYS.items():
            certificate = make_certificate(home, name, kind=kind)
            paths = ("--tls-cert", str(certificate), "--tls-key", str(certificate.with_suffix(".key")))
            words = ("--procs", "1", "--redis-url", valkey.url, *paths)
            sides.append(Side(stack.enter_context(Service(home / f"service-{name}", *words)), certificate))
        load = os.getloadavg()[0]
        print(f"load of the machine: {load:.1f}; {rounds} rounds of {seconds:g} s; {ssl.OPENSSL_VERSION}")
        heads = [head for name in _KEYS for head in (f"{name}: µs of the shard", "a second of a core")]
        print(f"| handshake | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
        for label, version, resumed in _KINDS:
            costs = [[side.cost(version, resumed, seconds) for side in sides] for _ in range(rounds)]
            medians = [statistics.median(each[place] for each in costs) for place in range(len(sides))]
            cells = [cell for cost in medians for cell in (f"{cost * 1e6:.0f}", f"{1 / cost:.0f}")]
            print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Read the arguments, and run."""
    seconds = min(float(sys.argv[1]), 60.0) if len(sys.argv) > 1 else 2.0
    rounds = min(int(sys.argv[2]), 20) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as home:
        run(Path(home), seconds, rounds)


if __name__ == "__main__":
    main()
