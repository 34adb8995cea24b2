"""Connections: who is connected to whatever shard of whatever gateway, how to send them away, and who asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final

from msgspec import Meta

from bullmq_proxy.gateway.broker.functions.base import MANAGE, Arguments, Context
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.functions.reaching import EXAMPLE_CONSUMER
from bullmq_proxy.gateway.broker.functions.renewing import EXAMPLE_TOKEN, FreshToken, caller, renewed
from bullmq_proxy.gateway.broker.jobs.flows import Flows
from bullmq_proxy.gateway.broker.questions import Dismiss, WhoIsConnected
from bullmq_proxy.gateway.rules.ids import check_queue_name
from bullmq_proxy.gateway.rules.shapes import Caller, ConnectionKind, Connections
from bullmq_proxy.gateway.wire.connections_options import LISTED, MOST_LISTED

LONGEST_ID: Final = 200

ConnectionId = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID)]


class ConnectionsQuery(Arguments, frozen=True):
    """Which connections: at most `limit` of them, those of one queue, or of one kind."""

    queue: str | None = None
    kind: ConnectionKind | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST_LISTED)] = LISTED


@FLOWS.function(MANAGE, writes=False, heavy=True, example=[{"queue": "mails"}])
async def get_connections(producer: Flows, opts: ConnectionsQuery | None = None, *, context: Context) -> Connections:
    """Return who is connected to the queues that the key is for, on all shards and hosts, the oldest ones first.

    Connections of no queue, such as those of flows, are shown to a key for all queues, whose pattern is `*`. A worker's
    id is that of `getConsumers`, too. Webhook workers, and workers of BullMQ's own libraries, are no connections.
    """
    query, grant = opts or ConnectionsQuery(), context.grant
    if query.queue is not None:
        check_queue_name(query.queue, producer.max_queue_name, "`args[0].queue`")
        grant.check_queue(query.queue)
        grant = replace(grant, queues=(query.queue,))
    found, omitted, silent = await context.broker.reach.connections(
        WhoIsConnected(grant, query.queue, query.kind, query.limit)
    )
    return {"connections": found, "omitted": omitted, "silent": silent}


@FLOWS.function(MANAGE, writes=True, example=[EXAMPLE_CONSUMER])
async def drain_connection(producer: Flows, id: ConnectionId, *, context: Context) -> bool:
    """Let the worker on a connection finish what it has in hand, and give it nothing new: it gets `drain`.

    The connection of any other client is closed, as by `closeConnection`. Returns false where there is none of this
    id on the queues that the key is for.
    """
    return await context.broker.reach.dismiss(Dismiss(context.grant, id, closes=False))


@FLOWS.function(MANAGE, writes=True, example=[EXAMPLE_CONSUMER])
async def close_connection(producer: Flows, id: ConnectionId, *, context: Context) -> bool:
    """Close a connection with the code 4001; one for requests ends with the response to the last of them.

    The jobs that its worker has not answered go back, first in line, with no attempt charged and no loss counted.
    Returns false where there is none of this id on the queues that the key is for.
    """
    return await context.broker.reach.dismiss(Dismiss(context.grant, id, closes=True))


@FLOWS.function(None, writes=False)
async def whoami(producer: Flows, *, context: Context) -> Caller:
    """Return the name of the caller's key, its permissions, and the queues that it is for."""
    return caller(context.grant)


@FLOWS.function(None, writes=False, example=EXAMPLE_TOKEN)
async def renew(producer: Flows, token: FreshToken, *, context: Context) -> Caller:
    """Put a fresh token in force on the connection, as `renew` of a queue does; return its rights."""
    return renewed(context.rights, token)
