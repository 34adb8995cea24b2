"""Templates: a script's call with holes is byte for byte the call that would be packed whole."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.link import Link, LinkOptions
from bullmq_proxy.gateway.broker.redis.scripts import Script, settle
from bullmq_proxy.gateway.broker.redis.socket import Chunk, pack_command
from bullmq_proxy.gateway.broker.redis.templates import HOLE, Template
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
    """A link to nowhere: what would go out is kept."""

    def __init__(self) -> None:
        super().__init__(Address(), LinkOptions())
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
        Template(script, words[:2], words[2:]).send(filling, print)
        assert link.sent == pack_command("EVALSHA", script.sha, 2, *map(bytes, values))


async def test_the_number_of_values_must_fit() -> None:
    template = Template(Script(Recorder(), ECHO), ["a", HOLE], ["b", HOLE])
    with pytest.raises(ValueError, match="zip"):
        template.send((b"only one",), print)


async def test_a_script_that_redis_does_not_know_is_sent_in_full(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path) as server:
        link = Link(Address.from_url(server.url), LinkOptions())
        await link.start(5.0)
        template = Template(Script(link, ECHO), ["k", HOLE], [HOLE, "a"])
        for _ in range(2):
            reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            template.send((b"hole 1", Raw(b"hole 2")), partial(settle, reply))
            assert await reply == [b"k", b"hole 1", b"hole 2", b"a"]
        await link.call("SCRIPT", "FLUSH")
        reply = asyncio.get_running_loop().create_future()
        template.send((b"hole 1", b"hole 2"), partial(settle, reply))
        assert await reply == [b"k", b"hole 1", b"hole 2", b"a"]
        await link.close()
