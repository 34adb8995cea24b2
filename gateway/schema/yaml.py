"""JSON-like data as YAML 1.2 in block style. Every text that could be read as something else is a JSON string."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

# Words and sentences that begin with a letter and hold nothing that YAML gives a meaning.
_PLAIN: Final = re.compile(r"""[A-Za-z/$](?:[A-Za-z0-9_ ./,;()'"`*$?!+=-]*[A-Za-z0-9_./;()'"`*$?!+=-])?""")
# What some version of YAML reads as null, a truth or a number.
_WORDS: Final = re.compile(r"(?i:null|true|false|yes|no|on|off|y|n|nan|inf)")
# What JSON leaves as it is and YAML does not allow, or takes for the end of a line.
_SPECIAL: Final = re.compile("[\x7f-\xa0\u2028-\u202e\ud800-\udfff\ufeff\ufffe\uffff]")
_LITERAL: Final = re.compile("[ -~\n\xa1-\u2027\u2030-\ud7ff]*")
_LONGEST_PLAIN: Final = 200


def dump(value: Any) -> str:
    """Return the document.

    Args:
        value: dicts with texts as keys (YAML allows keys of up to 1024 characters), lists, texts, numbers, booleans
            and None.
    """
    if isinstance(value, (dict, list)) and value:
        return "\n".join(_block(value)) + "\n"
    return _scalar(value) + "\n"


def _block(value: dict[str, Any] | list[Any]) -> Iterator[str]:
    """Return the lines of what is not empty, without the indentation of the place where it stands."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _member(f"{_text(key)}:", member)
        return
    for item in value:
        if isinstance(item, (dict, list)) and item:
            first, *rest = _block(item)
            yield f"- {first}"
            yield from map(_indented, rest)
        else:
            yield from _member("-", item)


def _member(head: str, value: Any) -> Iterator[str]:
    if isinstance(value, (dict, list)) and value:
        yield head
        yield from map(_indented, _block(value))
    elif isinstance(value, str) and _is_literal(value):
        yield f"{head} |-"
        yield from map(_indented, value.split("\n"))
    else:
        yield f"{head} {_scalar(value)}"


def _indented(line: str) -> str:
    return f"  {line}" if line else line


def _is_literal(text: str) -> bool:
    """Return whether a text can stand in several lines: nothing to escape, and no line that depends on spaces."""
    first, *rest = text.split("\n")
    return (
        bool(rest)
        and bool(rest[-1])
        and first[:1] not in ("", " ")
        and all(line.strip() or not line for line in rest)
        and _LITERAL.fullmatch(text) is not None
    )


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    text = json.dumps(value, allow_nan=False)
    if isinstance(value, float) and "." not in text:
        text = text.replace("e", ".0e")  # 1e+16 is a number only since YAML 1.2
    return text


def _text(text: str) -> str:
    if len(text) <= _LONGEST_PLAIN and _PLAIN.fullmatch(text) and not _WORDS.fullmatch(text):
        return text
    return _SPECIAL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
