"""Scripts: one way to run them, and templates that are byte for byte the call packed as a whole."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.link import Link
from bullmq_proxy.gateway.broker.redis.scripts import HOLE, Script
from bullmq_proxy.gateway.broker.redis.socket import Chunk, pack_command, resolve
from tests.support.link import OPTIONS
from tests.support.valkey import ValkeyProcess

ECHO = "return {KEYS[1], KEYS[2], ARGV[1], ARGV[2]}"
VALUES: tuple[Chunk, ...] = (
    b"",
    b"7",
    b"\r\n$3\r\n",
    "grüße".encode(),
    b"x" * 1023,
    b"y" * 1024,
    Raw(b"z" * 100_000),
)


class Recorder(Link):
    """A link that keeps commands and sends nothing."""

    def __init__(self) -> None:
        super().__init__(Address(), OPTIONS)
        self.sent = b""

    def send(self, command: bytes | list[Chunk], sink: Any, **more: Any) -> None:
        assert isinstance(command, list)
        self.sent = b"".join(command)


@pytest.mark.parametrize("holes", list(itertools.product((False, True), repeat=4)))
async def test_a_filled_template_is_the_whole_command(holes: tuple[bool, ...]) -> None:
    link = Recorder()
    script = Script(link, ECHO)
    for values in itertools.permutations(VALUES, 4):
        words = [HOLE if is_hole else bytes(value) for is_hole, value in zip(holes, values, strict=True)]
        filling = tuple(value for is_hole, value in zip(holes, values, strict=True) if is_hole)
        script.template(words[:2], words[2:]).send(filling, print)
        assert link.sent == pack_command("EVALSHA", script.sha, 2, *map(bytes, values))


async def test_the_number_of_values_must_fit() -> None:
    template = Script(Recorder(), ECHO).template(["a", HOLE], ["b", HOLE])
    with pytest.raises(ValueError, match="zip"):
        template.send((b"only one",), print)


async def test_a_script_that_redis_does_not_know_is_sent_in_full(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path) as server:
        link = Link(Address.from_url(server.url), OPTIONS)
        await link.start(5.0)
        script = Script(link, ECHO)
        template = script.template(["k", HOLE], [HOLE, "a"])
        for _ in range(2):
            reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            template.send((b"hole 1", Raw(b"hole 2")), partial(resolve, reply))
            assert await reply == [b"k", b"hole 1", b"hole 2", b"a"]
        await link.call("SCRIPT", "FLUSH")
        reply = asyncio.get_running_loop().create_future()
        template.send((b"hole 1", b"hole 2"), partial(resolve, reply))
        assert await reply == [b"k", b"hole 1", b"hole 2", b"a"]
        await link.call("SCRIPT", "FLUSH")
        assert await script.run(["k", "l"], ["m", 7]) == [b"k", b"l", b"m", b"7"]
        await link.close()
