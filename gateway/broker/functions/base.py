"""What all functions share: their table, and the types of their arguments."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from bullmq_proxy.gateway.access.grants import Grant, Permission, Rights
from bullmq_proxy.gateway.broker.broker import Broker
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.values.numbers import MAX_SAFE_INTEGER, Whole

TABLE: Final = FunctionTable()

PRODUCE, CONSUME, OBSERVE, TUNE, MANAGE = Permission

JobType = Literal[
    "active",
    "completed",
    "delayed",
    "failed",
    "paused",
    "prioritized",
    "repeat",
    "wait",
    "waiting",
    "waiting-children",
]
FinishedState = Literal["completed", "failed"]
CleanableState = Literal["completed", "wait", "waiting", "active", "paused", "prioritized", "delayed", "failed"]
Index = Whole
# Counts of 0 make Node's loops over `retryJobs`, `promoteJobs` and `obliterate` run for ever, and Redis refuses a scan.
BatchSize = Annotated[int, Meta(ge=1, le=MAX_SAFE_INTEGER)]


class Arguments(Struct, forbid_unknown_fields=True, rename="camel", frozen=True):
    """The base of option objects; unknown names are refused."""


class Context(Struct):
    """What a function of one connection can ask for beside its queue, by a keyword argument `context`.

    Attributes:
        broker: of this shard.
        rights: of the caller's key; they can change while the connection is open.
        has_ended: whether the connection is gone: long calls then go on with nothing new.
        carries: telemetry metadata for jobs whose options the function itself makes; empty for none.
    """

    broker: Broker
    rights: Rights
    has_ended: bool = False
    carries: str = ""

    @property
    def grant(self) -> Grant:
        """What the caller's key may do now, for functions that reach other queues than theirs."""
        return self.rights.grant

    def check_still(self, permission: Permission, function: str, queue: Queue) -> None:
        """Check between two scripts of a long call that it may go on: what the earlier ones have done stays.

        Args:
            permission: that the function needs.
            function: its name.
            queue: of the connection.

        Raises:
            GatewayError: FORBIDDEN, the key may not do this any more; SHUTTING_DOWN, the connection has ended.
        """
        if self.has_ended:
            raise GatewayError(ErrorCode.SHUTTING_DOWN, "The connection has ended")
        self.grant.check_permission(permission, f"go on with {function}")
        self.grant.check_queue(queue.name)


def stored_type(type: str) -> str:
    """Return the name of a type's key in Redis: `waiting` is the list `wait`."""
    return "wait" if type == "waiting" else type
