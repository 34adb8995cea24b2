"""The table of endpoints: each path that is served, what a key needs there, its options and its documents.

A row has every column: none has a default. Code that branches over endpoints ends with `assert_never`, so that mypy
names each place that a new row is missing in: `app.py` makes its session or its page, `schema/` describes it.
What a WebSocket and a plain request may both ask for stands in two rows, with the methods of each.
"""

from __future__ import annotations

import enum
from typing import Final

from bullmq_proxy.gateway.access.grants import MANAGERS, Permission
from bullmq_proxy.gateway.wire.connection_options import (
    CALL_OPTIONS,
    EVENTS_OPTIONS,
    NO_OPTIONS,
    WORKER_OPTIONS,
)
from bullmq_proxy.gateway.wire.connections_options import CONNECTIONS_OPTIONS, HISTORY_OPTIONS, SCALE_OPTIONS
from bullmq_proxy.gateway.wire.endpoint_rows import Row
from bullmq_proxy.gateway.wire.guest_endpoints import AncestorEndpoint, WorkersEndpoint
from bullmq_proxy.gateway.wire.queues_options import QUEUES_OPTIONS


def _queue_paths(rest: str = "") -> tuple[str, ...]:
    """Return a path under a queue, and its names in older clients."""
    return tuple(f"{start}/{{queue}}{rest}" for start in ("/queue", "/queues", "/ws/queues"))


_ANY: Final = frozenset(Permission)  # each function is checked when it is called
_UPGRADE: Final = ("GET",)
_PAGE: Final = ("GET", "HEAD", "OPTIONS")
_BATCH: Final = ("POST", "OPTIONS")
_OBSERVERS: Final = frozenset({Permission.OBSERVE})
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
        permissions=_OBSERVERS,
        action="see the queues",
        options=QUEUES_OPTIONS,
        title="Queues",
        description="The queues that the key is for, in pages, as `getQueues` of flows returns them.",
    )
    CONNECTIONS = Row(
        methods=_PAGE,
        paths=("/connections",),
        permissions=MANAGERS,
        action="see who is connected",
        options=CONNECTIONS_OPTIONS,
        title="Connections",
        description="Who is connected to the queues that the key is for, as `getConnections` of flows returns them.",
    )
    DRAIN_CONNECTION = Row(
        methods=_BATCH,
        paths=("/connections/{connection}/drain",),
        permissions=MANAGERS,
        action="drain connections",
        options=NO_OPTIONS,
        title="Drain a connection",
        description="Let its worker finish what it has, as `drainConnection` of flows.",
    )
    CLOSE_CONNECTION = Row(
        methods=_BATCH,
        paths=("/connections/{connection}/close",),
        permissions=MANAGERS,
        action="close connections",
        options=NO_OPTIONS,
        title="Close a connection",
        description="Send its client away, as `closeConnection` of flows.",
    )
    HISTORY = Row(
        methods=_PAGE,
        paths=("/history",),
        permissions=_OBSERVERS,
        action="see the history",
        options=HISTORY_OPTIONS,
        title="History",
        description="What has become of jobs in the last hour, as `getHistory` of flows returns it.",
    )
    SCALE = Row(
        methods=_PAGE,
        paths=("/scale",),
        permissions=_OBSERVERS,
        action="see how much work there is",
        options=SCALE_OPTIONS,
        title="Scale",
        description="How many jobs of a queue need a worker, as `getScale` of flows returns it.",
    )
    WHOAMI = Row(
        methods=_PAGE,
        paths=("/whoami",),
        permissions=_ANY,
        action="call anything",
        options=NO_OPTIONS,
        title="Who asks",
        description="The key's name, its permissions and queues, as `whoami` of flows returns them.",
    )


RequestEndpoint = CallEndpoint | AncestorEndpoint | WorkersEndpoint
Endpoint = SessionEndpoint | PageEndpoint | RequestEndpoint
OPENED: Final[tuple[SessionEndpoint | PageEndpoint, ...]] = (*SessionEndpoint, *PageEndpoint)
FUNCTIONS: Final[dict[Endpoint, str]] = {
    CallEndpoint.QUEUES: "getQueues",
    CallEndpoint.CONNECTIONS: "getConnections",
    CallEndpoint.DRAIN_CONNECTION: "drainConnection",
    CallEndpoint.CLOSE_CONNECTION: "closeConnection",
    CallEndpoint.HISTORY: "getHistory",
    CallEndpoint.SCALE: "getScale",
    CallEndpoint.WHOAMI: "whoami",
}
"""The function of flows that is called at an endpoint, where the request does not name it."""
ENDPOINTS: Final[tuple[Endpoint, ...]] = (*OPENED, *CallEndpoint, *AncestorEndpoint, *WorkersEndpoint)
"""In the order in which they are looked for: `/queue/NAME/events` is no function."""
