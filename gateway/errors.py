"""The errors that clients see: one family, one table of codes, and the meaning of BullMQ's return codes."""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Final


class ErrorCode(enum.StrEnum):
    """`err.code` on the wire. A member is a row: code, HTTP status, meaning; one without a status cannot be imported.

    Attributes:
        http_status: of a refused HTTP request.
        meaning: in a few words, for the documents.
    """

    http_status: HTTPStatus
    meaning: str

    def __new__(cls, code: str, http_status: HTTPStatus, meaning: str) -> ErrorCode:
        """Make a member of its row."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.http_status = http_status
        member.meaning = meaning
        return member

    INVALID_MESSAGE = (
        "INVALID_MESSAGE",
        HTTPStatus.BAD_REQUEST,
        "not JSON, no envelope, or an answer of an unknown form",
    )
    INVALID_ARGUMENTS = (
        "INVALID_ARGUMENTS",
        HTTPStatus.BAD_REQUEST,
        "an argument or option cannot be used; the message names the place",
    )
    UNKNOWN_FUNCTION = "UNKNOWN_FUNCTION", HTTPStatus.NOT_FOUND, "no such function"
    UNAUTHORIZED = "UNAUTHORIZED", HTTPStatus.UNAUTHORIZED, "no key, or a wrong or expired one (HTTP only)"
    FORBIDDEN = (
        "FORBIDDEN",
        HTTPStatus.FORBIDDEN,
        "the key may not do this or reach this queue, and the message says what is missing; or a page's origin (HTTP)",
    )
    NOT_FOUND = (
        "NOT_FOUND",
        HTTPStatus.NOT_FOUND,
        "no such job, parent or path; or an answer for a job that this connection does not hold",
    )
    NOT_LOCKED = "NOT_LOCKED", HTTPStatus.CONFLICT, "the job's lock is missing or somebody else's"
    CONFLICT = (
        "CONFLICT",
        HTTPStatus.CONFLICT,
        "the job or queue is in a state that does not allow this; or the job that was waited for has failed",
    )
    TOO_MANY_REQUESTS = (
        "TOO_MANY_REQUESTS",
        HTTPStatus.TOO_MANY_REQUESTS,
        "the key's limit of calls or connections is reached, try again in a second; or too many calls of this"
        " connection wait already; nothing was done",
    )
    REDIS_UNAVAILABLE = (
        "REDIS_UNAVAILABLE",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Redis is not reachable or cannot serve; nothing was written, try again",
    )
    KEYS_UNAVAILABLE = (
        "KEYS_UNAVAILABLE",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the keys that tokens are signed with are being read; nothing was done, try again in a second",
    )
    OUTCOME_UNKNOWN = (
        "OUTCOME_UNKNOWN",
        HTTPStatus.BAD_GATEWAY,  # not 503, after which clients try again
        "the link to Redis broke while a write was under way, or another gateway does not answer: it may have happened"
        ", or not; or it is written, and not known to be in `min_replicas` replicas",
    )
    TIMEOUT = (
        "TIMEOUT",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the job that was waited for did not end in time; or Redis does not answer (`/ready` only)",
    )
    SHUTTING_DOWN = (
        "SHUTTING_DOWN",
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the gateway stops; try again elsewhere",
    )
    INTERNAL = (
        "INTERNAL",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Redis refused the command, or a bug of the gateway's, whose log then has the details",
    )


class GatewayError(Exception):
    """An error that the client sees: its `code`, and a `message` that says what is wrong, where, and what to do."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# BullMQ's scripts answer failures with a negative number; the texts are those of Node's `finishedErrors`.
_FINISHED: Final[dict[int, tuple[ErrorCode, str]]] = {
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
_UNKNOWN: Final = (ErrorCode.INTERNAL, "Unknown code {code} error for {job_id}. {command}")


def finished_error(
    code: int,
    *,
    command: str,
    job_id: str | None = None,
    state: str | None = None,
    parent_key: str | None = None,
) -> GatewayError:
    """Return the error for a negative return code of one of BullMQ's scripts; an unknown one is INTERNAL.

    Args:
        code: the negative number.
        command: the name that Node's BullMQ puts into the text, such as `moveToFinished`.
        job_id: the job's id.
        state: the state that the command expects the job in.
        parent_key: `<prefix>:<queue>:<id>` of the job's parent.
    """
    error_code, text = _FINISHED.get(code, _UNKNOWN)
    return GatewayError(
        error_code, text.format(code=code, job_id=job_id, command=command, state=state, parent_key=parent_key)
    )


def invalid_arguments(message: str) -> GatewayError:
    """Return the error for wrong arguments; `message` names the place."""
    return GatewayError(ErrorCode.INVALID_ARGUMENTS, message)
