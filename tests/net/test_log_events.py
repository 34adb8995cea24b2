"""The events of the log: a line for each, with the fields that the table has, and no more lines than are of use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bullmq_proxy.gateway import log_events
from bullmq_proxy.gateway.log_events import LINES, LogEvent
from tests.net.conftest import MakeGateway
from tests.net.refusing import NO_KEY, Request, refused
from tests.net.support import RawClient, call, get, upgrade
from tests.support.keys import entry, write_keys
from tests.support.waiting import eventually

_NAMED = {event.value: event for event in LogEvent}


class Lines:
    """The events that were logged since the test began."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def of(self, event: LogEvent) -> list[dict[str, Any]]:
        """The fields of the lines of an event."""
        return [fields for name, fields in self.all() if name == event.value]

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each event with its fields, which are those of the table."""
        for record in self._caplog.records:
            if name := getattr(record, "event", None):
                fields = record.args if isinstance(record.args, dict) else {}
                assert sorted(fields) == sorted(_NAMED[name].fields)
                yield name, dict(fields)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.INFO)
    return Lines(caplog)


async def test_each_refusal_says_who_where_and_with_what(
    make_gateway: MakeGateway, tmp_path: Path, lines: Lines
) -> None:
    keys = write_keys(tmp_path / "keys.toml", entry("shop", "produce", queues=["mails"]))
    gateway = await make_gateway(keys_file=keys)
    await upgrade(gateway.port, "/queue/q?token=hidden", NO_KEY)
    await refused(Request(gateway.port, "/queue/q", "shop"))
    await get(gateway.port, "/queue/q/count?token=hidden", "Authorization: Bearer shop")
    async with await RawClient.connect(gateway.port) as client:
        client.write(b"nonsense\r\n\r\n")
        assert (await client.answer()).status == 400
    assert lines.of(LogEvent.REFUSED) == [
        {"address": "127.0.0.1", "path": "/queue/q", "code": 401, "key": "?"},
        {"address": "127.0.0.1", "path": "/queue/q", "code": 4502, "key": "shop"},
        {"address": "127.0.0.1", "path": "/queue/q/count", "code": 403, "key": "shop"},
        {"address": "127.0.0.1", "path": "?", "code": 400, "key": "?"},
    ]


async def test_of_a_flood_few_lines_are_left_and_the_rest_is_counted(
    make_gateway: MakeGateway, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    gateway = await make_gateway()
    for _ in range(LINES + 7):
        await upgrade(gateway.port, "/queue/q", NO_KEY)
    assert len(lines.of(LogEvent.REFUSED)) == LINES
    monkeypatch.setattr(log_events, "PERIOD", 0.0)
    log_events.tick()
    [left_out] = lines.of(LogEvent.LEFT_OUT)
    assert (left_out["lines"], left_out["event"]) == (7, "refused")
    await upgrade(gateway.port, "/queue/q", NO_KEY)
    assert len(lines.of(LogEvent.REFUSED)) == LINES + 1


async def test_the_access_log_has_connections_and_requests(make_gateway: MakeGateway, lines: Lines) -> None:
    gateway = await make_gateway(access_log=True)
    who = {"address": "127.0.0.1", "kind": "queue", "queue": "q", "key": "?"}
    async with await RawClient.open(gateway.port, "/queue/q") as client:
        await client.ask("count")
        assert lines.of(LogEvent.OPENED) == [who]
        client.send(b"\x03\xe8", opcode=8)
        await client.gone()
    [closed] = await eventually(lambda: lines.of(LogEvent.CLOSED), "the end of the connection is logged")
    assert closed.pop("seconds") > 0
    assert closed == {**who, "code": 1000, "received": 1, "sent": 1}
    async with await RawClient.connect(gateway.port) as client:
        await client.fetch("GET", "/queue/q/count?token=hidden")
        await client.fetch("POST", "/queue/q/nonsense", body="[]")
    assert all(each["seconds"] > 0 for each in lines.of(LogEvent.REQUESTED))  # the loop's clock has only milliseconds
    requests = [(each["method"], each["path"], each["status"]) for each in lines.of(LogEvent.REQUESTED)]
    assert requests == [("GET", "/queue/q/count", 200), ("POST", "/queue/q/nonsense", 404)]


async def test_without_it_there_are_none(make_gateway: MakeGateway, lines: Lines) -> None:
    gateway = await make_gateway()
    async with await RawClient.open(gateway.port, "/queue/q") as client:
        await client.ask("count")
    assert [name for name, _ in lines.all()] == []


async def test_what_clients_do_wrong_has_lines(make_gateway: MakeGateway, tmp_path: Path, lines: Lines) -> None:
    keys = write_keys(tmp_path / "keys.toml", entry("slow", "produce", messages_per_second=1))
    gateway = await make_gateway(keys_file=keys, max_message_size=1024)
    async with await RawClient.open(gateway.port, "/queue/q", "Authorization: Bearer slow") as client:
        client.send(call(1, "addBulk", [{"name": "n", "data": 0}] * 20))
        assert (await client.message())["data"]["err"]["code"] == "TOO_MANY_REQUESTS"
    assert lines.of(LogEvent.RATE_REACHED) == [{"key": "slow", "rate": 1}]
    async with await RawClient.open(gateway.port, "/queue/q") as client:
        client.write(b"\x81\xfe\xff\xff")
        assert (await client.closed())[0] == 1009
    who = {"address": "127.0.0.1", "kind": "queue", "queue": "q", "key": "?"}
    [limit] = lines.of(LogEvent.LIMIT_REACHED)
    assert (limit.pop("reason"), limit) == ("frame with 65535 bytes exceeds limit of 1024 bytes", {**who, "code": 1009})
    async with await RawClient.open(gateway.port, "/queue/q") as client:
        client.send(b"binary", opcode=2)
        assert (await client.closed())[0] == 1003
    assert lines.of(LogEvent.BAD_FRAMES) == [{**who, "code": 1003, "reason": "text frames only"}]
    worker = await RawClient.open(gateway.port, "/queue/q/process/2")
    async with await RawClient.open(gateway.port, "/queue/q") as producer:
        for _ in range(2):
            await producer.ask("add", "n", {})
    await worker.messages(2)
    worker.abort()
    lost = await eventually(lambda: lines.of(LogEvent.WORKER_LOST), "the loss of the worker is logged")
    assert lost == [{"queue": "q", "jobs": 2}]


async def test_what_needs_manage_is_audited_where_that_is_wanted(
    make_gateway: MakeGateway, tmp_path: Path, lines: Lines
) -> None:
    keys = write_keys(tmp_path / "keys.toml", entry("shop", "manage", "produce"))
    gateway = await make_gateway(keys_file=keys, audit_log=True)
    async with await RawClient.open(gateway.port, "/queue/mails", "Authorization: Bearer shop") as client:
        for fn, args in (
            ("pause", ()),
            ("add", ("hidden", {"text": "hidden"})),
            ("removeJob", ("none",)),
            ("drain", ()),
        ):
            await client.ask(fn, *args)
    async with await RawClient.connect(gateway.port) as client:
        await client.fetch("POST", "/queue/mails/resume")
    assert [tuple(line.values()) for line in lines.of(LogEvent.AUDIT)] == [
        ("shop", "pause", "mails", "ok"),
        ("shop", "removeJob", "mails", "ok"),
        ("shop", "drain", "mails", "ok"),
        ("?", "resume", "mails", "ok"),
    ]
    quiet = await make_gateway()
    async with await RawClient.open(quiet.port, "/queue/mails") as client:
        await client.ask("pause")
    assert len(lines.of(LogEvent.AUDIT)) == 4
