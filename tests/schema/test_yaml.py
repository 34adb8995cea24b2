"""The YAML that we write is read back as the same data by a YAML parser that is not ours."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bullmq_proxy.gateway.schema.yaml import dump

# Words and characters that YAML gives a meaning, in places where they could have it.
TRAPS = st.sampled_from(
    (
        *("null", "~", "yes", "No", "on", "y", "1", "1.5", "1e3", "0x1F", "0o7", "1_000", "12:30:45", "2001-12-14"),
        *("- a", "a: b", "a #b", "# a", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a`", "'a'", '"a"', "[a]", "{a}"),
        *("", " ", " a", "a ", "a\n", "\na", "a\n b\nc", "a\n\nb", "a\n  \nb", "a\tb", "\ta", "a\r\nb", "---", "?"),
        *(
            "$ref",
            "#/a/b",
            "é",
            "\u2028",
            "\x85",
            "\ufeff",
            "\x7f",
            "\ud7ff",
            "🦉",
            "=",
            "<<",
            "a:",
            ":a",
            "-",
            "--- a",
        ),
        *("a,b", ".inf", "...", "a\n- b", "a\n# b", "a\n...", "a\n---\nb"),
    )
)
TEXTS = st.text(max_size=40) | TRAPS
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20
)


@settings(deadline=None)  # a busy machine is no fault
@given(DATA)
def test_it_is_read_back(value: Any) -> None:
    assert yaml.safe_load(dump(value)) == value


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6).map("\n".join))
def test_texts_of_several_lines_are_read_back(text: str) -> None:
    assert yaml.safe_load(dump({"a": [text, {"b": text}]})) == {"a": [text, {"b": text}]}


def test_it_is_easy_to_read() -> None:
    value = {
        "name": "queue",
        "version": "0.1.0",
        "about": "Two lines,\nthis one too.",
        "items": [1, True, None, [], {}, ["a", "b"], {"$ref": "#/x", "default": "true"}],
    }
    assert (
        dump(value)
        == """\
name: queue
version: "0.1.0"
about: |-
  Two lines,
  this one too.
items:
  - 1
  - true
  - null
  - []
  - {}
  - - a
    - b
  - $ref: "#/x"
    default: "true"
"""
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        dump([value])
