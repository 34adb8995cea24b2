"""What a shard has done for its clients since it started: plain counts, for the page of metrics."""

from __future__ import annotations

from typing import Final

from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.values.histogram import CALLS, Histogram

STATES: Final = ("completed", "failed", "waiting", "delayed", "waiting-children")
"""Of a job after a worker's final answer."""

OUTCOMES: Final = ("completed", "accepted", "failed", "busy", "postponed", "lost")
"""Of a request to the endpoint of a webhook worker."""

OTHER: Final = "other"
"""Stands for calls of functions that are in neither table, and of names that are no functions."""


class CallCounts(Histogram):
    """The calls of one function, by how long they took.

    Attributes:
        errors: answered with an error.
    """

    __slots__ = ("errors",)

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__(CALLS)
        self.errors = 0


class Counters:
    """Counts that only grow.

    Attributes:
        begun_calls: of functions, answered or not.
        calls: answered ones, by the name of the function.
        other_calls: those of all that have no entry there.
        call_errors: of these, by the code of the error.
        pushed_jobs: to workers, retries counted again.
        answered_jobs: final answers of workers that Redis has stored, by the job's state then.
        lost_jobs: whose leases were lost while a client had them.
        lost_workers: connections of workers that went with jobs in hand.
        events: delivered, once for each watcher.
        gaps: told to watchers.
        deliveries: requests to endpoints, by what came of them.
        webhooks: registrations that this shard runs now.
        open_breakers: those of them whose endpoint is taken for down.
    """

    __slots__ = (
        "answered_jobs",
        "begun_calls",
        "call_errors",
        "calls",
        "deliveries",
        "events",
        "gaps",
        "lost_jobs",
        "lost_workers",
        "open_breakers",
        "other_calls",
        "pushed_jobs",
        "webhooks",
    )

    def __init__(self) -> None:
        self.begun_calls = 0
        self.calls: dict[str, CallCounts] = {}
        self.other_calls = CallCounts()
        self.call_errors = dict.fromkeys(ErrorCode, 0)
        self.pushed_jobs = 0
        self.answered_jobs = dict.fromkeys(STATES, 0)
        self.lost_jobs = 0
        self.lost_workers = 0
        self.events = 0
        self.gaps = 0
        self.deliveries = dict.fromkeys(OUTCOMES, 0)
        self.webhooks = 0
        self.open_breakers = 0
