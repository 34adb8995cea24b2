"""The rules that a client is judged by, and what it does after each refusal; docs/clients/rules.md shows them."""

from __future__ import annotations

import enum
from typing import Final

WORKER: Final = "worker"
PRODUCER: Final = "producer"
WATCHER: Final = "watcher"
ROLES: Final = (WORKER, PRODUCER, WATCHER)


class Rule(enum.Enum):
    """What a client has to do. A member is a row: its id, what is right, where that is written below `docs/`."""

    right: str
    where: str

    def __new__(cls, id: str, right: str, where: str) -> Rule:
        """Make a member of its row."""
        member = object.__new__(cls)
        member._value_ = id
        member.right = right
        member.where = where
        return member

    # Every connection
    PATH = (
        "path",
        "it asks for `/queue/NAME`, `…/process/CONCURRENCY` or `…/events`, the name percent-encoded as UTF-8",
        "protocol.md#connections",
    )
    KEY = (
        "key",
        "it shows the key as the header `Authorization`, as a pair of subprotocols, or as `?token=`",
        "protocol.md#keys",
    )
    SECRET = "secret", "it prints the key nowhere", "protocol.md#keys"
    FRAMES = (
        "frames",
        "it sends masked text frames of UTF-8, each message one JSON object with `id` and `data`",
        "protocol.md#messages",
    )
    FIRST = (
        "first",
        "it takes a message that comes in one piece with the answer to its handshake: a proxy may put them together",
        "protocol.md#connections",
    )
    FRAGMENTS = (
        "fragments",
        "it takes a message in fragments, empty ones among them, with a ping between them",
        "protocol.md#connections",
    )
    LARGE = "large", "it takes a message of 2 MiB", "limits.md"
    TEXT = "text", "texts and numbers are what they were, whatever is in them", "protocol.md#messages"
    UNKNOWN = "unknown", "it ignores members, types, events and messages that it does not know", "protocol.md#messages"
    PINGS = "pings", "it answers pings, also while it works", "protocol.md#when-a-connection-ends"
    # Workers
    ANSWER = "answer", "each job gets one final answer, under the id of its message", "protocol.md#what-a-worker-sends"
    FAILURE = (
        "failure",
        "a job whose work fails gets `err` with the reason, and the next job is taken",
        "protocol.md#what-a-worker-sends",
    )
    ACK = "ack", "it says `ack` for each job before the work, or for none", "protocol.md#time-limits"
    CANCEL = "cancel", "it gives no answer to a job after `cancel`, and goes on", "protocol.md#what-the-gateway-sends"
    LOST = (
        "lost",
        "it goes on after `lost`, and after an `err` about a message on a job",
        "protocol.md#what-the-gateway-sends",
    )
    DRAIN = (
        "drain",
        "after `drain` it answers the jobs in hand, and it comes back when it is closed with 1001",
        "protocol.md#what-the-gateway-sends",
    )
    AGAIN = (
        "again",
        "a job that is pushed once more on the next connection is worked on once more",
        "protocol.md#when-a-connection-ends",
    )
    OLD = (
        "old",
        "it says nothing about a job of an earlier connection that is not its any more",
        "protocol.md#coming-back",
    )
    TAKE_UP = (
        "take-up",
        "with `grace` it comes back with the `consumer` of the last `welcome`, and answers the jobs that are listed",
        "protocol.md#coming-back",
    )
    HAND_IN = (
        "hand-in",
        "with `grace` and `confirm` it hands in again what was not confirmed before the connection broke",
        "protocol.md#coming-back",
    )
    RELEASE = (
        "release",
        "with `grace` it gives back a job that `welcome` lists and it does not know",
        "protocol.md#coming-back",
    )
    FINISH = (
        "finish",
        "on SIGTERM it answers the jobs in hand, and ends within 5 seconds",
        "worker.md#what-a-worker-has-to-do",
    )
    # After a refusal
    STOP = (
        "stop",
        "after a status or close code that means stop it does not connect again, and its exit code is not 0",
        "failures.md#after-a-refusal",
    )
    WORDS = "words", "it prints what the gateway says about that", "failures.md#after-a-refusal"
    AT_ONCE = "at-once", "after 1001, 4002, 4003 and 4004 it is back within a second", "failures.md#after-a-refusal"
    FRESH_TOKEN = (
        "fresh-token",
        "after 4004 it comes back with the token that is fresh then",
        "tokens.md#when-a-token-expires",
    )
    LATER = (
        "later",
        "else it connects again: after a pause of 50 ms or more, and within 10 seconds",
        "failures.md#after-a-refusal",
    )
    GROWTH = "growth", "pauses grow from try to try", "failures.md#after-a-refusal"
    JITTER = (
        "jitter",
        "pauses differ from client to client, so that thousands do not come back together",
        "failures.md#after-a-refusal",
    )
    RETRY_AFTER = "retry-after", "a pause is no shorter than `Retry-After` says", "failures.md#after-a-refusal"
    STORM = (
        "storm",
        "it makes no more than 6 handshakes within a second, whatever happens",
        "failures.md#after-a-refusal",
    )
    # Producers
    REPLY = (
        "reply",
        "each call is made once, and has its own reply, found by the id, in whatever order and however late they come",
        "protocol.md#queue-api",
    )
    ERROR = "error", "an error of a call is told with its code, and the next call is made", "protocol.md#error-codes"
    REPEAT = (
        "repeat",
        "an `add` with a `jobId` is made again when the connection broke before its reply, under the same id",
        "protocol.md#error-codes",
    )
    NO_REPEAT = (
        "no-repeat",
        "any other call that writes is not made again then: it is told as `OUTCOME_UNKNOWN`",
        "protocol.md#error-codes",
    )
    END = "end", "when the last call has its reply it ends with exit code 0", "clients/rules.md#what-the-command-does"
    # Watchers
    EVENT = "event", "each event is handed on as it came, in the order in which they come", "protocol.md#events-options"
    RESUME = (
        "resume",
        "it comes back with the id of the last event as `lastEventId`, so that none is lost",
        "protocol.md#events-options",
    )
    ONCE = "once", "no event is handed on twice, however often the connection breaks", "protocol.md#events-options"
    GAP = (
        "gap",
        "a `gap` is handed on, and is no event to go on from: its `to` may be an event that is still to come",
        "protocol.md#gaps",
    )


STOP_STATUSES: Final = (400, 401, 403, 404, 405, 413, 414, 426, 431, 505)
LATER_STATUSES: Final = (408, 429, 500, 503)
STOP_CODES: Final = (1002, 1003, 1007, 1008, 1009, 4000, 4500, 4501, 4502, 4503, 4504, 4505)
LATER_CODES: Final = (1006, 1011, 1012, 1013, 4001, 4506, 4507, 4508, 4509)
AT_ONCE_CODES: Final = (1001, 4002, 4003, 4004)
"""What docs/failures.md says a client does after a status or close code; 1006 is a connection that breaks."""

CODE_OF_STATUS: Final = {
    400: "INVALID_ARGUMENTS",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL",
    503: "REDIS_UNAVAILABLE",
}
"""The error codes of refused handshakes; those of the other statuses have `INVALID_MESSAGE`."""
