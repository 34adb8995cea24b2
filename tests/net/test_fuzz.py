"""Garbage over real sockets: nothing crashes, nothing goes unanswered, nothing tells what is inside."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest

from bullmq_proxy.gateway import Proxy
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.table import Function
from tests.net.conftest import Open
from tests.net.support import CLOSE, CONT, PING, PONG, TEXT, RawClient, fetch, frame, handshake

PATHS = ["/queue/q", "/queue/q/events", "/queue/q/process/1"]
IDS = ["0", "-1", "1.5", "1e400", "9" * 400, '""', '"a"', '"\\u00e9"', '"é"', f'"{"x" * 9999}"']
NO_IDS = ["null", "true", "false", "[]", "{}", '{"id":1}']
# One of each JSON type, and the edges of some.
WRONG: list[str] = [
    "null", "true", "0", "-1", "1.5", "1e400", "-0", "9" * 30, "9" * 5000, "9223372036854775808", '""', '"x"',
    '"\\u0000"', '"\\n"', '"é"', '"' + "x" * 5000 + '"', "[]", "[null]", "[[]]", "{}", '{"x":1}', '{"":null}',
    '{"count":0}', '{"count":-1}', '{"delay":1e400}', '{"jobId":"0"}', '{"debounce":{}}', '[{"name":1}]',
    '[{"name":"a","opts":{"priority":1.5}}]', "[" * 500 + "]" * 500, "[" * 3000 + "]" * 3000,
]  # fmt: skip
LEAKS = ("Traceback", ".py", "site-packages", "/usr/", "object at 0x", "msgspec", "hiredis")


@pytest.fixture(autouse=True)
def _no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client sends is an error of ours."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def checked(reply: Any) -> Any:
    """A reply that has the form of one and leaks nothing."""
    assert reply.keys() == {"id", "data"}
    text = json.dumps(reply["data"].get("err", ""))
    assert not any(leak in text for leak in LEAKS), text
    return reply


async def replies(client: RawClient, count: int) -> list[Any]:
    return [checked(await client.message()) for _ in range(count)]


class TestFunctions:
    @pytest.mark.parametrize("row", list(TABLE), ids=lambda row: row.name)
    async def test_wrong_types_in_every_argument_are_answered(self, open_socket: Open, row: Function) -> None:
        client, other, name = await open_socket(), await open_socket(), row.name
        arguments = [f"[{value}]" for value in WRONG]
        for place in range(1, 4):
            good = ['"1"', "0", "0"][:place]
            arguments += [f"[{','.join([*good, value])}]" for value in WRONG]
        arguments += [*WRONG, "[1,2,3,4,5,6,7,8,9]"]
        for start in range(0, len(arguments), 40):
            batch = arguments[start : start + 40]
            client.write(
                b"".join(
                    frame(f'{{"id":{start + n},"data":{{"fn":"{name}","args":{args}}}}}')
                    for n, args in enumerate(batch)
                )
            )
            coming = asyncio.ensure_future(replies(client, len(batch)))
            while row.waits and not coming.done():  # what is right among them may wait for a job, which ends here
                await other.ask("obliterate", {"force": True})
            for reply in await coming:
                assert reply["data"].keys() in ({"ok"}, {"err"})
                if "err" in reply["data"]:
                    message = reply["data"]["err"]["message"]
                    assert not message.startswith("Internal error"), (name, arguments[reply["id"]])

    @pytest.mark.parametrize("target", PATHS)
    async def test_ids_of_every_type_are_answered(self, open_socket: Open, target: str) -> None:
        client = await open_socket(target)
        for data in ('{"fn":"count"}', '{"fn":"on","args":[]}', '{"type":"ack"}', '{"result":1}', "7", '{"fn":7}'):
            for id in IDS:
                client.send(f'{{"id":{id},"data":{data}}}')
                _, payload = await client.read()
                assert payload.startswith(b'{"id":%b,' % id.encode())
            for id in NO_IDS:
                client.send(f'{{"id":{id},"data":{data}}}')
                [reply] = await replies(client, 1)
                assert (reply["id"], reply["data"]["err"]["code"]) == (None, "INVALID_MESSAGE")

    @pytest.mark.parametrize("target", PATHS)
    async def test_names_that_are_in_no_table_are_refused(self, open_socket: Open, target: str) -> None:
        client = await open_socket(target)
        names = ["", "__class__", "constructor", "close", "on('x')", "\n", "é" * 5000, "Add", "get_job", "client"]
        for name in names:
            reply = checked({"id": 1, "data": await client.ask(name)})
            assert reply["data"]["err"]["code"] == "UNKNOWN_FUNCTION"
            assert len(reply["data"]["err"]["message"]) < 300


class TestMessages:
    @pytest.mark.parametrize("target", PATHS)
    async def test_every_complete_text_frame_is_answered(self, open_socket: Open, target: str) -> None:
        client = await open_socket(target)
        dice = random.Random(target)
        whole = '{"id":1,"data":{"fn":"on","args":["completed"]}}'
        texts = ["", " ", "nonsense", "[" * 100_000, '{"id":' * 5000, "\x00", '{"id":1}', '"', "\ufeff{}", "1" * 9999]
        for _ in range(400):
            cut, end = sorted(dice.sample(range(len(whole) + 1), 2))
            noise = "".join(chr(dice.randrange(32, 0x250)) for _ in range(dice.randrange(4)))
            texts.append(whole[:cut] + noise + whole[end:])
        for text in texts:
            client.send(text)
            await replies(client, 1)

    @pytest.mark.parametrize("target", PATHS)
    async def test_deep_nesting_is_answered_wherever_it_is(
        self, open_socket: Open, target: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.penalties._TIME", 10_000.0)
        client = await open_socket(target)
        for depth in (500, 990, 1000, 5000, 100_000):
            for opener, closer in ("[]", ('{"a":', "}")):
                deep = opener * depth + "1" + closer * depth
                for text in (
                    deep,
                    f'{{"id":1,"data":{deep}}}',
                    f'{{"id":{deep},"data":{{}}}}',
                    f'{{"id":1,"data":{{"fn":"add","args":["a",{deep}]}}}}',
                    f'{{"id":1,"data":{{"fn":"add","args":["a",{{}},{{"debounce":{deep}}}]}}}}',
                    f'{{"id":1,"data":{{"fn":"on","args":{deep}}}}}',
                    f'{{"id":1,"data":{{"type":"progress","progress":{deep}}}}}',
                    f'{{"id":1,"data":{{"err":{deep}}}}}',
                ):
                    client.send(text)
                    reply = await client.message()
                    while reply["data"].get("type") == "process":  # the job that was just added
                        reply = await client.message()
                    checked(reply)


class TestBytes:
    @pytest.mark.parametrize("target", PATHS)
    async def test_random_bytes_in_an_open_connection_close_it_and_nothing_else(
        self, gateway: Proxy, open_socket: Open, target: str
    ) -> None:
        dice = random.Random(target)
        for _ in range(60):
            client = await open_socket(target)
            client.write(dice.randbytes(dice.randrange(1, 400)))
            client.writer.write_eof()
            await _read_to_the_end(client)
        await _still_serves(open_socket)

    @pytest.mark.parametrize("target", PATHS)
    async def test_damaged_frames_close_or_are_answered(self, gateway: Proxy, open_socket: Open, target: str) -> None:
        dice = random.Random(target)
        for _ in range(80):
            client = await open_socket(target)
            stream = bytearray()
            for _ in range(dice.randrange(1, 6)):
                opcode = dice.choice([TEXT, TEXT, CONT, PING, PONG, CLOSE, 0x2, 0x7])
                fin, rsv = dice.random() < 0.8, dice.choice([0, 0, 0, 1, 4])
                stream += frame(dice.randbytes(dice.choice([0, 1, 2, 125, 126, 3000])), opcode, fin=fin, rsv=rsv)
            cut = dice.randrange(len(stream) + 1)
            client.write(bytes(stream[:cut]))
            if dice.random() < 0.5:
                client.writer.write_eof()
                await _read_to_the_end(client)
            else:
                client.abort()
        await _still_serves(open_socket)

    async def test_random_bytes_instead_of_a_request_are_refused(self, gateway: Proxy, open_socket: Open) -> None:
        dice = random.Random(1)
        for _ in range(60):
            noise = dice.randbytes(dice.randrange(1, 300))
            async with await RawClient.connect(gateway.port) as client:
                client.write(noise)
                client.writer.write_eof()
                await client.gone()
        for _ in range(60):
            request = bytearray(handshake("/queue/q"))
            for _ in range(dice.randrange(1, 5)):
                request[dice.randrange(len(request))] = dice.randrange(256)
            answer = await fetch(gateway.port, bytes(request) + b"\r\n\r\n")
            assert answer.status in (101, 400, 401, 404, 405, 414, 426, 431, 505)
            if answer.status != 101:
                assert not any(leak in answer.body.decode() for leak in LEAKS)
        await _still_serves(open_socket)

    async def test_giant_frames_are_refused_by_their_heads(self, gateway: Proxy, open_socket: Open) -> None:
        for size in (2**20 + 1, 2**31, 2**40, 2**63 - 1):
            client = await open_socket()
            client.write(b"\x81\xff" + size.to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1000)
            assert (await client.closed())[0] == 1009
        await _still_serves(open_socket)


async def _read_to_the_end(client: RawClient) -> None:
    """Every frame up to the close frame or the end of the stream."""
    try:
        while True:
            opcode, payload = await client.read()
            if opcode == TEXT:
                checked(json.loads(payload.decode()))
            elif opcode == CLOSE and len(payload) > 2:
                assert not any(leak in payload[2:].decode() for leak in LEAKS)
    except (EOFError, ConnectionError):
        pass


async def _still_serves(open_socket: Open) -> None:
    for target in PATHS:
        client = await open_socket(target)
        client.send('{"id":"after all that","data":{"fn":"nothing"}}')
        assert (await client.message())["id"] == "after all that"
