"""The jobs in a client's hands, by the ids of the messages that pushed them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bullmq_proxy.gateway.broker.consuming.leases import HELD, Lease


class HeldJobs:
    """The leases that a client knows of."""

    __slots__ = ("_leases",)

    def __init__(self) -> None:
        self._leases: dict[bytes, Lease] = {}  # by the id, as text

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def add(self, lease: Lease) -> None:
        """Take in a lease that has its number."""
        self._leases[b"%d" % lease.number] = lease

    def discard(self, lease: Lease) -> None:
        """Drop a lease."""
        self._leases.pop(b"%d" % lease.number, None)

    def clear(self) -> None:
        """Drop all."""
        self._leases.clear()

    def find(self, id: bytes) -> Lease | None:
        """Return the lease that an answer is about; 7, "7" and 7.0 are one id: some languages have one number."""
        lease = self._leases.get(id)
        if lease is None:
            try:
                number = float(msgspec.json.decode(id))
            except (ValueError, OverflowError):
                return None
            lease = self._leases.get(b"%d" % number) if number.is_integer() else None
        return lease if lease is not None and lease.state is HELD else None
