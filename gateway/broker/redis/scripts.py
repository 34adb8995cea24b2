"""Lua scripts, BullMQ's and ours: each is called by its hash, and sent in full once Redis has forgotten it."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from bullmq_proxy.gateway.broker.redis.command_link import CommandLink
from bullmq_proxy.gateway.broker.redis.errors import is_forgotten, reply_error
from bullmq_proxy.gateway.broker.redis.socket import Chunk, Sink, bulk_head, future_of, pack_command, packable

HOLE: Final = object()
"""Marks a word of a template that differs from call to call."""

_END: Final = b"\r\n"
_OURS: Final = Path(__file__).parent / "lua"
# Scripts of ours that go on from the functions of one of BullMQ's, where its work begins: they do the same in slices.
_CONTINUED: Final = {
    "cleanSlice": ("cleanJobsInSet", "\nlocal result\n"),
    "removeChildren": ("removeJob", "\nlocal jobId = ARGV[1]\n"),
    "stalledSlice": ("moveStalledJobsToWait", "\nlocal stalledKey = KEYS[1]\n"),
    "removeFamily": ("removeJob", "\nlocal jobId = ARGV[1]\n"),
}
# Where one call of BullMQ's scripts goes through a whole queue, it does a part, and the next call goes on.
_BOUNDED: Final = (
    # A finished job sweeps 250 older ones away, and leaves the rest to the next one that finishes.
    (
        "moveToFinished",
        'rcall("ZREVRANGE", targetSet, start, -1)',
        'rcall("ZREVRANGE", targetSet, math.max(start, rcall("ZCARD", targetSet) - 250), -1)',
    ),
    (
        "moveToFinished",
        'rcall("ZREMRANGEBYRANK", targetSet, 0, -(maxCount + 1))',
        'if #jobIds > 0 then rcall("ZREMRANGEBYRANK", targetSet, 0, #jobIds - 1) end',
    ),
    ("moveToFinished", "opts['keepJobs']['limit'] or 1000", "math.min(opts['keepJobs']['limit'] or 1000, 250)"),
    # Of many active jobs it checks none: stalledSlice does.
    (
        "moveStalledJobsToWait",
        "\nlocal stalledKey = KEYS[1]\n",
        "\nif rcall('LLEN', KEYS[3]) > 200 then return -1 end\nlocal stalledKey = KEYS[1]\n",
    ),
    ("pause", "rcall('LRANGE', KEYS[1], 0, 6999)", "rcall('LRANGE', KEYS[1], 0, 999)"),
)


@cache
def script_texts() -> dict[str, str]:
    """Read all scripts, by name: BullMQ's, without those of its relay, and our own.

    The package is not imported for that: with redis-py's client it would take a tenth of a shard's start.
    """
    package = importlib.util.find_spec("bullmq")
    assert package is not None and package.submodule_search_locations
    commands = Path(package.submodule_search_locations[0], "commands")
    theirs = [path for path in sorted(commands.glob("*.lua")) if not path.name.startswith("relay")]
    texts = {path.stem.partition("-")[0]: path.read_text() for path in theirs}
    ours = {path.stem: path.read_text() for path in sorted(_OURS.glob("*.lua"))}
    for name, (base, end) in _CONTINUED.items():
        functions, found, _ = texts[base].partition(end)
        assert found, f"{base} of the installed bullmq has no {end!r}: this version is not supported"
        ours[name] = functions + ours[name]
    for name, old, new in _BOUNDED:
        assert texts[name].count(old) == 1, (
            f"{name} of the installed bullmq has no {old!r}: this version is not supported"
        )
        texts[name] = texts[name].replace(old, new)
    return texts | ours


@cache
def sha_of(text: str) -> str:
    """Return the hash by which Redis knows a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Scripts(dict[str, "Script"]):
    """Scripts by name, each made when it is first asked for: a queue needs few of them."""

    def __init__(self, link: CommandLink) -> None:
        self._link = link

    def __missing__(self, name: str) -> Script:
        script = self[name] = Script(self._link, script_texts()[name])
        return script


def scripts_on(link: CommandLink) -> Mapping[str, Script]:
    """Return all scripts, by name, to be run on a link."""
    return _Scripts(link)


async def load_scripts(ask: Callable[..., Awaitable[Any]]) -> None:
    """Load the scripts that Redis does not have, before the first command of a new connection.

    Args:
        ask: sends one command and returns its reply.
    """
    scripts = [(sha_of(text), text) for text in script_texts().values()]
    known = await ask("SCRIPT", "EXISTS", *(sha for sha, _ in scripts))
    missing = [text for (_, text), there in zip(scripts, known, strict=True) if not there]
    await asyncio.gather(*[ask("SCRIPT", "LOAD", text) for text in missing])


class Script:
    """One Lua script on one link.

    Everywhere KEYS are str or bytes; ARGV may also be numbers, which are written as text. Texts in a reply are bytes,
    and an error reply becomes a GatewayError.
    """

    def __init__(self, link: CommandLink, text: str) -> None:
        self.sha = sha_of(text)
        self.link = link
        self.text = text

    def run(self, keys: Sequence[Any], args: Sequence[Any]) -> Awaitable[Any]:
        """Run the script and return its reply."""
        return future_of(partial(self.send, keys, args))

    def send(self, keys: Sequence[Any], args: Sequence[Any], sink: Sink) -> None:
        """Run the script and give its reply, or the GatewayError in its place, to `sink`."""
        self.link.send(self.pack(keys, args), partial(self.replied, keys, args, sink))

    def template(self, keys: Sequence[object], args: Sequence[object]) -> Template:
        """Pack a call once that is made often; `HOLE` stands for each word that differs from call to call."""
        return Template(self, keys, args)

    def pack(self, keys: Sequence[Any], args: Sequence[Any], *, full: bool = False) -> bytes:
        """Pack the call, for a transaction: EVALSHA, or EVAL with the `full` text."""
        how = ("EVAL", self.text) if full else ("EVALSHA", self.sha)
        return pack_command(*how, len(keys), *keys, *args)

    def replied(self, keys: Sequence[Any], args: Sequence[Any], sink: Sink, reply: Any) -> None:
        """Pass a reply on, or send the full text once if Redis does not know the hash: then it executed nothing."""
        if not isinstance(reply, Exception):
            sink(reply)
        elif is_forgotten(reply):
            self.link.send(self.pack(keys, args, full=True), partial(_pass_on, sink))
        else:
            sink(reply_error(reply))


class Template:
    """One call of a script whose constant words are packed once.

    To pack the 17 words of an `add` for each job takes 2.0 us, to fill in the three that differ 1.0 us.
    """

    __slots__ = ("_first", "_keys_and_args", "_rest", "_script")

    def __init__(self, script: Script, keys: Sequence[object], args: Sequence[object]) -> None:
        self._script = script
        self._keys_and_args = (keys, args)
        self._first = b""  # packed when it is first needed: most queues need few of their templates
        self._rest: list[bytes] = []

    def send(self, values: tuple[Chunk, ...], sink: Sink) -> None:
        """Run the script and give its reply, or the GatewayError in its place, to `sink`.

        Args:
            values: one for each hole, in their order.
            sink: takes the reply.
        """
        if not self._first:
            self._first, *self._rest = _chunks(self._words())
        command: list[Chunk] = [self._first]
        for value, after in zip(values, self._rest, strict=True):
            command += (bulk_head(len(value)), value, after)
        self._script.link.send(command, partial(self._replied, values, sink))

    def _words(self) -> tuple[object, ...]:
        keys, args = self._keys_and_args
        return "EVALSHA", self._script.sha, len(keys), *keys, *args

    def _replied(self, values: tuple[Chunk, ...], sink: Sink, reply: Any) -> None:
        if isinstance(reply, Exception):
            filling = iter(packable(values))
            keys, args = ([next(filling) if word is HOLE else word for word in words] for words in self._keys_and_args)
            self._script.replied(keys, args, sink, reply)
        else:
            sink(reply)


def _chunks(words: Sequence[object]) -> list[bytes]:
    """Pack a command and cut it at its holes: each chunk but the first begins after a value."""
    chunks = [b"*%d\r\n" % len(words)]
    for word in words:
        if word is HOLE:
            chunks.append(_END)
        else:
            chunks[-1] += pack_command(word).partition(_END)[2]
    return chunks


def _pass_on(sink: Sink, reply: Any) -> None:
    sink(reply_error(reply) if isinstance(reply, Exception) else reply)
