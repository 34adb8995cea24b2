"""Tasks that nobody waits for one by one: they are held until they end, and waited for together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """The tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, None], then: Callable[[], object] | None = None) -> None:
        """Run a coroutine in a task, and call `then` when it has ended, however."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if then is not None:
                then()

        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def wait(self) -> None:
        """Wait until all have ended, however they end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
