"""Sockets that systemd hands over: taken, counted, refused; and the whole service on them."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bullmq_proxy.supervisor.activation import adopt, handed_sockets, one_per_slot, place_of
from bullmq_proxy.supervisor.slots import StartError
from bullmq_proxy.supervisor.sources import ConfigFile, Resolution, UsageError, resolve
from tests.support.service import Service
from tests.support.systemd import activated
from tests.support.waiting import TIMEOUT, wait_for

MakeService = Callable[..., Service]


def listening(host: str = "127.0.0.1", port: int = 0, *, share: bool = False) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if share:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    sock.listen()
    return sock


def reuse_port(count: int) -> list[socket.socket]:
    """As systemd opens equal ListenStream= lines with ReusePort=yes."""
    sockets = [listening(share=True)]
    port = sockets[0].getsockname()[1]
    return sockets + [listening(port=port, share=True) for _ in range(count - 1)]


@pytest.fixture
def unix_path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="unix-") as short:  # pytest's directories are too deep for a socket's path
        yield f"{short}/s"


def listening_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    return sock


@contextmanager
def handed(*things: Any, pid: int | None = None) -> Iterator[list[socket.socket]]:
    """What comes out when these files are handed over, which are closed here."""
    with ExitStack() as opened:
        files = [opened.enter_context(thing).fileno() for thing in things]
        # A row of descriptors that is free.
        first = fcntl.fcntl(files[0], fcntl.F_DUPFD, 500)
        for index, fd in enumerate(files):
            os.dup2(fd, first + index)
        environ = {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(len(files)), "LISTEN_FDNAMES": "x", "A": ""}
        try:
            sockets = handed_sockets(environ, first)
        except BaseException:
            for index in range(len(files)):
                try:
                    os.close(first + index)
                except OSError:
                    continue
            raise
        for each in sockets:
            opened.enter_context(each)
        assert environ == {"A": ""}
        yield sockets


class TestTaking:
    def test_a_socket_is_ours_and_not_our_childrens(self) -> None:
        listener = listening()
        with handed(listener) as [taken]:
            assert taken.getsockname() == listener.getsockname()
            assert not taken.get_inheritable()
            assert not taken.getblocking()

    def test_several_of_one_address(self) -> None:
        with handed(*reuse_port(3)) as taken:
            assert len({each.getsockname() for each in taken}) == 1
            assert len(taken) == 3

    @pytest.mark.parametrize(
        "environ",
        [
            {},
            {"LISTEN_FDS": "1"},
            {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
            {"LISTEN_PID": "ours", "LISTEN_FDS": "0"},
            {"LISTEN_PID": "ours", "LISTEN_FDS": "one"},
        ],
    )
    def test_those_of_another_process_are_left_alone(self, environ: dict[str, str]) -> None:
        environ = {name: value.replace("ours", str(os.getpid())) for name, value in environ.items()}
        assert handed_sockets(environ) == []
        assert environ == {}


class TestRefusal:
    def refusal(self, *things: Any) -> str:
        with pytest.raises(StartError) as refused, handed(*things):
            pass
        return str(refused.value)

    def test_a_file(self, tmp_path: Path) -> None:
        message = self.refusal((tmp_path / "file").open("w"))
        assert "which is no socket: let the socket unit have ListenStream= lines only" in message

    def test_a_datagram_socket(self) -> None:
        message = self.refusal(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        assert "no TCP or unix stream socket: let the socket unit have ListenStream= lines only" in message

    def test_a_connection(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            assert "which does not listen: let the socket unit have ListenStream= lines only, with Accept=no" in (
                self.refusal(ours)
            )

    def test_different_addresses(self) -> None:
        first, second = listening(), listening("127.0.0.2")
        places = f"{place_of(first)}, {place_of(second)}"
        message = self.refusal(first, second)
        assert places in message
        assert "ListenStream=[::]:8080" in message


def adopted(
    sockets: Sequence[socket.socket], flags: Mapping[str, Any] | None = None, file: Mapping[str, Any] | None = None
) -> Resolution:
    config = None if file is None else ConfigFile("proxy.toml", file)
    with ExitStack() as opened:
        for each in sockets:
            opened.enter_context(each)
        return adopt(resolve(flags or {}, {"HOME": "/"}, config), sockets)


class TestAdopting:
    def test_without_sockets_nothing_changes(self) -> None:
        resolution = resolve({}, {"HOME": "/"}, None)
        assert adopt(resolution, []) is resolution

    def test_address_and_port_are_the_sockets(self) -> None:
        listener = listening("127.0.0.2")
        port = listener.getsockname()[1]
        resolution = adopted([listener])
        assert (resolution.settings.host, resolution.settings.port) == ("127.0.0.2", port)
        assert resolution.remarks == ()

    def test_they_win_over_host_and_port_which_is_said(self) -> None:
        listener = listening()
        place = place_of(listener)
        resolution = adopted([listener], {"port": "9999"}, {"host": "0.0.0.0"})
        assert resolution.settings.host == "127.0.0.1"
        assert resolution.remarks == (
            f"host (key host in proxy.toml) is overruled: systemd hands over the socket {place}",
            f"port (flag --port) is overruled: systemd hands over the socket {place}",
        )

    def test_a_unix_socket_is_as_near_as_loopback(self, unix_path: str) -> None:
        resolution = adopted([listening_unix(unix_path)], {"host": "0.0.0.0"})
        assert resolution.settings.host == "127.0.0.1"
        assert unix_path in resolution.remarks[0]

    @pytest.mark.parametrize("procs", [1, 4])
    def test_any_number_of_shards_can_share_one(self, procs: int) -> None:
        assert adopted([listening()], {"procs": str(procs)}).settings.procs == procs

    def test_several_give_the_number_of_shards(self) -> None:
        assert adopted(reuse_port(3)).settings.procs == 3

    def test_as_many_as_shards_fit(self) -> None:
        assert adopted(reuse_port(3), {"procs": "3"}).settings.procs == 3

    def test_another_number_is_refused_with_the_remedy(self) -> None:
        with pytest.raises(UsageError) as refused:
            adopted(reuse_port(3), file={"procs": 2})
        assert str(refused.value) == (
            "procs: 2 shards cannot share the 3 sockets that systemd hands over (key procs in proxy.toml): set it to 3,"
            " or let the socket unit have one ListenStream= line for all shards, or 2 equal ones and ReusePort=yes"
        )


def test_shards_that_share_a_socket_have_a_descriptor_each() -> None:
    with listening() as listener:
        first, second, third = one_per_slot([listener], 3)
        with second, third:
            assert first is listener
            assert len({each.fileno() for each in (first, second, third)}) == 3
            second.close()
            assert third.getsockname() == listener.getsockname()


def test_places_in_words(unix_path: str) -> None:
    with listening("::1") as tcp, listening_unix(unix_path) as unix, listening_unix("\0" + unix_path) as abstract:
        assert place_of(tcp) == f"[::1]:{tcp.getsockname()[1]}"
        assert place_of(unix) == unix_path
        assert place_of(abstract) == "@" + unix_path


def ask(client: socket.socket) -> bytes:
    """The first line of the answer to a question after the service's health."""
    with client:
        client.settimeout(TIMEOUT)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.makefile("rb").readline().strip()


def connected(listener: socket.socket) -> socket.socket:
    client = socket.socket(listener.family)
    client.connect(listener.getsockname())
    return client


OK = b"HTTP/1.1 200 OK"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
class TestService:
    """The whole service, with systemd played by the test."""

    def test_all_shards_serve_on_one_socket(self, service: MakeService) -> None:
        with listening() as listener:
            running = service("--procs", "2", port=(), **activated([listener])).start()
            assert len(running.shards()) == 2
            assert running.port == listener.getsockname()[1]
            assert {ask(connected(listener)) for _ in range(20)} == {OK}
            assert "overruled" not in running.errors
            os.kill(running.shards()[0], 9)
            assert {ask(connected(listener)) for _ in range(20)} == {OK}
            assert running.stop() == 0

    def test_each_shard_serves_on_a_socket_of_its_own(self, service: MakeService) -> None:
        sockets = reuse_port(3)
        running = service(port=(), **activated(sockets)).start()
        assert len(running.shards()) == 3
        [listener, *others] = sockets
        for each in others:
            each.close()
        assert {ask(connected(listener)) for _ in range(20)} == {OK}
        listener.close()
        assert running.stop() == 0

    def test_who_connects_while_the_service_restarts_waits(self, service: MakeService) -> None:
        with listening() as listener:
            assert service("--procs", "1", port=(), **activated([listener])).start().stop() == 0
            client = connected(listener)
            service("--procs", "1", port=(), **activated([listener])).start()
            assert ask(client) == OK

    def test_a_unix_socket_is_served_and_its_file_is_left_alone(self, service: MakeService, unix_path: str) -> None:
        with listening_unix(unix_path) as listener:
            running = service("--procs", "2", port=(), **activated([listener])).start()
            assert running.url.startswith(f"ws+unix://{unix_path}:/queue/welcome?token=")
            assert f"starting on {unix_path}, pid {running.pid}, shards: 2" in running.errors
            assert {ask(connected(listener)) for _ in range(20)} == {OK}
            os.kill(running.shards()[0], 15)
            wait_for(lambda: running.errors.count(" is ready") == 3, "the new shard is ready")
            assert {ask(connected(listener)) for _ in range(20)} == {OK}
            assert running.stop() == 0
            assert Path(unix_path).is_socket()

    def test_a_port_of_the_configuration_is_overruled(self, service: MakeService, port: int) -> None:
        with listening() as listener:
            running = service("--procs", "1", port=("--port", str(port)), **activated([listener])).start()
            assert running.port == listener.getsockname()[1] != port
            assert "port (flag --port) is overruled: systemd hands over the socket 127.0.0.1:" in running.errors

    def test_an_address_for_everybody_needs_keys(self, service: MakeService) -> None:
        with listening("0.0.0.0") as listener:
            refused = service(port=(), **activated([listener])).launch()
            assert refused.wait() == 2
            assert "refusing to listen on 0.0.0.0 without keys" in refused.errors

    def test_what_is_no_socket_stops_the_start(self, service: MakeService) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            refused = service(port=(), **activated([datagrams])).launch()
            assert refused.wait() == 1
            assert refused.errors.startswith("bullmq-proxy: error: systemd hands over descriptor 3, which is no TCP")
