"""The metrics of a gateway one of whose shards is killed under load, beside what its clients have counted."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from tests.sessions.peer import Peer, until
from tests.support.service import Service
from tests.support.valkey import ValkeyProcess
from tests.support.waiting import TIMEOUT, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

PRODUCERS, WORKERS, REFUSED = 6, 2, 4
AUDITED = re.compile(
    r"^bullmq_proxy_(connections_accepted|refusals|calls_begun|calls|call_errors|jobs_pushed|jobs_answered|workers_lost)"
    r'_total{slot="(\d)",?(.*)} (\d+)$',
    re.MULTILINE,
)


class Client:
    """A connection that counts what it sees, until it breaks."""

    def __init__(self, peer: Peer) -> None:
        self.counted: Counter[str] = Counter(["connections_accepted"])
        self.peer = peer

    @property
    def is_broken(self) -> bool:
        return self.peer.socket.state is not State.OPEN

    async def calls(self, goes_on: Callable[[], bool]) -> None:
        """Call, time and again."""
        with suppress(ConnectionClosed):
            while goes_on():
                await self.peer.call("add", "work", {}, {"attempts": 1})
                self.counted.update(("calls_begun", "calls add/ok"))
                code, _ = await self.peer.refusal("getJob")
                self.counted.update(("calls_begun", "calls getJob/error", f"call_errors {code}"))

    async def works(self) -> None:
        """Complete or fail jobs, in turn."""
        with suppress(ConnectionClosed):
            while True:
                job = await self.peer.job(timeout=60)
                self.counted["jobs_pushed"] += 1
                await job.answer(**({"result": 1} if self.counted["jobs_pushed"] % 2 else {"err": "no"}))
                self.counted[f"jobs_answered {(await self.peer.data())['state']}"] += 1


class Site:
    """A service and its clients; those that work do so until the end."""

    def __init__(self, running: Service, group: asyncio.TaskGroup, opened: AsyncExitStack) -> None:
        self.clients: list[Client] = []
        self.working: list[asyncio.Task[None]] = []
        self.refused: Counter[str] = Counter()
        self._group = group
        self._opened = opened
        self._running = running

    async def connect(self) -> list[Client]:
        """Bring workers in, and return new producers."""
        paths = ["/queue/q/process/1"] * WORKERS + ["/queue/q"] * PRODUCERS
        came = []
        for path in paths:
            address = self._running.address(path, confirm="1") if "process" in path else self._running.address(path)
            opening = connect(address, ping_interval=None, close_timeout=1, proxy=None)
            came.append(Client(Peer(await self._opened.enter_async_context(opening))))
        self.clients += came
        self.working += [self._group.create_task(each.works()) for each in came[:WORKERS]]
        return came[WORKERS:]

    async def be_refused(self) -> None:
        """Come with a wrong key."""
        for _ in range(REFUSED):
            request = Request(f"http://127.0.0.1:{self._running.port}/queue/q/count")
            request.add_header("Authorization", "Bearer wrong")
            with pytest.raises(HTTPError) as refused:
                await asyncio.to_thread(urlopen, request, timeout=TIMEOUT)
            refused.value.close()
            self.refused[f"refusals {refused.value.code}"] += 1

    async def figures(self) -> list[Counter[str]]:
        """What the page has for each slot, without zeros."""
        with await asyncio.to_thread(urlopen, f"http://127.0.0.1:{self._running.port}/metrics", timeout=TIMEOUT) as got:
            page = got.read().decode()
        slots: list[Counter[str]] = [Counter() for _ in range(3)]  # one is for the successor of a shard
        for name, slot, labels, figure in AUDITED.findall(page):
            if figure != "0":
                slots[int(slot)][" ".join(filter(None, (name, "/".join(re.findall(r'="(.*?)"', labels)))))] = int(
                    figure
                )
        return slots


def total(counts: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counts, Counter[str]())


def seen(clients: Iterable[Client]) -> Counter[str]:
    return total(each.counted for each in clients)


async def test_what_is_counted_survives_a_shard_that_is_killed_under_load(
    service: Callable[..., Service], valkey: ValkeyProcess, prefix: str
) -> None:
    running = service("--procs", "2", "--prefix", prefix, "--redis-url", valkey.url).start()
    victim, pid = map(int, re.findall(r"shard (\d) is ready, pid (\d+)", running.errors)[0])
    async with AsyncExitStack() as opened, asyncio.TaskGroup() as group:
        site = Site(running, group, opened)
        producers = await site.connect()
        await asyncio.gather(*[each.calls(iter((True, True, False)).__next__) for each in producers], site.be_refused())

        async def all_is_shown() -> bool:
            return total(await site.figures()) == before + seen(site.clients) + site.refused

        before = Counter[str]()
        await until(all_is_shown, "each figure is what the clients have counted", TIMEOUT)
        shown = {client: Counter(client.counted) for client in site.clients}

        is_killed = False
        load = [group.create_task(each.calls(lambda: not is_killed)) for each in producers]
        await eventually(lambda: seen(site.clients)["calls_begun"] > 200, "there is a load")
        os.kill(pid, signal.SIGKILL)
        is_killed = True
        await asyncio.gather(*load)

        async def others_are_shown() -> bool:
            others = await site.figures()
            del others[victim]
            return total(others) - site.refused == seen(each for each in site.clients if not each.is_broken)

        await until(others_are_shown, "the other shard has lost nothing", TIMEOUT)
        broken = [each for each in site.clients if each.is_broken]
        site.clients = [each for each in site.clients if not each.is_broken]
        assert broken
        assert site.clients
        await eventually(lambda: running.errors.count(f"shard {victim} is ready") == 2, "there is another one")
        before = (await site.figures())[victim]
        known, most = total(shown[each] for each in broken), seen(broken)
        for name in (known | before).keys() - site.refused.keys():
            assert known[name] <= before[name] <= most[name] + len(broken), "lost is what was not written down yet"
        before -= site.refused  # of which nobody knows where they were
        producers = await site.connect()
        await asyncio.gather(
            *[each.calls(iter((True, True, True, False)).__next__) for each in producers], site.be_refused()
        )
        await until(all_is_shown, "each figure is what was written down and what the clients have counted", TIMEOUT)
        for task in site.working:
            task.cancel()
