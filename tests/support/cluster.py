"""A real cluster: masters with their replicas, slots that move, nodes that come and go."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from redis import Redis

from bullmq_proxy.gateway.values.slots import SLOTS
from tests.support.ports import free_port
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import wait_for

NODE_TIMEOUT = 500
"""Milliseconds after which the others take a node for dead."""


class ClusterNode:
    """One node. `id` is its name in the cluster."""

    def __init__(self, directory: Path, *, extra_args: Sequence[str] = (), **of_each: Any) -> None:
        self.bus = free_port()  # 10,000 above the other port may be none
        self.process = ValkeyProcess(
            directory,
            tcp=True,
            **of_each,
            extra_args=[
                *(
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    str(self.bus),
                    "--cluster-node-timeout",
                    str(NODE_TIMEOUT),
                ),
                *("--cluster-config-file", "nodes.conf", "--appendonly", "no", "--repl-diskless-sync-delay", "0"),
                *("--cluster-allow-replica-migration", "no"),
                *("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"),
                *extra_args,
            ],
        ).start()
        self._redis: Any = Redis(port=self.process.port, decode_responses=True, socket_timeout=10)
        self.id = str(self("CLUSTER", "MYID"))

    @property
    def port(self) -> int:
        """The port that the cluster names."""
        return self.process.shown_port

    def __call__(self, *command: Any) -> Any:
        """Send a command to this node."""
        return self._redis.execute_command(*command)

    def close(self) -> None:
        """End it if it runs."""
        self._redis.close()
        self.process.close()


class Cluster:
    """Masters with equal shares of the slots, each with so many replicas."""

    def __init__(self, tmp_path: Path, *, masters: int = 3, replicas: int = 0, **of_each: Any) -> None:
        """Make one; `of_each` server are further arguments of `ValkeyProcess`."""
        self._path = tmp_path
        self._of_each = of_each
        self.nodes: list[ClusterNode] = []
        self._numbers = count()
        self._masters = masters
        self._replicas = replicas

    @property
    def url(self) -> str:
        """For the gateway: two nodes lead to all."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def start(self) -> Cluster:
        """Start it and wait until each node says that all is well."""
        masters = [self.add_node() for _ in range(self._masters)]
        for number, node in enumerate(masters):
            first, end = (SLOTS * each // self._masters for each in (number, number + 1))
            node("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            node("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        self._meet(masters)
        for master in masters:
            for _ in range(self._replicas):
                self.add_replica(master)
        self.settle()
        return self

    def add_node(self) -> ClusterNode:
        """Start a node that is in no cluster yet; in the main thread, since it ends with the thread that starts it."""
        directory = self._path / f"node-{next(self._numbers)}"
        directory.mkdir()
        self.nodes.append(ClusterNode(directory, **self._of_each))
        return self.nodes[-1]

    def _meet(self, nodes: list[ClusterNode]) -> None:
        for node in nodes:
            self.nodes[0]("CLUSTER", "MEET", "127.0.0.1", node.process.port, node.bus)

        def known(node: ClusterNode) -> int:
            return int(node("CLUSTER", "INFO").split("known_nodes:")[1].split()[0])

        wait_for(lambda: all(known(node) == len(self.nodes) for node in self.nodes), "the nodes know each other")

    def join(self, node: ClusterNode) -> None:
        """Let a node join as a master without slots."""
        self._meet([node])
        self.settle()

    def remove(self, node: ClusterNode) -> None:
        """Let the others forget a node, and end it if it runs."""
        self.nodes.remove(node)
        for other in self.nodes:
            if other.process.is_running:
                other("CLUSTER", "FORGET", node.id)
        node.close()

    def add_replica(self, master: ClusterNode) -> ClusterNode:
        """Add a replica and wait until it follows its master."""
        node = self.add_node()
        self._meet([node])

        def follows() -> bool:
            try:
                node("CLUSTER", "REPLICATE", master.id)
            except Exception:  # it does not know that node yet
                return False
            return True

        wait_for(follows, "it is a replica")
        wait_for(lambda: node("INFO", "replication")["master_link_status"] == "up", "it has the master's data")
        return node

    def settle(self) -> None:
        """Wait until all nodes agree that all is well."""
        wait_for(lambda: all("cluster_state:ok" in node("CLUSTER", "INFO") for node in self.nodes), "the cluster is ok")

    def restore(self, node: ClusterNode) -> None:
        """Start a master that was killed, and give it back the slots that its replica has taken over."""
        node.process.start()
        wait_for(lambda: node("INFO", "replication").get("master_link_status") == "up", "it follows who took over")
        node("CLUSTER", "FAILOVER")
        wait_for(lambda: node("ROLE")[0] == "master", "it leads")
        self.settle()

    def replica(self, master: ClusterNode) -> ClusterNode:
        """Return a replica of a master."""
        [_, _, [[_, port, _], *_]] = master("ROLE")
        return next(node for node in self.nodes if node.port == int(port))

    def owner(self, slot: int) -> ClusterNode:
        """Return the master that has a slot, as the nodes that live say."""
        for node in self.nodes:
            if node.process.is_running:
                for first, last, (_, port, *_), *_ in node("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(each for each in self.nodes if each.port == port)
        raise AssertionError(f"nobody has slot {slot}")

    def move(self, slots: range, to: ClusterNode) -> None:
        """Move slots with their keys, one by one, as `valkey-cli --cluster reshard` does."""
        for slot in slots:
            source = self.owner(slot)
            to("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
            source("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
            while keys := source("CLUSTER", "GETKEYSINSLOT", slot, 1000):
                source("MIGRATE", "127.0.0.1", to.process.port, "", 0, 5000, "KEYS", *keys)
            for node in (to, source, *self.nodes):
                if node.process.is_running:
                    self._assign(node, slot, to)

    @staticmethod
    def _assign(node: ClusterNode, slot: int, to: ClusterNode) -> None:
        try:
            node("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        except Exception as error:
            assert "master" in str(error).lower() or "replica" in str(error).lower(), error

    def close(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Cluster:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()
