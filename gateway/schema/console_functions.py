"""The functions of a queue, as the console knows them: their signatures, what they need, and an example of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from bullmq_proxy.gateway.schema.docstrings import parse
from bullmq_proxy.gateway.schema.tables import Api, groups
from bullmq_proxy.gateway.wire.endpoints import SessionEndpoint

_PATH: Final = PurePath("gateway/pages/console/functions.js")
_HEAD: Final = """\
// Made from the code by `make docs`. The functions of a queue, by their names.

export const FUNCTIONS = {
"""


def files(apis: Sequence[Api]) -> dict[PurePath, str]:
    """Return the text of the module, by its path."""
    [api] = (api for api in apis if api.endpoint is SessionEndpoint.QUEUE)
    lines = []
    for group in groups(api.table):
        for function in group.functions:
            known = {
                "group": group.title,
                "signature": function.signature,
                "about": parse(function.doc).text,
                "needs": sorted(function.permissions),
                "writes": function.writes,
                "waits": function.waits,
                "example": list(function.example),
            }
            lines.append(f"  {function.name}: {json.dumps(known, ensure_ascii=False)},\n")
    return {_PATH: f"{_HEAD}{''.join(lines)}}};\n"}
