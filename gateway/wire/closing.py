"""The table of close codes that the gateway sends."""

from __future__ import annotations

import enum
from typing import Final

REASON_LIMIT: Final = 123  # bytes; RFC 6455 §5.5: a control frame carries at most 125, two of them are the code


class CloseCode(enum.IntEnum):
    """Why the gateway closes a connection. A member is a row: code, meaning, whether late messages count.

    1xxx: as RFC 6455 §7.4.1 defines them. 4000-4499: of this protocol. 4500-4999: do not come back.

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
    GOING_AWAY = 1001, "the gateway stops: connect again, now or later", True
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


def cut_reason(reason: str) -> str:
    """Cut a close reason to the bytes that fit into a close frame, never inside a character."""
    return reason.encode()[:REASON_LIMIT].decode(errors="ignore")
