"""The rights of a key: its permissions, the queues that they are for, what options need, and the limit of its calls."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError


class Permission(enum.StrEnum):
    """A permission of a key; each function and each endpoint needs one."""

    PRODUCE = "produce"
    CONSUME = "consume"
    OBSERVE = "observe"
    TUNE = "tune"
    MANAGE = "manage"


TUNERS: Final = frozenset({Permission.TUNE, Permission.MANAGE})
MANAGERS: Final = frozenset({Permission.MANAGE})


class Effect(NamedTuple):
    """What an option does to the jobs of others: it needs a permission of its own, beside that of the function.

    Attributes:
        option: its name, as clients write it.
        does: to complete `which …`, in a refusal.
        permissions: the key must have one of these.
    """

    option: str
    does: str
    permissions: frozenset[Permission]


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights of one key. What is not granted is denied.

    Attributes:
        key: the key's name; never the key.
        permissions: those that it has.
        queues: patterns of the queues that it is for; a `*` stands for any text.
        everything: no permission, queue or prefix limits the key.
    """

    key: str
    permissions: frozenset[Permission] = frozenset()
    queues: tuple[str, ...] = ()
    everything: bool = False

    def allows(self, permission: Permission) -> bool:
        """Return whether the key has a permission."""
        return self.everything or permission in self.permissions

    def allows_any(self, permissions: frozenset[Permission]) -> bool:
        """Return whether the key has one of several permissions."""
        return self.everything or not self.permissions.isdisjoint(permissions)

    def check_permission(self, permission: Permission, action: str) -> None:
        """Refuse an action whose permission the key does not have.

        Args:
            permission: the one that is needed.
            action: such as `call pause`, for the message.

        Raises:
            GatewayError: FORBIDDEN with the missing permission.
        """
        if not self.allows(permission):
            raise _forbidden(f"The key {self.key} may not {action}: it needs the permission {permission}")

    def check_any_permission(self, permissions: frozenset[Permission], action: str) -> None:
        """Refuse an action for which the key has none of several permissions.

        Args:
            permissions: each of them is enough.
            action: such as `watch events`, for the message.

        Raises:
            GatewayError: FORBIDDEN with the missing permissions.
        """
        if self.allows_any(permissions):
            return
        if len(permissions) == len(Permission):
            raise _forbidden(f"The key {self.key} may not {action}: it has no permissions")
        needed = " or ".join(permission for permission in Permission if permission in permissions)
        raise _forbidden(f"The key {self.key} may not {action}: it needs the permission {needed}")

    def check_effects(self, effects: Iterable[Effect], place: str) -> None:
        """Refuse options that act on the jobs of others without a permission for that.

        Args:
            effects: of all options that are set.
            place: where they stand, such as `args[2].`, for the message.

        Raises:
            GatewayError: FORBIDDEN with the option and the missing permissions.
        """
        for effect in effects:
            self.check_any_permission(effect.permissions, f"set `{place}{effect.option}`, which {effect.does}")

    def covers(self, name: str) -> bool:
        """Return whether the key is for a queue; `name` has no prefix."""
        return self.everything or any(_matches(pattern, name) for pattern in self.queues)

    def check_queue(self, name: str) -> None:
        """Refuse a queue that none of the key's patterns covers; `name` has no prefix.

        Raises:
            GatewayError: FORBIDDEN.
        """
        if not self.covers(name):
            raise _forbidden(f"The key {self.key} is not for the queue {name[:100]}")

    def check_all_queues(self, remedy: str) -> None:
        """Refuse what is of all queues to a key that is for some; `remedy` says what else there is.

        Raises:
            GatewayError: FORBIDDEN.
        """
        if not self.covers(""):  # as only patterns of `*` alone do
            raise _forbidden(f"The key {self.key} is not for all queues: {remedy}")

    def check_reach(self, prefix: str, qualified: Iterable[str]) -> None:
        """Refuse queues beside the one of the connection, such as that of a job's parent.

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
"""The grant of keys that are not limited, and of everybody where `no_auth` is set."""


class Rights:
    """The rights of an open connection; they change when the keys file is read again.

    Attributes:
        grant: of the key at this moment; read it again for each call.
        watchers: functions that are called after each change.
        renew: puts a fresh token in force, or raises GatewayError; None for a connection that was opened without one.
    """

    __slots__ = ("_spend", "grant", "renew", "watchers")

    def __init__(self, grant: Grant, spend: Callable[[int], bool] | None = None) -> None:
        """Make rights.

        Args:
            grant: of the key.
            spend: counts so many calls of the key, and returns False when it has not as many left; None for a key
                without limit.
        """
        self.grant = grant
        self.watchers: set[Callable[[], None]] = set()
        self.renew: Callable[[str], None] | None = None
        self._spend = spend

    def change(self, grant: Grant) -> None:
        """Put another grant in force, also for calls that are under way."""
        self.grant = grant
        for watcher in list(self.watchers):
            watcher()

    def check_rate(self, jobs: int = 0) -> None:
        """Count a call of the key, or the jobs that a call adds beside its first one.

        Raises:
            GatewayError: TOO_MANY_REQUESTS.
        """
        if self._spend is None or self._spend(jobs or 1):
            return
        left = f"no room for {jobs + 1} jobs" if jobs else "no calls left"
        remedy = "try again in a second, or with fewer at a time" if jobs else "try again in a second"
        raise GatewayError(
            ErrorCode.TOO_MANY_REQUESTS, f"The key {self.grant.key} has {left} for now (messages_per_second); {remedy}"
        )


def _matches(pattern: str, name: str) -> bool:
    """Return whether a pattern covers a name: each `*` stands for any text. Linear time, whatever the pattern."""
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
