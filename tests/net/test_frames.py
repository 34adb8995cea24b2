"""Frames: fragments, pings, splits at every byte, and what closes a connection with which code."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import pytest

from bullmq_proxy.gateway import Proxy
from tests.net.conftest import MakeGateway, Open
from tests.net.support import BINARY, CLOSE, CONT, PING, PONG, TEXT, RawClient, call, frame, handshake, upgrade

PATHS = ["/queue/q", "/queue/q/events", "/queue/q/process/1"]

BROKEN: Final = {
    "binary": (frame(b"\x00\x01", BINARY), 1003),
    "binary in fragments": (frame(b"\x00", BINARY, fin=False) + frame(b"", CONT), 1003),
    "no UTF-8": (frame(b'{"id":"\xff"}'), 1007),
    "a surrogate in UTF-8": (frame(b"\xed\xa0\x80"), 1007),
    "no UTF-8 over two fragments": (frame(b"\xc3", fin=False) + frame(b"(", CONT), 1007),
    "a reason that is no UTF-8": (frame(b"\x03\xe8\xff", CLOSE), 1007),
    "too long": (frame("x" * (2**20 + 1)), 1009),
    "the head of a giant frame": (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
    "too long over two fragments": (frame("x" * 2**19, fin=False) + frame("x" * (2**19 + 1), CONT), 1009),
    "compressed": (frame("x", rsv=4), 1002),
    "RSV2": (frame("x", rsv=2), 1002),
    "RSV3": (frame("x", rsv=1), 1002),
    "no mask": (frame("x", mask=False), 1002),
    "a reserved data frame": (frame("x", 0x3), 1002),
    "a reserved control frame": (frame("x", 0xB), 1002),
    "a fragment of nothing": (frame("x", CONT), 1002),
    "a message within a message": (frame("x", fin=False) + frame("y"), 1002),
    "a long ping": (frame("x" * 126, PING), 1002),
    "a ping in fragments": (frame("x", PING, fin=False), 1002),
    "half a close code": (frame(b"\x03", CLOSE), 1002),
    **{
        f"close code {code}": (frame(code.to_bytes(2, "big"), CLOSE), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "a long close frame": (frame(b"x" * 126, CLOSE), 1002),
    "a ping without a mask": (frame("x", PING, mask=False), 1002),
    "a ping that is compressed": (frame("x", PING, rsv=4), 1002),
    "a length with its highest bit set": (b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", 1009),
    "the last reserved data frame": (frame("x", 0x7), 1002),
    "the last reserved control frame": (frame("x", 0xF), 1002),
}
"""Bytes that break the protocol, and the code of the close that answers them."""


class TestMessages:
    async def test_a_frame_may_come_byte_by_byte(self, open_socket: Open) -> None:
        client = await open_socket()
        await client.write_in_pieces(frame(call("byte by byte", "count")))
        assert await client.message() == {"id": "byte by byte", "data": {"ok": 0}}

    async def test_two_frames_may_be_cut_at_any_byte(self, open_socket: Open) -> None:
        client = await open_socket()
        both = frame(call(1, "count")) + frame("x" * 130)  # the second one has the longer kind of head
        for cut in range(1, len(both)):
            client.write(both[:cut])
            await client.writer.drain()
            await asyncio.sleep(0)
            client.write(both[cut:])
            assert {reply["id"] for reply in await client.messages(2)} == {1, None}

    async def test_a_message_may_come_in_fragments_cut_inside_a_character(self, open_socket: Open) -> None:
        client = await open_socket()
        message = call("é€\U0001f600", "count").encode()
        for index in range(len(message)):
            last = index == len(message) - 1
            client.send(message[index : index + 1], TEXT if index == 0 else CONT, fin=last)
        assert (await client.message())["id"] == "é€\U0001f600"

    async def test_pings_between_fragments_are_answered_at_once(self, open_socket: Open) -> None:
        client = await open_socket()
        message = call(5, "count")
        client.send(message[:10], fin=False)
        client.send("are you there", PING)
        assert await client.read() == (PONG, b"are you there")
        client.send(message[10:20], CONT, fin=False)
        client.send("", PING)
        client.send(message[20:], CONT)
        assert await client.read() == (PONG, b"")
        assert (await client.message())["id"] == 5

    async def test_empty_fragments_are_fine_up_to_a_limit(
        self, open_socket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bullmq_proxy.gateway.net.penalties._TIME", 10_000.0)
        client = await open_socket()
        client.send(call(6, "count"), fin=False)
        client.write(frame("", CONT, fin=False) * 1000)
        client.send("", CONT)
        assert (await client.message())["id"] == 6
        client.send(call(7, "count"), fin=False)
        client.write(frame("", CONT, fin=False) * 1100)
        assert await client.closed() == (1009, "more than 1024 fragments")

    async def test_unsolicited_pongs_are_ignored(self, open_socket: Open) -> None:
        client = await open_socket()
        client.send("hello", PONG)
        assert await client.ask("count") == {"ok": 0}

    async def test_frames_that_come_with_the_handshake_are_answered_after_it(self, gateway: Proxy) -> None:
        for target in PATHS:
            async with await RawClient.connect(gateway.port) as client:
                client.write(handshake(target) + frame("early", PING) + frame("no envelope"))
                assert (await client.answer()).status == 101
                assert await client.read() == (PONG, b"early")
                assert (await client.message())["data"]["err"]["code"] == "INVALID_MESSAGE"

    async def test_a_message_up_to_the_limit_is_taken(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_message_size=2048)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            whole = call(1, "add", "a", "x" * (2048 - len(call(1, "add", "a", ""))))
            assert len(whole) == 2048
            client.send(whole)
            assert "ok" in (await client.message())["data"]
            client.send(whole + " ")
            assert (await client.closed())[0] == 1009

    async def test_compression_is_not_negotiated_even_when_offered(self, gateway: Proxy) -> None:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"
        answer = await upgrade(gateway.port, "/queue/q", offer)
        assert answer.status == 101
        assert "sec-websocket-extensions" not in answer.headers


class TestCloseCodes:
    """The same on each kind of connection."""

    @pytest.mark.parametrize("target", PATHS)
    async def test_what_breaks_the_protocol_closes(self, gateway: Proxy, target: str) -> None:
        for name, (bytes_sent, code) in BROKEN.items():
            async with await RawClient.open(gateway.port, target) as client:
                client.write(bytes_sent)
                got, reason = await client.closed()
                assert got == code, name
                assert ".py" not in reason, name

    @pytest.mark.parametrize("target", PATHS)
    @pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x0f\xa0", b"\x13\x87"])
    async def test_the_client_s_own_close_is_answered_in_kind(
        self, open_socket: Open, target: str, payload: bytes
    ) -> None:
        client = await open_socket(target)
        client.send(payload, CLOSE)
        assert await client.read() == (CLOSE, payload)
        await client.gone()

    @pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa0bye"])
    @pytest.mark.parametrize("in_pieces", [False, True])
    async def test_so_is_one_between_the_fragments_of_a_message(
        self, open_socket: Open, payload: bytes, in_pieces: bool
    ) -> None:
        """RFC 6455 §5.4: control frames MAY be injected in the middle of a fragmented message."""
        client = await open_socket()
        sent = frame(call(1, "add", "a")[:10], fin=False) + frame("", CONT, fin=False) + frame(payload, CLOSE)
        if in_pieces:
            await client.write_in_pieces(sent)
        else:
            client.write(sent)
        assert await client.read() == (CLOSE, payload)
        await client.gone()

    async def test_everything_before_the_wrong_frame_still_counts(self, open_socket: Open) -> None:
        client = await open_socket()
        client.write(frame(call(1, "add", "a")) + frame("x", BINARY))
        assert (await client.closed())[0] == 1003
        assert await (await open_socket()).ask("count") == {"ok": 1}

    async def test_nothing_after_it_does(self, open_socket: Open) -> None:
        client = await open_socket()
        client.write(frame("x", BINARY) + frame(call(1, "add", "a")))
        assert (await client.closed())[0] == 1003
        assert await (await open_socket()).ask("count") == {"ok": 0}

    async def test_a_stopping_gateway_closes_with_1001(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway()
        clients = [await RawClient.open(gateway.port, target) for target in PATHS]
        stopping = asyncio.create_task(gateway.stop())
        for client in clients:
            assert await client.closed() == (1001, "the gateway stops")
            await client.close()
        await stopping


class TestLastWords:
    """A client may close as soon as it has said what it wanted to say."""

    async def test_requests_right_before_the_close_frame_are_executed(self, open_socket: Open) -> None:
        client = await open_socket()
        client.write(b"".join(frame(call(n, "add", "a")) for n in range(20)) + frame(b"\x03\xe8", CLOSE))
        await client.gone()
        assert await (await open_socket()).ask("count") == {"ok": 20}

    async def test_so_are_those_that_had_to_wait_for_their_turn(self, make_gateway: MakeGateway) -> None:
        gateway = await make_gateway(max_in_flight=4)
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            client.write(b"".join(frame(call(n, "add", "a")) for n in range(50)) + frame(b"\x03\xe8", CLOSE))
            await client.gone()
        async with await RawClient.open(gateway.port, "/queue/q") as client:
            assert await client.ask("count") == {"ok": 50}

    async def test_a_worker_s_result_right_before_its_close_frame_completes_the_job(self, open_socket: Open) -> None:
        queue, worker, events = await open_socket(), await open_socket(PATHS[2]), await open_socket(PATHS[1])
        await queue.ask("add", "a")
        job = await worker.message()
        worker.write(frame(json.dumps({"id": job["id"], "data": {"result": 42}})) + frame(b"\x03\xe8", CLOSE))
        await worker.gone()
        while (event := (await events.message())["data"])["event"] not in ("completed", "failed", "stalled"):
            assert event["args"][0].get("prev") != "active", "given back"
        assert (event["event"], event["args"][0]["returnvalue"]) == ("completed", 42)
