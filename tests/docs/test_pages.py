"""What the pages claim about messages, codes, functions and options is what the code has."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.rules.flow import FlowNode
from bullmq_proxy.gateway.rules.options import JobOptions
from bullmq_proxy.gateway.settings import options
from bullmq_proxy.gateway.wire.closing import CloseCode, Refusal
from bullmq_proxy.supervisor.activation import LISTEN_VARIABLES
from bullmq_proxy.supervisor.notify import NOTIFY_VARIABLES
from bullmq_proxy.supervisor.sources import CONFIG_VARIABLE, REDIS_PARTS, ConfigFile, resolve
from tests.docs.markdown import (
    ARCHITECTURE,
    CONFIGURATION,
    FAILURES,
    FUNCTIONS,
    PAGES,
    PROTOCOL,
    Section,
    links,
    section,
    sections,
)
from tests.support.service import ROOT

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def first_codes(part: Section) -> set[str]:
    """The inline code in the first cells of a section's tables."""
    return {code for row in part.rows for code in re.findall(r"`([^`]+)`", row[0])}


class TestMessages:
    @page
    def test_json_can_be_parsed(self, page: Path) -> None:
        for text in self._json_of(page):
            try:
                json.loads(text)
            except ValueError as error:
                pytest.fail(f"{text}: {error}")

    @staticmethod
    def _json_of(page: Path) -> Iterator[str]:
        """Each line of a JSON block, and inline code that begins like an object."""
        for part in sections(page):
            for language, text in part.blocks:
                if language == "json":
                    yield from text.splitlines()
            yield from (code for code in part.codes if code.startswith(('{"', "[{")))

    @page
    def test_messages_have_an_id_and_data(self, page: Path) -> None:
        shown = [
            json.loads(line)
            for part in sections(page)
            for language, text in part.blocks
            if language == "json"
            for line in text.splitlines()
        ]
        assert all(message.keys() in ({"id", "data"}, {"err"}) for message in shown)


class TestProtocol:
    def test_no_other_error_code_is_mentioned(self) -> None:
        words = {
            code for part in sections(PROTOCOL) for code in part.codes if re.fullmatch(r"[A-Z]{4,}_?[A-Z_]+", code)
        }
        # Parts of paths and headers.
        assert words - {"CONCURRENCY"} <= {code.value for code in ErrorCode}

    def test_http_statuses(self) -> None:
        shown = [row for row in section(PROTOCOL, "Plain HTTP").rows if row[0].isdigit()]
        assert shown
        for status, codes, _ in shown:
            for code in re.findall(r"`(\w+)`", codes):
                # A refusal for its form has the status of what is wrong with it.
                assert code == "INVALID_MESSAGE" or ErrorCode[code].http_status == int(status)

    def test_functions(self) -> None:
        shown = {code for part in sections(FUNCTIONS) for code in part.codes}
        assert shown >= {function.signature for function in TABLE}
        assert "functions.md" in links(PROTOCOL)

    def test_flows(self) -> None:
        members = set(FlowNode.__struct_encode_fields__)
        assert first_codes(section(PROTOCOL, "Flows API")) == {function.signature for function in FLOWS} | members

    def test_job_options(self) -> None:
        known = set(JobOptions.__struct_encode_fields__) - {"debounce"}  # known only to be refused
        assert first_codes(section(PROTOCOL, "Job options")) == known


class TestLimits:
    @pytest.mark.parametrize("setting", [name.name for name in options() if name.name.startswith("max_")])
    def test_they_name_their_settings(self, setting: str) -> None:
        assert f"`{setting}`" in (ROOT / "docs" / "limits.md").read_text()


class TestFailures:
    def test_each_status_and_close_code_says_what_a_client_does(self) -> None:
        shown = {int(code) for row in section(FAILURES, "After a refusal").rows for code in re.findall(r"\d+", row[0])}
        statuses = {int(row[0]) for row in section(PROTOCOL, "Plain HTTP").rows if row[0].isdigit()}
        made_by_the_library = {1002, 1006}
        assert shown == statuses | set(CloseCode) - {CloseCode.NORMAL} | set(Refusal) | made_by_the_library


class TestConfiguration:
    def test_other_variables(self) -> None:
        text = CONFIGURATION.read_text()
        of_systemd = (*LISTEN_VARIABLES, *NOTIFY_VARIABLES)
        for name in (CONFIG_VARIABLE, "STATE_DIRECTORY", "XDG_DATA_HOME", *REDIS_PARTS, *of_systemd):
            assert f"`{name}`" in text

    def test_no_variable_is_invented(self) -> None:
        known = {name for option in options() for name in option.environment} | {CONFIG_VARIABLE, *REDIS_PARTS}
        shown = re.findall(r"\b(?:BULLMQ_PROXY|REDIS|AUTH|QUEUE)_[A-Z_]*[A-Z]\b", CONFIGURATION.read_text())
        assert set(shown) <= known

    def test_the_file_can_be_used(self) -> None:
        values = tomllib.loads(section(CONFIGURATION, "A file").block("toml"))
        settings = resolve({}, {}, ConfigFile("bullmq-proxy.toml", values)).settings
        assert settings.drain_timeout == 60

    def test_the_environment_can_be_used(self) -> None:
        lines = section(CONFIGURATION, "Environment").block("sh").splitlines()
        settings = resolve({}, dict(line.split("=", 1) for line in lines), None).settings
        assert settings.redis_url == "redis://:secret@redis.example.org:6379"
        assert len(settings.auth_keys) == 2


def test_the_architecture_names_files_and_what_is_in_them() -> None:
    text = ARCHITECTURE.read_text()
    for path, names in re.findall(r"`([\w/]+\.py)`(?: \(([^)]*)\))?", text):
        file = next((file for file in (ROOT / "gateway" / path, ROOT / path) if file.exists()), None)
        assert file is not None, f"no file {path}"
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"\b{name}\b", file.read_text()), f"{path} has no {name}"


@page
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in {part.anchor for part in sections(found)}, target
