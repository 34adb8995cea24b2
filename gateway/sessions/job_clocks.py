"""The clocks of the jobs in a client's hands: until it must have said that it has one, and how long one may run."""

from __future__ import annotations

from collections.abc import Callable

from bullmq_proxy.gateway.broker.consuming.leases import Lease
from bullmq_proxy.gateway.sessions.deadlines import Deadlines

OnOverdue = Callable[[list[Lease]], None]


class JobClocks:
    """Both clocks of each job of one Worker connection.

    A client that has never said `ack` is not held to it: the clock of a run then begins with the push.

    Attributes:
        unheard: jobs that were pushed, and of which the client has said nothing yet.
    """

    __slots__ = ("_acks", "_ends", "_is_held_to_acks", "_limits_runs", "unheard")

    def __init__(self, ack_timeout: int, max_runtime: int, on_unheard: OnOverdue, on_overrun: OnOverdue) -> None:
        """Make clocks that stand still.

        Args:
            ack_timeout: milliseconds until something must have been heard of a job.
            max_runtime: milliseconds that a job may run, 0 for any time.
            on_unheard: takes the jobs of which nothing was heard in time.
            on_overrun: takes those that have run for too long.
        """
        self.unheard: dict[Lease, None] = {}
        self._acks = Deadlines(ack_timeout, on_unheard)
        self._ends = Deadlines(max_runtime, on_overrun)
        self._limits_runs = max_runtime > 0
        self._is_held_to_acks = False

    def pushed(self, lease: Lease) -> None:
        """Begin to wait for a word of a job."""
        self.unheard[lease] = None
        if self._is_held_to_acks:
            self._acks.start(lease)
        elif self._limits_runs:  # nothing else says when it starts
            self._ends.start(lease)

    def acknowledged(self) -> None:
        """Hold the client to `ack` from its first one on, for the jobs that it has, too."""
        if not self._is_held_to_acks:
            self._is_held_to_acks = True
            for unheard in self.unheard:
                self._acks.start(unheard)
                self._ends.ends.pop(unheard, None)

    def heard_of(self, lease: Lease) -> None:
        """Take a word of a job: the client has it, and it runs."""
        if self._limits_runs and self._is_held_to_acks and lease in self.unheard:
            self._ends.start(lease)
        self.unheard.pop(lease, None)
        self._acks.ends.pop(lease, None)

    def misread(self, lease: Lease) -> None:
        """Wait for a word of a job again: what came could not be read, and may have been the final answer."""
        self._acks.start(lease)

    def runs(self, lease: Lease) -> None:
        """Let the time of a job's run begin, or begin again."""
        self._ends.start(lease)

    def forget(self, lease: Lease) -> None:
        """Stop the clocks of a job."""
        self.heard_of(lease)
        if self._limits_runs:
            self._ends.ends.pop(lease, None)

    def close(self) -> None:
        """Stop all clocks."""
        self.unheard.clear()
        self._acks.close()
        self._ends.close()
