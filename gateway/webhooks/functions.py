"""What can be done to webhook workers, as functions, by whoever manages their queues."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

from msgspec import Meta, Raw

from bullmq_proxy.gateway.access.grants import Grant
from bullmq_proxy.gateway.broker.functions.base import MANAGE, Context
from bullmq_proxy.gateway.broker.functions.table import FunctionTable
from bullmq_proxy.gateway.errors import invalid_arguments
from bullmq_proxy.gateway.rules.options import KeepJobs
from bullmq_proxy.gateway.values.slots import check_tag
from bullmq_proxy.gateway.webhooks.ancestor import read_worker
from bullmq_proxy.gateway.webhooks.registration import Limiter, Registration, check_name, read_registration
from bullmq_proxy.gateway.webhooks.workers import Webhooks

WORKERS: Final = FunctionTable()
QUEUE: Final = "queue"
"""The parameter of the query string that says of which queue a worker is."""


class ShownEndpoint(TypedDict):
    """Where jobs are sent; the values of the headers are hidden."""

    url: str
    method: Literal["POST", "PUT", "PATCH"]
    headers: dict[str, str]
    timeout: int


class Worker(TypedDict):
    """A webhook worker; its secrets are hidden."""

    name: str
    queue: str
    endpoint: ShownEndpoint
    concurrency: int
    limiter: NotRequired[Limiter]
    lockDuration: int
    maxStalledCount: int
    removeOnComplete: NotRequired[bool | int | KeepJobs]
    removeOnFail: NotRequired[bool | int | KeepJobs]
    secrets: Annotated[list[str], Meta(max_length=2)]


@WORKERS.function(MANAGE, writes=True)
async def put_worker(workers: Webhooks, name: str, body: Raw, *, context: Context) -> Worker:
    """Register a worker, or replace the one of this name, and return it as it is shown."""
    check_name(name)
    registration = read_registration(body, workers.limits)
    await _put(workers, name, registration, context.grant)
    return _shown(name, registration)


@WORKERS.function(MANAGE, writes=True)
async def put_worker_of_queue(workers: Webhooks, body: Raw, *, context: Context) -> None:
    """Register the worker of a queue, whose name it has, in the ancestor's form."""
    registration = read_worker(body, workers.limits)
    await _put(workers, registration.queue, registration, context.grant, is_strict=False)


async def _put(
    workers: Webhooks, name: str, registration: Registration, grant: Grant, *, is_strict: bool = True
) -> None:
    grant.check_queue(registration.queue)
    if workers.limits.cluster_prefix is not None:
        check_tag(workers.limits.cluster_prefix, registration.queue, " - at `body.queue`")
    if is_strict:  # the ancestor's clients expect to be let in; what must not be asked is refused when a job comes
        try:
            workers.guard.check_literal(registration.endpoint.url)
        except OSError as error:
            raise invalid_arguments(f"{error} - at `body.endpoint.url`") from None
    await workers.put(name, registration, grant)


@WORKERS.function(MANAGE, writes=False)
async def get_workers(workers: Webhooks, *, context: Context) -> list[Worker]:
    """Return the workers of the queues that the key is for."""
    return [_shown(name, registration) for name, registration in await workers.all(context.grant)]


@WORKERS.function(MANAGE, writes=False)
async def get_urls(workers: Webhooks, *, context: Context) -> dict[str, str]:
    """Return the URL of each queue that has a worker, and that the key is for, as the ancestor shows them."""
    return {each.queue: each.endpoint.url for _, each in await workers.all(context.grant)}


@WORKERS.function(MANAGE, writes=False)
async def get_worker(workers: Webhooks, name: str, queue: str | None, *, context: Context) -> Worker:
    """Return a worker; `queue` says which one, where several have the name."""
    return _shown(name, await workers.get(name, queue, context.grant))


@WORKERS.function(MANAGE, writes=True)
async def delete_worker(workers: Webhooks, name: str, queue: str | None, *, context: Context) -> None:
    """Delete a worker: no more jobs are sent to its endpoint; what it has got it may still end."""
    await workers.delete(name, queue, context.grant)


def _shown(name: str, registration: Registration) -> Worker:
    shown: Any = registration.shown(name)
    worker: Worker = shown
    return worker
