"""The keys file: what can be written in it, what is refused and in which words, and reading it again."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path

import pytest

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.access.keys_file import Key, KeysError, KeysFile, digest, parse
from bullmq_proxy.gateway.settings import Settings
from bullmq_proxy.gateway.shared_memory import COLUMNS
from bullmq_proxy.supervisor.keys import open_keys_file, require_keys
from bullmq_proxy.supervisor.sources import UsageError, resolve
from tests.support.keys import entry, write_keys

HASH = f'hash = "sha256:{digest("secret").hex()}"\n'


def one(fields: str) -> Key:
    [key] = parse(f"[keys.shop]\n{HASH}{fields}", "keys.toml")
    return key


def refusal(text: str) -> str:
    with pytest.raises(KeysError) as refused:
        parse(text, "keys.toml")
    return str(refused.value)


class TestFields:
    def test_all_of_them(self) -> None:
        key = one(
            'queues = ["mails-*", "news"]\npermissions = ["produce", "observe"]\n'
            "expires = 2027-01-01T00:00:00Z\nmessages_per_second = 100\nconnections = 20\n"
            'addresses = ["10.0.0.0/8", "::1"]\n'
        )
        assert (key.name, key.digests) == ("shop", (digest("secret"),))
        assert key.grant.queues == ("mails-*", "news")
        assert key.grant.permissions == {Permission.PRODUCE, Permission.OBSERVE}
        assert not key.grant.everything
        assert key.expires == datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()
        assert (key.messages_per_second, key.connections) == (100, 20)
        assert [str(network) for network in key.addresses] == ["10.0.0.0/8", "::1/128"]

    def test_what_is_left_out_is_not_granted_and_not_limited(self) -> None:
        key = one("")
        assert (key.grant.queues, key.grant.permissions) == ((), frozenset())
        assert (key.expires, key.messages_per_second, key.connections) == (None, None, None)

    @pytest.mark.parametrize("moment", ["2027-01-01", "2027-01-01T00:00:00", "2027-01-01 01:00:00+01:00"])
    def test_an_end_without_a_time_zone_is_in_utc_and_a_day_ends_it_at_its_begin(self, moment: str) -> None:
        assert one(f"expires = {moment}\n").expires == datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()

    @pytest.mark.parametrize(
        ("address", "admitted"),
        [
            ("10.9.8.7", True),
            ("::ffff:10.9.8.7", True),  # as a socket for both kinds shows it
            ("fe80::1%eth0", True),
            ("11.0.0.1", False),
            ("::1", False),
            ("", False),
        ],
    )
    def test_the_addresses_of_clients(self, address: str, admitted: bool) -> None:
        assert one('addresses = ["10.0.0.0/8", "fe80::/10"]\n').admits(address) is admitted
        assert one("").admits(address)

    def test_several_secrets(self) -> None:
        hashes = ", ".join(f'"sha256:{digest(secret).hex()}"' for secret in ("new", "old"))
        [key] = parse(f"[keys.shop]\nhash = [{hashes}]\n", "keys.toml")
        assert key.digests == (digest("new"), digest("old"))

    def test_a_shard_gets_the_same_key(self) -> None:
        key = one(
            'queues = ["*"]\npermissions = ["manage"]\nexpires = 2027-01-01\nmessages_per_second = 0.5\n'
            'addresses = ["fd00::/8"]\n'
        )
        assert Key.from_json(json.loads(json.dumps(key.to_json()))) == key

    def test_no_secret_shows_in_a_key(self) -> None:
        assert digest("secret").hex() not in repr(one(""))
        assert repr(digest("secret")) not in repr(one(""))


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ("hush = 1", "unknown field 'hush'; did you mean hash?"),
            ("zzz = 1", "unknown field 'zzz'; there are hash, queues, permissions, expires"),
            ('queues = "mails"', "queues: expected a list of names"),
            ("queues = [1]", "queues: expected a list of names"),
            ('queues = ["bull:mails"]', "queues: 'bull:mails' fits no queue"),
            ('queues = [""]', "queues: '' fits no queue"),
            ('permissions = "produce"', "permissions: expected a list of produce, consume, observe, tune, manage"),
            ('permissions = ["produces"]', "permissions: unknown permission 'produces'; did you mean produce?"),
            ('permissions = ["x"]', "permissions: unknown permission 'x'; there are produce, consume"),
            ('expires = "2027-01-01"', "expires: expected a date-time without quotes, such as 2027-01-01T00:00:00Z"),
            ("expires = 12:00:00", "expires: expected a date-time without quotes"),
            ("expires = 1", "expires: expected a date-time without quotes"),
            ("messages_per_second = 0", "messages_per_second: expected a number above 0"),
            ("messages_per_second = -1", "messages_per_second: expected a number above 0"),
            ("messages_per_second = nan", "messages_per_second: expected a number above 0"),
            ("messages_per_second = inf", "messages_per_second: expected a number above 0"),
            pytest.param(
                f"messages_per_second = 1{'0' * 400}", "messages_per_second: expected a number above 0", id="too large"
            ),
            ("messages_per_second = true", "messages_per_second: expected a number above 0"),
            ('messages_per_second = "1"', "messages_per_second: expected a number above 0"),
            ("connections = 0", "connections: expected a whole number from 1 to"),
            ("connections = 1.5", "connections: expected a whole number from 1 to"),
            ("connections = true", "connections: expected a whole number from 1 to"),
            ('addresses = "10.0.0.1"', "addresses: expected a list of addresses and networks"),
            ("addresses = []", "addresses: expected 1 to 100 of them; leave it out to admit any"),
            ('addresses = ["10.0.0.1/8"]', "addresses: 10.0.0.1/8 has host bits set"),
            ('addresses = ["localhost"]', "addresses: 'localhost' does not appear to be an IPv4 or IPv6 network"),
        ],
    )
    def test_a_field_that_cannot_be_used_is_named_with_its_file_and_key(self, fields: str, problem: str) -> None:
        assert refusal(f"[keys.shop]\n{HASH}{fields}\n").startswith(f"keys.toml: key shop: {problem}")

    @pytest.mark.parametrize(
        "hash",
        ["", '"hunter2"', '"sha256:hunter2"', f'"{"ab" * 32}"', f'"sha256:{"ab" * 31}"', f'"md5:{"ab" * 32}"', "17"],
    )
    def test_a_bad_hash_is_not_repeated(self, hash: str) -> None:
        line = refusal(f"[keys.shop]\n{f'hash = {hash}' if hash else ''}\n")
        assert line.startswith("keys.toml: key shop: hash: ")
        assert 'expected "sha256:" and the 64 hexadecimal digits' in line
        assert "hunter2" not in line
        assert "abab" not in line

    @pytest.mark.parametrize(
        ("secrets", "problem"),
        [
            ([], "expected one hash, or a list of up to 4"),
            (["a", "b", "c", "d", "e"], "expected one hash, or a list of up to 4"),
            (["a", "a"], "lists the same hash twice"),
            (["a", ""], "is that of an empty secret"),
        ],
    )
    def test_a_wrong_number_of_hashes(self, secrets: list[str], problem: str) -> None:
        hashes = ", ".join(f'"sha256:{digest(secret).hex()}"' for secret in secrets)
        assert refusal(f"[keys.shop]\nhash = [{hashes}]\n").startswith(f"keys.toml: key shop: hash: {problem}")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[keys.shop]\n[keys.shop]\n", "keys.toml is not valid TOML: "),
            pytest.param(f"keys = 1{'0' * 5000}\n", "keys.toml is not valid TOML: ", id="endless number"),
            pytest.param(f"keys = {'[' * 5000}\n", "keys.toml is not valid TOML: ", id="endless brackets"),
            ("[key.shop]\n", "keys.toml: unknown field 'key': the file has tables [keys.NAME]"),
            ("keys = 1\n", "keys.toml: keys: expected tables [keys.NAME]"),
            ("[keys]\nshop = 1\n", "keys.toml: key shop: expected a table [keys.shop]"),
            ('[keys."the shop"]\n', "keys.toml: key 'the shop': a name has 1 to 64 letters"),
            (f"[keys.{'x' * 65}]\n", "keys.toml: key 'xxx"),
            ("[keys.shop.eu]\n", "keys.toml: key shop: unknown field 'eu'"),
        ],
    )
    def test_a_wrong_form(self, text: str, problem: str) -> None:
        assert refusal(text).startswith(problem)

    def test_two_keys_with_one_secret(self) -> None:
        line = refusal(entry("a", secret="hunter2") + entry("b", secret="hunter2"))
        assert line.startswith("keys.toml: key b: hash: is the same as that of key a")
        assert digest("hunter2").hex() not in line

    def test_more_keys_than_can_be_counted(self) -> None:
        text = "".join(entry(f"k{number}") for number in range(COLUMNS + 1))
        assert f"{COLUMNS} are the most" in refusal(text)


class TestReading:
    def test_a_name_keeps_its_column(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        file = KeysFile(write_keys(path, entry("a"), entry("b")))
        file.read()
        before = {key.name: key.column for key in file.keys}
        write_keys(path, entry("c"), entry("b", secret="another"))
        file.read()
        after = {key.name: key.column for key in file.keys}
        assert after["b"] == before["b"]
        assert after["c"] not in before.values()
        write_keys(path, entry("a"))
        file.read()
        assert {key.name: key.column for key in file.keys} == {"a": before["a"]}

    def test_a_file_that_cannot_be_used_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        file = KeysFile(write_keys(path, entry("a")))
        file.read()
        keys = file.keys
        path.write_text("[keys.b]\n")
        with pytest.raises(KeysError):
            file.read()
        path.unlink()
        with pytest.raises(KeysError, match=r"^cannot read .*keys\.toml: No such file"):
            file.read()
        assert file.keys == keys

    def test_names_run_out_in_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        file = KeysFile(write_keys(path, *(entry(f"k{number}") for number in range(COLUMNS))))
        file.read()
        write_keys(path, entry("one-more"))
        with pytest.raises(KeysError, match="since the gateway started: use fewer, or restart it"):
            file.read()

    def test_a_key_of_the_other_list_is_refused(self, tmp_path: Path) -> None:
        file = KeysFile(write_keys(tmp_path / "keys.toml", entry("a", secret="hunter2")), ["hunter2"])
        with pytest.raises(KeysError, match="key a: hash: is that of one of auth_keys") as refused:
            file.read()
        assert "hunter2" not in str(refused.value)

    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o620, 0o666])
    def test_a_file_that_others_can_touch_is_refused_with_the_remedy(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "keys.toml"
        file = KeysFile(write_keys(path, entry("a")))
        file.read()
        path.write_text(entry("b"))
        path.chmod(mode)
        with pytest.raises(KeysError) as refused:
            file.read()
        assert str(refused.value) == f"other users can read or write {path} (mode 0{mode:03o}): chmod 600 {path}"
        assert [key.name for key in file.keys] == ["a"]  # what was read before stays in force

    @pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
    def test_one_of_its_user_and_group_is_not(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "keys.toml"
        file = KeysFile(write_keys(path, entry("a")))
        path.chmod(mode)
        file.read()
        assert [key.name for key in file.keys] == ["a"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
    def test_one_of_another_user_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        file = KeysFile(write_keys(path, entry("a")))
        os.chown(path, 4711, -1)
        with pytest.raises(KeysError, match=rf"belongs to another user \(uid 4711\): chown 0 {path}$"):
            file.read()

    def test_a_key_that_has_expired_is_remarked_on(self, tmp_path: Path) -> None:
        file = KeysFile(write_keys(tmp_path / "keys.toml", entry("a", expires="2020-01-01")))
        file.read()
        assert file.remarks == (f"{file.path}: key a has expired",)

    @pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
    def test_an_end_must_be_a_time_that_can_be_shown(self, moment: str) -> None:
        with pytest.raises(KeysError, match=r"key a: expires: .* is not within the years 1 to 9999 in UTC"):
            parse(entry("a", expires=moment), "keys.toml")

    def test_an_empty_text_is_no_secret(self) -> None:
        text = entry("a").replace(digest("a").hex(), digest("").hex())
        with pytest.raises(KeysError, match="key a: hash: is that of an empty secret"):
            parse(text, "keys.toml")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(KeysError, match="pipe is no regular file"):
            KeysFile(str(tmp_path / "pipe")).read()

    def test_text_must_be_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_bytes(b"# \xff\n")
        path.chmod(0o600)
        with pytest.raises(KeysError, match="is not UTF-8 text"):
            KeysFile(str(path)).read()


class TestStart:
    def test_keys_of_the_file_are_keys_enough(self, tmp_path: Path) -> None:
        settings = Settings(host="0.0.0.0", keys_file=write_keys(tmp_path / "keys.toml", entry("a")))
        file = open_keys_file(settings)
        assert file is not None
        assert require_keys(settings, file) == (settings, None)

    def test_with_a_keys_file_no_key_is_made_for_the_run(self, tmp_path: Path) -> None:
        settings = Settings(keys_file=write_keys(tmp_path / "keys.toml", "# none yet\n"))
        with pytest.raises(UsageError, match="holds no key, so nobody could connect: make one with `bullmq-proxy key"):
            require_keys(settings, open_keys_file(settings))

    def test_an_empty_file_is_fine_beside_other_keys(self, tmp_path: Path) -> None:
        settings = Settings(auth_keys=("a",), keys_file=write_keys(tmp_path / "keys.toml"))
        assert require_keys(settings, open_keys_file(settings)) == (settings, None)

    def test_a_file_that_cannot_be_used_is_a_wrong_use(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"^keys_file: cannot read .*none"):
            open_keys_file(Settings(keys_file=str(tmp_path / "none")))

    def test_no_auth_contradicts_it(self) -> None:
        with pytest.raises(UsageError, match="no_auth: contradicts keys_file"):
            resolve({"no_auth": True, "keys_file": "keys.toml"}, {}, None)

    def test_the_higher_level_wins_over_no_auth(self) -> None:
        resolution = resolve({"keys_file": "keys.toml"}, {"BULLMQ_PROXY_NO_AUTH": "1"}, None)
        assert (resolution.settings.keys_file, resolution.settings.no_auth) == ("keys.toml", False)
        assert resolution.remarks == ("no_auth (environment variable BULLMQ_PROXY_NO_AUTH) is overruled",)
