"""The files in systemd/: a unit that permits what the service needs and nothing else, and examples that can be used."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from bullmq_proxy.gateway.settings import Settings, options
from bullmq_proxy.supervisor.embedded import STOP_TIMEOUT
from bullmq_proxy.supervisor.fleet import GRACE
from bullmq_proxy.supervisor.sources import ConfigFile, resolve
from tests.docs.markdown import SYSTEMD, sections
from tests.support.service import ROOT, run_cli
from tests.support.waiting import TIMEOUT

UNITS = ROOT / "systemd"
SERVICE = UNITS / "bullmq-proxy.service"
SOCKET = UNITS / "bullmq-proxy.socket"
SEALED = UNITS / "sealed.conf"
ANALYZE = shutil.which("systemd-analyze")
# In tenths, as the tool counts: the network and unix sockets are needed, so much is left.
MOST_EXPOSED = 11
MOST_EXPOSED_SEALED = 5
SECONDS = {"s": 1, "min": 60}


def settings_of(unit: Path) -> dict[str, list[str]]:
    """A unit's settings, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def seconds(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|min)", text).groups()  # type: ignore[union-attr]
    return int(number) * SECONDS[unit]


class TestService:
    def test_it_may_do_no_more_than_it_needs(self) -> None:
        unit = settings_of(SERVICE)
        switches = {
            "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices", "PrivateMounts",
            "PrivateTmp", "PrivateUsers", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname",
            "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RemoveIPC", "RestrictNamespaces",
            "RestrictRealtime", "RestrictSUIDSGID",
        }  # fmt: skip
        assert {name: unit.get(name) for name in switches} == {name: ["yes"] for name in switches}
        others = {
            "AmbientCapabilities": "",
            "CapabilityBoundingSet": "",
            "DevicePolicy": "closed",
            "KeyringMode": "private",
            "ProcSubset": "pid",
            "ProtectProc": "invisible",
            "ProtectSystem": "strict",
            "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
            "SystemCallArchitectures": "native",
            "UMask": "0077",
            "User": "bullmq-proxy",
        }
        assert {name: unit.get(name) for name in others} == {name: [value] for name, value in others.items()}
        assert unit["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
        if ANALYZE is not None:
            command = [ANALYZE, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", str(SERVICE)]
            result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            assert result.returncode == 0, result.stdout + result.stderr

    @pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here")
    def test_sealed_it_may_do_nearly_nothing(self, tmp_path: Path) -> None:
        whole = tmp_path / "bullmq-proxy.service"  # the tool reads no drop-in files of others
        whole.write_text(SERVICE.read_text() + SEALED.read_text())
        command = [
            str(ANALYZE),
            "security",
            "--offline=true",
            f"--threshold={MOST_EXPOSED_SEALED}",
            "--no-pager",
            str(whole),
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    def test_it_gives_the_service_its_time(self) -> None:
        unit = settings_of(SERVICE)
        [stop], [watchdog] = unit["TimeoutStopSec"], unit["WatchdogSec"]
        assert seconds(stop) > Settings().drain_timeout + 2 * GRACE + STOP_TIMEOUT
        longest_pause = 30  # of a slot whose shards crash
        assert seconds(watchdog) / 2 > longest_pause

    def test_it_speaks_of_options_and_commands_that_there_are(self, tmp_path: Path) -> None:
        unit = settings_of(SERVICE)
        [start], [check, hang_up] = unit["ExecStart"], unit["ExecReload"]
        configuration = "/etc/bullmq-proxy/bullmq-proxy.toml"
        assert start == f"/opt/bullmq-proxy/bin/bullmq-proxy serve --config {configuration}"
        assert f"/opt/bullmq-proxy/bin/bullmq-proxy config --config {configuration} >/dev/null" in check
        assert hang_up == "/bin/kill -HUP $MAINPID"
        result = run_cli(tmp_path, "config", "--config", str(UNITS / "bullmq-proxy.toml"))
        assert result.returncode == 0, result.stderr

    @pytest.mark.parametrize("unit", [SERVICE, SOCKET], ids=lambda path: path.suffix)
    def test_systemd_understands_every_line_and_the_changes_on_the_page(self, unit: Path, tmp_path: Path) -> None:
        lines = unit.read_text().splitlines()
        assert all(re.fullmatch(r"|#.*|\[\w+\]|[A-Za-z]+=.*", line) for line in lines)
        changes = "".join(text for part in sections(SYSTEMD) for language, text in part.blocks if language == "ini")
        for name in (SERVICE.name, SOCKET.name):
            text = (UNITS / name).read_text().replace("=/opt/bullmq-proxy/bin/bullmq-proxy", "=/bin/sh")
            (tmp_path / name).write_text(f"{text}\n{changes}" if name == SERVICE.name else text)
        if ANALYZE is not None:
            command = [ANALYZE, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)]
            result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            assert (result.returncode, result.stderr) == (0, "")


def test_the_page_installs_files_that_there_are() -> None:
    text = "".join(text for part in sections(SYSTEMD) for language, text in part.blocks if language == "sh")
    names = set(re.findall(r" systemd/(\S+)", text))
    assert names == {path.name for path in UNITS.iterdir()} - {SYSTEMD.name}


class TestSocket:
    def test_it_listens_where_the_service_does_by_default(self) -> None:
        unit = settings_of(SOCKET)
        assert unit["ListenStream"] == [f"{Settings().host}:{Settings().port}"]
        assert "Accept" not in unit

    def test_the_lines_for_a_socket_each_only_lack_their_signs(self) -> None:
        assert "\n#ListenStream=127.0.0.1:8080\n#ReusePort=yes\n" in SOCKET.read_text()


class TestExamples:
    def test_the_file_changes_nothing_as_it_stands(self) -> None:
        values = tomllib.loads((UNITS / "bullmq-proxy.toml").read_text())
        assert resolve({}, {"HOME": "/"}, ConfigFile("x", values)).settings == resolve({}, {"HOME": "/"}, None).settings

    def test_what_it_shows_can_be_used(self) -> None:
        text = re.sub(r"^# (\w+ = )", r"\1", (UNITS / "bullmq-proxy.toml").read_text(), flags=re.MULTILINE)
        values = tomllib.loads(text)
        assert {"host", "port", "procs", "redis_url", "keys_file", "drain_timeout"} <= values.keys()
        resolve({}, {"HOME": "/"}, ConfigFile("x", values))

    def test_the_environment_file_names_variables_that_are_read(self) -> None:
        names = re.findall(r"^#?([A-Z_]+)=", (UNITS / "environment").read_text(), re.MULTILINE)
        known = {name for option in options() for name in option.environment} | {"REDIS_HOST", "REDIS_PASSWORD"}
        assert names
        assert set(names) <= known
