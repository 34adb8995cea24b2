"""Long results are written in slices: the text is that of one piece."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from bullmq_proxy.gateway.sessions.results import encoded
from bullmq_proxy.gateway.turns import Turns


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        {"a": []},
        list(range(100)),
        list(range(101)),
        [{"n": n, "text": "é\u2028"} for n in range(1000)],
        {f"k{n}": [n] for n in range(350)},
        {"logs": ["row"] * 1000, "count": 1000, "empty": {}},
        {"outer": {"inner": {str(n): n for n in range(200)}, "x": None}},
    ],
)
async def test_the_text_is_that_of_one_piece(result: Any) -> None:
    text = await encoded(result, Turns())
    assert json.loads(text if isinstance(text, bytes) else b"".join(text)) == result


async def test_what_is_text_already_stays_as_it_is() -> None:
    text = await encoded([Raw(b'{"a" : 1}')] * 250, Turns())
    assert b"".join(text) == b"[" + b",".join([b'{"a" : 1}'] * 250) + b"]"  # type: ignore[arg-type]
