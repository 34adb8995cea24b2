"""`python -m benchmarks silence`: how long each function keeps Redis from answering others, beside many jobs.

A client in a process of its own PINGs Redis all the time. On a busy machine it waits for the processor, too: the time
of Redis' longest command, from its SLOWLOG, stands beside that.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.lab.valkey import Valkey
from bullmq_proxy.gateway import start_proxy
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.broker.redis.scripts import script_texts, sha_of
from bullmq_proxy.gateway.rules.flow import MOST_ADDED

_QUEUE: Final = "mails"
_BASE: Final = f"bull:{_QUEUE}:"
_LONGEST: Final = 5.0  # s for one call; what it does by then counts
_PAUSE: Final = 0.001  # s between two PINGs
_STEP: Final = 2000  # jobs that one call of the script makes
_TOUCHED: Final = 0.01  # share of the jobs by which a state may differ
_FAMILY: Final = 0.2  # of the jobs that wait have one parent
_ANSWERED: Final = 500  # jobs that a worker does

_FILL: Final = """
local base, state, first, last, now, family = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
for n = first, last do
  local id = state .. '-' .. n
  local key = base .. id
  redis.call('HSET', key, 'name', 'mail', 'data', '{"to":"ada@example.com","n":' .. n .. '}', 'opts', '{"attempts":3}',
    'timestamp', now, 'delay', 0, 'priority', state == 'prioritized' and n % 10 + 1 or 0)
  if state == 'wait' or state == 'paused' or state == 'active' then
    redis.call('RPUSH', base .. state, id)
  elseif state == 'delayed' then
    redis.call('ZADD', base .. state, (now + 3600000) * 4096 + n, id)
  elseif state == 'prioritized' then
    redis.call('ZADD', base .. state, (n % 10 + 1) * 4294967296 + n, id)
  else
    redis.call('ZADD', base .. state, now - 100000000 + n, id)
    redis.call('HSET', key, 'finishedOn', now, 'processedOn', now, 'returnvalue', '1', 'failedReason', 'unknown')
  end
  if state == 'wait' and n <= tonumber(family) then
    redis.call('HSET', key, 'parentKey', base .. 'parent', 'parent', '{"id":"parent","queueKey":"bull:mails"}')
    redis.call('SADD', base .. 'parent:dependencies', key)
    redis.call('HSET', base .. 'parent:processed', base .. 'completed-' .. n, '1')
    redis.call('RPUSH', base .. 'active-1:logs', 'a row of the log of a job')
    redis.call('XADD', base .. 'events', '*', 'event', 'completed', 'jobId', id, 'returnvalue', '1')
    redis.call('ZADD', base .. 'repeat', now + n, 's' .. n)
    redis.call('HSET', base .. 'repeat:s' .. n, 'name', 'mail', 'every', '1000')
  end
end
if state == 'waiting-children' and first == 1 then
  redis.call('HSET', base .. 'parent', 'name', 'mail', 'data', '{}', 'opts', '{}', 'timestamp', now)
  redis.call('ZADD', base .. 'waiting-children', now, 'parent')
end
"""
_STATES: Final = (*("wait", "paused", "active", "delayed", "prioritized", "completed", "failed", "waiting-children"),)
_ALL: Final = ["waiting", "paused", "active", "delayed", "prioritized", "completed", "failed", "waiting-children"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call to look at: its function, its arguments, and whether it goes to `/flows`."""

    fn: str
    args: Sequence[Any]
    flows: bool = False


def calls_of(jobs: int) -> list[Call]:
    """Return what is called: each function with its example, and in the ways that make it work hardest."""
    middle = jobs // 2
    one = {"name": "mail", "queueName": _QUEUE}
    hard: dict[str, list[list[Any]]] = {
        "addBulk": [[[{"name": "mail", "opts": {"delay": 5000}}] * 5000]],
        "add": [["mail", {}, {"jobId": "x", "deduplication": {"id": "d"}}], ["mail", {}, {"lifo": True}]],
        "getJobs": [[_ALL, 0, -1], [["waiting"], middle, middle + 20_000], [["completed"], -20_000, -1, True]],
        "getRanges": [[["wait"] * 200, 0, -1], [_ALL, 0, -1, True]],
        "getJobLogs": [["active-1", 0, -1], ["active-1", 0, -1, False]],
        "getJobDependencies": [["parent"], ["parent", {"processed": {"count": 100_000}}]],
        "getDependencies": [["parent", "pending", 0, -1], ["parent", "processed", 0, -1]],
        "getJobSchedulers": [[0, -1]],
        "getCountsPerPriority": [[list(range(1000))]],
        "clean": [
            [0, 0, _state] for _state in ("completed", "wait", "active", "paused", "prioritized", "delayed", "failed")
        ],
        "retryJobs": [[{"count": 1_000_000}], [{"state": "completed", "count": 1_000_000}]],
        "promoteJobs": [[{"count": 1_000_000}]],
        "remove": [["parent", {"removeChildren": True}], [f"wait-{middle}"]],
        "removeOrphanedJobs": [[1_000_000, 0]],
        "obliterate": [[{"force": True, "count": 1_000_000}]],
        "drain": [[True], []],
        "trimEvents": [[0]],
        "publishEvent": [[{"eventName": "a"}, 0]],
        "addJobLog": [["active-1", "row", 1]],
        "clearJobLogs": [["active-1", 1], ["active-1"]],
        "getNextJob": [["t", {"block": False}]],
        "waitUntilJobFinished": [[f"wait-{middle}", 100]],
        "addAndWait": [["mail", {}, {}, 100]],
    }
    named = {
        "getWaiting",
        "getWaitingChildren",
        "getActive",
        "getDelayed",
        "getPrioritized",
        "getCompleted",
        "getFailed",
    }
    of_jobs = [f"wait-{middle}", f"prioritized-{middle}", f"active-{middle}", f"completed-{middle}", "parent"]
    calls = []
    for function in sorted(TABLE, key=lambda each: each.writes):
        ways = [*hard.get(function.name, []), list(function.example)]
        if function.name in named:
            ways.append([0, -1])
        if function.parameters and function.parameters[0].name == "jobId" and function.name not in hard:
            ways += [[id, *function.example[1:]] for id in of_jobs]
        calls += [Call(function.name, args) for args in ways]
    tree = {**one, "children": [one] * (MOST_ADDED - 1)}
    ways_of_flows: dict[str, list[list[Any]]] = {
        "add": [[tree]],
        "addBulk": [[[one] * MOST_ADDED]],
        "getFlow": [[{"queueName": _QUEUE, "id": "parent"}]],
    }
    for function in FLOWS:
        calls += [
            Call(function.name, args, flows=True) for args in ways_of_flows.get(function.name, [function.example])
        ]
    return calls


@dataclass(frozen=True, slots=True)
class Silence:
    """What a call did to others: ms that a PING waited at most, ms of Redis' longest command, and what that was."""

    call: str
    ping: float
    command: float
    what: str


class Look:
    """A Redis full of jobs, a gateway, and somebody who PINGs."""

    def __init__(self, valkey: Valkey, jobs: int, url: str, probe: asyncio.subprocess.Process) -> None:
        self._valkey = valkey
        self._jobs = jobs
        self._url = url
        self._probe = probe
        self._names = {sha_of(text).encode(): name.encode() for name, text in script_texts().items()}

    def fill(self) -> None:
        """Make the jobs of each state that has not about as many as it should."""
        family = int(self._jobs * _FAMILY)
        for state in _STATES:
            count = self._valkey.ask("ZCARD" if self._is_sorted(state) else "LLEN", _BASE + state)
            if abs(count / self._jobs - 1) < _TOUCHED and (state != "wait" or self._has_family()):
                continue
            self._valkey.ask("UNLINK", _BASE + state)
            for first in range(1, self._jobs + 1, _STEP):
                last = min(first + _STEP - 1, self._jobs)
                now = int(time.time() * 1000)
                self._valkey.ask("EVAL", _FILL, 1, _BASE, state, first, last, now, family)

    def _has_family(self) -> bool:
        wanted = int(self._jobs * _FAMILY * (1 - _TOUCHED))
        return bool(self._valkey.ask("SCARD", _BASE + "parent:dependencies") >= wanted)

    @staticmethod
    def _is_sorted(state: str) -> bool:
        return state not in ("wait", "paused", "active")

    async def call(self, call: Call) -> Silence:
        """Make one call and see how silent Redis was meanwhile."""
        async with connect(self._url + ("/flows" if call.flows else f"/queue/{_QUEUE}"), max_size=None) as client:
            request = json.dumps({"id": 1, "data": {"fn": call.fn, "args": call.args}})
            shown = f"{'flows: ' if call.flows else ''}{call.fn}({json.dumps(list(call.args))[1:-1][:60]})"
            return await self._watch(shown, client, lambda: _ask(client, request))

    async def work(self) -> Silence:
        """Let a worker do some jobs, with all that goes with it: stalled checks, locks, sweeps."""
        async with connect(f"{self._url}/queue/{_QUEUE}/process/50?removeOnComplete=1", max_size=None) as client:
            return await self._watch("(a worker)", client, lambda: _work(client))

    async def _watch(self, shown: str, client: ClientConnection, act: Callable[[], Any]) -> Silence:
        self._valkey.ask("SLOWLOG", "RESET")
        await self._ping()
        try:
            async with asyncio.timeout(_LONGEST):
                await act()
        except TimeoutError:
            pass
        ping = await self._ping()
        ours = ("slowlog", "eval", "unlink")
        slow = [
            (entry[2] / 1000, self._names.get(entry[3][1], entry[3][0]).decode(errors="replace"))
            for entry in self._valkey.ask("SLOWLOG", "GET", 1000)
            if len(entry[3]) > 1 and entry[3][0].decode().lower() not in ours
        ]
        return Silence(shown, ping, *max(slow, default=(0.0, "")))

    async def _ping(self) -> float:
        assert self._probe.stdin is not None and self._probe.stdout is not None
        self._probe.stdin.write(b"\n")
        return float(await self._probe.stdout.readline())


async def _ask(client: ClientConnection, request: str) -> None:
    await client.send(request)
    await client.recv()


async def _work(client: ClientConnection) -> None:
    done = 0
    async for message in client:
        id = json.loads(message)["id"]
        await client.send(json.dumps({"id": id, "data": {"result": 1}}))
        done += 1
        if done == _ANSWERED:
            return


@asynccontextmanager
async def looking(jobs: int) -> AsyncIterator[Look]:
    """Start all that it takes, with so many jobs in each state."""
    with tempfile.TemporaryDirectory() as directory, Valkey(Path(directory)) as valkey:
        valkey.ask("CONFIG", "SET", "slowlog-log-slower-than", 1000, "slowlog-max-len", 1000)
        command = (sys.executable, "-m", "benchmarks.silence", str(valkey.port))
        pipe = asyncio.subprocess.PIPE
        probe = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert probe.stdin is not None
        try:
            async with start_proxy(f"redis://127.0.0.1:{valkey.port}", no_auth=True, port=0) as proxy:
                yield Look(valkey, jobs, proxy.url, probe)
        finally:
            probe.stdin.close()
            await probe.wait()


async def run(jobs: int, names: Sequence[str], say: Callable[[str], None]) -> list[Silence]:
    """Look at the functions of these names, or at all; returns the longest silences first."""
    found = []
    async with looking(jobs) as look:
        for call in calls_of(jobs):
            if not names or call.fn in names:
                look.fill()
                found.append(await look.call(call))
                say(_line(found[-1]))
        if not names:
            look.fill()
            found.append(await look.work())
    return sorted(found, key=lambda silence: -silence.command)


def _line(silence: Silence) -> str:
    return f"{silence.ping:8.1f} {silence.command:8.1f}  {silence.call:<80} {silence.what}"


def table(silences: Sequence[Silence]) -> str:
    """Show silences as text."""
    return "\n".join(["    ping  command  ms, the longest first", *map(_line, silences)])


def _ping_on(port: int) -> None:
    """PING until stdin ends; each line of it is answered with the longest wait since the last one, in ms."""
    longest = 0.0
    with socket.create_connection(("127.0.0.1", port)) as redis:
        while True:
            asked = time.perf_counter()
            redis.sendall(b"PING\r\n")
            redis.recv(64)
            longest = max(longest, time.perf_counter() - asked)
            if select.select([sys.stdin], [], [], _PAUSE)[0]:
                if not sys.stdin.readline():
                    return
                print(longest * 1000, flush=True)
                longest = 0.0


if __name__ == "__main__":
    _ping_on(int(sys.argv[1]))
