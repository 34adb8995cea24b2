"""`bullmq-proxy key create` and `key list`, in processes of their own."""

from __future__ import annotations

import os
import stat
import subprocess
import tomllib
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from bullmq_proxy.gateway.access.keys_file import digest, parse
from tests.supervisor.test_cli import refusal
from tests.support.service import COMMAND, clean_environment, run_here
from tests.support.waiting import TIMEOUT


def create(home: Path, *arguments: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    result = run_here(home, "key", "create", *arguments, env=env)
    assert result.returncode == 0, result
    return result


class TestCreate:
    def test_the_secret_alone_is_on_stdout_and_fits_the_entry(self, tmp_path: Path) -> None:
        result = create(
            tmp_path, "shop", "--keys-file", "keys.toml", "--queue", "mails-*", "--queue", 'odd"\\name',
            "--allow", "produce, observe", "--expires", "2099-01-31", "--messages-per-second", "0.5",
            "--connections", "20",
        )  # fmt: skip
        [secret] = result.stdout.splitlines()
        assert len(secret) >= 43
        assert secret not in result.stderr
        [key] = parse((tmp_path / "keys.toml").read_text(), "keys.toml")
        assert (key.name, key.digests) == ("shop", (digest(secret),))
        assert key.grant.queues == ("mails-*", 'odd"\\name')
        assert key.grant.permissions == {"produce", "observe"}
        assert (key.expires, key.messages_per_second, key.connections) == (4073500800, 0.5, 20)

    def test_every_secret_is_another(self, tmp_path: Path) -> None:
        assert create(tmp_path, "a").stdout != create(tmp_path, "a").stdout

    def test_a_new_file_is_its_users_alone(self, tmp_path: Path) -> None:
        create(tmp_path, "a", "--keys-file", "keys.toml")
        assert stat.S_IMODE((tmp_path / "keys.toml").stat().st_mode) == 0o600
        assert os.listdir(tmp_path) == ["keys.toml"]

    def test_the_file_can_be_named_by_the_environment(self, tmp_path: Path) -> None:
        create(tmp_path, "a", env={"BULLMQ_PROXY_KEYS_FILE": "keys.toml"})
        assert "[keys.a]" in (tmp_path / "keys.toml").read_text()

    @pytest.mark.parametrize("before", ["# ours\r\n\r\n", "# no line end", "\n\n# caf\u00e9\n\n[keys]  # all\n"])
    def test_what_is_in_the_file_stays_byte_for_byte(self, tmp_path: Path, before: str) -> None:
        path = tmp_path / "keys.toml"
        path.write_bytes(before.encode())
        path.chmod(0o640)
        create(tmp_path, "a", "--keys-file", "keys.toml")
        create(tmp_path, "b", "--keys-file", "keys.toml")
        assert path.read_bytes().startswith(before.encode())
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [key.name for key in parse(path.read_bytes().decode(), "keys.toml")] == ["a", "b"]

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "keys.toml").symlink_to("real/keys.toml")
        create(tmp_path, "a", "--keys-file", "keys.toml")
        assert (tmp_path / "keys.toml").is_symlink()
        assert "[keys.a]" in (tmp_path / "real" / "keys.toml").read_text()

    def test_without_a_file_the_entry_is_shown_for_pasting(self, tmp_path: Path) -> None:
        result = create(tmp_path, "shop", "--queue", "*", "--allow", "consume")
        block = result.stderr[result.stderr.index("[keys.shop]") :].split("\n\n")[0]
        assert tomllib.loads(block)["keys"]["shop"]["permissions"] == ["consume"]
        assert os.listdir(tmp_path) == []

    def test_a_key_that_may_do_nothing_is_remarked_on(self, tmp_path: Path) -> None:
        assert "may do nothing yet" in create(tmp_path, "shop", "--queue", "*").stderr
        assert "may do nothing yet" not in create(tmp_path, "shop", "--queue", "*", "--allow", "manage").stderr

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("the shop",), "key 'the shop': a name has 1 to 64 letters"),
            (("a]\nx=1\n[keys.b",), "a name has 1 to 64 letters"),
            (
                ("a", "--allow", "produce,manag"),
                "'manag' is not one of produce, consume, observe, tune, manage; did you mean manage?",
            ),
            (("a", "--allow", "sell"), "'sell' is not one of produce, consume, observe, tune, manage"),
            (("a", "--queue", "bull:mails"), "the new key: key a: queues: 'bull:mails' fits no queue"),
            (("a", "--queue", "two\nlines"), "the new key is not valid TOML"),
            (("a", "--expires", "soon"), "--expires: expected a date such as 2027-01-31"),
            (("a", "--expires", "2020-01-01"), "--expires: 2020-01-01 is in the past"),
            (("a", "--connections", "0"), "the new key: key a: connections: expected a whole number"),
            (("a", "--messages-per-second", "inf"), "the new key: key a: messages_per_second: expected a number"),
            (("a", "--keys-file", "none/keys.toml"), "cannot write none/keys.toml: No such file"),
            (("a", "--keys-file", "."), "is no regular file"),
            (("a", "--expires", "9999-12-31T23:59:59-23:00"), "--expires: 9999-12-31T23:59:59-23:00 is not within the"),
            (("a", "--expires", "0001-01-01T00:00:00+23:00"), "--expires: 0001-01-01T00:00:00+23:00 is not within the"),
        ],
    )
    def test_what_cannot_be_used_is_one_line_and_makes_nothing(
        self, tmp_path: Path, arguments: tuple[str, ...], problem: str
    ) -> None:
        assert problem in refusal(tmp_path, "key", "create", *arguments)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("[keys.a]\n", "keys.toml: key a: hash: is missing"),
            ("keys = {}\n", "cannot add to keys.toml, write the key into it by hand: "),
        ],
    )
    def test_a_file_that_it_cannot_add_to_is_left_alone(self, tmp_path: Path, content: str, problem: str) -> None:
        (tmp_path / "keys.toml").write_text(content)
        assert problem in refusal(tmp_path, "key", "create", "b", "--keys-file", "keys.toml")
        assert (tmp_path / "keys.toml").read_text() == content

    @pytest.mark.parametrize("stdout", [">&-", ">/dev/full"])
    @pytest.mark.parametrize("arguments", ["", " --keys-file keys.toml", " --keys-file new.toml"])
    def test_without_its_secret_no_key_is_made(self, tmp_path: Path, stdout: str, arguments: str) -> None:
        create(tmp_path, "a", "--keys-file", "keys.toml")
        before = (tmp_path / "keys.toml").read_bytes()
        result = subprocess.run(
            ["sh", "-c", f'"$0" "$@" {stdout}', *COMMAND, "key", "create", "b", *arguments.split()],
            env=clean_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert result.returncode == 2, result
        assert "bullmq-proxy: error: cannot print the secret on stdout, so no key is made: " in result.stderr
        assert "Added" not in result.stderr
        assert "Traceback" not in result.stderr
        assert (tmp_path / "keys.toml").read_bytes() == before
        assert os.listdir(tmp_path) == ["keys.toml"]

    def test_a_pipe_is_never_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "keys.toml")
        assert "is no regular file" in refusal(tmp_path, "key", "create", "a", "--keys-file", "keys.toml")
        assert "is no regular file" in refusal(tmp_path, "key", "list", "--keys-file", "keys.toml")

    def test_a_name_is_given_once(self, tmp_path: Path) -> None:
        create(tmp_path, "a", "--keys-file", "keys.toml")
        before = (tmp_path / "keys.toml").read_bytes()
        assert "keys.toml has a key a already" in refusal(tmp_path, "key", "create", "a", "--keys-file", "keys.toml")
        assert (tmp_path / "keys.toml").read_bytes() == before


BEFORE = """# ours

[keys.shop]  # the shop's
hash = {hash}
queues = ["[keys.news]"]

# of the news
[keys.news]
hash = "sha256:{news}"
"""


class TestRotate:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "keys.toml"
        path.write_text(BEFORE.format(hash=f'"sha256:{digest("old").hex()}"', news=digest("news").hex()))
        path.chmod(0o640)
        return path

    def test_a_key_gets_a_second_secret_and_loses_the_first(self, tmp_path: Path, file: Path) -> None:
        result = run_here(tmp_path, "key", "rotate", "shop", "--keys-file", "keys.toml")
        [secret] = result.stdout.splitlines()
        hashes = ", ".join(f'"sha256:{digest(each).hex()}"' for each in (secret, "old"))
        assert file.read_text() == BEFORE.format(hash=f"[{hashes}]", news=digest("news").hex())
        assert stat.S_IMODE(file.stat().st_mode) == 0o640
        result = run_here(tmp_path, "key", "rotate", "shop", "--finish", "--keys-file", "keys.toml")
        assert (result.returncode, result.stdout) == (0, "")
        assert "Only the newest secret of shop is left" in result.stderr
        newest = f'"sha256:{digest(secret).hex()}"'
        assert file.read_text() == BEFORE.format(hash=newest, news=digest("news").hex())

    def test_a_key_has_four_secrets_at_most(self, tmp_path: Path, file: Path) -> None:
        for _ in range(3):
            assert run_here(tmp_path, "key", "rotate", "shop", "--keys-file", "keys.toml").returncode == 0
        before = file.read_text()
        said = refusal(tmp_path, "key", "rotate", "shop", "--keys-file", "keys.toml")
        assert "key shop has 4 secrets, the most: end the old ones with `bullmq-proxy key rotate shop --finish`" in said
        assert file.read_text() == before

    def test_a_revoked_key_leaves_the_others_as_they_were(self, tmp_path: Path, file: Path) -> None:
        result = run_here(tmp_path, "key", "revoke", "shop", "--keys-file", "keys.toml")
        assert "a running gateway closes its connections on SIGHUP" in result.stderr
        assert file.read_text() == "# ours\n\n" + BEFORE[BEFORE.index("\n# of the news") :].format(
            news=digest("news").hex()
        )
        assert run_here(tmp_path, "key", "revoke", "news", "--keys-file", "keys.toml").returncode == 0
        assert parse(file.read_text(), "keys.toml") == ()

    @pytest.mark.parametrize("command", ["rotate", "revoke"])
    def test_a_name_that_is_not_there(self, tmp_path: Path, file: Path, command: str) -> None:
        before = file.read_bytes()
        said = refusal(tmp_path, "key", command, "shopp", "--keys-file", "keys.toml")
        assert "keys.toml has no key 'shopp'; there are news, shop" in said
        assert file.read_bytes() == before
        assert "cannot write none: No such file" in refusal(tmp_path, "key", command, "a", "--keys-file", "none")

    @pytest.mark.parametrize("command", ["rotate", "revoke"])
    @pytest.mark.parametrize(
        "text",
        [
            'keys.shop.hash = "sha256:{hash}"\n',
            'keys = {{shop = {{hash = "sha256:{hash}"}}}}\n',
            '[keys]\nshop.hash = "sha256:{hash}"\n',
        ],
    )
    def test_what_is_written_in_another_way_is_left_alone(self, tmp_path: Path, command: str, text: str) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(text.format(hash=digest("a").hex()))
        path.chmod(0o600)
        before = path.read_bytes()
        said = refusal(tmp_path, "key", command, "shop", "--keys-file", "keys.toml")
        assert "keys.toml is written in a way that this command cannot change, do it by hand: " in said
        assert path.read_bytes() == before

    def test_a_secret_that_nobody_gets_is_not_put_in_force(self, tmp_path: Path, file: Path) -> None:
        before = file.read_bytes()
        result = subprocess.run(
            ["sh", "-c", '"$0" "$@" >/dev/full', *COMMAND, "key", "rotate", "shop", "--keys-file", "keys.toml"],
            env=clean_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert result.returncode == 2, result
        assert file.read_bytes() == before


class TestList:
    def test_it_shows_what_keys_may_do_and_no_hashes(self, tmp_path: Path) -> None:
        create(
            tmp_path, "shop", "--keys-file", "keys.toml", "--queue", "mails-*", "--allow", "observe",
            "--allow", "produce", "--expires", "2099-01-31", "--messages-per-second", "100", "--connections", "2",
            "--address", "10.0.0.0/8",
        )  # fmt: skip
        create(tmp_path, "nobody", "--keys-file", "keys.toml")
        result = run_here(tmp_path, "key", "list", "--keys-file", "keys.toml")
        assert [line.split() for line in result.stdout.splitlines()] == [
            ["NAME", "QUEUES", "PERMISSIONS", "EXPIRES", "CALLS/S", "CONNECTIONS", "SECRETS", "ADDRESSES"],
            ["shop", "mails-*", "produce,observe", "2099-01-31T00:00:00Z", "100", "2", "1", "10.0.0.0/8"],
            ["nobody", "-", "-", "-", "-", "-", "1", "-"],
        ]
        assert result.stderr == ""

    def test_a_loose_mode_is_refused(self, tmp_path: Path) -> None:
        create(tmp_path, "a", "--keys-file", "keys.toml")
        (tmp_path / "keys.toml").chmod(0o644)
        said = refusal(tmp_path, "key", "list", "--keys-file", "keys.toml")
        assert "other users can read or write keys.toml (mode 0644): chmod 600 keys.toml" in said

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        assert "cannot read none" in refusal(tmp_path, "key", "list", "--keys-file", "none")


def test_config_shows_the_file_and_finds_its_errors(tmp_path: Path) -> None:
    create(tmp_path, "a", "--keys-file", "keys.toml")
    result = run_here(tmp_path, "config", "--keys-file", "keys.toml")
    assert 'keys_file = "keys.toml"' in result.stdout
    (tmp_path / "keys.toml").write_text("[keys.a]\n")
    assert "keys_file: keys.toml: key a: hash: is missing" in refusal(tmp_path, "config", "--keys-file", "keys.toml")
