"""The Queue API: every function that a client may call, as BullMQ's Node API has it.

A row's signature is its validation and its documentation (see `broker/functions/table.py`). What a function returns is
encoded as JSON: dicts, lists, numbers, `Raw` for text that goes out as it is stored; None where Node has undefined.
"""

from bullmq_proxy.gateway.broker.functions import (
    adding,
    consuming,
    events,
    families,
    jobs,
    limits,
    managing,
    reading,
    schedulers,
    status,
)
from bullmq_proxy.gateway.broker.functions.base import TABLE

__all__ = [
    "TABLE",
    "adding",
    "consuming",
    "events",
    "families",
    "jobs",
    "limits",
    "managing",
    "reading",
    "schedulers",
    "status",
]
