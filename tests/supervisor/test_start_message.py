"""What a supervisor hands to a shard, which may be of another version."""

from __future__ import annotations

import json
import logging
import os
from ipaddress import ip_network
from typing import Any

import pytest

from bullmq_proxy.gateway.access.certificates import Certificate
from bullmq_proxy.gateway.access.grants import Grant, Permission
from bullmq_proxy.gateway.access.keys_file import Key
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.shared_memory import LAYOUT, LayoutError, SharedMemory
from bullmq_proxy.gateway.start_message import PROTOCOL, IncompatibleError, StartMessage

KEY = Key(
    name="shop",
    digests=(bytes(range(32)), bytes(32)),
    grant=Grant("shop", frozenset({Permission.PRODUCE}), ("mails-*",)),
    expires=2e9,
    messages_per_second=3.5,
    connections=4,
    addresses=(ip_network("10.0.0.0/8"),),
    column=5,
)
START = StartMessage(
    settings=Settings(
        port=9000, procs=2, redis_url="redis://host", auth_keys=("a", "b"), max_message_size=2048, drain_timeout=1.5
    ),
    slot=1,
    listener=0,
    incarnation=7,
    must_reach_redis=True,
    gateway_id="host-1",
    keys=(KEY,),
    certificate=Certificate(chain="chain", key="key", client_ca=None, clients_need_one=True),
    listeners=(11, 13),
    memory=12,
)


def sent(**changes: Any) -> dict[str, Any]:
    """The message as it arrives."""
    message: dict[str, Any] = json.loads(json.dumps(START.to_json() | changes))
    return message


def test_it_arrives_whole(caplog: pytest.LogCaptureFixture) -> None:
    assert StartMessage.from_json(sent()) == START
    assert caplog.text == ""


def test_a_setting_that_the_shard_does_not_know_is_ignored_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    message = sent(version="0.0.1")
    message["settings"]["old_name"] = 1
    with caplog.at_level(logging.WARNING):
        assert StartMessage.from_json(message) == START
    assert "version 0.0.1" in caplog.text
    assert caplog.text.endswith("ignores: old_name\n")


def test_a_setting_that_the_supervisor_does_not_know_takes_its_default(caplog: pytest.LogCaptureFixture) -> None:
    message = sent()
    del message["settings"]["drain_timeout"]
    with caplog.at_level(logging.WARNING):
        assert StartMessage.from_json(message).settings.drain_timeout == Settings().drain_timeout
    assert "has no setting drain_timeout: its default is used" in caplog.text


def test_a_value_that_the_shard_does_not_take_is_refused() -> None:
    message = sent(version="0.0.1")
    message["settings"]["max_message_size"] = 3
    with pytest.raises(
        IncompatibleError, match=r"supervisor 0\.0\.1 \(max_message_size: expected .*restart the service"
    ):
        StartMessage.from_json(message)


@pytest.mark.parametrize("protocol", [PROTOCOL + 1, None])
def test_another_protocol_is_refused(protocol: int | None) -> None:
    with pytest.raises(IncompatibleError, match=rf"protocol {PROTOCOL} instead of {protocol}\): restart the service"):
        StartMessage.from_json(sent(protocol=protocol))


class TestSharedMemory:
    def test_who_attaches_it_sees_what_others_write(self) -> None:
        made = SharedMemory.create(3)
        attached = SharedMemory.attach(made.fd)
        os.close(made.fd)
        attached.row(2).add(1, 4)
        made.row(0).spend(1023)
        made.row(1).publish(9, [1.5])
        assert made.row(0).total(1) == 4
        assert attached.row(2).spent(1023) == 1
        assert attached.beats() == [0, 1, 0]
        assert attached.row(0).published(9)[1][1][0] == 1.5

    def test_another_layout_is_refused(self) -> None:
        made = SharedMemory.create(1)
        os.pwrite(made.fd, (LAYOUT + 1).to_bytes(8, "little"), 0)
        with pytest.raises(LayoutError, match=f"layout {LAYOUT + 1}, not {LAYOUT}"):
            SharedMemory.attach(made.fd)
        os.close(made.fd)
