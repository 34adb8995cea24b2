"""A fresh token, which a client hands in on its open connection before the present one ends."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from bullmq_proxy.gateway.access.grants import Grant, Permission, Rights
from bullmq_proxy.gateway.broker.functions.base import TABLE, Context
from bullmq_proxy.gateway.broker.jobs.queue import Queue
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.shapes import Caller

LONGEST_TOKEN: Final = 8192  # characters
EXAMPLE_TOKEN: Final = ("eyJhbGciOiJFZERTQSJ9.e30.c2ln",)

FreshToken = Annotated[str, Meta(min_length=1, max_length=LONGEST_TOKEN)]
"""A JSON Web Token."""


@TABLE.function(None, writes=False, example=EXAMPLE_TOKEN)
async def renew(queue: Queue, token: FreshToken, *, context: Context) -> Caller:
    """Put a fresh token in force on the connection, in place of the one that it was opened with; return its rights.

    It has the same `sub`. Its rights may be others: they hold from the next call on. A token that is not for the
    connection is refused, and the present one stays. On a connection that was opened with a key it is a `CONFLICT`.
    """
    return renewed(context.rights, token)


def renewed(rights: Rights, token: str) -> Caller:
    """Put a fresh token in force on a connection with these rights, and return whom it says that the caller is.

    Raises:
        GatewayError: CONFLICT where there is no token to renew; UNAUTHORIZED, FORBIDDEN or KEYS_UNAVAILABLE for one
            that cannot be used.
    """
    if rights.renew is None:
        raise GatewayError(
            ErrorCode.CONFLICT, "There is no token to renew: only a connection that was opened with one has it"
        )
    rights.renew(token)
    return caller(rights.grant)


def caller(grant: Grant) -> Caller:
    """Return whoever has a grant."""
    return {
        "key": grant.key,
        "permissions": [each for each in Permission if grant.allows(each)],
        "queues": ["*"] if grant.everything else list(grant.queues),
    }
