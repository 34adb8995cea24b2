"""Markdown, as far as the tests of the documentation need it: headings, fenced blocks, inline code, tables, links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.service import ROOT

README = ROOT / "README.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
FAILURES = ROOT / "docs" / "failures.md"
FUNCTIONS = ROOT / "docs" / "functions.md"
SYSTEMD = ROOT / "systemd" / "README.md"
PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), SYSTEMD)

_FENCE = re.compile(r"```(\w*)")
_CODE = re.compile(r"``(.+?)``|`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(slots=True)
class Section:
    """What stands under one heading, up to the next one of any level."""

    title: str
    prose: list[str] = field(default_factory=list)
    """The lines outside of fenced blocks."""
    blocks: list[tuple[str, str]] = field(default_factory=list)
    """The fenced blocks: language and text."""

    def block(self, language: str) -> str:
        """The one block in this language."""
        [text] = [text for known, text in self.blocks if known == language]
        return text

    @property
    def anchor(self) -> str:
        """The name by which links find the heading, as GitHub makes it."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")

    @property
    def codes(self) -> list[str]:
        """The inline code of all lines."""
        return [double or single for line in self.prose for double, single in _CODE.findall(line)]

    @property
    def rows(self) -> list[list[str]]:
        """The rows of all tables, without their headings."""
        lines = [line for line in self.prose if line.startswith("|")]
        cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        # The row above a ruler is a heading.
        rulers = {index for index, row in enumerate(cells) if set("".join(row)) <= set("-: ")}
        return [row for index, row in enumerate(cells) if index not in rulers and index + 1 not in rulers]


def sections(page: Path) -> list[Section]:
    """A page's sections, in order."""
    found = [Section("")]
    language: str | None = None
    block: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.fullmatch(line)
        if language is not None:
            if line == "```":
                found[-1].blocks.append((language, "\n".join(block) + "\n"))
                language, block = None, []
            else:
                block.append(line)
        elif fence:
            language = fence[1]
        elif line.startswith("#"):
            found.append(Section(line.lstrip("#").strip()))
        else:
            found[-1].prose.append(line)
    assert language is None, f"{page}: a fenced block has no end"
    return found


def section(page: Path, title: str) -> Section:
    """The section with this heading."""
    [one] = [each for each in sections(page) if each.title == title]
    return one


def only_block(page: Path, language: str) -> str:
    """Return the one fenced block of a page in this language."""
    [text] = [text for part in sections(page) for known, text in part.blocks if known == language]
    return text


def links(page: Path) -> list[str]:
    """The targets of a page's links."""
    return [target for each in sections(page) for line in each.prose for target in _LINK.findall(line)]
