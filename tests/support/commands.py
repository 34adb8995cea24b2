"""What gateways have Redis do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis


@contextmanager
def executed(client: redis.Redis, prefix: str) -> Iterator[list[str]]:
    """The commands of the block with keys of this prefix, but for those by which gateways know of each other."""
    found: list[str] = []
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        yield found
        client.echo("the end")
        while not (command := monitor.next_command()["command"]).startswith("ECHO"):
            if prefix in command and "{gateways}" not in command:
                found.append(command)
