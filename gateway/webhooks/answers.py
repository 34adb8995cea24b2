"""What the answer of an endpoint means to its job: from status, headers and body to one verdict, by a table."""

from __future__ import annotations

import email.utils
import math
from http import HTTPStatus
from typing import Final

from msgspec import Raw, Struct

from bullmq_proxy.gateway.values.json_text import encode, json_text
from bullmq_proxy.gateway.wire.answers import Failed

LONGEST_REASON: Final = 2000
"""Characters of an answer's text that a failed job shows."""

SHORTEST_DELAY, LONGEST_DELAY = 100, 3_600_000
"""Milliseconds by which a `Retry-After` can delay a job."""


class Answer(Struct, frozen=True):
    """An answer of an endpoint.

    Attributes:
        status: of HTTP.
        content_type: the header, or empty.
        retry_after: the header, or empty.
        body: as much of it as is read.
    """

    status: int
    content_type: str
    retry_after: str
    body: bytes


class NoAnswer(Struct, frozen=True):
    """Why there is no answer.

    Attributes:
        reason: that the job shows, to whoever may see it: no address of the network here is in it.
        cause: the same for the log, with all that is known; empty where the reason is all.
    """

    reason: str
    cause: str = ""


class Completed(Struct, frozen=True):
    """The job is done; `result` is JSON text."""

    result: Raw


class Accepted(Struct, frozen=True):
    """The endpoint will end the job by its token."""


class Refused(Struct, frozen=True):
    """The job failed, and the endpoint is there."""

    failure: Failed


class Busy(Struct, frozen=True):
    """The endpoint wants to be left alone for so many milliseconds."""

    delay: int


class Down(Struct, frozen=True):
    """The job failed, and nothing would go better there now; `cause` is for the log: no text of the endpoint."""

    failure: Failed
    cause: str


Verdict = Completed | Accepted | Refused | Busy | Down

# Numbers: to look a member of the enumeration up takes longer than all else here.
_ACCEPTED: Final = int(HTTPStatus.ACCEPTED)
_EMPTY: Final = (int(HTTPStatus.NO_CONTENT), int(HTTPStatus.RESET_CONTENT))
_FOR_GOOD: Final = (int(HTTPStatus.GONE), int(HTTPStatus.UNPROCESSABLE_ENTITY))
_MAY_DELAY: Final = (int(HTTPStatus.TOO_MANY_REQUESTS), int(HTTPStatus.SERVICE_UNAVAILABLE))
_DOWN: Final = (int(HTTPStatus.BAD_GATEWAY), int(HTTPStatus.SERVICE_UNAVAILABLE), int(HTTPStatus.GATEWAY_TIMEOUT))
_NULL: Final = Raw(b"null")


def judge(answer: Answer | NoAnswer, now: float) -> Verdict:
    """Return what becomes of the job; `now` in s since 1970, for a `Retry-After` that is a date."""
    if isinstance(answer, NoAnswer):
        return Down(Failed(answer.reason), answer.cause or answer.reason)
    status = answer.status
    if status == _ACCEPTED:
        return Accepted()
    if 200 <= status < 300:
        return _completed(answer)
    if status in _MAY_DELAY and (delay := _delay(answer.retry_after, now)) is not None:
        return Busy(delay)
    failure = Failed(_reason(answer), unrecoverable=status in _FOR_GOOD)
    return Down(failure, _phrase(status)) if status in _DOWN else Refused(failure)


def _completed(answer: Answer) -> Verdict:
    if answer.status in _EMPTY:
        return Completed(_NULL)
    if not _is_json(answer.content_type):
        return Completed(Raw(encode(answer.body.decode(errors="replace"))))
    text = answer.body.strip()
    if not text:
        return Completed(_NULL)
    result = json_text(text) if _is_utf8(text) else None
    if result is None:
        return Refused(Failed("The endpoint's answer says that it is JSON, and is none"))
    return Completed(result)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _reason(answer: Answer) -> str:
    """Return the text of an answer, or its status where there is none."""
    text = answer.body[: 4 * LONGEST_REASON].decode(errors="replace").strip()[:LONGEST_REASON]
    return text or _phrase(answer.status)


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _delay(retry_after: str, now: float) -> int | None:
    """Return the milliseconds of a `Retry-After` (RFC 9110 §10.2.3), within bounds; None for none that can be read."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(SHORTEST_DELAY, min(math.ceil(seconds * 1000), LONGEST_DELAY))
