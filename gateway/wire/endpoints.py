"""The table of endpoints: each path that is served, what a key needs there, its options and its documents.

A row has every column: none has a default. Code that branches over endpoints ends with `assert_never`, so that mypy
names each place that a new row is missing in: `app.py` makes its session or its page, `schema/` describes it.
What a WebSocket and a plain request may both ask for stands in two rows, with the methods of each.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import reduce
from typing import Final

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.wire.connection_options import (
    CALL_OPTIONS,
    EVENTS_OPTIONS,
    NO_OPTIONS,
    WORKER_OPTIONS,
    OptionSet,
)
from bullmq_proxy.gateway.wire.queues_options import QUEUES_OPTIONS


class PathParameter(enum.StrEnum):
    """A parameter of a path: `{queue}` there, and so on. The gateway checks the key against each queue."""

    QUEUE = "queue"
    CONCURRENCY = "concurrency"
    FUNCTION = "function"
    JOB = "job"
    WORKER = "worker"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the table says of an endpoint.

    Attributes:
        methods: of HTTP that are answered there.
        paths: the documented one first, then others that lead to the same.
        permissions: the key must have one of these; None where no key is asked for.
        action: in a refusal, behind `The key NAME may not`.
        options: of the query string; None ignores it.
        title: for the documents.
        description: for the documents.
    """

    methods: tuple[str, ...]
    paths: tuple[str, ...]
    permissions: frozenset[Permission] | None
    action: str
    options: OptionSet | None
    title: str
    description: str

    def __post_init__(self) -> None:
        for path in self.paths:
            assert parameters_of(path) == parameters_of(self.path), path

    @property
    def path(self) -> str:
        """The documented path."""
        return self.paths[0]

    @property
    def is_of_one_queue(self) -> bool:
        """Whether the path names a queue, which the key must then be for."""
        return "{queue}" in self.path


def parameters_of(path: str) -> list[PathParameter]:
    """Return the parameters of a path; one that is not in the table of parameters is a ValueError."""
    return [PathParameter(part.strip("{}")) for part in path.split("/") if part.startswith("{")]


def shown(path: str) -> str:
    """Return a path as people read it: `/queue/NAME/process/CONCURRENCY`."""
    return reduce(lambda text, names: text.replace(*names), _SHOWN.items(), path)


_SHOWN: Final = {
    "{queue}": "NAME",
    "{concurrency}": "CONCURRENCY",
    "{function}": "FUNCTION",
    "{job}": "JOB",
    "{worker}": "NAME",
    "{file}": "FILE",
}


def _queue_paths(rest: str = "") -> tuple[str, ...]:
    """Return a path under a queue, and its names in older clients."""
    return tuple(f"{start}/{{queue}}{rest}" for start in ("/queue", "/queues", "/ws/queues"))


_ANY: Final = frozenset(Permission)  # each function is checked when it is called
_UPGRADE: Final = ("GET",)
_PAGE: Final = ("GET", "HEAD", "OPTIONS")
_BATCH: Final = ("POST", "OPTIONS")
_CALL: Final = ("GET", "HEAD", "POST", "OPTIONS")  # all but POST only for functions that do not write


@enum.unique
class SessionEndpoint(enum.Enum):
    """An endpoint that opens a WebSocket connection."""

    QUEUE = Row(
        methods=_UPGRADE,
        paths=_queue_paths(),
        permissions=_ANY,
        action="call anything",
        options=NO_OPTIONS,
        title="Queue API",
        description="Requests that name a function, and their replies.",
    )
    WORKER = Row(
        methods=_UPGRADE,
        paths=_queue_paths("/process/{concurrency}"),
        permissions=frozenset({Permission.CONSUME}),
        action="process jobs",
        options=WORKER_OPTIONS,
        title="Worker API",
        description="Jobs for this client, and what it says of them. Requests of the Queue API can be made here, too.",
    )
    EVENTS = Row(
        methods=_UPGRADE,
        paths=_queue_paths("/events"),
        permissions=frozenset({Permission.OBSERVE}),
        action="watch events",
        options=EVENTS_OPTIONS,
        title="Events API",
        description="What happens in a queue, whoever does it.",
    )
    FLOWS = Row(
        methods=_UPGRADE,
        paths=("/flows",),
        permissions=_ANY,
        action="call anything",
        options=NO_OPTIONS,
        title="Flows API",
        description="Requests that name a function, and their replies.",
    )


@enum.unique
class PageEndpoint(enum.Enum):
    """An endpoint that answers a plain GET."""

    ROOT = Row(
        methods=_PAGE,
        paths=("/",),
        permissions=None,
        action="read this page",
        options=None,
        title="Name",
        description="For browsers the console, for all others name and version, as text.",
    )
    CONSOLE = Row(
        methods=_PAGE,
        paths=("/console/{file}",),
        permissions=None,
        action="read this page",
        options=None,
        title="Files of the console",
        description="A module or the style of the console.",
    )
    HEALTH = Row(
        methods=_PAGE,
        paths=("/health",),
        permissions=None,
        action="read this page",
        options=None,
        title="Health",
        description='200 while the process serves: `{"status":"alive","version":"…"}`.',
    )
    READY = Row(
        methods=_PAGE,
        paths=("/ready",),
        permissions=None,
        action="read this page",
        options=None,
        title="Readiness",
        description='200 with `{"status":"ready"}` while a job could be added and worked, else 503 and why.',
    )
    METRICS = Row(
        methods=_PAGE,
        paths=("/metrics",),
        permissions=None,
        action="read this page",
        options=None,
        title="Metrics",
        description="Figures of all shards, in Prometheus's text format.",
    )
    CLIENT = Row(
        methods=_PAGE,
        paths=("/client.js",),
        permissions=None,
        action="read this page",
        options=None,
        title="Client",
        description="The JavaScript client, an ES module.",
    )
    CLIENT_LINK = Row(
        methods=_PAGE,
        paths=("/client-link.js",),
        permissions=None,
        action="read this page",
        options=None,
        title="Connections of the client",
        description="A part of the client.",
    )
    CLIENT_QUEUE = Row(
        methods=_PAGE,
        paths=("/client-queue.js",),
        permissions=None,
        action="read this page",
        options=None,
        title="Queues of the client",
        description="A part of the client.",
    )
    CLIENT_WORKER = Row(
        methods=_PAGE,
        paths=("/client-worker.js",),
        permissions=None,
        action="read this page",
        options=None,
        title="Workers of the client",
        description="A part of the client.",
    )
    CLIENT_TYPES = Row(
        methods=_PAGE,
        paths=("/client.d.ts",),
        permissions=None,
        action="read this page",
        options=None,
        title="Types of the client",
        description="The client's types, for TypeScript and editors.",
    )


@enum.unique
class CallEndpoint(enum.Enum):
    """An endpoint whose requests call functions."""

    QUEUE = Row(
        methods=_BATCH,
        paths=("/queue/{queue}",),
        permissions=_ANY,
        action="call anything",
        options=NO_OPTIONS,
        title="Calls",
        description="The body is one call, an object with `fn` and `args`, or an array of calls; so is the answer.",
    )
    QUEUE_FUNCTION = Row(
        methods=_CALL,
        paths=("/queue/{queue}/{function}",),
        permissions=_ANY,
        action="call anything",
        options=CALL_OPTIONS,
        title="A call",
        description="The body, or `?args`, is the array of arguments. GET and HEAD: functions that do not write.",
    )
    FLOWS = Row(
        methods=_BATCH,
        paths=("/flows",),
        permissions=_ANY,
        action="call anything",
        options=NO_OPTIONS,
        title="Calls of flows",
        description="Like those of a queue.",
    )
    FLOWS_FUNCTION = Row(
        methods=_CALL,
        paths=("/flows/{function}",),
        permissions=_ANY,
        action="call anything",
        options=CALL_OPTIONS,
        title="A call of flows",
        description="Like one of a queue.",
    )
    QUEUES = Row(
        methods=_PAGE,
        paths=("/queues",),
        permissions=frozenset({Permission.OBSERVE}),
        action="see the queues",
        options=QUEUES_OPTIONS,
        title="Queues",
        description="The queues that the key is for, in pages, as `getQueues` of flows returns them.",
    )


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


_MANAGERS: Final = frozenset({Permission.MANAGE})


@enum.unique
class WorkersEndpoint(enum.Enum):
    """An endpoint for webhook workers. Where the ancestor has it, too, a client that accepts JSON alone gets ours."""

    POST_WORKER = Row(
        methods=("POST",),
        paths=("/workers",),
        permissions=_MANAGERS,
        action="register workers",
        options=None,
        title="Register a worker",
        description="The body is a worker in the ancestor's form: queue, endpoint and opts.",
    )
    GET_WORKERS = Row(
        methods=("GET",),
        paths=("/workers",),
        permissions=_MANAGERS,
        action="see workers",
        options=None,
        title="Workers",
        description="The URL of each queue that has a worker; with `Accept: application/json` the workers.",
    )
    PUT_WORKER = Row(
        methods=("PUT",),
        paths=("/workers/{worker}",),
        permissions=_MANAGERS,
        action="register workers",
        options=None,
        title="Register a worker",
        description="The body is the registration; it replaces the one of this name.",
    )
    GET_WORKER = Row(
        methods=("GET",),
        paths=("/workers/{worker}",),
        permissions=_MANAGERS,
        action="see workers",
        options=None,
        title="A worker",
        description="The registration, without its secrets, or 404.",
    )
    DELETE_WORKER = Row(
        methods=("DELETE",),
        paths=("/workers/{worker}",),
        permissions=_MANAGERS,
        action="delete workers",
        options=None,
        title="Delete a worker",
        description="Its endpoint gets no more jobs.",
    )

    @property
    def has_ancestor(self) -> bool:
        """Whether the ancestor has this endpoint, in another form."""
        return self not in (WorkersEndpoint.PUT_WORKER, WorkersEndpoint.GET_WORKER)


RequestEndpoint = CallEndpoint | AncestorEndpoint | WorkersEndpoint
Endpoint = SessionEndpoint | PageEndpoint | RequestEndpoint
OPENED: Final[tuple[SessionEndpoint | PageEndpoint, ...]] = (*SessionEndpoint, *PageEndpoint)
ENDPOINTS: Final[tuple[Endpoint, ...]] = (*OPENED, *CallEndpoint, *AncestorEndpoint, *WorkersEndpoint)
"""In the order in which they are looked for: `/queue/NAME/events` is no function."""
