"""Redis and the gateways in front of it, each a process of its own, which accidents happen to."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

from redis.asyncio import Redis
from redis.crc import key_slot

from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.sentinel import Sentinels
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import wait_for

KINDS = ("single", "sentinel", "cluster")
LOAD, PROBE = "{load}", "{probe}"
"""Queues whose keys are on one node of a cluster each."""
_SLOT = key_slot(f"bull:{LOAD}:".encode())
SHARD_TIMEOUT = 3.0
GATEWAY_TIMEOUT = 3.0
REDIS_TIMEOUT = 1.0


class Site:
    """A Redis of one kind with gateways that share it; a context.

    Attributes:
        gateways: the services, each on a port of its own that it keeps.
    """

    def __init__(
        self,
        path: Path,
        kind: str = "single",
        *,
        gateways: int = 2,
        procs: int = 2,
        gateway_timeout: float = GATEWAY_TIMEOUT,
        fsync: str = "always",
    ) -> None:
        self._path = path
        self._stack = ExitStack()
        self._sentinels = Sentinels(path / "sentinels") if kind == "sentinel" else None
        self._cluster = Cluster(path / "cluster") if kind == "cluster" else None
        self._single = ValkeyProcess(path / "valkey", tcp=True, extra_args=("--appendfsync", fsync))
        self._ports = [free_port() for _ in range(gateways)]
        self._procs = procs
        self._gateway_timeout = gateway_timeout
        self._started = 0
        self.gateways: list[Service] = []

    def __enter__(self) -> Site:
        if self._cluster:
            (self._path / "cluster").mkdir(parents=True)
        self._stack.enter_context(self._sentinels or self._cluster or self._single)
        self.gateways = [self._start(port) for port in self._ports]
        return self

    def __exit__(self, *_: object) -> None:
        for gateway in self.gateways:
            gateway.close()
        self._stack.close()

    @property
    def url(self) -> str:
        """Of Redis, for gateways."""
        return (self._sentinels or self._cluster or self._single).url

    @property
    def server(self) -> ValkeyProcess:
        """The server that takes writes now; of a cluster that of the queue with the load."""
        if self._cluster:
            return self._cluster.owner(_SLOT).process
        return self._sentinels.master if self._sentinels else self._single

    def redis(self) -> Redis:
        """Return a client of that server, to look behind the gateways' backs."""
        return Redis.from_url(self.server.url, decode_responses=True)

    def fail_over(self) -> None:
        """Let a replica take the master's place."""
        assert self._sentinels is not None
        before = self.server
        self._sentinels.fail_over()
        wait_for(lambda: self.server is not before, "the sentinels have another master", 30)

    def move_slot(self, random: Random) -> None:
        """Let another node of the cluster have the slot of the queue with the load."""
        assert self._cluster is not None
        others = [node for node in self._cluster.nodes if node is not self._cluster.owner(_SLOT)]
        self._cluster.move(range(_SLOT, _SLOT + 1), random.choice(others))

    def address(self, number: int, path: str) -> str:
        """Return a WebSocket URL on one of the gateways, which may be down now."""
        return f"ws://127.0.0.1:{self._ports[number % len(self._ports)]}{path}"

    def shards(self) -> list[int]:
        """Return the process ids of all shards that live."""
        return [pid for gateway in self.gateways for pid in gateway.shards()]

    def kill(self, number: int) -> None:
        """Kill a gateway with all its processes, as the death of its machine does."""
        gateway = self.gateways[number]
        for pid in (gateway.pid, *gateway.shards()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        gateway.wait()

    def restart(self, number: int) -> None:
        """Start a gateway that has ended again, on its port."""
        self.gateways[number].close()
        self.gateways[number] = self._start(self._ports[number])

    def _start(self, port: int) -> Service:
        self._started += 1
        flags = {
            "procs": self._procs,
            "redis-url": self.url,
            "shard-timeout": SHARD_TIMEOUT,
            "gateway-timeout": self._gateway_timeout,
            "redis-timeout": REDIS_TIMEOUT,
            "drain-timeout": 2,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        return Service(self._path / f"gateway-{self._started}", "--no-auth", *words, port=("--port", str(port))).start()
