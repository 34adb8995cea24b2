"""The command line as users meet it: help, `config`, and one clear line for all that cannot be used."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from bullmq_proxy.gateway import __version__
from bullmq_proxy.gateway.schema import asyncapi_document, asyncapi_yaml, functions_markdown, openapi_yaml
from bullmq_proxy.gateway.settings import options
from tests.support.service import run_cli, run_here

# A value for each option that cannot be used, as text. Paths and switches have none.
BAD: dict[str, str] = {
    "host": "two words",
    "port": "65536",
    "procs": "0",
    "redis_url": "http://host",
    "prefix": "two words",
    "max_len_events": "-1",
    "queue_links": "-1",
    "auth_keys": "two words",
    "token_keys": "http://login.example.org/keys",
    "token_issuer": "two words",
    "token_audience": "two words",
    "token_leeway": "1h",
    "token_lifetime": "0",
    "allowed_origins": "app.example.org",
    "allowed_hosts": "https://app.example.org",
    "webhooks": "[",
    "webhook_allow": "10.0.0.0/33",
    "max_message_size": "10T",
    "max_concurrency": "many",
    "max_queue_name": "0",
    "min_queue_name": "0",
    "max_in_flight": "0",
    "metrics_queues": "-1",
    "admin_port": "0",
    "admin_host": "two words",
    "bad_messages_per_second": "0",
    "max_connections": "0",
    "max_connections_per_address": "x",
    "max_write_buffer": "1",
    "drain_timeout": "soon",
    "shutdown_delay": "soon",
    "balance": "fair",
    "reload_spread": "soon",
    "max_connection_age": "1ms",
    "max_shard_age": "1s",
    "max_shard_memory": "1MiB",
    "shard_timeout": "2",
    "gateway_timeout": "1",
    "ping_interval": "0",
    "ping_timeout": "-1",
    "redis_timeout": "0",
    "redis_start_timeout": "x",
    "redis_backlog": "-1",
    "redis_backlog_timeout": "1y",
    "min_replicas": "-1",
    "replica_timeout": "0",
    "tls_client_cert": "perhaps",
    "trusted_proxies": "nginx",
    "log_level": "loud",
    "log_format": "xml",
}
WITHOUT_BAD_VALUE = {
    "data_dir",
    "pid_file",
    "valkey_server",
    "redis_password_file",
    "auth_keys_file",
    "keys_file",
    "no_auth",
    "no_console",
    "access_log",
    "tracing",
    "metrics_auth",
    "audit_log",
    "tls_cert",
    "proxy_protocol",
    "tls_key",
    "tls_client_ca",
}


def refusal(home: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """The one line of a command that ends with exit code 2."""
    result = run_here(home, *arguments, env=env)
    assert result.returncode == 2, result
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("bullmq-proxy: error: ")
    return line.removeprefix("bullmq-proxy: error: ")


class TestBadValues:
    def test_this_page_knows_every_option(self) -> None:
        assert BAD.keys() | WITHOUT_BAD_VALUE == {option.name for option in options()}

    @pytest.mark.parametrize("name", BAD)
    def test_it_is_refused_and_the_place_named(self, tmp_path: Path, name: str) -> None:
        option = next(option for option in options() if option.name == name)
        config = tmp_path / "proxy.toml"
        config.write_text(f'{name} = "{BAD[name]}"\n')
        variable = option.environment[-1]
        for command, env, place in (
            (("serve", option.flag, BAD[name]), {}, f"flag {option.flag}"),
            (("serve",), {variable: BAD[name]}, f"environment variable {variable}"),
            (("config", "--config", str(config)), {}, f"key {name} in {config}"),
        ):
            line = refusal(tmp_path, *command, env=env)
            assert line.startswith(f"{name}: expected ")
            assert line.endswith(f"({place})")

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("serve", "--prot", "1"), "No such option"),
            (("serve", "--port"), "requires an argument"),
            (("serve", "extra"), "unexpected extra argument"),
            (("sreve",), "No such command"),
            (("serve", "--config", "none.toml"), "cannot read the configuration file none.toml"),
            (("serve", "--auth-keys-file", "none"), "auth_keys_file: cannot read none"),
            (("serve", "--no-auth", "--auth-key", "a"), "no_auth: contradicts auth_keys"),
            (("serve", "--host", "0.0.0.0"), "refusing to listen on 0.0.0.0 without keys: set AUTH_KEYS"),
        ],
    )
    def test_a_wrong_command_is_one_line_too(self, tmp_path: Path, arguments: tuple[str, ...], problem: str) -> None:
        assert problem in refusal(tmp_path, *arguments)

    def test_an_unknown_key_in_the_file_offers_the_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "proxy.toml").write_text("drain_timout = 3\n")
        line = refusal(tmp_path, "serve", env={"BULLMQ_PROXY_CONFIG": "proxy.toml"})
        assert line == "unknown key 'drain_timout' in proxy.toml; did you mean drain_timeout?"


class TestConfig:
    def test_it_says_what_is_in_force_and_from_where(self, tmp_path: Path) -> None:
        (tmp_path / "proxy.toml").write_text("procs = 3\nport = 1\n")
        result = run_here(tmp_path, "config", "--config", "proxy.toml", "--prefix", "p", env={"PORT": "9000"})
        assert (result.returncode, result.stderr) == (0, "")
        lines = {line.split(" = ")[0]: " ".join(line.split()) for line in result.stdout.splitlines()}
        assert lines["procs"] == "procs = 3 # key procs in proxy.toml"
        assert lines["port"] == "port = 9000 # environment variable PORT"
        assert lines["prefix"] == 'prefix = "p" # flag --prefix'
        assert lines["host"] == 'host = "127.0.0.1" # default'
        assert lines["# redis_url"] == "# redis_url = unset # default"

    def test_secrets_are_masked(self, tmp_path: Path) -> None:
        env = {"AUTH_KEYS": "hunter2,hunter3", "REDIS_HOST": "r", "REDIS_PASSWORD": "hunter4"}
        result = run_here(tmp_path, "config", env=env)
        assert "hunter" not in result.stdout + result.stderr
        assert 'auth_keys = ["***", "***"]' in result.stdout
        assert 'redis_url = "redis://:***@r:6379"' in result.stdout

    def test_it_is_a_configuration_file(self, tmp_path: Path) -> None:
        first = run_here(tmp_path, "config", "--drain-timeout", "500ms", "--max-message-size", "1500")
        (tmp_path / "proxy.toml").write_text(first.stdout)
        second = run_here(tmp_path, "config", "--config", "proxy.toml")
        assert tomllib.loads(second.stdout) == tomllib.loads(first.stdout)
        assert tomllib.loads(second.stdout)["drain_timeout"] == 0.5

    def test_a_bad_keys_file_is_found_before_the_service_starts(self, tmp_path: Path) -> None:
        assert "cannot read" in refusal(tmp_path, "config", "--auth-keys-file", "none")


class TestSchema:
    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            ((), asyncapi_yaml),
            (("--functions",), functions_markdown),
            (("--openapi",), openapi_yaml),
            (("--json",), lambda: json.dumps(asyncapi_document(), ensure_ascii=False, indent=2) + "\n"),
        ],
    )
    def test_it_prints_the_documents(
        self, tmp_path: Path, arguments: tuple[str, ...], printed: Callable[[], str]
    ) -> None:
        result = run_here(tmp_path, "schema", *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == printed()


class TestHelp:
    def test_every_option_is_explained_with_its_variables(self, tmp_path: Path) -> None:
        result = run_cli(tmp_path, "serve", "--help")
        words = result.stdout.split()
        assert result.returncode == 0
        for option in options():
            assert option.flag in words
            for name in option.environment:
                assert any(word.strip("[,;") == name for word in words), name

    def test_the_commands_are_listed(self, tmp_path: Path) -> None:
        result = run_cli(tmp_path, "--help")
        assert result.returncode == 0
        assert "serve" in result.stdout
        assert "config" in result.stdout

    def test_the_version(self, tmp_path: Path) -> None:
        assert run_cli(tmp_path, "--version").stdout == f"bullmq-proxy {__version__}\n"


def test_no_command_prints_the_help(tmp_path: Path) -> None:
    result = run_cli(tmp_path)
    assert result.returncode == 2
    assert all(
        f"\n  {name} " in result.stderr.partition("Commands:")[2] for name in ("check-client", "config", "serve")
    )
