"""The tokens of locks: who took a job, readable by every shard of this gateway and by its successors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Identity:
    """One shard process, as written into each of its locks: a successor in the slot knows its predecessor's.

    Attributes:
        gateway: of one run of the gateway; no two runs share it.
        slot: the shard's place in it.
        incarnation: counts the processes that served this slot.
    """

    gateway: str
    slot: int = 0
    incarnation: int = 0

    def consumer_token(self, number: int) -> str:
        """Return the start of all tokens of the shard's `number`th consumer; its `n`th fetch appends `:n`."""
        return f"{self.gateway}:{self.slot}:{self.incarnation}:{number}"

    def precedes(self, other: Identity) -> bool:
        """Return whether this is an earlier process in the slot of `other`."""
        return (self.gateway, self.slot) == (other.gateway, other.slot) and self.incarnation < other.incarnation


class LockToken(NamedTuple):
    """A token of a gateway: that of one fetch of one consumer."""

    identity: Identity
    consumer: int
    fetch: int


def parse_token(text: str) -> LockToken | None:
    """Return what a lock's token says, or None when no gateway wrote it: every other program has tokens of its own."""
    gateway, *rest = text.rsplit(":", 4)
    if len(rest) != 4 or not all(part.isascii() and part.isdecimal() for part in rest):
        return None
    slot, incarnation, consumer, fetch = map(int, rest)
    return LockToken(Identity(gateway, slot, incarnation), consumer, fetch)
