"""The link for commands to what the settings name: a server, or the master that sentinels know."""

from __future__ import annotations

from bullmq_proxy.gateway.broker.redis.address import Target
from bullmq_proxy.gateway.broker.redis.command_link import LinkOptions
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.sentinel import SentinelServer
from bullmq_proxy.gateway.broker.redis.server import Server
from bullmq_proxy.gateway.broker.redis.socket import Setup
from bullmq_proxy.gateway.redis_url import Kind


def link_to(target: Target, options: LinkOptions, setup: Setup) -> Link:
    """Make the link for commands; `setup` prepares each new connection."""
    server = SentinelServer(target, options) if target.kind is Kind.SENTINEL else Server(target.seeds[0])
    return Link(server, options, setup)
