"""`make soak MINUTES=10 SEED=…`: accidents at random while clients of all habits add and do jobs; then the audit."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from random import Random
from urllib.parse import quote

from redis.exceptions import RedisError

from tests.faults.clients import ask, dial
from tests.faults.soak.accidents import ACCIDENTS, possible
from tests.faults.soak.auditor import audit, holdings, note_replicated, settled
from tests.faults.soak.crowd import Crowd
from tests.faults.soak.ledger import Ledger
from tests.faults.soak.site import KINDS, LOAD, PROBE, Site
from tests.support.waiting import stretched

_QUIET = (0.5, 3.0)  # s between two accidents, at random
_AT_ONCE = 2.0  # s in which clients are served again
_SETTLING = 90.0  # s after the last accident, in which BullMQ's own check finds what we have not
_SETTLED = 10.0  # s, the same, in which we find it
_GROWTH = 64 * 2**20  # bytes per shard that memory may grow by
_SLACK = 8  # descriptors and clients of Redis, per shard
_ASKED = 0.2  # s between two questions for what all servers have
_STRANGERS = 2  # clients with a process of their own


async def serves_again(site: Site) -> float:
    """Return the seconds until a job has been added and counted through each gateway, since the servers can take it."""
    await asyncio.to_thread(site.settle)
    began = time.monotonic()
    for number in range(len(site.gateways)):
        while True:
            try:
                async with asyncio.timeout(1), await dial(site.address(number, f"/queue/{quote(PROBE)}")) as socket:
                    await ask(socket, "add", "probe")
                    break
            except (AssertionError, OSError, TimeoutError):
                failed = time.monotonic()
                await asyncio.to_thread(site.settle)  # sentinels may have noticed only now
                began += time.monotonic() - failed
    return time.monotonic() - began


async def _ask_replicas(site: Site, ledger: Ledger) -> None:
    """Note again and again what a failover must not lose."""
    while ledger.is_lossy:
        with suppress(OSError, RedisError):
            await note_replicated(site, ledger)
        await asyncio.sleep(_ASKED)


async def soak(site: Site, names: list[str], minutes: float, random: Random) -> int:
    """Let accidents of these names happen for so long; return the exit code."""
    await serves_again(site)
    before = await holdings(site)
    crowd = Crowd(site, LOAD, random, strangers=_STRANGERS)
    crowd.start()
    asking = asyncio.create_task(_ask_replicas(site, crowd.ledger))
    times: dict[str, list[float]] = defaultdict(list)
    faults: list[str] = []
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline:
        name = random.choice(names)
        await ACCIDENTS[name].strike(site, random)
        times[name].append(await serves_again(site))
        if times[name][-1] > stretched(_AT_ONCE):
            faults.append(f"{name}: nobody was served for {times[name][-1]:.1f} s")
        ledger = crowd.ledger
        figures = f"{len(ledger.added)} added, {len(ledger.done)} done, at {time.monotonic():.0f}"
        print(f"{name}: serves after {times[name][-1]:.2f} s; {figures}")
        await asyncio.sleep(random.uniform(*_QUIET))
    await crowd.stop_producing()
    stopped = time.monotonic()
    try:
        await settled(site, crowd.ledger, _SETTLING)
    except AssertionError as error:
        faults.append(str(error))
    if (took := time.monotonic() - stopped) > stretched(_SETTLED):
        faults.append(f"it took {took:.0f} s until each job was finished and heard of")
    asking.cancel()
    await crowd.close()
    account = await audit(site, crowd.ledger)
    await asyncio.sleep(15)  # memory is given back after ten quiet seconds
    after, shards = await holdings(site), len(site.shards())
    faults += account.faults
    if after.descriptors > before.descriptors + _SLACK * shards or after.clients > before.clients + _SLACK * shards:
        faults.append(f"descriptors or clients of Redis have grown: {before}, now {after}")
    if after.memory > before.memory + _GROWTH * shards:
        faults.append(f"memory has grown: {before}, now {after}")
    for name, seconds in sorted(times.items()):
        print(f"{len(seconds):4} x {name}: served again after {max(seconds):.2f} s at most")
    print(f"{account}\n{before}\n{after}")
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


def main() -> int:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", default="", help="of an earlier run, to have the same accidents")
    parser.add_argument("--kind", choices=KINDS, default="single")
    parser.add_argument("--only", default="", help="names of accidents with commas between them; all by default")
    options = parser.parse_args()
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}, {options.kind}, {options.minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory() as path, Site(Path(path), options.kind, rigged=True) as site:
        names = [name for name in possible(site) if not options.only or name in options.only.split(",")]
        if site.clock is None:
            print("left out: a clock is set, since libfaketime is not installed")
        return asyncio.run(soak(site, names, options.minutes, Random(seed)))


if __name__ == "__main__":
    sys.exit(main())
