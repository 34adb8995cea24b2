"""Parents and children by their ids: three generations, two queues, each way in which a child can end."""

from __future__ import annotations

from typing import Any, Final

from tests.interop.scenarios.jobs import in_every_state
from tests.interop.scenarios.steps import (
    BRANCH,
    FLAGS,
    JSON_VALUES,
    LATER,
    PARENT,
    Call,
    Scenario,
    Work,
    add,
    call,
    complete,
    elsewhere,
    fail,
    node,
    take,
    wait_for_children,
)

_READERS: Final = (
    "getJobDependencies",
    "getJobDependenciesCount",
    "getJobChildrenValues",
    "getJobIgnoredChildrenFailures",
)
_KINDS: Final = ("processed", "unprocessed", "ignored", "failed")

Steps = tuple[Call | Work, ...]


def kin(parent: str, beside: str = "") -> dict[str, str]:
    """The option `parent`."""
    return {"id": parent, "queue": f"QUEUE{beside}"}


def add_kid(id: str, parent: dict[str, str], **opts: Any) -> Work:
    """A child in the other queue."""
    return elsewhere(node("add", "kid", {"n": 1}, {"jobId": id, "parent": parent, **opts}))


def read(*ids: str) -> Steps:
    return tuple(call(fn, id) for id in ids for fn in (*_READERS, "getJobState"))


# grandma ─┬─ mother ─┬─ kids:daughter ─┬─ kids:grandson, here:granddaughter
#          │          └─ kids:son       │
#          └─ aunt (without children)   └ each waits for its children, the leaves for a worker
FAMILY: Final[Steps] = (
    add({"jobId": "grandma"}),
    take(),
    add({"jobId": "mother", "parent": kin("grandma")}),
    wait_for_children("grandma"),
    take(),
    add_kid("daughter", kin("mother")),
    wait_for_children("mother"),
    elsewhere(take()),
    add_kid("grandson", kin("daughter", BRANCH)),
    add({"jobId": "granddaughter", "parent": kin("daughter", BRANCH)}),
    elsewhere(wait_for_children("daughter")),
    add_kid("son", kin("mother"), priority=3),
    add({"jobId": "aunt", "parent": kin("grandma"), "delay": LATER}),
)
_MEMBERS: Final = ("grandma", "mother", "aunt", "granddaughter")

GROWING_UP: Final = Scenario(
    "a family of three generations",
    (
        *FAMILY,
        *read(*_MEMBERS, "missing"),
        elsewhere(take()),
        elsewhere(complete("grandson", JSON_VALUES[0])),
        take(),
        complete("granddaughter", None),
        elsewhere(take()),
        elsewhere(complete("daughter", [1, 2.5, "ü"])),
        *read(*_MEMBERS),
        elsewhere(take()),
        elsewhere(complete("son", "")),
        *read("mother"),
        take(),
        *read("mother"),
        complete("mother", 0),
        call("promoteJob", "aunt"),
        take(),
        complete("aunt", False),
        *read(*_MEMBERS),
        take(),
        complete("grandma"),
        *read("grandma"),
    ),
)


def _failing(option: str) -> Scenario:
    """The youngest fails, and its failure goes up as far as the option carries it."""
    flag = {option: True}
    return Scenario(
        f"a family in which children fail with {option}",
        (
            add({"jobId": "grandma"}),
            take(),
            add({"jobId": "mother", "parent": kin("grandma"), **flag}),
            add({"jobId": "aunt", "parent": kin("grandma"), "delay": LATER}),
            wait_for_children("grandma"),
            take(),
            add_kid("kid", kin("mother"), **flag),
            add_kid("second", kin("mother"), **flag),
            add_kid("third", kin("mother"), delay=LATER),
            wait_for_children("mother"),
            elsewhere(take()),
            elsewhere(fail("kid", "no luck")),
            *read("grandma", "mother"),
            elsewhere(take()),
            elsewhere(fail("second", "none either")),
            *read("grandma", "mother"),
            *(call(fn, id) for id in ("mother", "grandma") for fn in ("retryJob", "isJobWaitingChildren", "getJob")),
            take(),
            call("removeJobUnprocessedChildren", "mother"),
            *read("grandma", "mother"),
            Work("fail", {"job": "mother", "token": "hand", "message": "!", "unrecoverable": False}, may_fail=True),
            *read("grandma", "mother"),
            call("retryJob", "mother"),
            *read("grandma", "mother"),
            call("removeJobChildDependency", "mother"),
            call("removeJobChildDependency", "aunt"),
            *read("grandma", "mother"),
            call("removeJobUnprocessedChildren", "grandma"),
            call("removeJob", "mother"),
            call("remove", "grandma"),
            call("getJobs"),
        ),
    )


RETRIED: Final = Scenario(
    "a child in the same queue that is retried counts again",
    tuple(
        step
        for n, flag in enumerate(("", *FLAGS))
        for step in (
            add({"jobId": f"m{n}"}),
            take(),
            add({"jobId": f"k{n}", "parent": kin(f"m{n}"), **({flag: True} if flag else {})}),
            add({"jobId": f"l{n}", "parent": kin(f"m{n}")}),
            wait_for_children(f"m{n}"),
            take(),
            fail(f"k{n}"),
            call("retryJob", f"k{n}", "failed", {"resetAttemptsMade": True}),
            *read(f"m{n}"),
            call("removeJobChildDependency", f"k{n}"),
            call("removeJobChildDependency", f"k{n}"),
            *read(f"m{n}"),
            call("removeJob", f"m{n}"),
            call("drain"),
            call("getJobCounts"),
        )
    ),
)

_PAGES: Final = (
    {},
    *({kind: {}} for kind in _KINDS),
    *({kind: {"count": 3}} for kind in _KINDS),
    *({kind: {"cursor": 0, "count": 1000}} for kind in _KINDS),
    {"failed": {"cursor": 1, "count": 3}},
    {"failed": {"cursor": 3, "count": 3}},
    {"failed": {"cursor": 7}},
    {kind: {} for kind in _KINDS},
    {kind: {"count": 2} for kind in reversed(_KINDS)},
    {"processed": {"count": 1}, "failed": {"count": 1}},
)

PAGES: Final = Scenario(
    "a few children of each kind, page by page",
    (
        add({"jobId": "mother"}),
        take(),
        *(add({"jobId": f"done-{n}", "parent": PARENT}) for n in range(4)),
        *(add({"jobId": f"lost-{n}", "parent": PARENT, FLAGS[2]: True}) for n in range(4)),
        *(add({"jobId": f"fatal-{n}", "parent": PARENT, FLAGS[0]: True}) for n in range(5)),
        *(add({"jobId": f"later-{n}", "parent": PARENT, "delay": LATER}) for n in range(4)),
        wait_for_children("mother"),
        *(step for n in range(4) for step in (take(), complete(f"done-{n}", n))),
        *(step for n in range(4) for step in (take(), fail(f"lost-{n}", f"{n}"))),
        *(call("getJobDependencies", "mother", pages) for pages in _PAGES),
        take(),
        fail("fatal-0"),
        take(),  # the mother, which is to fail now
        *(step for n in range(1, 5) for step in (take(), fail(f"fatal-{n}"))),
        *(call("getJobDependencies", "mother", pages) for pages in _PAGES),
        call("getJobDependencies", "missing", {kind: {} for kind in _KINDS}),
        call("getJobDependenciesCount", "mother", {}),
        *(call("getJobDependenciesCount", "mother", {kind: True}) for kind in _KINDS),
        *(call("getJobDependenciesCount", "mother", {kind: False}) for kind in _KINDS),
        call("getJobDependenciesCount", "mother", {"failed": True, "processed": True, "ignored": False}),
        call("getJobDependenciesCount", "mother", dict.fromkeys(_KINDS, True)),
        call("getJobDependenciesCount", "missing", dict.fromkeys(_KINDS, True)),
    ),
)

VALUES: Final = Scenario(
    "what children returned",
    (
        add({"jobId": "mother"}),
        take(),
        *(add({"jobId": f"k{n}", "parent": PARENT}) for n in range(len(JSON_VALUES) + 1)),
        wait_for_children("mother"),
        *(step for n, value in enumerate((*JSON_VALUES, None)) for step in (take(), complete(f"k{n}", value))),
        *read("mother"),
        call("getJobDependencies", "mother", {"processed": {"count": 100}}),
    ),
)


def _children(flags: dict[str, str]) -> Steps:
    """A parent in a worker's hands, with a child in each state, in its own queue and in the other.

    Args:
        flags: the options with which children have failed, by what their ids end with.
    """
    return (
        add({"jobId": "mother"}),
        take(),
        add({"jobId": "k-active", "parent": PARENT}),
        take(),
        add({"jobId": "k-done", "parent": PARENT}),
        take(),
        complete("k-done", 1),
        *(
            step
            for kind, flag in flags.items()
            for step in (
                add({"jobId": f"k-{kind}", "parent": PARENT, **({flag: True} if flag else {})}),
                take(),
                fail(f"k-{kind}"),
            )
        ),
        add({"jobId": "k-parent", "parent": PARENT}),
        take(),
        add({"jobId": "k-child", "parent": kin("k-parent")}),
        take(),
        add({"jobId": "k-child-2", "parent": kin("k-parent"), "priority": 2}),
        wait_for_children("k-parent"),
        add({"jobId": "k-delayed", "parent": PARENT, "delay": LATER}),
        add({"jobId": "k-prioritized", "parent": PARENT, "priority": 2}),
        add({"jobId": "k-waiting", "parent": PARENT}),
        add_kid("o-active", kin("mother")),
        elsewhere(take()),
        add_kid("o-parent", kin("mother")),
        elsewhere(take()),
        add_kid("o-child", kin("o-parent", BRANCH)),
        add({"jobId": "back-here", "parent": kin("o-parent", BRANCH), "delay": LATER}),
        elsewhere(wait_for_children("o-parent")),
        add_kid("o-delayed", kin("mother"), delay=LATER),
        add_kid("o-waiting", kin("mother")),
    )


_HARMLESS: Final = {"ignored": FLAGS[2], "dropped": FLAGS[3], "went-on": FLAGS[1], "stays": ""}
_HELD: Final[Steps] = _children({**_HARMLESS, "fatal": FLAGS[0]})
_WAITS: Final[Steps] = (*_children(_HARMLESS), wait_for_children("mother"))
_ALL_END: Final[Steps] = (
    complete("k-active"),
    complete("k-child"),
    elsewhere(complete("o-active")),
)
_FAMILY_IDS: Final = ("mother", "k-parent", "k-child", "back-here", "k-delayed", "k-stays", "k-done", "k-ignored")


def _removing(name: str, *steps: Call | Work) -> tuple[Scenario, ...]:
    """Steps on a parent that a worker holds, and on one that waits; and again when no child is held any more."""
    return tuple(
        Scenario(
            f"{name} {how}",
            (*before, *steps, *read("mother", "k-parent"), *_ALL_END, *steps, *read("mother"), call("getJobs")),
        )
        for how, before in (("of a parent that is held", _HELD), ("of a parent that waits", _WAITS))
    )


UNTYING: Final = Scenario(
    "children are untied from their parents",
    (
        *_WAITS,
        *(call("removeJobChildDependency", id) for id in (*_FAMILY_IDS, "k-active", "k-waiting", "k-prioritized")),
        *read("mother", "k-parent"),
        *(call("getJob", id) for id in _FAMILY_IDS),
        call("pause"),
        call("removeJobChildDependency", "k-child-2"),  # the last one: its parent moves to wait
        call("getJob", "k-parent"),
        call("resume"),
        add({"jobId": "p"}),
        add({"jobId": "orphan", "parent": kin("p")}),
        call("removeJob", "p", {"removeChildren": False}),
        call("removeJobChildDependency", "orphan"),
    ),
)

SCENARIOS: Final = (
    GROWING_UP,
    *map(_failing, FLAGS),
    RETRIED,
    PAGES,
    VALUES,
    *(in_every_state(fn) for fn in (*_READERS, "removeJobUnprocessedChildren", "removeJobChildDependency")),
    *_removing("unprocessed children", call("removeJobUnprocessedChildren", "mother")),
    *_removing("a family", call("remove", "mother")),
    *_removing("removeJob of a family", call("removeJob", "mother", {"removeChildren": True})),
    *_removing("its children stay: removal", call("removeJob", "mother", {"removeChildren": False})),
    *_removing(
        "children go one by one",
        *(call("removeJob", id) for id in (*_FAMILY_IDS[1:], "k-went-on", "k-dropped", "k-waiting", "k-prioritized")),
    ),
    UNTYING,
)
