"""Which cores a process may run on; what it starts inherits that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.lab.processes import LabError


@dataclass(frozen=True, slots=True)
class Cores:
    """The machine in two parts.

    Attributes:
        subject: for what is measured: shards, a proxy, or the clients that are peers themselves.
        rest: for Valkey and the load client.
    """

    subject: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def shared(cls) -> Cores:
        """Everybody on all cores."""
        cores = frozenset(os.sched_getaffinity(0))
        return cls(cores, cores)

    @classmethod
    def apart(cls) -> Cores:
        """The last core for Valkey and the load client, all others for what is measured.

        Raises:
            LabError: there is only one.
        """
        *others, last = sorted(os.sched_getaffinity(0))
        if not others:
            raise LabError("--apart needs at least two cores")
        return cls(frozenset(others), frozenset((last,)))


@contextmanager
def on(cores: frozenset[int]) -> Iterator[None]:
    """What is started in the block runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
