"""BullMQ's Lua scripts: read once per process, called by hash through the link, loaded again when Redis forgot them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import bullmq.redis_connection
from bullmq.scripts import Scripts

from bullmq_proxy.gateway.broker.redis.errors import is_forgotten, reply_error
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.socket import Sink, pack_command
from bullmq_proxy.gateway.errors import GatewayError, finished_error

_OURS: Final = Path(__file__).parent / "lua"

# On the package's disk, but not in its own table of scripts.
_UNREGISTERED: Final = (
    "addLog-2",
    "changeDelay-4",
    "getDependencyCounts-4",
    "getMetrics-2",
    "getRateLimitTtl-2",
    "isFinished-3",
    "isMaxed-2",
    "moveJobFromActiveToWait-9",
    "paginate-1",
    "removeChildDependency-1",
    "removeDeduplicationKey-1",
    "removeOrphanedJobs-1",
    "removeUnprocessedChildren-2",
)


@cache
def script_texts() -> dict[str, str]:
    """All scripts by name. A `bullmq.Worker` reads 35 files for every connection; we read them once."""
    unregistered = {name.partition("-")[0]: f"{name}.lua" for name in _UNREGISTERED}
    names = {**bullmq.redis_connection.SCRIPT_DEFINITIONS, **unregistered}
    texts = {name: bullmq.redis_connection.loadScript(file) for name, file in names.items()}
    texts.update({path.stem: path.read_text() for path in sorted(_OURS.glob("*.lua"))})
    return texts


def sha_of(text: str) -> str:
    """The hash by which Redis knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Script:
    """One Lua script on one link. Callable as the scripts of redis-py are, so that BullMQ's own classes can use it."""

    def __init__(self, link: Link, text: str) -> None:
        self.sha = sha_of(text)
        self.text = text
        self.link = link

    def __call__(
        self, keys: list[Any] | None = None, args: list[Any] | None = None, client: Any = None
    ) -> Awaitable[Any]:
        """Run the script; error replies raise GatewayError, texts in the reply are str."""
        future = asyncio.get_running_loop().create_future()
        self.send(keys or [], args or [], partial(settle, future), decode=True)
        return future

    def send(self, keys: list[Any], args: list[Any], sink: Sink, *, decode: bool = False) -> None:
        """Run the script and give the raw reply, or an exception, to `sink`.

        Args:
            keys: KEYS, as str or bytes.
            args: ARGV; numbers and str are written as text.
            sink: takes the reply; an error reply comes as GatewayError.
            decode: texts in the reply are str rather than bytes.
        """
        self.link.send(self.command(keys, args), partial(self._reply, keys, args, sink, decode), decode=decode)

    def command(self, keys: list[Any], args: list[Any], *, full: bool = False) -> bytes:
        """The command, packed: EVALSHA, or EVAL with the `full` text."""
        how = ("EVAL", self.text) if full else ("EVALSHA", self.sha)
        return pack_command(*how, len(keys), *keys, *args)

    def _reply(self, keys: list[Any], args: list[Any], sink: Sink, decode: bool, reply: Any) -> None:
        if isinstance(reply, Exception):
            self.failed(reply, keys, args, sink, decode=decode)
        else:
            sink(reply)

    def failed(self, reply: Exception, keys: list[Any], args: list[Any], sink: Sink, *, decode: bool = False) -> None:
        """Go on after an error reply, or none at all: send the script's text if that is what Redis lacks."""
        if is_forgotten(reply):
            # Redis forgot it (SCRIPT FLUSH, failover): it did not run, so sending it once more in full is safe.
            self.link.send(self.command(keys, args, full=True), partial(_pass_on, sink), decode=decode)
        else:
            sink(reply_error(reply))


def _pass_on(sink: Sink, reply: Any) -> None:
    sink(reply_error(reply) if isinstance(reply, Exception) else reply)


def settle(future: asyncio.Future[Any], reply: Any) -> None:
    """A sink that ends a future, with the reply or with the exception that stands for it."""
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)


class ScriptBook:
    """All scripts on one link, in the form that BullMQ's classes expect of a RedisConnection (`conn`, `commands`)."""

    def __init__(self, link: Link, client: Any) -> None:
        self.conn = client
        self.commands: Mapping[str, Script] = {name: Script(link, text) for name, text in script_texts().items()}

    async def getRedisVersion(self) -> str:
        """BullMQ asks in order to choose between old and new scripts; everything we support has LPOS (6.0.6)."""
        return "7.0.0"


async def load_scripts(ask: Callable[..., Awaitable[Any]]) -> None:
    """Make sure that Redis has every script, before anybody else's command on a new connection.

    Args:
        ask: sends one command and returns its reply.
    """
    scripts = [(sha_of(text), text) for text in script_texts().values()]
    known = await ask("SCRIPT", "EXISTS", *(sha for sha, _ in scripts))
    missing = [text for (_, text), there in zip(scripts, known, strict=True) if not there]
    await asyncio.gather(*[ask("SCRIPT", "LOAD", text) for text in missing])


class QueueScripts(Scripts):  # type: ignore[misc] # the package has no types
    """BullMQ's argument builders for one queue, on our link, with our errors."""

    def __init__(self, prefix: str, queue: str, book: ScriptBook) -> None:
        super().__init__(prefix, queue, book)

    def finishedErrors(self, opts: dict[str, Any]) -> GatewayError:
        """What BullMQ raises for a negative return code; its own version loses the code and some texts."""
        return finished_error(
            opts["code"],
            command=opts.get("command", ""),
            job_id=opts.get("jobId"),
            state=opts.get("state"),
            parent_key=opts.get("parentKey"),
        )
