"""A job, with its members as attributes and the functions for it as methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bullmq_proxy.gateway.client.functions import JobFunctions, QueueFunctions


class Job(JobFunctions):
    """A job as the gateway has shown it; it does not change by itself."""

    def __init__(self, queue: QueueFunctions, shown: Mapping[str, Any]) -> None:
        """Make an object for the JSON of a job."""
        self._queue = queue
        self.__dict__.update(shown)

    @property
    def queue(self) -> QueueFunctions:
        """The functions of its queue, over the connection that it came by."""
        return self._queue

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.name}>"
