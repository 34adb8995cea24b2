"""A new connection to Redis: the socket, the login, and whether the server takes writes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.broker.redis.errors import PERMANENT, GreetingRefused, NotConnected, RedisRefused, understood
from bullmq_proxy.gateway.broker.redis.socket import RedisSocket, Setup
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError

log = logging.getLogger(__name__)

_TLS_TIMEOUT: Final = 2.5  # s, for TLS: a server without it may wait for the rest of a command

_OTHER_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH of OpenSSL


class NotMaster(NotConnected):
    """The server is a replica."""

    def __init__(self, address: Address) -> None:
        what = "is a replica, which takes no writes"
        super().__init__(f"it {what}", f"{address.shown} {what}: name its master, or sentinels that know it")


async def open_socket(address: Address, make: Callable[[], RedisSocket], silence: float) -> RedisSocket:
    """Connect to an address.

    Args:
        address: of the server.
        make: makes the socket.
        silence: seconds after which the system gives up a peer that does not confirm what it is sent.

    Raises:
        RedisRefused: one side wants TLS and the other does not, or a certificate is missing or not trusted.
        OSError: not reachable.
    """
    loop = asyncio.get_running_loop()
    if address.path is not None:
        return (await loop.create_unix_connection(make, address.path))[1]
    connected, connection = await _connect(address), None
    try:
        _notice_silence(connected, silence)
        _, connection = await loop.create_connection(
            make,
            sock=connected,
            ssl=address.tls,
            server_hostname=(address.server_name or address.host) if address.tls else None,
            ssl_handshake_timeout=_TLS_TIMEOUT if address.tls else None,
        )
    except ssl.SSLCertVerificationError as error:
        problem = error.verify_message.rstrip(".")
        remedy = "say its name with ?ssl_server_name=NAME"
        if error.verify_code not in _OTHER_NAME:
            remedy = "name its CA with ?ssl_ca_certs=FILE"
        raise RedisRefused(f"The certificate of {address.shown} is not trusted ({problem}): {remedy}") from None
    except (ssl.SSLError, ConnectionAbortedError) as error:
        if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):  # which only a peer with TLS sends
            raise _tls_refused(error, address) from None
        raise RedisRefused(f"{address.shown} does not speak TLS: write redis:// for rediss://") from None
    finally:
        if connection is None:
            connected.close()
    return connection


async def _connect(address: Address) -> socket.socket:
    """Return a socket that is connected to the first place of a host that can be reached.

    uvloop's `create_connection` forgets its question for a name when it is cancelled, and then complains about the
    answer that nobody takes; so the name is resolved here.
    """
    loop = asyncio.get_running_loop()
    places = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    problem: OSError | None = None
    for family, kind, protocol, _, place in places:
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(made, place)
        except OSError as error:
            made.close()
            problem = problem or error
        except BaseException:
            made.close()
            raise
        else:
            return made
    assert problem is not None, "getaddrinfo gives one place or raises"
    raise problem


def _tls_refused(alert: ssl.SSLError, address: Address) -> RedisRefused:
    """Return what an alert means. TLS 1.3 looks at the client's certificate when the client takes it for connected."""
    words = (alert.reason or "of no name").lower().replace("_", " ")
    if address.certfile is None:
        remedy = "if it demands a client certificate, name it with ?ssl_certfile=FILE&ssl_keyfile=FILE"
    else:
        remedy = "it may not trust the certificate of ssl_certfile"
    return RedisRefused(f"{address.shown} refuses the TLS connection ({words}): {remedy}")


def _notice_silence(sock: Any, seconds: float) -> None:
    """Let the system look after a connection on which nothing is said, or nothing that is sent arrives."""
    for name, value in (
        ("TCP_KEEPIDLE", max(1, int(seconds / 2))),
        ("TCP_KEEPINTVL", max(1, int(seconds / 8))),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", int(seconds * 1000)),
    ):
        if hasattr(socket, name):  # not every system has all of them
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def greet(
    connection: RedisSocket, address: Address, name: str, setup: Setup | None, *, needs_master: bool
) -> None:
    """Log in, select the database, make sure that the server is there, and prepare the connection.

    Args:
        connection: just made.
        address: that it leads to.
        name: of the connection, for others to see.
        setup: the first commands of its user.
        needs_master: whether a replica will not do.

    Raises:
        RedisRefused: no other try will help.
        NotMaster: it is a replica.
        GatewayError: it does not take these commands now.
    """
    password = address.read_password()
    commands: list[tuple[Any, ...]] = []
    if password is not None:
        commands.append(("AUTH", *filter(None, (address.username,)), password))
    if address.db:
        commands.append(("SELECT", address.db))
    commands.append(("PING",))
    try:
        with understood():
            for command in commands:
                await connection.ask(*command)
            if needs_master and await _role(connection) in ("slave", "replica"):
                raise NotMaster(address)
            await _set_name(connection, name)
            if setup is not None:
                await setup(connection.ask)
    except NotMaster:
        raise
    except GatewayError as error:
        if connection.alert is not None:
            raise _tls_refused(connection.alert, address) from None
        raise refused(error, address, password) from None


async def _set_name(connection: RedisSocket, name: str) -> None:
    try:
        await connection.ask("CLIENT", "SETNAME", name)
    except GatewayError:
        log.debug("redis link: CLIENT SETNAME was refused", exc_info=True)  # some hosted servers do not have it


async def _role(connection: RedisSocket) -> str:
    """Return what the server is for others; empty where it does not tell us."""
    for command in (("HELLO", "2"), ("ROLE",)):  # HELLO is from Redis 6.0 on, ROLE needs a right of its own
        with suppress(GatewayError):
            reply = await connection.ask(*command)
            if isinstance(reply, list):
                return str(
                    reply[0] if command[0] == "ROLE" else dict(zip(reply[::2], reply[1::2], strict=True))["role"]
                )
    return ""


def refused(error: GatewayError, address: Address, password: str | None = None) -> GatewayError:
    """Return what a refusal of one of the first commands means.

    A server that does not know AUTH repeats its arguments: the password is taken out.
    """
    text = error.message.removeprefix("Redis refused the command: ")
    if secret := password or address.password:
        text = text.replace(secret, "***")
    if text.startswith(PERMANENT):
        return RedisRefused(f"Redis at {address.shown} refused the login: {text[:100]}")
    if "DB index" in text:
        return RedisRefused(f"Redis at {address.shown} has no database {address.db}: {text[:100]}")
    return error if error.code is ErrorCode.REDIS_UNAVAILABLE else GreetingRefused(text[:200])


def check_open(connection: RedisSocket, address: Address) -> None:
    """Look at a connection during the handshake, or right behind it.

    Raises:
        RedisRefused: it does not speak the protocol.
        ConnectionResetError: it is closed.
    """
    if connection.fault:
        raise RedisRefused(f"{address.shown} does not answer as Redis does: {connection.fault}") from None
    if connection.lost.done():
        hint = "if it wants TLS, write rediss:// for redis://"
        if address.tls:
            hint = "if it demands a client certificate, name one that it trusts with ?ssl_certfile=FILE"
        raise ConnectionResetError(f"it closes the connection at once ({hint})")


def reason_of(error: OSError | GatewayError) -> str:
    """Return why a connection could not be made, for the log."""
    if isinstance(error, NotConnected):
        return error.why
    return error.message if isinstance(error, GatewayError) else why(error)


def why(error: OSError) -> str:
    """Return the reason in the system's words. They name no address: event loops put it into their own texts."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return "TLS has failed"
    if isinstance(error, socket.gaierror):
        return error.strerror or "its name is not known"
    if error.errno is not None:
        return os.strerror(error.errno)
    # Without a number: a word of ours or of the loop's on one connection, or on several at once, each with its address.
    return str(error) if isinstance(error, ConnectionError) else "none of its addresses can be connected to"
