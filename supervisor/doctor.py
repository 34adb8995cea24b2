"""`bullmq-proxy doctor`: looks at what a service with these settings needs; each finding has its remedy."""

from __future__ import annotations

import os
import platform
import resource
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

from bullmq_proxy import gateway
from bullmq_proxy.gateway.access.private import exposure
from bullmq_proxy.gateway.cores import cores
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.supervisor import keys
from bullmq_proxy.supervisor.embedded import find_server
from bullmq_proxy.supervisor.slots import BACKLOG, StartError, authority, open_slots, reachable_host
from bullmq_proxy.supervisor.sources import Resolution, UsageError

_PACKAGES: Final = ("websockets", "uvloop", "redis", "hiredis", "bullmq", "msgspec")
_DESCRIPTORS: Final = 65_536
"""Open files that a service should be allowed: each connection is one, in each shard."""
_MEMORY: Final = 256 << 20
"""Bytes for each shard: what one takes at most under floods with the limits as they are by default."""
_SLOW: Final = 0.005  # s of a round trip to Redis
_APART: Final = 1.0  # s between two clocks: delays and locks are counted by both
_ANSWER: Final = 3.0  # s


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        word: `ok`, `warn`, or `fail`: the service cannot start, or not work.
        subject: what was looked at.
        text: what was found, with the remedy where something is not as it should be.
    """

    word: str
    subject: str
    text: str


def examine(resolution: Resolution) -> Iterator[Finding]:
    """Look at everything, the quick things first."""
    settings = resolution.settings
    yield Finding("ok", "program", _program())
    yield from _keys(resolution)
    yield from _tokens(settings)
    yield from _certificate(settings)
    for remark in resolution.remarks:
        yield Finding("warn", "configuration", remark)
    yield _port(settings)
    yield from _limits(settings)
    yield from _valkey(settings) if settings.redis_url is None else _redis(settings)


def _program() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # one of those that only some installations have
            continue
    here = Path(gateway.__file__).parent
    return f"{gateway.__version__} in {here}, Python {platform.python_version()}, {', '.join(found)}"


def _keys(resolution: Resolution) -> Iterator[Finding]:
    try:
        settings = keys.with_auth_keys_file(resolution)
        file = keys.open_keys_file(settings)
        _, made = keys.require_keys(settings, file)
    except UsageError as error:
        yield Finding("fail", "keys", str(error))
        return
    if settings.no_auth:
        yield Finding("warn", "keys", "none is asked for (no_auth): everybody who reaches the port may do everything")
    elif made is not None:
        yield Finding(
            "ok", "keys", "none is configured: a start makes one for that run; set AUTH_KEYS for a lasting one"
        )
    else:
        named = 0 if file is None else len(file.keys)
        yield Finding("ok", "keys", f"{len(settings.auth_keys)} that may do everything, {named} with permissions")
    for remark in file.remarks if file else ():
        yield Finding("warn", "keys", f"{remark}: `bullmq-proxy key revoke` takes it away")


def _tokens(settings: Settings) -> Iterator[Finding]:
    if settings.token_keys is None:
        return
    from bullmq_proxy.gateway.access.token_source import read_now  # noqa: PLC0415 - it carries asyncio

    try:
        found = read_now(settings.token_keys)
    except OSError as error:
        text = f"token_keys: {settings.token_keys}: {error}: until it answers tokens let nobody in"
        yield Finding("fail", "tokens", text)
    except ValueError as error:
        yield Finding("fail", "tokens", f"token_keys: {error}")
    else:
        who = f"{settings.token_issuer} for {settings.token_audience}"
        yield Finding("ok", "tokens", f"those of {who}, by the keys that sign them: {len(found)}")
        for remark in found.remarks:
            yield Finding("warn", "tokens", f"token_keys: {remark}")


def _certificate(settings: Settings) -> Iterator[Finding]:
    try:
        found, remarks = keys.open_certificate(settings)
    except UsageError as error:
        yield Finding("fail", "TLS", str(error))
        return
    if found is not None:
        asked = "none" if found.client_ca is None else settings.tls_client_cert
        yield Finding("ok", "TLS", f"by the certificate in {settings.tls_cert}; certificates of clients: {asked}")
    for remark in remarks:
        yield Finding("warn", "TLS", f"{remark}: renew it, and reload the service")


def _port(settings: Settings) -> Finding:
    place = authority(settings.host, settings.port)
    try:
        for listener in open_slots(settings.host, settings.port, 1):
            listener.close()
    except StartError as error:
        if _serves(settings):
            return Finding("ok", "port", f"a gateway serves on {place} already")
        return Finding("fail", "port", f"{error}; stop what uses it, or set another --port")
    return Finding("ok", "port", f"{place} is free")


def _serves(settings: Settings) -> bool:
    host, port = reachable_host(settings.host), settings.port
    if settings.tls_cert is None:
        connection = HTTPConnection(host, port, timeout=_ANSWER)
    else:  # whatever its names are: who serves is the question
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(host, port, timeout=_ANSWER, context=unchecked)
    try:
        connection.request("GET", "/health")
        return b'"alive"' in connection.getresponse().read(1000)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _limits(settings: Settings) -> Iterator[Finding]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < _DESCRIPTORS:
        yield Finding(
            "warn",
            "descriptors",
            f"{most} for each shard, so fewer connections: LimitNOFILE={_DESCRIPTORS}, or ulimit -n",
        )
    else:
        yield Finding("ok", "descriptors", f"{'any number' if most < 0 else most} for each shard")
    backlog = _number("/proc/sys/net/core/somaxconn")
    if backlog is not None and backlog < BACKLOG:
        text = f"{backlog} connections wait at most while a shard is replaced: sysctl net.core.somaxconn={BACKLOG}"
        yield Finding("warn", "backlog", text)
    available = cores()
    if settings.procs > available:
        text = f"{settings.procs} shards share {available} cores: --procs {available} is as fast and takes less memory"
        yield Finding("warn", "cores", text)
    else:
        yield Finding("ok", "cores", f"{available}, shards: {settings.procs}")
    free = _memory()
    if free is not None and free < settings.procs * _MEMORY:
        need = settings.procs * _MEMORY >> 20
        text = f"{free >> 20} MiB are available, {settings.procs} shards may take {need}: use fewer --procs"
        yield Finding("warn", "memory", text)
    elif free is not None:
        yield Finding("ok", "memory", f"{free >> 20} MiB are available")


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _memory() -> int | None:
    """Return the bytes that can be had, on Linux."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None


def _valkey(settings: Settings) -> Iterator[Finding]:
    """Look at what the embedded server needs."""
    try:
        program = find_server() if settings.valkey_server is None else Path(settings.valkey_server)
    except StartError as error:
        yield Finding("fail", "embedded Valkey", str(error))
        return
    if not os.access(program, os.X_OK):
        yield Finding("fail", "embedded Valkey", f"valkey_server: {program} cannot be run: name another program")
        return
    directory = Path(settings.data_dir or ".")
    nearest = next(each for each in (directory.absolute(), *directory.absolute().parents) if each.exists())
    exposed = exposure(directory.stat(), directory) if directory.exists() else None
    if exposed:
        yield Finding("fail", "embedded Valkey", f"data_dir: {exposed}")
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield Finding("fail", "embedded Valkey", f"data_dir: {directory} cannot be written: set another --data-dir")
    else:
        yield Finding("ok", "embedded Valkey", f"{program}, with its data in {directory}")
    if _number("/proc/sys/vm/overcommit_memory") == 0:
        yield Finding(
            "warn",
            "embedded Valkey",
            "it may fail to write its data when memory is short: sysctl vm.overcommit_memory=1",
        )


def _redis(settings: Settings) -> Iterator[Finding]:
    from bullmq_proxy.gateway.checkup import CheckupError, check_redis  # noqa: PLC0415 - it carries all that the service must not

    try:
        found = check_redis(replace(settings, redis_start_timeout=min(settings.redis_start_timeout, _ANSWER)))
    except CheckupError as error:
        yield Finding("fail", "redis", f"{error}; the address is that of --redis-url, or REDIS_URL")
        return
    for server in found:
        subject = f"redis {server.shown}"
        yield Finding("ok", subject, f"jobs can be added and worked; a round trip takes {server.latency * 1000:.2f} ms")
        for remark in server.remarks:
            yield Finding("warn", subject, remark)
        if server.latency > _SLOW:
            yield Finding("warn", subject, "it is far away: calls take several round trips; put the gateway beside it")
        if abs(server.ahead) > _APART:
            direction = "ahead of" if server.ahead > 0 else "behind"
            text = f"its clock is {abs(server.ahead):.1f} s {direction} this machine's: delays are off; use NTP on both"
            yield Finding("warn", subject, text)


def report(resolution: Resolution, say: Callable[[str], None]) -> bool:
    """Say each finding as it is made; return whether nothing failed."""
    good = True
    for finding in examine(resolution):
        good = good and finding.word != "fail"
        say(f"{finding.word:<4}  {finding.subject}: {finding.text}")
    return good
