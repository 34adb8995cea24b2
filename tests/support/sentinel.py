"""Real sentinels: one master, replicas, and sentinels that put one of them into its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from tests.support.valkey import ValkeyProcess
from tests.support.waiting import wait_for

NAME = "mymaster"
DOWN_AFTER = 500
"""Milliseconds after which a sentinel thinks that the master is down."""

_PAUSE = 60_000  # ms in which a master writes nothing at most


class Sentinels:
    """A master and its replicas with as many sentinels as are usual; started together."""

    def __init__(
        self, tmp_path: Path, *, replicas: int = 2, sentinels: int = 3, down_after: int = DOWN_AFTER, **of_each: Any
    ) -> None:
        """Make them; `of_each` server are further arguments of `ValkeyProcess`."""
        self._path = tmp_path
        self._down_after = down_after
        self.servers = [ValkeyProcess(tmp_path / f"server-{n}", tcp=True, **of_each) for n in range(replicas + 1)]
        self.sentinels: list[ValkeyProcess] = []
        self._count = sentinels

    @property
    def url(self) -> str:
        """For the gateway."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{NAME}"

    def start(self) -> Sentinels:
        """Start all of them and wait until the replicas follow and the sentinels know each other."""
        first, *rest = self.servers
        first.start()
        for server in rest:
            server.start()
            with Redis(port=server.port) as redis:
                redis.replicaof("127.0.0.1", first.shown_port)
        for number in range(self._count):
            directory = self._path / f"sentinel-{number}"
            directory.mkdir()
            conf = directory / "sentinel.conf"
            conf.write_text(
                f"sentinel monitor {NAME} 127.0.0.1 {first.shown_port} {self._count // 2 + 1}\n"
                f"sentinel down-after-milliseconds {NAME} {self._down_after}\n"
                f"sentinel failover-timeout {NAME} 1000\n"
            )
            sentinel = ValkeyProcess(directory, tcp=True, conf=conf, extra_args=["--sentinel"])
            self.sentinels.append(sentinel.start())
        wait_for(self._know_each_other, "the sentinels know each other and the replicas")
        return self

    @property
    def master(self) -> ValkeyProcess:
        """The server that the first sentinel takes for the master."""
        return self._known_to(self.sentinels[0])

    @property
    def agree(self) -> bool:
        """Return whether all sentinels take the same server for the master."""
        return len({self._known_to(sentinel) for sentinel in self.sentinels}) == 1

    def have_left(self, master: ValkeyProcess) -> bool:
        """Return whether no sentinel takes a server for the master."""
        return all(self._known_to(sentinel) is not master for sentinel in self.sentinels)

    def _known_to(self, sentinel: ValkeyProcess) -> ValkeyProcess:
        with Redis(port=sentinel.port) as redis:
            _, port = redis.sentinel_get_master_addr_by_name(NAME)
        return next(server for server in self.servers if server.shown_port == port)

    @contextmanager
    def writes_paused(self) -> Iterator[None]:
        """Let the master write nothing, and its replicas have all that it has confirmed, which a failover may lose."""
        master = self.master
        with Redis(port=master.port, decode_responses=True) as redis:
            redis.client_pause(_PAUSE, all=False)
            written = redis.info("replication")["master_repl_offset"]

            def have_all() -> bool:
                replicas = [each for name, each in redis.info("replication").items() if name.startswith("slave")]
                return all(replica["offset"] >= written for replica in replicas)

            wait_for(have_all, "the replicas have all")
            yield
            if master.is_running:
                redis.client_unpause()  # else it would not take the sentinels' order to follow the other one

    def fail_over(self) -> None:
        """Let a replica take the master's place while the master lives."""
        wait_for(self._begin_failover, "the sentinel has ended the failover before")

    def _begin_failover(self) -> bool:
        with Redis(port=self.sentinels[0].port) as redis:
            try:
                redis.execute_command("SENTINEL", "FAILOVER", NAME)
            except ResponseError as error:
                if str(error).startswith(("INPROG", "NOGOODSLAVE")):
                    return False
                raise
        return True

    def settle(self) -> None:
        """Wait until all other servers follow the master."""
        wait_for(self._follow, "all other servers follow the master", 60)

    def await_follower(self) -> None:
        """Wait until a server follows the one master: there is one to take its place, which loses nothing then."""
        wait_for(lambda: self.agree and self._follow(1), "a server follows the master")

    def _follow(self, fewest: int | None = None) -> bool:
        with Redis(port=self.master.port, decode_responses=True) as redis:
            state = redis.info("replication")
        following = [each for name, each in state.items() if name.startswith("slave") and each["state"] == "online"]
        return state["role"] == "master" and len(following) >= (fewest or len(self.servers) - 1)

    def _know_each_other(self) -> bool:
        for sentinel in self.sentinels:
            with Redis(port=sentinel.port, decode_responses=True) as redis:
                state = redis.sentinel_master(NAME)
                if state["num-other-sentinels"] < self._count - 1 or state["num-slaves"] < len(self.servers) - 1:
                    return False
        return True

    def close(self) -> None:
        """Stop all of them."""
        for process in (*self.sentinels, *self.servers):
            process.close()

    def __enter__(self) -> Sentinels:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
