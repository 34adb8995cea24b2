"""The jobs in a client's hands, by the ids of the messages that pushed them."""

from __future__ import annotations

import msgspec

from bullmq_proxy.gateway.broker.consuming.leases import HELD, Lease


class HeldJobs(dict[bytes, Lease]):
    """The leases that a client knows of, by the id as text."""

    __slots__ = ()

    def find(self, id: bytes) -> Lease | None:
        """Return the lease that an answer is about; 7, "7" and 7.0 are one id: some languages have one number."""
        lease = self.get(id)
        if lease is None:
            try:
                number = float(msgspec.json.decode(id))
            except (ValueError, OverflowError):
                return None
            lease = self.get(b"%d" % number) if number.is_integer() else None
        return lease if lease is not None and lease.state is HELD else None
