"""Reads behind a write that was refused: a replica answers them, but without that write, and maybe with old data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from bullmq_proxy.gateway.broker.redis.socket import Entry
from bullmq_proxy.gateway.errors import GatewayError

_COMMANDS: Final = frozenset(
    b"EXISTS GET HEXISTS HGET HGETALL HLEN HMGET HSCAN LLEN LRANGE MGET PTTL SCARD SISMEMBER SSCAN TYPE XINFO XRANGE"
    b" XREVRANGE ZCARD ZCOUNT ZRANGE ZREVRANGE ZSCORE".split()
)
READ_SCRIPTS: Final = (
    "getCounts",
    "getCountsPerPriority",
    "getRanges",
    "getState",
    "getStateV2",
    "lookAtFamily",
    "notInSets",
    "readEntries",
    "readEvents",
    "readJobs",
    "scanFields",
)
"""Scripts that write nothing, except that two of them remove the marker of an old version."""


def take_reads(pending: deque[Entry], take: Callable[[Entry], None]) -> None:
    """Give the reads among commands that wait for their replies to `take`, each when its reply comes, and drop that.

    What is no read for certain keeps its reply: it may have been executed.
    """
    for index, entry in enumerate(pending):
        if _reads(entry):
            pending[index] = (partial(_taken, entry, take), *entry[1:])


def _taken(entry: Entry, take: Callable[[Entry], None], reply: Any) -> None:
    if isinstance(reply, GatewayError):  # the connection was lost
        entry[0](reply)
    else:
        take(entry)


def _reads(entry: Entry) -> bool:
    _, _, replies, command, _ = entry
    head = command[0] if isinstance(command, list) else command
    if replies > 1 or not isinstance(head, bytes):
        return False
    words = head.split(b"\r\n", 5)  # the number of words; then length and text of each
    return words[2] in _COMMANDS or (words[2] == b"EVALSHA" and words[4] in _read_shas())


@cache
def _read_shas() -> frozenset[bytes]:
    texts = script_texts()
    return frozenset(sha_of(texts[name]).encode() for name in READ_SCRIPTS)
