"""What a shard has done for its clients since it started: plain counts, for the page of metrics."""

from __future__ import annotations

from typing import Final

STATES: Final = ("completed", "failed", "waiting", "delayed", "waiting-children")
"""Of a job after a worker's final answer."""

OUTCOMES: Final = ("completed", "accepted", "failed", "busy", "postponed", "lost")
"""Of a request to the endpoint of a webhook worker."""


class Counters:
    """Counts that only grow.

    Attributes:
        calls: of functions, answered or not.
        refused_calls: answered with an error.
        pushed_jobs: to workers, retries counted again.
        answered_jobs: final answers of workers that Redis has stored, by the job's state then.
        events: delivered, once for each watcher.
        deliveries: requests to endpoints, by what came of them.
        webhooks: registrations that this shard runs now.
        open_breakers: those of them whose endpoint is taken for down.
    """

    __slots__ = (
        "answered_jobs",
        "calls",
        "deliveries",
        "events",
        "open_breakers",
        "pushed_jobs",
        "refused_calls",
        "webhooks",
    )

    def __init__(self) -> None:
        self.calls = 0
        self.refused_calls = 0
        self.pushed_jobs = 0
        self.answered_jobs = dict.fromkeys(STATES, 0)
        self.events = 0
        self.deliveries = dict.fromkeys(OUTCOMES, 0)
        self.webhooks = 0
        self.open_breakers = 0
