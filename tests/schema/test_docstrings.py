"""Docstrings taken apart."""

from __future__ import annotations

import msgspec

from bullmq_proxy.gateway.schema.docstrings import of_class, parse

LONG = """Move a job on; returns the next one. It is locked.

    A second paragraph,
    over two lines:

    * one
    * two

    Args:
        job_id: which one; it can
            take two lines.
        token: the lock's.

    Returns:
        The job,
        or null.

    Raises:
        GatewayError: CONFLICT when it is locked.
    """


def test_the_parts_of_a_docstring() -> None:
    doc = parse(LONG)
    assert doc.summary == "Move a job on; returns the next one"
    assert doc.paragraphs == [
        "Move a job on; returns the next one. It is locked.",
        "A second paragraph, over two lines:",
        "* one\n* two",
    ]
    assert doc.text.endswith("\n\n* one\n* two")
    assert doc.named == {"jobId": "which one; it can take two lines.", "token": "the lock's."}
    assert doc.returns == "The job, or null."
    assert doc.raises == {"GatewayError": "CONFLICT when it is locked."}


def test_there_may_be_none() -> None:
    assert (parse(None).summary, parse("").text) == ("", "")


class Base(msgspec.Struct):
    """The base.

    Attributes:
        name: of the base.
        size: of the base, too.
    """


class Derived(Base):
    """What is derived.

    Attributes:
        name: another one.
    """


def test_attributes_are_inherited_and_texts_are_not() -> None:
    doc = of_class(Derived)
    assert doc.text == "What is derived."
    assert doc.named == {"name": "another one.", "size": "of the base, too."}
