"""The port: one listening socket per slot, and no second service on it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from bullmq_proxy.supervisor.slots import StartError, authority, open_slots, reachable_host


@contextlib.contextmanager
def slots(host: str, port: int, count: int) -> Iterator[list[socket.socket]]:
    opened = open_slots(host, port, count)
    try:
        yield opened
    finally:
        for each in opened:
            each.close()


class TestOpen:
    def test_all_slots_share_one_port(self, port: int) -> None:
        with slots("127.0.0.1", port, 3) as opened:
            assert {each.getsockname() for each in opened} == {("127.0.0.1", port)}

    def test_port_0_picks_one_for_all(self) -> None:
        with slots("127.0.0.1", 0, 3) as opened:
            ports = {each.getsockname()[1] for each in opened}
        assert len(ports) == 1
        assert ports != {0}

    def test_a_connection_waits_for_its_shard(self, port: int) -> None:
        with (
            slots("127.0.0.1", port, 1) as [listener],
            socket.create_connection(("127.0.0.1", port), timeout=1) as client,
        ):
            accepted, address = listener.accept()
            accepted.close()
            assert address == client.getsockname()

    def test_a_name_with_both_addresses_gets_the_older_kind(self) -> None:
        with slots("localhost", 0, 1) as [listener]:
            assert listener.family == socket.AF_INET

    @pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
    def test_every_address_means_both_kinds(self, port: int) -> None:
        with slots("::", port, 1), socket.create_connection(("127.0.0.1", port), timeout=1):
            pass

    def test_a_port_is_free_again_right_after_its_connections(self, port: int) -> None:
        with slots("127.0.0.1", port, 1) as [listener]:
            client = socket.create_connection(("127.0.0.1", port), timeout=1)
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first keeps TIME_WAIT
            client.close()
        with slots("127.0.0.1", port, 1):
            pass


class TestRefusal:
    def test_a_port_of_another_program(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            with pytest.raises(StartError, match=f"127.0.0.1:{taken}: the port is taken"):
                open_slots("127.0.0.1", taken, 1)

    def test_a_port_of_another_instance_although_it_could_be_shared(self, port: int) -> None:
        with slots("127.0.0.1", port, 1), pytest.raises(StartError, match="the port is taken"):
            open_slots("127.0.0.1", port, 1)

    def test_a_port_that_is_taken_on_one_address(self, port: int) -> None:
        with slots("127.0.0.1", port, 1), pytest.raises(StartError, match="the port is taken"):
            open_slots("0.0.0.0", port, 1)

    def test_an_address_of_another_machine(self) -> None:
        with pytest.raises(StartError, match="no such address"):
            open_slots("192.0.2.1", 0, 1)

    @pytest.mark.parametrize("host", ["nobody.invalid", "x" * 80 + ".invalid"])
    def test_a_name_that_nobody_has(self, host: str) -> None:
        with pytest.raises(StartError, match="cannot listen on"):
            open_slots(host, 0, 1)


def test_an_address_as_a_url_writes_it() -> None:
    assert authority("127.0.0.1", 80) == "127.0.0.1:80"
    assert authority("::1", 80) == "[::1]:80"


def test_all_addresses_are_reached_through_loopback() -> None:
    assert reachable_host("0.0.0.0") == "127.0.0.1"
    assert reachable_host("::") == "::1"
    assert reachable_host("10.0.0.1") == "10.0.0.1"
