"""What docs/keys.md claims about the file and the permissions is what the code has."""

from __future__ import annotations

from bullmq_proxy.gateway.access.keys_file import FIELDS, parse
from tests.docs.markdown import section
from tests.support.service import ROOT

PAGE = ROOT / "docs" / "keys.md"


def test_the_file_can_be_used_and_every_field_is_explained() -> None:
    shown = section(PAGE, "The file")
    [key] = parse(shown.block("toml"), "keys.toml")
    assert (key.name, key.messages_per_second, key.connections) == ("shop", 100, 20)
    assert [row[0].strip("`") for row in shown.rows] == list(FIELDS)
