"""What all functions share: their table, and the types of their arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from gateway.broker.broker import Broker
from gateway.wire.functions import FunctionTable
from gateway.wire.grants import Grant, Permission, Rights

TABLE: Final = FunctionTable()

PRODUCE, CONSUME, OBSERVE, MANAGE = Permission

JobType = Literal[
    "active",
    "completed",
    "delayed",
    "failed",
    "prioritized",
    "repeat",
    "wait",
    "waiting",
    "waiting-children",
]
FinishedState = Literal["completed", "failed"]
CleanableState = Literal["completed", "wait", "waiting", "active", "paused", "prioritized", "delayed", "failed"]
# Whole numbers that JavaScript and Redis scores hold exactly; Redis refuses those beyond 64 bits.
_MOST: Final = 2**53
Index = Annotated[int, Meta(ge=-_MOST, le=_MOST)]
Count = Annotated[int, Meta(ge=0, le=_MOST)]
# Counts of 0 make Node's loops over `retryJobs`, `promoteJobs` and `obliterate` run for ever, and Redis refuses a scan.
BatchSize = Annotated[int, Meta(ge=1, le=_MOST)]
Milliseconds = Annotated[int, Meta(ge=0, le=_MOST)]


class Arguments(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """The base of option objects; unknown names are refused."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a function can ask for beside its queue, by a keyword argument `context`.

    Attributes:
        broker: of this shard.
        rights: of the caller's key; they can change while the connection is open.
    """

    broker: Broker
    rights: Rights

    @property
    def grant(self) -> Grant:
        """What the caller's key may do now, for functions that reach other queues than theirs."""
        return self.rights.grant


def stored_type(type: str) -> str:
    """The name of a type's key in Redis: `waiting` is the list `wait`."""
    return "wait" if type == "waiting" else type
