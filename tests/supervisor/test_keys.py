"""Who may come in: configured keys, a file of keys, a key for this run, or a refusal to start."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.supervisor.keys import read_auth_keys, require_keys, with_auth_keys_file
from bullmq_proxy.supervisor.sources import UsageError, resolve


def private(directory: Path, content: bytes) -> Path:
    """A file that nobody else can read."""
    path = directory / "keys"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


class TestFile:
    def test_blank_lines_and_comments_do_not_count(self, tmp_path: Path) -> None:
        path = private(tmp_path, b"# operators\nk1\n\n  k2  \n   # k3\n")
        assert read_auth_keys(str(path)) == ("k1", "k2")

    def test_its_keys_are_added_to_the_others(self, tmp_path: Path) -> None:
        path = private(tmp_path, b"k2\nk1\n")
        resolution = resolve({"auth_keys": ("k1",), "auth_keys_file": str(path)}, {}, None)
        assert with_auth_keys_file(resolution).auth_keys == ("k1", "k2")

    @pytest.mark.parametrize("content", [b"", b"# none\n", b"\xff\n"])
    def test_a_file_without_keys_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = private(tmp_path, content)
        with pytest.raises(UsageError, match=r"^auth_keys_file: "):
            read_auth_keys(str(path))

    def test_a_bad_key_is_refused_without_being_repeated(self, tmp_path: Path) -> None:
        path = private(tmp_path, b"two words\n")
        with pytest.raises(UsageError, match=r"^auth_keys_file: ") as caught:
            with_auth_keys_file(resolve({"auth_keys_file": str(path)}, {}, None))
        assert "two words" not in str(caught.value)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot read"):
            read_auth_keys(str(tmp_path / "none"))

    def test_a_file_that_others_can_read_is_refused_with_the_remedy(self, tmp_path: Path) -> None:
        path = private(tmp_path, b"k1\n")
        path.chmod(0o644)
        with pytest.raises(UsageError) as refused:
            read_auth_keys(str(path))
        assert str(refused.value) == (
            f"auth_keys_file: other users can read or write {path} (mode 0644): chmod 600 {path}"
        )

    def test_the_keys_can_come_through_a_pipe(self) -> None:
        reader, writer = os.pipe()
        os.write(writer, b"k1\n")
        os.close(writer)
        try:
            assert read_auth_keys(f"/dev/fd/{reader}") == ("k1",)
        finally:
            os.close(reader)


class TestWithoutKeys:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
    def test_a_loopback_address_gets_a_key_for_this_run(self, host: str) -> None:
        settings, made = require_keys(Settings(host=host))
        assert made is not None
        assert len(made) >= 32
        assert settings.auth_keys == (made,)

    def test_every_run_gets_another_key(self) -> None:
        assert require_keys(Settings())[1] != require_keys(Settings())[1]

    def test_a_short_key_is_for_this_machine_alone(self) -> None:
        settings = Settings(host="0.0.0.0", auth_keys=("0123456789abcdef", "0123456789abcde"))
        with pytest.raises(UsageError, match="with a key of fewer than 16 characters"):
            require_keys(settings)
        assert require_keys(replace(settings, host="127.0.0.1")) == (replace(settings, host="127.0.0.1"), None)
        assert require_keys(replace(settings, auth_keys=("0123456789abcdef",)))[1] is None

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "gateway.example"])
    def test_any_other_address_is_refused(self, host: str) -> None:
        with pytest.raises(UsageError, match=r"refusing to listen on .* set AUTH_KEYS"):
            require_keys(Settings(host=host))

    def test_no_auth_is_the_explicit_way_out(self) -> None:
        settings = Settings(host="0.0.0.0", no_auth=True)
        assert require_keys(settings) == (settings, None)


def test_configured_keys_are_all_there_is() -> None:
    settings = Settings(auth_keys=("a",))
    assert require_keys(settings) == (settings, None)
