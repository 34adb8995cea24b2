"""Errors of Redis as errors of ours: not reachable, not let in, cannot serve now, or executed without a reply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import hiredis

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

# Error replies of a server that cannot serve now. The command was not executed, so another try is safe.
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
"""Beginnings of error replies to a login that another try would not change."""

# Error replies of a server that is the wrong one, or the right one too early, by their first word. They say for certain
# that nothing was executed: in a transaction too, since a server does not change its part in the midst of one. Why a
# connection is left then:
REFUSALS: Final = {
    "READONLY": "it has become a replica, which takes no writes",
    "UNBLOCKED": "it has become a replica, which takes no writes",
    "MASTERDOWN": "it is a replica without a master",
    "LOADING": "it is loading its data",
    "MOVED": "the slot is on another node",
    "ASK": "the slot is moving to another node",
    "TRYAGAIN": "the slot is moving to another node",
    "CLUSTERDOWN": "the cluster is down",
}
_DISCARDED: Final = "EXECABORT Transaction discarded because of: "
_IN_A_SCRIPT: Final = "READONLY You can't write against"  # of Redis < 7, within other words
OF_SLOTS: Final = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})
"""The words among them that a cluster has for a single slot."""
_SCRIPT: Final = "user_script"  # in the errors that a script raises; in those of rights, too, that end one
_RIGHTS: Final = ("NOPERM", "ACL failure")
_NO_KEY: Final = "ERR no such key"  # of XINFO, for instance

# What clients are not told: the address of another node, and the gateway's name there.
_ELSEWHERE: Final = re.compile(r"^(MOVED|ASK) .*", re.DOTALL)
_USER: Final = re.compile(r"^NOPERM User .*? has")

OUTAGE: Final = (ErrorCode.REDIS_UNAVAILABLE, ErrorCode.OUTCOME_UNKNOWN)
"""Codes of errors that end when Redis is back; a command that may be executed twice can be sent again."""


class RedisRefused(GatewayError):
    """Another try would not help: a wrong password, no such database, TLS on one side only, no Redis at all."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.REDIS_UNAVAILABLE, message)


class NotConnected(GatewayError):
    """There is no connection now. `why` is for the log alone: clients are not told where Redis is."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(ErrorCode.REDIS_UNAVAILABLE, unavailable(reason).message)
        self.why = why


class GreetingRefused(NotConnected):
    """Redis does not take the first commands of a connection now; `why` is in its words."""

    def __init__(self, why: str) -> None:
        super().__init__("it refuses the gateway's first commands, and the gateway's log says why", why)


class LostReply(GatewayError):
    """A command was sent and its reply will not come: Redis may have executed it."""

    def __init__(self, why: str) -> None:
        super().__init__(ErrorCode.OUTCOME_UNKNOWN, f"Redis has not replied ({why}): it may have happened, or not")
        self.why = why


class CommandRefused(GatewayError):
    """Redis has refused a command; `for_good` where the reason is in the command, or in what is stored."""

    def __init__(self, code: ErrorCode, why: str, *, for_good: bool) -> None:
        super().__init__(code, f"Redis refused the command: {why}")
        self.for_good = for_good


def will_pass(error: GatewayError) -> bool:
    """Return whether a command that may be executed twice can succeed later: Redis is away, or will not serve now."""
    return error.code in OUTAGE or (isinstance(error, CommandRefused) and not error.for_good)


def unavailable(why: str) -> GatewayError:
    """Return the error of a command that was not executed, so that the caller may try again."""
    return GatewayError(ErrorCode.REDIS_UNAVAILABLE, f"Redis is not reachable ({why}); nothing was written")


@contextmanager
def understood() -> Iterator[None]:
    """Let a reply that has not the form that it should have be an outage: whoever asks asks again."""
    try:
        yield
    except (TypeError, ValueError, LookupError):
        raise unavailable("it answers in a way that cannot be understood") from None


def refusal(reply: object) -> str:
    """Return the word by which a server says that it has not executed a command, and another place or time is right.

    Empty when it says no such thing.
    """
    if isinstance(reply, list):  # of EXEC
        return next(filter(None, map(refusal, reply)), "") if hiredis.ReplyError in map(type, reply) else ""
    if not isinstance(reply, hiredis.ReplyError):
        return ""
    text = str(reply).removeprefix(_DISCARDED)
    word = text.partition(" ")[0]
    return word if word in REFUSALS else "READONLY" if _IN_A_SCRIPT in text else ""


def is_forgotten(reply: Any) -> bool:
    """Return whether Redis does not know a script's hash; then it executed nothing."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def reply_error(error: Exception) -> GatewayError:
    """Turn an error reply of Redis into a GatewayError."""
    if isinstance(error, GatewayError):
        return error
    text = _ELSEWHERE.sub(r"\1 to another node of a cluster", _USER.sub("NOPERM The gateway's user has", str(error)))
    if text.startswith(_UNAVAILABLE):
        return GatewayError(ErrorCode.REDIS_UNAVAILABLE, f"Redis cannot serve this now: {text[:200]}")
    if "WRONGTYPE" in text:  # the client has named a key of another type, such as one of BullMQ's own
        return CommandRefused(ErrorCode.CONFLICT, text[:300], for_good=True)
    is_of_script = _SCRIPT in text and not any(word in text for word in _RIGHTS)
    return CommandRefused(ErrorCode.INTERNAL, text[:300], for_good=is_of_script or text.startswith(_NO_KEY))


def of_read(error: GatewayError) -> GatewayError:
    """Return the error of a call that only reads: a lost reply means that nothing was written."""
    return unavailable(error.why) if isinstance(error, LostReply) else error
