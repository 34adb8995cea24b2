"""A row of the table of endpoints, with the paths and their parameters."""

from __future__ import annotations

import enum
from functools import reduce
from typing import Final

from msgspec import Struct

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.wire.connection_options import OptionSet


class PathParameter(enum.StrEnum):
    """A parameter of a path: `{queue}` there, and so on. The gateway checks the key against each queue."""

    QUEUE = "queue"
    CONCURRENCY = "concurrency"
    FUNCTION = "function"
    JOB = "job"
    WORKER = "worker"
    FILE = "file"
    CONNECTION = "connection"


class Row(Struct, frozen=True, kw_only=True):
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
    "{connection}": "ID",
}
