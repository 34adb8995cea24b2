"""Docstrings taken apart: summary, text, and what their sections say of arguments, attributes, errors."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any, Final

from bullmq_proxy.gateway.broker.functions.table import camel_case

_HEADING: Final = re.compile(r"(Args|Arguments|Attributes|Returns|Raises):")
_ENTRY: Final = re.compile(r"\*{0,2}(\w+)(?: \([^)]*\))?: (.*)")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s")


@dataclass(slots=True)
class Doc:
    """A docstring's parts.

    Attributes:
        paragraphs: all that stands before the sections, one line each.
        named: the text for each name under `Args` and `Attributes`; names in camelCase.
        returns: the paragraph under `Returns`.
        raises: the entries under `Raises`, by the error's name.
    """

    paragraphs: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)
    returns: str = ""
    raises: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The paragraphs as Markdown."""
        return "\n\n".join(self.paragraphs)

    @property
    def summary(self) -> str:
        """The first sentence, without its full stop."""
        first = _SENTENCE.split(self.paragraphs[0], maxsplit=1)[0] if self.paragraphs else ""
        return first.removesuffix(".")


def parse(text: str | None) -> Doc:
    """Take a docstring apart; sections are those of Google's style."""
    doc = Doc()
    section = ""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text or "").strip()):
        lines = block.splitlines()
        if lines and (heading := _HEADING.fullmatch(lines[0])):
            section, lines = heading[1], inspect.cleandoc("\n".join(["", *lines[1:]])).splitlines()
        elif not block[:1].isspace():
            section = ""
        if not lines:
            continue
        if not section:
            doc.paragraphs.append(_joined(lines))
        elif section == "Returns":
            doc.returns = f"{doc.returns} {_joined(lines)}".strip()
        else:
            entries = _entries(lines)
            if section == "Raises":
                doc.raises.update(entries)
            else:
                doc.named.update({camel_case(name): about for name, about in entries.items()})
    return doc


def _entries(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if entry := _ENTRY.fullmatch(line):
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] += f" {line.strip()}"
    return found


def _joined(lines: list[str]) -> str:
    """Return a paragraph as one line; a list keeps its lines."""
    text = ""
    for line in lines:
        text += ("\n" if line.lstrip().startswith(("* ", "- ")) else " ") + line.strip()
    return text.strip()


def of_class(cls: Any) -> Doc:
    """Return a class's own docstring, taken apart, with what the docstrings of its bases say of attributes.

    (A TypedDict does not know its bases before Python 3.12: there only its own docstring counts, on all versions.)
    """
    doc = parse(cls.__dict__.get("__doc__"))
    for base in cls.__mro__[1:-1]:
        doc.named = {**parse(base.__dict__.get("__doc__")).named, **doc.named}
    return doc
