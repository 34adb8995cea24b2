"""What options do to the jobs of others: which of their values do it, and the permission for that.

The options of a job stand here; those of a connection name theirs in their table (`wire/connection_options.py`). A
parent, which is such an option too, needs a look at what is stored (`broker/functions/held.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bullmq_proxy.gateway.access.grants import MANAGERS, TUNERS, Effect, Permission


class Acting(NamedTuple):
    """How an option acts on the jobs of others.

    Attributes:
        values: those that do, in words.
        acts: returns whether a value does.
        does: to complete `which …`.
        permissions: the key must have one of these.
    """

    values: str
    acts: Callable[[Any], bool]
    does: str
    permissions: frozenset[Permission]

    def effects(self, option: str, value: Any) -> tuple[Effect, ...]:
        """Return what a value of the option does: one effect or none."""
        return (Effect(option, self.does, self.permissions),) if self.acts(value) else ()


def _removes_others(keep: Any) -> bool:
    """Return whether `removeOnComplete` or `removeOnFail` goes beyond the job itself, as true and 0 do not."""
    if isinstance(keep, dict):
        count = keep.get("count")
        return count != 0 and (keep.get("age") is not None or _removes_others(count))
    return isinstance(keep, int) and not isinstance(keep, bool) and keep > 0


def _acts_on_holder(deduplication: dict[str, Any]) -> bool:
    return any(map(deduplication.get, ("extend", "replace", "reschedule", "keepLastIfActive")))


KEEPS_SOME: Final = Acting("a count or an age", _removes_others, "removes finished jobs of others", TUNERS)

OF_JOBS: Final = {
    "jobId": Acting(
        "`repeat:…`", lambda id: id.startswith("repeat:"), "is that of a job scheduler's job and can end it", MANAGERS
    ),
    "removeOnComplete": KEEPS_SOME,
    "removeOnFail": KEEPS_SOME,
    "deduplication": Acting(
        "with `extend`, `replace`, `reschedule` or `keepLastIfActive`",
        _acts_on_holder,
        "replaces or puts off a job of others",
        TUNERS,
    ),
}
"""The options of a job that act on the jobs of others."""


def effects_of(options: dict[str, Any]) -> tuple[Effect, ...]:
    """Return what the options of a job, by their names, do to the jobs of others."""
    effects: tuple[Effect, ...] = ()
    for name, acting in OF_JOBS.items():
        if name in options:
            effects += acting.effects(name, options[name])
    return effects
