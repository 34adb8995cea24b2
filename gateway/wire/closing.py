"""The tables of close codes that the gateway sends: on open connections, and to clients whose handshake it refuses."""

from __future__ import annotations

import enum
from http import HTTPStatus
from typing import Final, assert_never

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

REASON_LIMIT: Final = 123  # bytes; RFC 6455 §5.5: a control frame carries at most 125, two of them are the code


class CloseCode(enum.IntEnum):
    """Why the gateway closes a connection. A member is a row: code, meaning, whether late messages count.

    1xxx: as RFC 6455 §7.4.1 defines them. 4000-4499: of this protocol. 4500-4509: `Refusal`.

    Attributes:
        meaning: in a few words, for the documents.
        takes_late_messages: messages count that the client sends before it reads the close frame: it did nothing wrong.
    """

    meaning: str
    takes_late_messages: bool

    def __new__(cls, code: int, meaning: str, takes_late_messages: bool) -> CloseCode:
        """Make a member of its row."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.takes_late_messages = takes_late_messages
        return member

    NORMAL = 1000, "normal", False
    GOING_AWAY = 1001, "the gateway stops, or the connection is old: connect again, now or later", True
    UNSUPPORTED_DATA = 1003, "a binary frame came: send text frames", False
    INVALID_DATA = 1007, "a text frame was not UTF-8: send UTF-8", False
    POLICY = (
        1008,
        "too many messages that were no successful calls (`bad_messages_per_second`): mend what is refused",
        False,
    )
    TOO_BIG = (
        1009,
        "a message was over `max_message_size`, or of more than 1024 fragments: send less at a time",
        False,
    )
    INTERNAL = 1011, "a bug of the gateway's: connect again", False
    RESTART = 1012, "reserved: the shard restarts", True
    OVERLOADED = 1013, "a long message did not get on while others waited for its room: send it again later", False
    INVALID_AUTHENTICATION = (  # the oldest client knows this code
        4000,
        "the key was removed, has expired, or lost its rights here: use another one",
        False,
    )
    SENT_AWAY = (
        4001,
        "`disconnectConsumer` or `closeConnection` was called for this connection, or its client has come back on"
        " another one: connect again later, or not",
        True,
    )
    SLOW_CONSUMER = (
        4002,
        "more than `max_write_buffer` of output was not read: read faster; a watcher resumes with `lastEventId`",
        True,
    )
    NO_PONG = 4003, "no answer to pings: connect again", True
    TOKEN_EXPIRED = 4004, "the token has expired: get a fresh one, and connect again", False


class Refusal(enum.IntEnum):
    """Why a client gets no connection. A member is a row: code, status, error, whether to stop, meaning.

    A client that has offered our subprotocol gets the code in a close frame: the WebSockets of browsers show no status.

    Attributes:
        status: of the same refusal by HTTP.
        error: the code of the error.
        stops: the client shall not come back; else it may, later.
        meaning: in a few words, for the documents.
    """

    status: HTTPStatus
    error: ErrorCode
    stops: bool
    meaning: str

    def __new__(cls, code: int, status: HTTPStatus, error: ErrorCode, stops: bool, meaning: str) -> Refusal:
        """Make a member of its row."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.status = status
        member.error = error
        member.stops = stops
        member.meaning = meaning
        return member

    KEY_GONE = (
        CloseCode.INVALID_AUTHENTICATION.value,
        HTTPStatus.UNAUTHORIZED,
        ErrorCode.UNAUTHORIZED,
        True,
        "the key has expired, or was removed a moment ago",
    )
    BAD_REQUEST = (
        4500,
        HTTPStatus.BAD_REQUEST,
        ErrorCode.INVALID_ARGUMENTS,
        True,
        "queue name, concurrency or an option cannot be used; the reason names the place",
    )
    UNAUTHORIZED = 4501, HTTPStatus.UNAUTHORIZED, ErrorCode.UNAUTHORIZED, True, "no key, or a wrong one"
    FORBIDDEN = (
        4502,
        HTTPStatus.FORBIDDEN,
        ErrorCode.FORBIDDEN,
        True,
        "the key is not for this queue or kind of connection",
    )
    ORIGIN = (
        4503,
        HTTPStatus.FORBIDDEN,
        ErrorCode.FORBIDDEN,
        True,
        "the page's origin or its host name may not connect; whatever else is wrong, such a page learns nothing of it",
    )
    NOT_FOUND = 4504, HTTPStatus.NOT_FOUND, ErrorCode.NOT_FOUND, True, "no WebSocket has this path"
    VERSION = (
        4505,
        HTTPStatus.UPGRADE_REQUIRED,
        ErrorCode.INVALID_MESSAGE,
        True,
        "of this protocol the client offers only versions that the gateway does not speak",
    )
    LIMIT = (
        4506,
        HTTPStatus.TOO_MANY_REQUESTS,
        ErrorCode.TOO_MANY_REQUESTS,
        False,
        "the key, the address or the shard has all its connections open",
    )
    INTERNAL = (
        4507,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        ErrorCode.INTERNAL,
        False,
        "Redis refused a command (Events connections), or a bug of the gateway's",
    )
    UNAVAILABLE = (
        4508,
        HTTPStatus.SERVICE_UNAVAILABLE,
        ErrorCode.REDIS_UNAVAILABLE,
        False,
        "Redis does not answer (Events connections), or the keys that tokens are signed with are being read",
    )
    STOPPING = 4509, HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.SHUTTING_DOWN, False, "the gateway stops"


class RefusedError(GatewayError):
    """A refusal that the code of the error does not tell from others; `refusal` is its row."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(refusal.error, message)
        self.refusal = refusal


def refusal_of(error: GatewayError) -> Refusal:
    """Return the row of an error for which a handshake is refused."""
    if isinstance(error, RefusedError):
        return error.refusal
    match error.code:
        case ErrorCode.INVALID_ARGUMENTS | ErrorCode.INVALID_MESSAGE:
            return Refusal.BAD_REQUEST
        case ErrorCode.UNAUTHORIZED:
            return Refusal.UNAUTHORIZED
        case ErrorCode.FORBIDDEN:
            return Refusal.FORBIDDEN
        case ErrorCode.NOT_FOUND | ErrorCode.UNKNOWN_FUNCTION:
            return Refusal.NOT_FOUND
        case ErrorCode.TOO_MANY_REQUESTS:
            return Refusal.LIMIT
        case ErrorCode.INTERNAL | ErrorCode.CONFLICT | ErrorCode.NOT_LOCKED:
            return Refusal.INTERNAL
        case ErrorCode.REDIS_UNAVAILABLE | ErrorCode.KEYS_UNAVAILABLE | ErrorCode.OUTCOME_UNKNOWN | ErrorCode.TIMEOUT:
            return Refusal.UNAVAILABLE
        case ErrorCode.SHUTTING_DOWN:
            return Refusal.STOPPING
        case _:
            assert_never(error.code)


def cut_reason(reason: str) -> str:
    """Cut a close reason to the bytes that fit into a close frame, never inside a character."""
    return reason.encode()[:REASON_LIMIT].decode(errors="ignore")
