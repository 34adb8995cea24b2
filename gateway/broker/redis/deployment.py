"""The links for commands to what the settings name: a server, the master that sentinels know, or a cluster."""

from __future__ import annotations

from bullmq_proxy.gateway.broker.redis.address import Target
from bullmq_proxy.gateway.broker.redis.cluster import Cluster
from bullmq_proxy.gateway.broker.redis.command_link import CommandLink, LinkOptions
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.sentinel import SentinelServer
from bullmq_proxy.gateway.broker.redis.server import Server
from bullmq_proxy.gateway.broker.redis.socket import Setup
from bullmq_proxy.gateway.redis_url import Kind


class OneLink(Link):
    """The link to a server that has all queues. Its other methods are those of a `Cluster`."""

    @property
    def nodes(self) -> list[Link]:
        """The links to all servers."""
        return [self]

    def probed(self, prefix: str) -> list[tuple[CommandLink, str]]:
        """Return a key that nobody else uses, with the link to it."""
        return [(self, f"{prefix}:{{gateways}}:probe")]


def link_to(target: Target, options: LinkOptions, setup: Setup) -> OneLink | Cluster:
    """Make the link for commands; `setup` prepares each new connection."""
    match target.kind:
        case Kind.SINGLE:
            return OneLink(Server(target.seeds[0]), options, setup)
        case Kind.SENTINEL:
            return OneLink(SentinelServer(target, options), options, setup)
        case Kind.CLUSTER:
            return Cluster(target, options, setup)
