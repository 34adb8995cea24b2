"""A client of the gateway, for asyncio; `bullmq_proxy.gateway.client.sync` has the same for scripts.

It speaks the protocol alone, and needs nothing but the package websockets.
"""

from bullmq_proxy.gateway.client.errors import ProxyError
from bullmq_proxy.gateway.client.events import Event, QueueEvents
from bullmq_proxy.gateway.client.held import UnrecoverableError, WorkerJob
from bullmq_proxy.gateway.client.job import Job
from bullmq_proxy.gateway.client.queue import FlowProducer, Queue
from bullmq_proxy.gateway.client.worker import Worker

__all__ = [
    "Event",
    "FlowProducer",
    "Job",
    "ProxyError",
    "Queue",
    "QueueEvents",
    "UnrecoverableError",
    "Worker",
    "WorkerJob",
]
