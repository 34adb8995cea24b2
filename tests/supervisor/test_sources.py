"""Flag beats environment beats file beats default, and every name that users know works."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bullmq_proxy.gateway.settings import Settings, options
from bullmq_proxy.supervisor.sources import (
    ConfigFile,
    Resolution,
    UsageError,
    load,
    resolve,
)


def resolved(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, Any] | None = None,
) -> Resolution:
    config = None if file is None else ConfigFile("proxy.toml", file)
    return resolve(flags or {}, {"HOME": "/home/u"} | dict(environ or {}), config)


# A value for each option that differs from its default, as text.
OTHER: dict[str, str] = {
    "host": "127.0.0.2",
    "port": "9999",
    "procs": "7",
    "redis_url": "redis://elsewhere:1",
    "redis_password_file": "/run/secret",
    "prefix": "other",
    "max_len_events": "500",
    "queue_links": "3",
    "data_dir": "/data",
    "pid_file": "/run/bullmq-proxy.pid",
    "valkey_server": "/usr/bin/valkey-server",
    "auth_keys": "k1,k2",
    "auth_keys_file": "/keys",
    "keys_file": "/etc/keys.toml",
    "token_keys": "https://login.example.org/keys",
    "token_issuer": "https://login.example.org/",
    "token_audience": "bullmq-proxy",
    "token_leeway": "1",
    "token_lifetime": "1h",
    "tls_cert": "/etc/cert.pem",
    "trusted_proxies": "10.0.0.0/8",
    "proxy_protocol": "true",
    "tls_key": "/etc/key.pem",
    "tls_client_ca": "/etc/ca.pem",
    "tls_client_cert": "optional",
    "no_auth": "true",
    "allowed_origins": "https://a.example",
    "allowed_hosts": "a.example",
    "no_console": "true",
    "webhooks": '{"mails": {"queue": "mails"}}',
    "webhook_allow": "10.0.0.0/8",
    "max_message_size": "2k",
    "max_concurrency": "5",
    "max_queue_name": "50",
    "min_queue_name": "2",
    "max_in_flight": "10",
    "max_connections": "1000",
    "max_connections_per_address": "100",
    "bad_messages_per_second": "12",
    "max_write_buffer": "1M",
    "drain_timeout": "3",
    "shutdown_delay": "4",
    "balance": "kernel",
    "reload_spread": "6",
    "max_connection_age": "2h",
    "max_shard_age": "1h",
    "max_shard_memory": "300MiB",
    "shard_timeout": "11",
    "gateway_timeout": "7",
    "ping_interval": "4",
    "ping_timeout": "5",
    "redis_timeout": "6",
    "redis_start_timeout": "7",
    "redis_backlog": "8",
    "redis_backlog_timeout": "9",
    "min_replicas": "2",
    "replica_timeout": "3",
    "log_level": "debug",
    "log_format": "json",
    "access_log": "true",
    "tracing": "true",
    "metrics_auth": "true",
    "metrics_queues": "20",
    "admin_port": "9090",
    "admin_host": "::1",
    "audit_log": "true",
}
VARIABLES = [(name, option.name) for option in options() for name in option.environment]


class TestSecretsInTheFile:
    @pytest.mark.parametrize(
        ("content", "mode", "remarks"),
        [
            ('auth_keys = ["hunter2"]', 0o644, ["auth_keys"]),
            ('auth_keys = ["hunter2"]\nredis_url = "redis://:hunter3@h"', 0o666, ["redis_url and auth_keys"]),
            ('redis_url = "redis://user@h"', 0o644, []),
            ("port = 1", 0o644, []),
            ('auth_keys = ["hunter2"]', 0o640, []),
        ],
    )
    def test_secrets_that_others_can_read_are_remarked_on(
        self, tmp_path: Path, content: str, mode: int, remarks: list[str]
    ) -> None:
        path = tmp_path / "my proxy.toml"
        path.write_text(content)
        path.chmod(mode)
        found = resolve({}, {"HOME": "/home/u"}, load(str(path))).remarks
        assert list(found) == [
            f"the configuration file holds {names}, and other users can read or write {path} (mode 0{mode:o}):"
            f" chmod 600 '{path}'"
            for names in remarks
        ]


class TestOrder:
    def test_defaults_are_in_force_when_nothing_is_given(self) -> None:
        resolution = resolved()
        assert resolution.settings == Settings(data_dir="/home/u/.local/share/bullmq-proxy")
        assert {place.words for place in resolution.places.values()} == {"default"}

    def test_a_file_beats_the_default(self) -> None:
        resolution = resolved(file={"port": 1})
        assert resolution.settings.port == 1
        assert resolution.places["port"].words == "key port in proxy.toml"

    def test_the_environment_beats_the_file(self) -> None:
        resolution = resolved(environ={"PORT": "2"}, file={"port": 1})
        assert resolution.settings.port == 2
        assert resolution.places["port"].words == "environment variable PORT"

    def test_a_flag_beats_the_environment(self) -> None:
        resolution = resolved({"port": "3"}, {"PORT": "2"}, {"port": 1})
        assert resolution.settings.port == 3
        assert resolution.places["port"].words == "flag --port"

    def test_our_own_variable_beats_a_common_one(self) -> None:
        assert resolved(environ={"PORT": "2", "BULLMQ_PROXY_PORT": "4"}).settings.port == 4

    def test_an_empty_variable_counts_as_not_set(self) -> None:
        assert resolved(environ={"PORT": "", "AUTH_KEYS": ""}).settings == resolved().settings

    def test_a_switch_can_be_turned_off_by_a_higher_level(self) -> None:
        assert not resolved(environ={"BULLMQ_PROXY_NO_AUTH": "false"}, file={"no_auth": True}).settings.no_auth


NEEDED = {"token_keys": {"token_issuer": OTHER["token_issuer"], "token_audience": OTHER["token_audience"]}}
"""Others without which an option cannot be used."""


class TestNames:
    def test_this_page_knows_every_option(self) -> None:
        assert OTHER.keys() == {option.name for option in options()}

    @pytest.mark.parametrize(("variable", "name"), VARIABLES)
    def test_every_variable_sets_its_option(self, variable: str, name: str) -> None:
        resolution = resolved(environ={variable: OTHER[name]}, file=NEEDED.get(name, {}))
        option = next(option for option in options() if option.name == name)
        assert getattr(resolution.settings, name) == option.check(OTHER[name])
        assert resolution.places[name].words == f"environment variable {variable}"

    @pytest.mark.parametrize("name", OTHER)
    def test_every_key_of_the_file_sets_its_option(self, name: str) -> None:
        option = next(option for option in options() if option.name == name)
        native = option.check(OTHER[name])
        native = list(native) if isinstance(native, tuple) else native
        assert getattr(resolved(file={name: native, **NEEDED.get(name, {})}).settings, name) == option.check(native)

    @pytest.mark.parametrize("name", ["token_issuer", "token_audience"])
    def test_tokens_need_an_issuer_and_an_audience(self, name: str) -> None:
        others = {each: value for each, value in NEEDED["token_keys"].items() if each != name}
        with pytest.raises(UsageError, match=f"^{name}: is needed with token_keys"):
            resolved(file={"token_keys": "/keys.json", **others})

    def test_both_lists_of_keys_are_joined(self) -> None:
        resolution = resolved(environ={"AUTH_KEYS": "a,b", "AUTH_TOKENS": "b, c"})
        assert resolution.settings.auth_keys == ("a", "b", "c")
        assert resolution.places["auth_keys"].words == "environment variables AUTH_KEYS, AUTH_TOKENS"

    @pytest.mark.parametrize(
        ("variables", "directory"),
        [
            ({"STATE_DIRECTORY": "/var/lib/proxy:/var/lib/b", "XDG_DATA_HOME": "/x"}, "/var/lib/proxy"),
            ({"XDG_DATA_HOME": "/x"}, "/x/bullmq-proxy"),
            ({"XDG_DATA_HOME": "relative"}, "/home/u/.local/share/bullmq-proxy"),
            ({"BULLMQ_PROXY_DATA_DIR": "/d", "STATE_DIRECTORY": "/s"}, "/d"),
        ],
    )
    def test_the_data_directory_follows_the_platform(self, variables: dict[str, str], directory: str) -> None:
        assert resolved(environ=variables).settings.data_dir == directory


class TestRedisParts:
    """REDIS_HOST and its sisters make a URL."""

    @pytest.mark.parametrize(
        ("variables", "url"),
        [
            ({"REDIS_HOST": "redis"}, "redis://redis:6379"),
            ({"REDIS_HOST": "redis", "REDIS_PORT": "6380"}, "redis://redis:6380"),
            ({"REDIS_HOST": "::1"}, "redis://[::1]:6379"),
            ({"REDIS_PASSWORD": "p@ss/w:rd%"}, "redis://:p%40ss%2Fw%3Ard%25@localhost:6379"),
            ({"REDIS_USERNAME": "jo:e", "REDIS_PASSWORD": "x"}, "redis://jo%3Ae:x@localhost:6379"),
            ({"REDIS_HOST": "r", "REDIS_USERNAME": "joe"}, "redis://joe@r:6379"),
            ({"REDIS_HOST": "r", "REDIS_TLS": "true"}, "rediss://r:6379"),
            ({"REDIS_HOST": "r", "REDIS_TLS": "0"}, "redis://r:6379"),
            ({"REDIS_TLS": "false"}, None),
            ({"REDIS_HOST": "r", "REDIS_PORT": "tcp://10.0.0.1:6379"}, "redis://r:6379"),
            ({"REDIS_PORT": "tcp://10.0.0.1:6379"}, None),
        ],
    )
    def test_the_parts_are_composed(self, variables: dict[str, str], url: str | None) -> None:
        assert resolved(environ=variables).settings.redis_url == url

    def test_the_place_names_the_parts(self) -> None:
        places = resolved(environ={"REDIS_HOST": "r", "REDIS_PORT": "1"}).places
        assert places["redis_url"].words == "environment variables REDIS_HOST, REDIS_PORT"

    def test_a_url_in_the_environment_wins(self) -> None:
        environ = {"REDIS_URL": "redis://a", "REDIS_HOST": "b"}
        assert resolved(environ=environ).settings.redis_url == "redis://a"

    def test_a_flag_wins(self) -> None:
        environ = {"REDIS_HOST": "b"}
        assert resolved({"redis_url": "redis://a"}, environ).settings.redis_url == "redis://a"

    def test_the_parts_beat_the_file(self) -> None:
        assert resolved(environ={"REDIS_HOST": "b"}, file={"redis_url": "redis://a"}).settings.redis_url == (
            "redis://b:6379"
        )

    @pytest.mark.parametrize(
        ("variable", "value"),
        [("REDIS_PORT", "0"), ("REDIS_PORT", "x"), ("REDIS_TLS", "maybe"), ("REDIS_HOST", "a b")],
    )
    def test_a_bad_part_names_its_variable(self, variable: str, value: str) -> None:
        with pytest.raises(UsageError, match=rf"^redis_url: .* \(environment variable {variable}\)$"):
            resolved(environ={variable: value})


class TestServiceLinks:
    """Kubernetes sets variables of its own that look like ours."""

    def test_the_port_of_a_service_named_like_us_is_not_ours(self) -> None:
        assert resolved(environ={"BULLMQ_PROXY_PORT": "tcp://10.0.0.1:80"}).settings.port == 8080

    @pytest.mark.parametrize("service", ["BULLMQ_PROXY", "BULLMQ_PROXY_CANARY"])
    def test_neither_are_its_other_variables(self, service: str) -> None:
        names = (
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_WS",
            "PORT_80_TCP",
            "PORT_80_TCP_ADDR",
            "PORT_80_TCP_PROTO",
        )
        resolved(environ={f"{service}_{name}": "10.0.0.1" for name in names} | {f"{service}_PORT": "tcp://10.0.0.1:80"})


class TestUnknownVariables:
    """A name with our prefix that is not one of ours is a mistake."""

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("BULLMQ_PROXY_PRT", "; did you mean BULLMQ_PROXY_PORT?"),
            ("BULLMQ_PROXY_AUTH_TOKENS", "; did you mean BULLMQ_PROXY_AUTH_KEYS?"),
            ("BULLMQ_PROXY_", ""),
            ("BULLMQ_PROXY_port", "; did you mean BULLMQ_PROXY_PORT?"),
        ],
    )
    def test_it_is_refused_with_the_nearest_name(self, name: str, advice: str) -> None:
        with pytest.raises(UsageError) as refused:
            resolved(environ={name: "3"})
        assert str(refused.value).startswith(f"unknown environment variable {name}")
        assert str(refused.value).endswith(advice)

    def test_others_are_none_of_our_business(self) -> None:
        resolved(environ={"BULLMQ_PORT": "3", "BULLMQ_PROXYPORT": "3", "MY_BULLMQ_PROXY_PORT": "3"})


class TestNoAuthAndKeys:
    def test_on_one_level_they_contradict_each_other(self) -> None:
        with pytest.raises(UsageError, match=r"^no_auth: contradicts auth_keys \(flag --no-auth; flag --auth-key\)"):
            resolved({"no_auth": True, "auth_keys": ("a",)})

    def test_a_flag_overrules_keys_in_the_environment(self) -> None:
        resolution = resolved({"no_auth": True}, {"AUTH_KEYS": "a"})
        assert resolution.settings.no_auth
        assert resolution.settings.auth_keys == ()
        assert resolution.remarks == ("auth_keys (environment variable AUTH_KEYS) is overruled",)

    def test_keys_as_flags_overrule_the_environment(self) -> None:
        resolution = resolved({"auth_keys": ("a",)}, {"BULLMQ_PROXY_NO_AUTH": "1"})
        assert not resolution.settings.no_auth
        assert resolution.settings.auth_keys == ("a",)


class TestFile:
    def test_an_unknown_key_offers_the_nearest_name(self) -> None:
        with pytest.raises(UsageError, match=r"^unknown key 'drain-time' in proxy.toml; did you mean drain_timeout\?$"):
            resolved(file={"drain-time": 3})

    def test_a_key_like_no_other_is_refused_without_advice(self) -> None:
        with pytest.raises(UsageError, match=r"^unknown key 'xyzzy' in proxy.toml$"):
            resolved(file={"xyzzy": 3})

    def test_a_table_is_an_unknown_key(self) -> None:
        with pytest.raises(UsageError, match="unknown key 'server'"):
            resolved(file={"server": {"port": 1}})

    def test_it_is_toml(self, tmp_path: Path) -> None:
        path = tmp_path / "proxy.toml"
        path.write_text('port = 9000\nauth_keys = ["a", "b"]\nmax_message_size = "2MiB"\n')
        settings = resolve({}, {}, load(str(path))).settings
        assert (settings.port, settings.auth_keys, settings.max_message_size) == (9000, ("a", "b"), 2 << 20)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"port = ", "not valid TOML"),
            (b"port = 1" + b"0" * 5000, "not valid TOML"),
            (b"port = " + b"[" * 5000, "not valid TOML"),
            (b"\xff", "not UTF-8"),
        ],
        ids=["cut off", "endless number", "endless brackets", "no text"],
    )
    def test_a_file_that_cannot_be_parsed(self, tmp_path: Path, content: bytes, problem: str) -> None:
        path = tmp_path / "proxy.toml"
        path.write_bytes(content)
        with pytest.raises(UsageError, match=problem):
            load(str(path))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot read the configuration file"):
            load(str(tmp_path / "none.toml"))


def test_a_password_that_systemd_hands_over_is_found(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert resolved(environ=environ).settings.redis_password_file is None
    (tmp_path / "redis_password").write_text("secret")
    found = resolved(environ=environ)
    assert found.settings.redis_password_file == str(tmp_path / "redis_password")
    assert found.places["redis_password_file"].words == "environment variable CREDENTIALS_DIRECTORY"
    assert resolved({"redis_password_file": "/else"}, environ).settings.redis_password_file == "/else"
