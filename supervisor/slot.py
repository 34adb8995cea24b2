"""A slot of the fleet: the place of one shard, and what is known of the shard that is there."""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass, field

from bullmq_proxy.supervisor.backoff import Backoff


class State(enum.IntEnum):
    """The life of one slot's shard. It runs one way; a slot begins again with a new incarnation."""

    WAITING, STARTING, READY, LEAVING, ABORTING = range(5)


@dataclass(slots=True)
class Slot:
    """One place of the fleet, and the shard that fills it."""

    index: int
    listener: int | None
    """Whose connections its shard accepts; None: nobody is to be started here, a shard that is here leaves."""
    replaces: int | None = None
    """The slot whose shard leaves when the one that starts here is ready."""
    state: State = State.WAITING
    incarnation: int = -1
    pid: int | None = None
    due: float = 0.0
    """WAITING: when to spawn. STARTING, LEAVING and ABORTING: when to kill."""
    drain_timeout: float = 0.0
    """Seconds that its shard may take to leave: what was configured when it was started."""
    beat: int = 0
    """How many signs of life the shard had given at the last look."""
    moved_at: float = 0.0
    """When a look saw that they had become more, or when watching began."""
    ready_at: float | None = None
    empty_since: float | None = None
    """Since when nobody has served it; None while its shard does, or others do."""
    is_shared: bool = False
    """Do the shards of the other slots serve its socket?"""
    hopeless: int = 0
    """Deaths in a row without having been ready."""
    message: str = ""
    """The shard's own words about its failure."""
    backoff: Backoff = field(default_factory=Backoff)


def describe(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
