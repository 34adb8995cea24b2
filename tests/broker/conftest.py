"""Nothing may fail in the background of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.background import nothing_fails_in_the_background


@pytest.fixture(autouse=True)
def background() -> Iterator[list[str]]:
    """Fails the test for what failed unnoticed; a test that wants a failure clears the list."""
    with nothing_fails_in_the_background() as failures:
        yield failures
