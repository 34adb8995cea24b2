"""Redis and the gateways in front of it, each a process of its own, which accidents happen to."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.crc import key_slot

from tests.faults.soak.ledger import Ledger
from tests.support.clock import Clock
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.relay import Port, RelayThread
from tests.support.sentinel import Sentinels
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import wait_for

KINDS = ("single", "sentinel", "replicated", "cluster")
"""Of Redis; behind sentinels a failover may lose what not all servers have, which the auditor finds out.

Replicated is behind sentinels, too, and there nothing is confirmed that not both replicas have.

One of two would not do: while a replica takes the place of a master that lives, the other one still follows that.
"""
LOAD, PROBE = "{load}", "{probe}"
"""Queues whose keys are on one node of a cluster each."""
_SLOT = key_slot(f"bull:{LOAD}:".encode())
_PAUSE = 60_000  # ms in which a master that is to be replaced writes nothing
SHARD_TIMEOUT = 3.0
GATEWAY_TIMEOUT = 3.0
REDIS_TIMEOUT = 1.0
PING_TIME = 5.0
"""Seconds after which a client that has gone silent is given up."""
USER = "gateway"
"""Name of the gateways' user in Redis; its password is in a file."""
DESCRIPTORS = 320
"""Descriptors that each process of a gateway may have."""
_FIRST_PASSWORD = "first"
_USERS = f"user default on nopass ~* &* +@all\nuser {USER} on >{_FIRST_PASSWORD} ~* &* +@all\n"
_LIMITED = ("sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh")
_DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Site:
    """A Redis of one kind with gateways that share it; a context.

    Attributes:
        kind: one of `KINDS`.
        gateways: the services, each on a port of its own that it keeps.
        relays: before each server.
        doors: relays before each gateway.
        clock: of the last gateway; None where there is no library for it.
        ledgers: of those who add jobs.
        clients: processes of clients, by their ids.
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
        rigged: bool = False,
    ) -> None:
        """Make one; `rigged` puts relays between all parts, and gives the last gateway a clock of its own."""
        self._path = path
        self._stack = ExitStack()
        self.kind = kind
        self.relays = self._stack.enter_context(RelayThread()) if rigged else None
        of_each: dict[str, Any] = {"users": _USERS, "relays": self.relays}
        self._sentinels: Sentinels | None = None
        self._cluster: Cluster | None = None
        match kind:
            case "single":
                extra = ("--appendfsync", fsync)
                self._single = ValkeyProcess(path / "valkey", tcp=True, extra_args=extra, **of_each)
            case "cluster":
                self._cluster = Cluster(path / "cluster", extra_args=_DURABLE, **of_each)
            case _:
                self._sentinels = Sentinels(path / "sentinels", **of_each)
        self._ports = [free_port() for _ in range(gateways)]
        self.doors = [self.relays.before(Port(port)) for port in self._ports] if self.relays else []
        self._procs = procs
        self._gateway_timeout = gateway_timeout
        self._started = 0
        self._password_file = path / "password"
        self.clock = Clock.found(path / "clock") if rigged else None
        self.gateways: list[Service] = []
        self.ledgers: list[Ledger] = []
        self.clients: set[int] = set()

    def __enter__(self) -> Site:
        self.set_password(_FIRST_PASSWORD)
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
        if several := self._sentinels or self._cluster:
            return several.url.replace("://", f"://{USER}@")
        return f"redis://{USER}@127.0.0.1:{self._single.shown_port}"

    @property
    def server(self) -> ValkeyProcess:
        """The server that takes writes now; of a cluster that of the queue with the load."""
        if self._cluster:
            return self._cluster.owner(_SLOT).process
        return self._sentinels.master if self._sentinels else self._single

    @property
    def servers(self) -> list[ValkeyProcess]:
        """All servers: replicas, too, but no sentinels."""
        if self._cluster:
            return [node.process for node in self._cluster.nodes]
        return self._sentinels.servers if self._sentinels else [self._single]

    @property
    def masters(self) -> list[ValkeyProcess]:
        """Those that take writes now."""
        return self.servers if self._cluster else [self.server]

    def set_password(self, password: str) -> None:
        """Write the password that the gateways are to use from now on."""
        new = self._password_file.with_suffix(".new")
        self._path.mkdir(parents=True, exist_ok=True)
        new.write_text(f"{password}\n")
        new.replace(self._password_file)

    def settle(self) -> None:
        """Wait until the servers agree again on which of them is what, where there are several."""
        if self._cluster:
            self._cluster.settle()
        elif self._sentinels:
            self._sentinels.settle()

    def redis(self) -> AsyncRedis:
        """Return a client of that server, to look behind the gateways' backs."""
        return AsyncRedis.from_url(self.server.url, decode_responses=True)

    def fail_over(self) -> None:
        """Let a replica take the master's place; where nothing asks replicas, let them have all before."""
        assert self._sentinels is not None
        before, ends = self.server, time.monotonic() + 60
        with Redis.from_url(before.url) as redis:
            if self.kind == "sentinel":
                redis.client_pause(_PAUSE, all=False)
            while self.server is before and time.monotonic() < ends:  # a sentinel that is too late for a step gives up
                self._sentinels.fail_over()
                with suppress(AssertionError):
                    self.wait_for_another(before, 10)
            self.wait_for_another(before)
            time.sleep(4 * REDIS_TIMEOUT)  # so that nobody waits there any more for a reply
            redis.client_unpause()  # else it would not take the sentinels' order to follow the other one
        self.settle()

    def wait_for_another(self, before: ValkeyProcess, timeout: float = 30) -> None:
        """Wait until all sentinels have another master."""
        sentinels = self._sentinels
        assert sentinels is not None
        wait_for(lambda: sentinels.have_left(before), "the sentinels have another master", timeout)

    def move_slot(self, random: Random) -> None:
        """Let another node of the cluster have the slot of the queue with the load."""
        assert self._cluster is not None
        others = [node for node in self._cluster.nodes if node is not self._cluster.owner(_SLOT)]
        self._cluster.move(range(_SLOT, _SLOT + 1), random.choice(others))

    def address(self, number: int, path: str) -> str:
        """Return a WebSocket URL on one of the gateways, which may be down now."""
        port = self.doors[number % len(self.doors)].port if self.doors else self.port(number)
        return f"ws://127.0.0.1:{port}{path}"

    def port(self, number: int) -> int:
        """Return the port of a gateway itself."""
        return self._ports[number % len(self._ports)]

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
            "redis-password-file": self._password_file,
            "shard-timeout": SHARD_TIMEOUT,
            "gateway-timeout": self._gateway_timeout,
            "redis-timeout": REDIS_TIMEOUT,
            "ping-interval": PING_TIME / 2,
            "ping-timeout": PING_TIME / 2,
            "drain-timeout": 2,
            "min-replicas": 2 if self.kind == "replicated" else 0,
            "port": port,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        env = dict(self.clock.environment) if self.clock and port == self._ports[-1] else {}
        env |= {"PYTHONDONTWRITEBYTECODE": ""}  # a shard starts as fast as where the gateway is installed
        home = self._path / f"gateway-{self._started}"
        return Service(home, "--no-auth", *words, env=env, launcher=_LIMITED).start()
