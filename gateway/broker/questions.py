"""The questions of shards to each other over the channel, the answers, and the readers of both."""

from __future__ import annotations

import logging
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.broker.consuming.grace import Kept
from bullmq_proxy.gateway.rules.shapes import ConnectionKind, ShownConnection

log = logging.getLogger(__name__)


class Overtaken(Struct, frozen=True, tag="overtaken"):
    """A job was taken from its holder by its token; was the client told?"""

    job: str
    token: str
    reason: str


class WhoWorks(Struct, frozen=True, tag="whoWorks"):
    """Who works on a queue?"""

    queue: str


class Retire(Struct, frozen=True, tag="retire"):
    """A worker is to take no new jobs; is it there?"""

    queue: str
    worker: str


class SendAway(Struct, frozen=True, tag="sendAway"):
    """A worker is to be disconnected; is it there?"""

    queue: str
    worker: str


class LookAgain(Struct, frozen=True, tag="lookAgain"):
    """Something about a queue has changed of which Redis tells nobody: a limit is gone, or jobs are."""

    queue: str


class TakeUp(Struct, frozen=True, tag="takeUp"):
    """A client has come back on another connection; what is kept for it?"""

    queue: str
    worker: str
    secret: str
    key: str
    taker: str


class Moved(Struct, frozen=True, tag="moved"):
    """These jobs were moved by their tokens, or their locks are under others now; ids and tokens."""

    jobs: list[Raw]


class WhoIsConnected(Struct, frozen=True, tag="whoIsConnected"):
    """Who is connected to the queues of a grant; `queue`, `kind` and `limit` are those of `ConnectionsQuery`."""

    grant: Grant
    queue: str | None
    kind: ConnectionKind | None
    limit: int


class Dismiss(Struct, frozen=True, tag="dismiss"):
    """A connection on a queue of a grant is to be closed, or its worker to finish; is it there?"""

    grant: Grant
    connection: str
    closes: bool


class HowMany(Struct, frozen=True, tag="howMany"):
    """How many work on each of these queues, and how many watch it? Names, each as JSON text."""

    queues: list[Raw]


Question = Overtaken | WhoWorks | Retire | SendAway | LookAgain | TakeUp | Moved | WhoIsConnected | Dismiss | HowMany


class Shown(Struct, frozen=True):
    """A piece of the answer to `WhoWorks`."""

    workers: list[Raw]
    omitted: int = 0


class Listed(Struct, frozen=True):
    """A piece of the answer to `WhoIsConnected`."""

    connections: list[ShownConnection]
    omitted: int = 0


class Many(Struct, frozen=True):
    """A piece of the answer to `HowMany`: names, workers, watchers; queues that have neither are left out."""

    queues: list[Raw]


T = TypeVar("T")


def read(decoder: msgspec.json.Decoder[T], text: bytes | Raw) -> T | None:
    """Return what another gateway has written; None, with a line in the log, where it is nothing that one writes."""
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.warning("another gateway says what cannot be read, in %d bytes", len(text))
        return None


QUESTION: Final = msgspec.json.Decoder(Question)
KEPT: Final = msgspec.json.Decoder(Kept)
PAIR: Final = msgspec.json.Decoder(tuple[str, str])
SHOWN: Final = msgspec.json.Decoder(Shown)
LISTED: Final = msgspec.json.Decoder(Listed)
MANY: Final = msgspec.json.Decoder(Many)
USERS: Final = msgspec.json.Decoder(tuple[str, int, int])
NAME: Final = msgspec.json.Decoder(str)
