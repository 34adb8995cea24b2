"""The errors of the client: a class for each code.

Made from the code by `make docs`.
"""

# fmt: off
from __future__ import annotations

from typing import Final


class ProxyError(Exception):
    """What the gateway, or this client, refuses: `code` says why for programs, `message` for people."""

    code = "UNKNOWN"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidMessageError(ProxyError):
    """Not JSON, no envelope, or an answer of an unknown form."""

    code = "INVALID_MESSAGE"


class InvalidArgumentsError(ProxyError):
    """An argument or option cannot be used; the message names the place."""

    code = "INVALID_ARGUMENTS"


class UnknownFunctionError(ProxyError):
    """No such function."""

    code = "UNKNOWN_FUNCTION"


class UnauthorizedError(ProxyError):
    """No key, or a wrong or expired one (HTTP only)."""

    code = "UNAUTHORIZED"


class ForbiddenError(ProxyError):
    """The key may not do this or reach this queue, and the message says what is missing; or a page's origin (HTTP)."""

    code = "FORBIDDEN"


class NotFoundError(ProxyError):
    """No such job, parent or path; or an answer for a job that this connection does not hold."""

    code = "NOT_FOUND"


class NotLockedError(ProxyError):
    """The job's lock is missing or somebody else's."""

    code = "NOT_LOCKED"


class ConflictError(ProxyError):
    """The job or queue is in a state that does not allow this; or the job that was waited for has failed."""

    code = "CONFLICT"


class TooManyRequestsError(ProxyError):
    """The key's limit of calls or connections is reached, try again in a second; or too many calls of this
    connection wait already; nothing was done.
    """

    code = "TOO_MANY_REQUESTS"


class RedisUnavailableError(ProxyError):
    """Redis is not reachable or cannot serve; nothing was written, try again."""

    code = "REDIS_UNAVAILABLE"


class KeysUnavailableError(ProxyError):
    """The keys that tokens are signed with are being read; nothing was done, try again in a second."""

    code = "KEYS_UNAVAILABLE"


class OutcomeUnknownError(ProxyError):
    """The link to Redis broke while a write was under way, or another gateway does not answer: it may have happened,
    or not; or it is written, and not known to be in `min_replicas` replicas.
    """

    code = "OUTCOME_UNKNOWN"


class WaitTimeoutError(ProxyError):
    """The job that was waited for did not end in time; or Redis does not answer (`/ready` only)."""

    code = "TIMEOUT"


class ShuttingDownError(ProxyError):
    """The gateway stops; try again elsewhere."""

    code = "SHUTTING_DOWN"


class InternalError(ProxyError):
    """Redis refused the command, or a bug of the gateway's, whose log then has the details."""

    code = "INTERNAL"


class ClosedError(ProxyError):
    """This client was closed, or the gateway has closed its connection for good."""

    code = "CLOSED"


class UnreachableError(ProxyError):
    """There was no connection for too long; nothing was sent."""

    code = "UNREACHABLE"


CLASSES: Final[dict[str, type[ProxyError]]] = {
    "INVALID_MESSAGE": InvalidMessageError,
    "INVALID_ARGUMENTS": InvalidArgumentsError,
    "UNKNOWN_FUNCTION": UnknownFunctionError,
    "UNAUTHORIZED": UnauthorizedError,
    "FORBIDDEN": ForbiddenError,
    "NOT_FOUND": NotFoundError,
    "NOT_LOCKED": NotLockedError,
    "CONFLICT": ConflictError,
    "TOO_MANY_REQUESTS": TooManyRequestsError,
    "REDIS_UNAVAILABLE": RedisUnavailableError,
    "KEYS_UNAVAILABLE": KeysUnavailableError,
    "OUTCOME_UNKNOWN": OutcomeUnknownError,
    "TIMEOUT": WaitTimeoutError,
    "SHUTTING_DOWN": ShuttingDownError,
    "INTERNAL": InternalError,
    "CLOSED": ClosedError,
    "UNREACHABLE": UnreachableError,
}
"""The class of each code."""
