"""A worker in a process of its own, which can be stopped and killed: it prints what comes, a line of words for each.

`python -m tests.faults.soak.stranger SEED ADDRESS …`
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

from tests.faults.soak.habits import Worker


class _Printed:
    def pushed(self, id: str, start: int) -> None:
        print("pushed", id, start, flush=True)

    def finished(self, id: str, start: int) -> None:
        print("finished", id, start, flush=True)

    def lost(self) -> None:
        print("lost", flush=True)


if __name__ == "__main__":
    _, seed, *addresses = sys.argv
    random = Random(seed)
    asyncio.run(Worker(lambda: random.choice(addresses), _Printed(), random, "good").run())
