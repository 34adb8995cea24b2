"""A job that may be there already: what stands around the script that stores it, in one transaction with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bullmq_proxy.gateway.broker.redis.socket import pack_command
from bullmq_proxy.gateway.rules.options import Prepared
from bullmq_proxy.gateway.values.text import as_packed_by_node

RunScript = Callable[[str, list[Any], list[Any]], bytes]
"""Packs the call of a script, from its name, KEYS and ARGV."""


class AddIfAbsent:
    """Looks whether the job is there, in front of the script, and what only newer scripts of BullMQ do by themselves.

    The scripts answer with an id whether they have stored the job or found it.
    """

    __slots__ = ("_base", "_id", "_is_own", "_options", "_timestamp")

    def __init__(self, base: str, id: str, options: Prepared, timestamp: int, *, is_own: bool) -> None:
        """Describe a job.

        Args:
            base: `<prefix>:<queue>:`.
            id: of the job; empty: the script counts one up.
            options: of the job.
            timestamp: of the job, in ms.
            is_own: the client chose the id, so that it may be there.
        """
        self._base = base
        self._id = id
        self._is_own = is_own
        self._options = options
        self._timestamp = timestamp

    def commands(self, add: bytes, run: RunScript) -> Iterator[bytes]:
        """Return all commands, with `add`, the call of the script that stores the job, in their midst."""
        options = self._options
        if self._is_own:
            yield pack_command("EXISTS", self._base + self._id)
        if options.deduplication_id is not None:
            yield pack_command("GET", self._deduplication_key)
        if self._frees_child:
            yield run("freeFlowChild", [self._base + self._id, options.parent_key], [])
        yield add
        if options.reschedules:
            keys = [self._base, self._deduplication_key]
            yield run("rescheduleDeduplicated", keys, [self._id, self._timestamp, options.delay])

    def take(self, replies: Iterator[Any]) -> tuple[Any, bool]:
        """Return the script's reply, from the replies to these commands, and whether the job was there."""
        looks = [next(replies) for looked in (self._is_own, self._options.deduplication_id is not None) if looked]
        if self._frees_child:
            next(replies)
        reply = next(replies)
        if self._options.reschedules:
            next(replies)
        return reply, any(look == 1 or (look is not None and look == reply) for look in looks)

    @property
    def _deduplication_key(self) -> str:
        return as_packed_by_node(f"{self._base}de:{self._options.deduplication_id}")

    @property
    def _frees_child(self) -> bool:
        """Whether it can be there already, with a parent that is gone."""
        return self._is_own and self._options.parent_key is not None
