"""What a key may do: its permissions, and the queues that they are for."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError


class Permission(enum.StrEnum):
    """What a key must be allowed to do to call a function."""

    PRODUCE = "produce"
    CONSUME = "consume"
    OBSERVE = "observe"
    MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights of one key. What is not granted is denied.

    Attributes:
        key: the key's name; never the key.
        permissions: what it may do.
        queues: patterns of the queues that it may do it to; a `*` stands for any text.
        everything: neither of the two limits it, nor does the prefix of the gateway's own queues.
    """

    key: str
    permissions: frozenset[Permission] = frozenset()
    queues: tuple[str, ...] = ()
    everything: bool = False

    def allows(self, permission: Permission) -> bool:
        """Whether the key has a permission."""
        return self.everything or permission in self.permissions

    def check_permission(self, permission: Permission, what: str) -> None:
        """Refuse what needs a permission that the key does not have.

        Args:
            permission: the one that is needed.
            what: is to be done, such as `call pause`.

        Raises:
            GatewayError: FORBIDDEN, saying which permission is missing.
        """
        if not self.allows(permission):
            raise _forbidden(f"The key {self.key} may not {what}: it needs the permission {permission}")

    def check_queue(self, name: str) -> None:
        """Refuse a queue, by its name without the prefix, that none of the key's patterns covers.

        Raises:
            GatewayError: FORBIDDEN.
        """
        if not self.everything and not any(_matches(pattern, name) for pattern in self.queues):
            raise _forbidden(f"The key {self.key} is not for the queue {name[:100]}")

    def check_reach(self, prefix: str, qualified: Iterable[str]) -> None:
        """Refuse to reach other queues than the one of the connection, as a job does with a parent elsewhere.

        Args:
            prefix: of the gateway's own queues; only keys that may do everything reach others.
            qualified: the queues' names with their prefixes, `<prefix>:<queue>`.

        Raises:
            GatewayError: FORBIDDEN.
        """
        if self.everything:
            return
        for whole in qualified:
            name = whole.removeprefix(f"{prefix}:")
            if name == whole or ":" in name:  # names have no colons: what looks like one is a longer prefix
                raise _forbidden(f"The key {self.key} is only for queues with the prefix {prefix}")
            self.check_queue(name)


EVERYTHING: Final = Grant("", everything=True)
"""Of keys that are not limited, and of everybody where no key is needed."""


class Rights:
    """The rights of an open connection as they are now: reading the keys again changes them.

    Attributes:
        grant: of its key at this moment; ask again for each call.
        watchers: are called when it has changed.
    """

    __slots__ = ("_spend", "grant", "watchers")

    def __init__(self, grant: Grant, spend: Callable[[], bool] | None = None) -> None:
        """Make rights.

        Args:
            grant: of the key.
            spend: takes one call off what the key may still send at this moment, False when nothing is left; None for
                a key whose calls nobody counts.
        """
        self.grant = grant
        self.watchers: set[Callable[[], None]] = set()
        self._spend = spend

    def change(self, grant: Grant) -> None:
        """Put another grant in force, for calls that are under way too."""
        self.grant = grant
        for watcher in list(self.watchers):
            watcher()

    def check_rate(self) -> None:
        """Count a call of the key.

        Raises:
            GatewayError: TOO_MANY_REQUESTS.
        """
        if self._spend is not None and not self._spend():
            raise GatewayError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"The key {self.grant.key} has no calls left for now (messages_per_second); try again in a second",
            )


def _matches(pattern: str, name: str) -> bool:
    """Whether the name is the pattern, each `*` of which stands for any text; in linear time, whatever the pattern."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, last = rest
    if not name.startswith(first):
        return False
    at = len(first)
    for part in middle:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(name) - at >= len(last) and name.endswith(last)


def _forbidden(message: str) -> GatewayError:
    return GatewayError(ErrorCode.FORBIDDEN, message)
