"""The conformance kit: it finds each fault that is planted into a client, and nothing in one that is right."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from bullmq_proxy.gateway.conformance import refusing, rules
from bullmq_proxy.gateway.conformance.check import SCENARIOS, CannotStart, check, chosen, rules_of
from bullmq_proxy.gateway.conformance.process import VARIABLES
from bullmq_proxy.gateway.conformance.rules import ROLES, WATCHER, WORKER, Rule
from tests.conformance.conftest import Start
from tests.conformance.judging import FEWER, broken_rules
from tests.docs.markdown import FAILURES, section
from tests.support.service import ROOT, run_here

FAULTY = Path(__file__).with_name("faulty.py")
NAMED = {scenario.name: scenario for scenario in SCENARIOS}
LATER = ["later-1", "later-2", "later-3"]
TIMEOUT = 3.0  # s for a step of a client with a fault
AT_A_TIME = 20  # clients with faults
LOOKS = 12

FAULTS = {
    "key-printed": (Rule.SECRET, ["first"]),
    "key-unshown": (Rule.KEY, ["first"]),
    "path-of-a-form": (Rule.PATH, ["first"]),
    "binary": (Rule.FRAMES, ["first"]),
    "unknown-kills": (Rule.UNKNOWN, ["unknown"]),
    "ascii": (Rule.TEXT, ["texts"]),
    "small-messages": (Rule.LARGE, ["pieces"]),
    "blocks": (Rule.PINGS, ["pings"]),
    "number-ids": (Rule.ANSWER, ["texts"]),
    "answers-twice": (Rule.ANSWER, ["texts"]),
    "ack-now-and-then": (Rule.ACK, ["pings"]),
    "failures-hidden": (Rule.FAILURE, ["failure"]),
    "dies-of-lost": (Rule.LOST, ["lost"]),
    "answers-cancelled": (Rule.CANCEL, ["cancel"]),
    "leaves-on-drain": (Rule.DRAIN, ["drain"]),
    "old-answers": (Rule.OLD, ["gone"]),
    "jobs-known-forever": (Rule.AGAIN, ["gone"]),
    "consumer-forgotten": (Rule.TAKE_UP, ["broken"]),
    "strangers-kept": (Rule.RELEASE, ["broken"]),
    "answers-not-kept": (Rule.HAND_IN, ["unconfirmed"]),
    "dies-on-term": (Rule.FINISH, ["finish"]),
    "deaf-to-term": (Rule.FINISH, ["finish"]),
    "stays-after-4000": (Rule.STOP, ["stop-4000"]),
    "words-hidden": (Rule.WORDS, ["stop-401"]),
    "late-after-1001": (Rule.AT_ONCE, ["at-once-1001"]),
    "token-kept": (Rule.FRESH_TOKEN, ["fresh-token"]),
    "retry-after-unread": (Rule.RETRY_AFTER, ["retry-after"]),
    "any-reply": (Rule.REPLY, ["replies"]),
    "errors-swallowed": (Rule.ERROR, ["replies"]),
    "add-not-repeated": (Rule.REPEAT, ["broken-calls"]),
    "all-repeated": (Rule.NO_REPEAT, ["broken-calls"]),
    "ends-with-1": (Rule.END, ["replies"]),
    "ids-as-texts": (Rule.EVENT, ["events"]),
    "args-needed": (Rule.UNKNOWN, ["unknown-events"]),
    "resume-forgotten": (Rule.RESUME, ["resumed"]),
    "numbers-once": (Rule.RESUME, ["resumed"]),
    "resumes-from-first": (Rule.ONCE, ["resumed"]),
    "gap-for-an-event": (Rule.GAP, ["gaps"]),
    "gap-swallowed": (Rule.GAP, ["gaps"]),
}
"""Each fault of `faulty.py`, with the rule that is broken by it, and the scenarios that show it."""

FAULTS_OF_PAUSES = {
    "storm": (Rule.STORM, ["storm"]),
    "pauses-alike": (Rule.GROWTH, LATER),
    "lockstep": (Rule.JITTER, [*LATER, "later-4", "later-5"]),
    "no-pause": (Rule.LATER, LATER),
}
"""Those that are seen in pauses, to which a busy machine adds: there one may have to look more than once."""


async def judged(start: Start, fault: str, rule: Rule, names: list[str]) -> str:
    """Return the line that the kit prints for the rule that a fault breaks."""
    command = ["env", f"FAULT={fault}", *start(FAULTY)]
    verdicts = await check(command, [NAMED[name] for name in names], [rule], TIMEOUT)
    [line] = verdicts.lines()
    return line


async def find(start: Start, fault: str, rule: Rule, names: list[str], places: asyncio.Semaphore) -> None:
    """Assert that the kit finds a fault."""
    async with places:
        line = await judged(start, fault, rule, names)
    assert line.split()[:2] == ["failed", rule.value], fault
    assert line.endswith(f"; right: {rule.right} (docs/{rule.where})")


async def test_it_finds_each_planted_fault(warm_python: Start) -> None:
    places = asyncio.Semaphore(AT_A_TIME)
    await asyncio.gather(*(find(warm_python, fault, *shown, places) for fault, shown in FAULTS.items()))


async def test_it_finds_each_fault_in_pauses(warm_python: Start) -> None:
    async def find(fault: str, rule: Rule, names: list[str]) -> None:
        lines: list[str] = []
        while len(lines) < LOOKS and not any(line.startswith("failed") for line in lines):
            lines.append(await judged(warm_python, fault, rule, names))
        assert lines[-1].split()[:2] == ["failed", rule.value], lines

    await asyncio.gather(*(find(fault, *shown) for fault, shown in FAULTS_OF_PAUSES.items()))


async def test_it_finds_nothing_in_a_client_that_is_right(warm_python: Start) -> None:
    assert await broken_rules(warm_python(FAULTY), FEWER) == []


class TestTheCommand:
    def test_it_prints_a_line_for_each_rule(self, tmp_path: Path) -> None:
        arguments = ("--role", "producer", "--rule", "key", "--rule", "secret", "--", "env", "FAULT=key-printed")
        result = run_here(tmp_path, "check-client", *arguments, sys.executable, str(FAULTY))
        lines = [line.split()[:2] for line in result.stdout.splitlines()]
        assert (result.returncode, lines) == (1, [["ok", "key"], ["failed", "secret"]])

    def test_as_json(self, tmp_path: Path) -> None:
        arguments = ("--json", "--role", "producer", "--rule", "error", "--", sys.executable, str(FAULTY))
        result = run_here(tmp_path, "check-client", *arguments)
        shown = {
            "id": "error",
            "status": "ok",
            "seen": [],
            "right": Rule.ERROR.right,
            "where": f"docs/{Rule.ERROR.where}",
        }
        assert (result.returncode, json.loads(result.stdout)) == (0, {"ok": True, "rules": [shown]})

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (("--", "no-such-program"), 1, "no-such-program cannot be started: No such file or directory"),
            (("--", "false"), 1, "it did not connect before it ended with 1; its last words: none"),
            (("--rule", "jiter", "--", "true"), 2, "there is no rule jiter; did you mean jitter?"),
            (("--role", "looker", "--", "true"), 2, "'looker' is not one of 'worker', 'producer', 'watcher'"),
            ((), 2, "Missing argument 'COMMAND...'"),
        ],
    )
    def test_what_cannot_be_judged_is_one_line(
        self, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
    ) -> None:
        result = run_here(tmp_path, "check-client", *arguments)
        assert result.returncode == code
        [line] = result.stderr.splitlines()
        assert words in line


async def test_a_client_that_never_connects_is_given_up_at_once() -> None:
    with pytest.raises(CannotStart, match=r"as a worker it did not connect within 0\.2 s"):
        await check(["sleep", "60"], [NAMED["first"]], timeout=0.1)


class TestTables:
    def test_each_rule_is_judged_and_broken_by_a_fault(self) -> None:
        assert rules_of(SCENARIOS) == list(Rule)
        not_broken = set(Rule) - {rule for rule, _ in (FAULTS | FAULTS_OF_PAUSES).values()}
        assert not_broken == {Rule.FIRST, Rule.FRAGMENTS}  # no library that is asked here gets these wrong

    def test_each_scenario_has_a_name_of_its_own(self) -> None:
        assert len(NAMED) == len(SCENARIOS)
        assert {scenario.role for scenario in SCENARIOS} == set(ROLES)

    def test_a_watcher_alone_is_judged_by_its_endings_too(self) -> None:
        endings = [each for each in SCENARIOS if each.other == WATCHER]
        assert {each.name for each in endings} >= {"later-1", "storm", "retry-after", "at-once-4004", "stop-401"}
        alone, both = chosen([WATCHER], []), chosen([WORKER, WATCHER], [])
        assert {each.role for each in alone} == {WATCHER}
        assert [each.name for each in both if each.role == WATCHER] == ["resumed", "gaps", "unknown-events", "events"]
        assert len(alone) == len(endings) + 4

    def test_what_a_client_does_after_a_refusal_is_what_the_page_says(self) -> None:
        says = {"stops": set[int](), "connects later": set[int](), "connects at once": set[int]()}
        for codes, does, _ in section(FAILURES, "After a refusal").rows:
            place = does.partition(",")[0].replace("asks again", "connects later")
            says[place] |= set(map(int, re.findall(r"\d+", codes)))
        assert says["stops"] == {*rules.STOP_STATUSES, *rules.STOP_CODES}
        assert says["connects later"] == {*rules.LATER_STATUSES, *rules.LATER_CODES}
        assert says["connects at once"] == set(rules.AT_ONCE_CODES)

    def test_each_code_is_played(self) -> None:
        later = {ending for endings in refusing.LATER for ending in endings}
        assert later == {*rules.LATER_STATUSES, *rules.LATER_CODES}
        stops = {int(name.removeprefix("stop-")) for name in NAMED if name.startswith("stop-")}
        once = {code for code in rules.STOP_CODES if code < refusing.REFUSED}
        assert stops == {*refusing.STOP_STATUSES, *once, *refusing.STOP_REFUSALS}
        assert set(refusing.STOP_REFUSALS) < set(rules.STOP_CODES)
        assert set(refusing.STOP_STATUSES) < set(rules.STOP_STATUSES)

    def test_the_page_names_the_variables(self) -> None:
        page = (ROOT / "docs" / "clients" / "rules.md").read_text()
        assert all(f"`{name}`" in page for name in VARIABLES)
