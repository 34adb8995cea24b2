"""Slots of Redis Cluster: keys are on the node that has their slot, and those with the same hash tag are on one."""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final

from bullmq_proxy.gateway.errors import invalid_arguments

SLOTS: Final = 16384
ONE_SLOT: Final = (
    "The queues of a flow must be in one slot of the Redis Cluster: give the gateway a prefix in braces, such as"
    " {bull}, or all of the queues names with the same part in braces"
)
"""For the error of a flow whose jobs no single script could see."""


def hash_tag(key: str) -> str:
    """Return the part of a key that decides on its slot: what is in its first pair of braces; empty without one."""
    _, _, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if closed else ""


def check_tag(prefix: str, queue: str, place: str = "") -> None:
    """Refuse a queue whose keys would be in many slots, with BullMQ's own remedies.

    Raises:
        GatewayError: INVALID_ARGUMENTS.
    """
    if not hash_tag(f"{prefix}:{queue}:"):
        raise invalid_arguments(
            f"The keys of the queue {queue[:100]} would be in many slots of the Redis Cluster: give the gateway and all"
            " other programs a prefix in braces, such as {bull}, or the queue a name with a part in braces, such as"
            f" {{mails}}{place}"
        )


def slot_of(key: str) -> int:
    """Return the slot of a key (CRC16 XMODEM, as the cluster specification says)."""
    return crc_hqx((hash_tag(key) or key).encode(errors="surrogateescape"), 0) % SLOTS
