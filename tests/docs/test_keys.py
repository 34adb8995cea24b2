"""What docs/keys.md claims about the file and the permissions is what the code has."""

from __future__ import annotations

import re

import pytest

from bullmq_proxy.gateway.access.grants import Permission
from bullmq_proxy.gateway.access.keys_file import FIELDS, parse
from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from tests.docs.markdown import section
from tests.support.service import ROOT

PAGE = ROOT / "docs" / "keys.md"


def test_the_file_can_be_used_and_every_field_is_explained() -> None:
    shown = section(PAGE, "The file")
    [key] = parse(shown.block("toml"), "keys.toml")
    assert (key.name, key.messages_per_second, key.connections) == ("shop", 100, 20)
    assert [row[0].strip("`") for row in shown.rows] == list(FIELDS)


@pytest.mark.parametrize("permission", list(Permission))
def test_the_functions_shown_need_the_permission(permission: Permission) -> None:
    [row] = [row for row in section(PAGE, "Permissions").rows if row[0] == f"`{permission}`"]
    for name in re.findall(r"`(\w+)`", row[2]):
        shown = [function for table in (TABLE, FLOWS) if (function := table.get(name)) is not None]
        assert shown
        assert all(function.permission is permission for function in shown)
