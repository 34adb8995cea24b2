"""The rows of endpoints that the ancestor has, too: its routes for jobs, and those for webhook workers."""

from __future__ import annotations

import enum
from typing import Final

from bullmq_proxy.gateway.access.grants import MANAGERS, Permission
from bullmq_proxy.gateway.wire.endpoint_rows import Row

_PRODUCERS: Final = frozenset({Permission.PRODUCE})
_HOLDERS: Final = frozenset({Permission.CONSUME})
_OBSERVERS: Final = frozenset({Permission.OBSERVE})


@enum.unique
class AncestorEndpoint(enum.Enum):
    """An endpoint of taskforcesh/bullmq-proxy: its answers are text, and it has no methods but those of its clients."""

    ADD_JOBS = Row(
        methods=("POST",),
        paths=("/queues/{queue}/jobs",),
        permissions=_PRODUCERS,
        action="add jobs",
        options=None,
        title="Add jobs",
        description="The body is an array of jobs with name, data and opts; so is the answer.",
    )
    GET_JOBS = Row(
        methods=("GET",),
        paths=("/queues/{queue}/jobs",),
        permissions=_OBSERVERS,
        action="read jobs",
        options=None,
        title="Jobs",
        description="A page of jobs of each of the `statuses`, and their counts.",
    )
    GET_JOB = Row(
        methods=("GET",),
        paths=("/queues/{queue}/jobs/{job}",),
        permissions=_OBSERVERS,
        action="read jobs",
        options=None,
        title="A job",
        description="The job, or 404.",
    )
    UPDATE_PROGRESS = Row(
        methods=("POST",),
        paths=("/queues/{queue}/jobs/{job}/progress",),
        permissions=_HOLDERS,
        action="write on jobs",
        options=None,
        title="Progress",
        description="The body is the progress of the job whose lock has the token that stands for the key.",
    )
    ADD_LOG = Row(
        methods=("POST",),
        paths=("/queues/{queue}/jobs/{job}/logs",),
        permissions=_HOLDERS,
        action="write on jobs",
        options=None,
        title="Log",
        description="The body is a row for the log of the job whose lock has the token that stands for the key.",
    )
    GET_LOGS = Row(
        methods=("GET",),
        paths=("/queues/{queue}/jobs/{job}/logs",),
        permissions=_OBSERVERS,
        action="read jobs",
        options=None,
        title="Rows of a log",
        description="A page of the log of a job, and how many rows it has.",
    )

    @property
    def is_for_holders(self) -> bool:
        """Whether the token of a job's lock stands for the key."""
        return self.value.permissions == _HOLDERS


@enum.unique
class WorkersEndpoint(enum.Enum):
    """An endpoint for webhook workers. Where the ancestor has it, too, a client that accepts JSON alone gets ours."""

    POST_WORKER = Row(
        methods=("POST",),
        paths=("/workers",),
        permissions=MANAGERS,
        action="register workers",
        options=None,
        title="Register a worker",
        description="The body is a worker in the ancestor's form: queue, endpoint and opts.",
    )
    GET_WORKERS = Row(
        methods=("GET",),
        paths=("/workers",),
        permissions=MANAGERS,
        action="see workers",
        options=None,
        title="Workers",
        description="The URL of each queue that has a worker; with `Accept: application/json` the workers.",
    )
    PUT_WORKER = Row(
        methods=("PUT",),
        paths=("/workers/{worker}",),
        permissions=MANAGERS,
        action="register workers",
        options=None,
        title="Register a worker",
        description="The body is the registration; it replaces the one of this name and queue.",
    )
    GET_WORKER = Row(
        methods=("GET",),
        paths=("/workers/{worker}",),
        permissions=MANAGERS,
        action="see workers",
        options=None,
        title="A worker",
        description="The registration, without its secrets, or 404; `?queue=` where several queues have the name.",
    )
    DELETE_WORKER = Row(
        methods=("DELETE",),
        paths=("/workers/{worker}",),
        permissions=MANAGERS,
        action="delete workers",
        options=None,
        title="Delete a worker",
        description="Its endpoint gets no more jobs; `?queue=` as for GET.",
    )

    @property
    def has_ancestor(self) -> bool:
        """Whether the ancestor has this endpoint, in another form."""
        return self not in (WorkersEndpoint.PUT_WORKER, WorkersEndpoint.GET_WORKER)
