"""The close codes that the gateway sends, in one table."""

from __future__ import annotations

import enum
from typing import Final

REASON_LIMIT = 123  # RFC 6455 §5.5: a control frame carries at most 125 bytes, two of them are the code


class CloseCode(enum.IntEnum):
    """Why the gateway closes a connection; the range tells the client what to do next.

    1xxx: as RFC 6455 §7.4.1 defines them. 4000-4499: of this protocol. 4500-4999: do not come back.
    """

    NORMAL = 1000
    GOING_AWAY = 1001  # the gateway stops
    UNSUPPORTED_DATA = 1003  # a binary frame
    INVALID_DATA = 1007  # a text frame that is not UTF-8
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011  # our bug
    RESTART = 1012  # this shard restarts, reconnect at once
    OVERLOADED = 1013
    INVALID_AUTHENTICATION = 4000  # stop: the key is over; the oldest client knows this code
    SLOW_CONSUMER = 4002  # what we had to send was not read
    NO_PONG = 4003


MEANINGS: Final = {
    CloseCode.NORMAL: "normal",
    CloseCode.GOING_AWAY: "the gateway stops: connect again, now or later",
    CloseCode.UNSUPPORTED_DATA: "a binary frame came: send text frames",
    CloseCode.INVALID_DATA: "a text frame was not UTF-8: send UTF-8",
    CloseCode.POLICY: "reserved: policy",
    CloseCode.TOO_BIG: "a message was over `max_message_size`, or of more than 1024 fragments: send less at a time",
    CloseCode.INTERNAL: "a bug of the gateway's: connect again",
    CloseCode.RESTART: "reserved: the shard restarts",
    CloseCode.OVERLOADED: "reserved: overloaded",
    CloseCode.INVALID_AUTHENTICATION: "the key was removed, has expired, or lost its rights here: use another one",
    CloseCode.SLOW_CONSUMER: (
        "more than `max_write_buffer` of output was not read: read faster; a watcher resumes with `lastEventId`"
    ),
    CloseCode.NO_PONG: "no answer to pings: connect again",
}
"""What each code says, in a few words."""


def cut_reason(reason: str) -> str:
    """Cut a close reason to the bytes that fit into a close frame, never inside a character."""
    return reason.encode()[:REASON_LIMIT].decode(errors="ignore")
