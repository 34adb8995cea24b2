"""What a shard says to its parent: one JSON object per line, whatever the pieces it arrives in."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.supervisor import process
from bullmq_proxy.supervisor.process import ShardProcess, are_own
from bullmq_proxy.supervisor.successor import obstacle


@pytest.fixture
def pair() -> Iterator[tuple[ShardProcess, socket.socket]]:
    """The parent's view of a shard, and the shard's end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ShardProcess(slot=0, pid=1, control=ours, settings=Settings()), theirs


def test_messages_come_in_the_order_they_were_sent(pair: tuple[ShardProcess, socket.socket]) -> None:
    shard, end = pair
    end.send(b'{"event":"ready"}\n{"event":"beat","lag":0.1}\n')
    assert shard.messages() == ([{"event": "ready"}, {"event": "beat", "lag": 0.1}], True)
    assert shard.messages() == ([], True)


def test_a_message_may_come_in_pieces(pair: tuple[ShardProcess, socket.socket]) -> None:
    shard, end = pair
    end.send(b'{"event":')
    assert shard.messages() == ([], True)
    end.send(b'"ready"}\n')
    assert shard.messages() == ([{"event": "ready"}], True)


def test_the_last_words_of_a_shard_are_heard(pair: tuple[ShardProcess, socket.socket]) -> None:
    shard, end = pair
    end.send(b'{"event":"failed","message":"no"}\n')
    end.close()
    assert shard.messages() == ([{"event": "failed", "message": "no"}], False)


@pytest.mark.parametrize("line", [b"ready", b"[1]", b"\xff", b""])
def test_what_is_no_message_is_logged_and_left_out(
    pair: tuple[ShardProcess, socket.socket], caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    shard, end = pair
    end.send(line + b'\n{"event":"ready"}\n')
    with caplog.at_level(logging.WARNING):
        assert shard.messages() == ([{"event": "ready"}], True)
    assert "no message" in caplog.text


def test_a_line_without_end_does_not_grow_for_ever(
    pair: tuple[ShardProcess, socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "_LONGEST_LINE", 100)
    shard, end = pair
    for _ in range(3):
        end.send(b"x" * 60)
        shard.messages()
    assert "shard 0 sends a line of more than 100 bytes, dropped: b'xxx" in caplog.text
    end.send(b'\n{"event":"ready"}\n')
    assert shard.messages()[0] == [{"event": "ready"}]
    assert "x" not in repr(shard)


def test_what_is_said_to_a_shard_arrives_whole_however_much_it_is(pair: tuple[ShardProcess, socket.socket]) -> None:
    shard, end = pair
    shard.send({"event": "keys", "keys": ["x" * 4_000_000]})
    assert shard.has_unsent
    shard.send({"event": "keys", "keys": []})
    heard = b""
    while shard.has_unsent:
        heard += end.recv(1 << 20)
        shard.flush()
    while heard.count(b"\n") < 2:
        heard += end.recv(1 << 20)
    first, second = heard.splitlines()
    assert len(json.loads(first)["keys"][0]) == 4_000_000
    assert json.loads(second) == {"event": "keys", "keys": []}


def test_what_is_said_to_a_dead_shard_is_forgotten(pair: tuple[ShardProcess, socket.socket]) -> None:
    shard, end = pair
    end.close()
    shard.send({"event": "keys", "keys": []})
    assert not shard.has_unsent


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each shard is forked by the supervisor")
def test_no_successor_starts_before_each_shard_is_a_child_of_its_own(pair: tuple[ShardProcess, socket.socket]) -> None:
    """init would adopt the others, and nobody would see their end."""
    shard, _ = pair
    reason = "shards are starting: send it again when they serve"
    assert obstacle([shard], has_valkey=False, has_successor=False) == reason, "it is no child yet"
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as child:
        shard.pid = child.pid
        assert are_own([shard])
        assert obstacle([shard], has_valkey=False, has_successor=False) == ""
        assert obstacle([shard, shard], has_valkey=False, has_successor=False) == reason, "one is not forked yet"
