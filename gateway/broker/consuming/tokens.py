"""The tokens of locks: who took a job, readable by every shard of a gateway and by its successors.

A token is a secret between the gateway and one client: whoever knows it can move the job. It has 128 bits of chance for
each consumer, and says nothing about the machine.
"""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from msgspec import Struct

ANY_KEY: Final = "*"
"""In place of a key's name: whoever shows the token holds the job. No key has this name."""

_SECRET_BYTES: Final = 16
_SECRET_LENGTH: Final = 22  # characters of that many bytes in base64


def new_run() -> str:
    """Return a name for one run of a gateway, which no other run has."""
    return secrets.token_hex(8)


class Identity(Struct, frozen=True):
    """One shard process, as written into each of its locks: a successor in the slot knows its predecessor's.

    Attributes:
        run: of the gateway; no two have the same.
        slot: the shard's place in it.
        incarnation: counts the processes that served this slot.
    """

    run: str
    slot: int = 0
    incarnation: int = 0

    def new_consumer_token(self, key: str) -> str:
        """Return the start of all tokens of one consumer; its `n`th fetch appends `:n`.

        Args:
            key: the name of the key that its client has shown; empty for a key that may do everything.
        """
        return f"{self.address}:{key}:{secrets.token_urlsafe(_SECRET_BYTES)}"

    @property
    def address(self) -> str:
        """The name by which other shards reach this one; no secret."""
        return f"{self.run}:{self.slot}:{self.incarnation}"

    def precedes(self, other: Identity) -> bool:
        """Return whether this is an earlier process in the slot of `other`."""
        return (self.run, self.slot) == (other.run, other.slot) and self.incarnation < other.incarnation


def parse_identity(text: str) -> Identity | None:
    """Return the shard that has this address, or None."""
    run, *place = text.rsplit(":", 2)
    if len(place) != 2 or not all(part.isascii() and part.isdecimal() for part in place):
        return None
    slot, incarnation = map(int, place)
    return Identity(run, slot, incarnation)


class LockToken(NamedTuple):
    """A token of a gateway: that of one fetch of one consumer, whose client has shown the key of this name."""

    identity: Identity
    key: str
    fetch: int


def parse_token(text: str) -> LockToken | None:
    """Return what a lock's token says, or None when no gateway wrote it: every other program has tokens of its own."""
    shard, *rest = text.rsplit(":", 3)
    if len(rest) != 3:
        return None
    key, secret, fetch = rest
    identity = parse_identity(shard)
    if identity is None or len(secret) != _SECRET_LENGTH or not (fetch.isascii() and fetch.isdecimal()):
        return None
    return LockToken(identity, key, int(fetch))


def usable_token(token: str, key: str) -> str:
    """Return a client's token for a script: in place of one that was given to another key, one that fits no lock.

    So whoever has got hold of it sees what everybody sees whose token is wrong.

    Args:
        token: as the client gave it.
        key: the name of the client's key.
    """
    parsed = parse_token(token)
    return token if parsed is None or parsed.key in (key, ANY_KEY) else secrets.token_hex(_SECRET_BYTES)
