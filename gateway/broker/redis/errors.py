"""What errors of Redis mean to us: not reachable, not let in, cannot serve now, or may have happened."""

from __future__ import annotations

from typing import Any, Final

import hiredis

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

# Errors of a server that is there but cannot serve: the command was not executed, so trying again is safe.
_UNAVAILABLE: Final = (
    "LOADING",
    "BUSY ",
    "READONLY",
    "OOM ",
    "MISCONF",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
)
PERMANENT: Final = (
    "WRONGPASS",
    "NOAUTH",
    "NOPERM",
    "ERR invalid password",
    "ERR AUTH",
    "ERR Client sent AUTH",
)
"""Beginnings of error replies to a login that trying again would not change."""

OUTAGE: Final = (ErrorCode.REDIS_UNAVAILABLE, ErrorCode.OUTCOME_UNKNOWN, ErrorCode.TIMEOUT)
"""What may be different in a moment: worth another try where that is safe."""


class RedisRefused(GatewayError):
    """Redis does not let us in, and trying again would not help: a wrong password, or a database that is not there."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.REDIS_UNAVAILABLE, message)


def unavailable(why: str) -> GatewayError:
    """Nothing was written: the caller may try again."""
    return GatewayError(ErrorCode.REDIS_UNAVAILABLE, f"Redis is not reachable ({why}); nothing was written")


def is_forgotten(reply: Any) -> bool:
    """Whether Redis says that it does not know a script's hash: it did not run, and can be sent again in full."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def reply_error(error: Exception) -> GatewayError:
    """An error reply of Redis as one of ours."""
    if isinstance(error, GatewayError):
        return error
    text = str(error)
    if text.startswith(_UNAVAILABLE):
        return GatewayError(ErrorCode.REDIS_UNAVAILABLE, f"Redis cannot serve this now: {text[:200]}")
    if "WRONGTYPE" in text:  # of what the client named there is something else, such as one of BullMQ's own keys
        return GatewayError(ErrorCode.CONFLICT, f"Redis refused the command: {text[:300]}")
    return GatewayError(ErrorCode.INTERNAL, f"Redis refused the command: {text[:300]}")


def lost_reply(writes: bool, timed_out: bool) -> GatewayError:
    """There will be no reply to a command that has been sent; `timed_out` rather than a broken connection."""
    if writes:
        return GatewayError(
            ErrorCode.OUTCOME_UNKNOWN, "The connection to Redis broke before the reply: it may have happened"
        )
    if timed_out:
        return GatewayError(ErrorCode.TIMEOUT, "Redis did not answer in time")
    return unavailable("the connection was lost")
