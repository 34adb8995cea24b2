"""`Settings`: a program that embeds the gateway makes it directly, and every value is checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bullmq_proxy.gateway.settings import MIB, SettingError, Settings, masked, options
from bullmq_proxy.gateway.value_types import is_loopback


class TestDefaults:
    """Without any argument the settings serve one machine."""

    def test_the_gateway_listens_on_loopback_with_one_shard_per_core(self) -> None:
        settings = Settings()
        assert (settings.host, settings.port) == ("127.0.0.1", 8080)
        assert settings.procs >= 1

    def test_no_redis_url_means_the_embedded_server(self) -> None:
        assert Settings().redis_url is None

    def test_limits_and_times(self) -> None:
        settings = Settings()
        assert settings.max_message_size == MIB
        assert settings.max_concurrency == 1000
        assert settings.max_queue_name == 100
        assert settings.max_in_flight == 1024
        assert settings.max_write_buffer == 16 * MIB
        assert settings.drain_timeout == 30.0
        assert settings.shard_timeout == 30.0
        assert (settings.ping_interval, settings.ping_timeout) == (20.0, 20.0)
        assert (settings.redis_timeout, settings.redis_start_timeout) == (10.0, 3.0)
        assert (settings.redis_backlog, settings.redis_backlog_timeout) == (10_000, 5.0)

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            Settings().port = 1  # type: ignore[misc]


class TestForms:
    """A value may come as text or as what it is."""

    @pytest.mark.parametrize(
        ("name", "given", "meant"),
        [
            ("port", "8081", 8081),
            ("max_message_size", "512k", 512 * 1024),
            ("max_message_size", "1M", MIB),
            ("max_message_size", "2MiB", 2 * MIB),
            ("max_message_size", "2 mb", 2 * MIB),
            ("max_message_size", 4096, 4096),
            ("drain_timeout", "500ms", 0.5),
            ("drain_timeout", "2m", 120.0),
            ("drain_timeout", 7, 7.0),
            ("shard_timeout", "0", 0.0),
            ("shard_timeout", "3s", 3.0),
            ("no_auth", "yes", True),
            ("no_auth", "0", False),
            ("auth_keys", "a, b,,a", ("a", "b")),
            ("auth_keys", ["a", "b"], ("a", "b")),
            ("allowed_origins", "https://App.example.org/,http://localhost:3000", None),
            ("log_level", "WARNING", "warning"),
            ("host", "[::1]", "::1"),
            ("prefix", "{bull}", "{bull}"),
            ("redis_url", "redis://user:p%40ss@host:6380/3", "redis://user:p%40ss@host:6380/3"),
            ("redis_url", "valkeys://host", "valkeys://host"),
            ("redis_url", "valkey+unix:///run/valkey.sock", "valkey+unix:///run/valkey.sock"),
            ("redis_url", "unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        ],
    )
    def test_it_is_understood(self, name: str, given: object, meant: object) -> None:
        value = getattr(Settings(**{name: given}), name)  # type: ignore[arg-type]
        if name == "allowed_origins":
            meant = ("https://app.example.org", "http://localhost:3000")
        assert value == meant


class TestRefusals:
    """A value that cannot be used names its setting and what was expected."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("host", ""),
            ("host", "a b"),
            ("host", "1::2::3"),
            ("port", -1),
            ("port", 65536),
            ("port", "http"),
            ("port", True),
            ("port", 80.5),
            ("procs", 0),
            ("procs", 257),
            ("redis_url", "http://host"),
            ("redis_url", "redis://"),
            ("redis_url", "redis://host:99999"),
            ("redis_url", "redis://host/zero"),
            ("redis_url", "unix://"),
            ("redis_url", 6379),
            ("prefix", ""),
            ("prefix", "two words"),
            ("prefix", "x" * 101),
            ("auth_keys", ["with space"]),
            ("auth_keys", ["a,b"]),
            ("auth_keys", 7),
            ("auth_keys", [""]),
            ("allowed_origins", ["app.example.org"]),
            ("allowed_origins", ["https://app.example.org/path"]),
            ("no_auth", "maybe"),
            ("no_auth", 2),
            ("max_message_size", "1T"),
            ("max_message_size", "100"),
            ("max_message_size", 1.5),
            ("max_concurrency", 0),
            ("drain_timeout", -1),
            ("drain_timeout", "soon"),
            ("drain_timeout", "3 weeks"),
            ("drain_timeout", True),
            ("drain_timeout", float("nan")),
            ("drain_timeout", float("inf")),
            ("shard_timeout", "2.9"),
            ("shard_timeout", float("nan")),
            ("ping_interval", 0),
            ("log_level", "loud"),
            ("log_format", "xml"),
            ("data_dir", ""),
        ],
    )
    def test_it_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(SettingError, match=f"^{name}: expected ") as caught:
            Settings(**{name: value})
        assert caught.value.name == name

    def test_keys_contradict_no_auth(self) -> None:
        with pytest.raises(SettingError, match="no_auth"):
            Settings(no_auth=True, auth_keys=("a",))


class TestSecrets:
    """Neither a key nor a password comes out in an error, a repr or a masked URL."""

    def test_a_bad_key_is_not_repeated(self) -> None:
        with pytest.raises(SettingError) as caught:
            Settings(auth_keys=("my secret",))
        assert "my secret" not in str(caught.value)

    def test_a_bad_redis_url_is_not_repeated(self) -> None:
        with pytest.raises(SettingError) as caught:
            Settings(redis_url="http://user:hunter2@host")
        assert "hunter2" not in str(caught.value)

    def test_repr_leaves_them_out(self) -> None:
        settings = Settings(auth_keys=("hunter2",), redis_url="redis://:hunter2@host")
        assert "hunter2" not in repr(settings)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("redis://:hunter2@host", "redis://:***@host"),
            ("rediss://joe:hun@ter2@host:1", "rediss://joe:***@host:1"),
            ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
            ("unix://:hunter2@/run/valkey.sock?db=1", "unix://:***@/run/valkey.sock?db=***"),
            ("redis://host?password=hunter2", "redis://host?password=***"),
        ],
    )
    def test_a_masked_url_still_says_where(self, url: str, shown: str) -> None:
        assert masked(url) == shown


class TestOptions:
    """One field is one option."""

    def test_names_of_flags_and_variables_are_unique(self) -> None:
        flags = [option.flag for option in options()]
        variables = [name for option in options() for name in option.environment]
        assert len(set(flags)) == len(flags)
        assert len(set(variables)) == len(variables)

    def test_a_shown_default_can_be_read_back(self) -> None:
        settings = Settings()
        for option in options():
            value = getattr(settings, option.name)
            if value is not None and option.shape == "value":
                assert option.check(option.show(value).strip('"')) == value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("127.0.0.1%eth0", False),  # only IPv6 has interfaces: this is some other name
        ("localhost.example.org", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine(name: str, expected: bool) -> None:
    assert is_loopback(name) is expected
