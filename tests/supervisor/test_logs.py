"""Log lines: text for people, JSON for machines."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from bullmq_proxy.gateway.logs import JsonLines, TextLines

EVIL = "\x1b[2J\x85\u2028\u2029\u202e\x9b31m\n2026 INFO forged\x7f"


def record(message: str, *args: object, broken: bool | str = False) -> logging.LogRecord:
    info = None
    if broken:
        try:
            raise RuntimeError("boom" if broken is True else broken)
        except RuntimeError:
            info = sys.exc_info()
    return logging.LogRecord("bullmq_proxy.gateway.shard", logging.WARNING, __file__, 1, message, args, info)


class TestText:
    def test_a_line_says_when_how_bad_and_who(self) -> None:
        line = TextLines(0).format(record("%d jobs", 3))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING shard 0: 3 jobs", line)

    def test_the_parent_is_called_supervisor(self) -> None:
        assert "WARNING supervisor: hello" in TextLines(None).format(record("hello"))

    def test_a_line_break_in_a_message_starts_no_line_of_its_own(self) -> None:
        assert TextLines(0).format(record("a\r\n2026 INFO forged")).endswith(": a\\r\\n2026 INFO forged")

    def test_a_traceback_follows(self) -> None:
        lines = TextLines(0).format(record("crashed", broken=True)).split("\n")
        assert lines[0].endswith("crashed")
        assert lines[-1] == "  RuntimeError: boom"

    @pytest.mark.parametrize("form", [TextLines, JsonLines])
    def test_nothing_in_a_text_ends_a_line_or_acts_on_a_terminal(self, form: type[TextLines] | type[JsonLines]) -> None:
        written = form(0).format(record("%s", f"a{EVIL}b", broken=EVIL))
        head, *story = written.split("\n")
        assert r"a\u001b[2J\u0085" in head
        assert all(each.startswith("  ") for each in story)
        assert [each for each in written if each != "\n" and not each.isprintable()] == []
        assert len(written.splitlines()) == 1 + len(story)


class TestJson:
    def test_a_line_is_one_object(self) -> None:
        line = JsonLines(3).format(record("näh\nnext"))
        assert "\n" not in line
        entry = json.loads(line)
        assert entry["msg"] == "näh\nnext"
        assert (entry["level"], entry["logger"], entry["slot"]) == ("warning", "bullmq_proxy.gateway.shard", 3)
        assert entry["ts"].endswith("Z")
        assert entry["pid"] > 0

    def test_a_traceback_is_a_field(self) -> None:
        assert "boom" in json.loads(JsonLines(None).format(record("crashed", broken=True)))["trace"]
