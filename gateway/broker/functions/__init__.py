"""The Queue API: every function that a client may call, as BullMQ's Node API has it.

A row's signature is its validation and its documentation (see `broker/functions/table.py`). What a function returns is
encoded as JSON: dicts, lists, numbers, `Raw` for text that goes out as it is stored; None where Node has undefined.
"""

from typing import Final, NamedTuple

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.broker.functions import (
    adding,
    connections,
    consuming,
    events,
    families,
    flows,
    history,
    jobs,
    limits,
    managing,
    queues,
    reaching,
    reading,
    renewing,
    scale,
    schedulers,
    status,
    waiting,
)
from bullmq_proxy.gateway.broker.functions.base import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.wire.endpoint_rows import shown
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint

SUBSCRIBING: Final = ("on", "off", "renew")
"""The functions of an Events connection."""

MANAGING: Final = frozenset(
    function.name for table in (TABLE, FLOWS) for function in table if function.permission is Permission.MANAGE
)
"""The functions that need `manage`, whoever calls them."""

BY_PATH: Final = {
    shown(endpoint.value.path): functions
    for endpoint, functions in (
        (SessionEndpoint.QUEUE, TABLE),
        (SessionEndpoint.FLOWS, FLOWS),
        (SessionEndpoint.EVENTS, SUBSCRIBING),
    )
}
"""The functions of each kind of connection, which those of another kind are told of."""
TABLE.elsewhere = FLOWS.elsewhere = BY_PATH


class Tables(NamedTuple):
    """The functions that clients of a gateway call.

    Attributes:
        queue: those of one queue.
        flows: those of flows, and of what is of no one queue.
    """

    queue: FunctionTable
    flows: FunctionTable


TABLES: Final = Tables(TABLE, FLOWS)
"""All of them, as they are."""

__all__ = [
    "BY_PATH",
    "FLOWS",
    "SUBSCRIBING",
    "TABLE",
    "TABLES",
    "Tables",
    "adding",
    "connections",
    "consuming",
    "events",
    "families",
    "flows",
    "history",
    "jobs",
    "limits",
    "managing",
    "queues",
    "reaching",
    "reading",
    "renewing",
    "scale",
    "schedulers",
    "status",
    "waiting",
]
