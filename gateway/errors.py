"""The errors that clients see: one family, one table of codes, and what BullMQ's return codes mean."""

from __future__ import annotations

import enum
from typing import Final


class ErrorCode(enum.StrEnum):
    """`err.code` on the wire."""

    INVALID_MESSAGE = "INVALID_MESSAGE"
    INVALID_ARGUMENTS = "INVALID_ARGUMENTS"
    UNKNOWN_FUNCTION = "UNKNOWN_FUNCTION"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    NOT_LOCKED = "NOT_LOCKED"
    CONFLICT = "CONFLICT"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    REDIS_UNAVAILABLE = "REDIS_UNAVAILABLE"  # nothing was written, try again
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"  # the link broke while a write was under way: it may have happened
    TIMEOUT = "TIMEOUT"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL = "INTERNAL"


MEANINGS: Final = {
    ErrorCode.INVALID_MESSAGE: "not JSON, no envelope, or an answer of an unknown form",
    ErrorCode.INVALID_ARGUMENTS: "an argument or option cannot be used; the message names the place",
    ErrorCode.UNKNOWN_FUNCTION: "no such function",
    ErrorCode.UNAUTHORIZED: "no key, or a wrong or expired one (HTTP only)",
    ErrorCode.FORBIDDEN: (
        "the key may not do this or reach this queue, and the message says what is missing; or a page's origin (HTTP)"
    ),
    ErrorCode.NOT_FOUND: "no such job, parent or path; or an answer for a job that this connection does not hold",
    ErrorCode.NOT_LOCKED: "the job's lock is missing or somebody else's",
    ErrorCode.CONFLICT: (
        "the job or queue is in a state that does not allow this; or the job that was waited for has failed"
    ),
    ErrorCode.TOO_MANY_REQUESTS: (
        "the key's limit of calls or connections is reached, try again in a second; or too many calls of this"
        " connection wait already; nothing was done"
    ),
    ErrorCode.REDIS_UNAVAILABLE: "Redis is not reachable or cannot serve; nothing was written, try again",
    ErrorCode.OUTCOME_UNKNOWN: "the link to Redis broke while a write was under way: it may have happened, or not",
    ErrorCode.TIMEOUT: "Redis did not answer a read in time, nothing was written; or a job did not end in time",
    ErrorCode.SHUTTING_DOWN: "the gateway stops; try again elsewhere",
    ErrorCode.INTERNAL: "Redis refused the command, or a bug of the gateway's, whose log then has the details",
}
"""What each code says: the protocol page and the AsyncAPI document have these words."""


class GatewayError(Exception):
    """Everything that the gateway raises on purpose; `code` and `message` are what the client gets to see."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# BullMQ's scripts answer failures with a negative number; the texts are those of Node's `finishedErrors`.
_FINISHED: dict[int, tuple[ErrorCode, str]] = {
    -1: (ErrorCode.NOT_FOUND, "Missing key for job {job_id}. {command}"),
    -2: (ErrorCode.NOT_LOCKED, "Missing lock for job {job_id}. {command}"),
    -3: (ErrorCode.CONFLICT, "Job {job_id} is not in the {state} state. {command}"),
    -4: (ErrorCode.CONFLICT, "Job {job_id} has pending dependencies. {command}"),
    -5: (ErrorCode.NOT_FOUND, "Missing key for parent job {parent_key}. {command}"),
    -6: (ErrorCode.NOT_LOCKED, "Lock mismatch for job {job_id}. Cmd {command} from {state}"),
    -7: (ErrorCode.CONFLICT, "The parent job {parent_key} cannot be replaced. {command}"),
    -8: (
        ErrorCode.CONFLICT,
        "Job {job_id} belongs to a job scheduler and cannot be removed directly. {command}",
    ),
    -9: (
        ErrorCode.CONFLICT,
        "Cannot complete job {job_id} because it has at least one failed child. {command}",
    ),
    -10: (
        ErrorCode.CONFLICT,
        "Cannot create job scheduler iteration - job ID already exists. {command}",
    ),
    -11: (
        ErrorCode.CONFLICT,
        "Cannot create job scheduler iteration - current and next time slots already have jobs. {command}",
    ),
}
_UNKNOWN = (ErrorCode.INTERNAL, "Unknown code {code} error for {job_id}. {command}")


def finished_error(
    code: int,
    *,
    command: str,
    job_id: str | None = None,
    state: str | None = None,
    parent_key: str | None = None,
) -> GatewayError:
    """The error for a negative return code of one of BullMQ's scripts.

    Args:
        code: what the script returned.
        command: the name that Node's BullMQ puts into the text, such as `moveToFinished`.
        job_id: the job that was asked for.
        state: the state that the command expects the job in.
        parent_key: `<prefix>:<queue>:<id>` of the job's parent.
    """
    kind, text = _FINISHED.get(code, _UNKNOWN)
    return GatewayError(
        kind, text.format(code=code, job_id=job_id, command=command, state=state, parent_key=parent_key)
    )


def invalid_arguments(message: str) -> GatewayError:
    """The caller's arguments are wrong; `message` names the place."""
    return GatewayError(ErrorCode.INVALID_ARGUMENTS, message)
