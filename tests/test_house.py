"""House rules that a test can keep: which room may import which, and what every file must have."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMESPACE = "bullmq_proxy."

# Who may import whom, from the ground up; a room may always import itself. docs/architecture.md draws this.
_GROUND = {
    "gateway.access.grants",
    "gateway.errors",
    "gateway.log_events",
    "gateway.rules",
    "gateway.values",
    "gateway.wire",
}
_JOBS = {"gateway.broker.jobs", "gateway.broker.redis"}
ROOMS: dict[str, set[str]] = {
    "gateway.redis_url": set(),
    "gateway.value_types": {"gateway.redis_url"},
    "gateway.exits": set(),
    "gateway.logs": set(),
    "gateway.log_events": set(),
    "gateway.cores": set(),
    "gateway.settings": {"gateway.cores", "gateway.value_types"},
    "gateway.errors": set(),
    "gateway.shared_memory": set(),
    "gateway.memory": set(),
    "gateway.flushing": set(),
    "gateway.turns": {"gateway.flushing"},
    "gateway.access.grants": {"gateway.errors"},
    "gateway.values": {"gateway.errors"},
    "gateway.rules": {"gateway.access.grants", "gateway.errors", "gateway.values"},
    "gateway.wire": {"gateway.access.grants", "gateway.errors", "gateway.rules", "gateway.values"},
    "gateway.access": {"gateway.access.grants", "gateway.shared_memory", "gateway.value_types", *_GROUND},
    "gateway.broker.redis": {
        "gateway.errors",
        "gateway.flushing",
        "gateway.log_events",
        "gateway.redis_url",
        "gateway.values",
    },
    "gateway.broker.jobs": {"gateway", "gateway.access.grants", "gateway.broker.redis", "gateway.turns", *_GROUND},
    "gateway.broker.tasks": set(),
    "gateway.broker.consuming": {"gateway.broker.tasks", "gateway.turns", *_JOBS, *_GROUND},
    "gateway.broker.watching": {*_JOBS, *_GROUND},
    "gateway.broker": {"gateway.broker.tasks", "gateway.broker.consuming", "gateway.broker.watching", *_JOBS, *_GROUND},
    "gateway.broker.functions": {
        "gateway.access.grants",
        "gateway.broker",
        "gateway.broker.consuming",
        "gateway.turns",
        *_JOBS,
        *_GROUND,
    },
    "gateway.sessions.interfaces": {"gateway.errors", "gateway.wire"},
    "gateway.sessions.budget": {"gateway.turns"},
    "gateway.sessions": {
        "gateway.broker",
        "gateway.broker.consuming",
        "gateway.broker.functions",
        "gateway.broker.watching",
        "gateway.sessions.budget",
        "gateway.sessions.interfaces",
        "gateway.turns",
        *_JOBS,
        *_GROUND,
    },
    "gateway.ancestor": {
        "gateway.broker.functions",
        "gateway.sessions",
        "gateway.sessions.interfaces",
        *_JOBS,
        *_GROUND,
    },
    "gateway.webhooks": {
        "gateway",
        "gateway.broker",
        "gateway.broker.consuming",
        "gateway.broker.functions",
        "gateway.broker.tasks",
        "gateway.sessions",
        "gateway.sessions.interfaces",
        *_JOBS,
        *_GROUND,
    },
    "gateway.schema": {
        "gateway",
        "gateway.access.grants",
        "gateway.broker.functions",
        "gateway.conformance.rules",
        "gateway.metrics_table",
        "gateway.queue_metrics",
        "gateway.settings",
        "gateway.webhooks",
        *_GROUND,
    },
    "gateway.loads": {"gateway.shared_memory"},
    "gateway.net": {
        "gateway",
        "gateway.access",
        "gateway.access.grants",
        "gateway.flushing",
        "gateway.loads",
        "gateway.sessions.budget",
        "gateway.sessions.interfaces",
        "gateway.turns",
        "gateway.value_types",
        *_GROUND,
    },
    "gateway.client": set(),  # speaks the protocol alone
    "gateway.conformance.rules": set(),
    "gateway.conformance": {"gateway.conformance.rules"},  # plays the protocol alone
    "gateway.history": {"gateway.broker.jobs", "gateway.shared_memory", *_GROUND},
    "gateway.queue_metrics": _GROUND,
    "gateway.metrics_table": {
        "gateway.broker",
        "gateway.broker.functions",
        "gateway.net",
        *_GROUND,
    },
    "gateway.metrics": {
        "gateway",
        "gateway.broker",
        "gateway.history",
        "gateway.log_events",
        "gateway.net",
        "gateway.shared_memory",
        "gateway.metrics_table",
    },
    "gateway.tracing.extra": set(),
    "gateway.tracing": {
        "gateway",
        "gateway.ancestor",
        "gateway.broker.consuming",
        "gateway.broker.functions",
        "gateway.sessions.interfaces",
        "gateway.tracing.extra",
        *_JOBS,
        *_GROUND,
    },
    "gateway.configured": {
        "gateway.access",
        "gateway.broker.redis",
        "gateway.net",
        "gateway.settings",
        "gateway.shared_memory",
        "gateway.tracing",
        "gateway.tracing.extra",
        *_GROUND,
    },
    "gateway.app": {
        "gateway",
        "gateway.access",
        "gateway.access.grants",
        "gateway.ancestor",
        "gateway.broker",
        "gateway.broker.consuming",
        "gateway.broker.functions",
        "gateway.configured",
        "gateway.metrics",
        "gateway.net",
        "gateway.queue_metrics",
        "gateway.redis_url",
        "gateway.sessions",
        "gateway.sessions.budget",
        "gateway.sessions.interfaces",
        "gateway.settings",
        "gateway.shared_memory",
        "gateway.webhooks",
        *_JOBS,
        *_GROUND,
    },
    "gateway.checkup": {"gateway.configured", "gateway.broker.redis", "gateway.errors", "gateway.settings"},
    "gateway.shard": {
        "gateway.access",
        "gateway.app",
        "gateway.broker",
        "gateway.broker.consuming",
        "gateway.broker.redis",
        "gateway.errors",
        "gateway.exits",
        "gateway.loads",
        "gateway.memory",
        "gateway.net",
        "gateway.settings",
        "gateway.shared_memory",
        "gateway.start_message",
        "gateway.tracing.extra",
        "gateway.wire",
    },
    "gateway.start_message": {"gateway", "gateway.access", "gateway.settings"},
    "gateway.shard_process": {
        "gateway.exits",
        "gateway.logs",
        "gateway.memory",
        "gateway.shard",
        "gateway.shared_memory",
        "gateway.start_message",
    },
    "gateway.embed": {
        "gateway.access",
        "gateway.app",
        "gateway.broker",
        "gateway.broker.consuming",
        "gateway.broker.redis",
        "gateway.settings",
        "gateway.wire",
    },
    "gateway": set(),  # names what is in others, and imports these only when asked for it
    "supervisor": {
        "gateway",
        "gateway.access",
        "gateway.cores",
        "gateway.exits",
        "gateway.loads",
        "gateway.log_events",
        "gateway.logs",
        "gateway.settings",
        "gateway.shared_memory",
        "gateway.start_message",
        "gateway.tracing.extra",
        "gateway.value_types",
    },
}
# What a command imports only when it runs, and what a lazy name leads to.
LATE = {
    ("supervisor", "gateway.checkup"),
    ("supervisor", "gateway.conformance"),
    ("supervisor", "gateway.schema"),
    ("supervisor", "gateway"),
    ("gateway", "gateway.embed"),
    ("gateway", "gateway.errors"),
}
# Third parties that belong into certain rooms only.
AT_HOME = {
    "websockets": {"gateway.access", "gateway.client", "gateway.conformance", "gateway.net", "gateway.app"},
    "redis": {"gateway.broker.redis", "gateway.embed"},
    "bullmq": {"gateway.broker.redis"},
    "httptools": {"gateway.net", "gateway.webhooks"},
    "hiredis": {"gateway.broker.jobs", "gateway.broker.redis"},
    "uvloop": {"gateway.shard"},
    "click": {"supervisor"},
    "jwt": {"gateway.access"},
    "opentelemetry": {"gateway.tracing"},
}
LONGEST_FILE = 450
MADE = "Made from the code by `make docs`."
"""Stands in files that nobody reads as a whole."""


def sources() -> list[Path]:
    return sorted(path for room in ("gateway", "supervisor") for path in (ROOT / room).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in sources() if path.stem != "__init__"}


def room_of(module: str) -> str | None:
    """The room that a module lives in."""
    while module not in ROOMS:
        module = module.rpartition(".")[0]
        if not module:
            return None
    return module


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix(NAMESPACE) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = f"{node.module}.".removeprefix(NAMESPACE).rstrip(".")
            names = [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            yield from (name if name in MODULES else module for name in names)


@cache
def imports() -> list[tuple[str, str, str]]:
    """Every import: of which module, the room that this lives in, and what is imported."""
    found = []
    for path in sources():
        module = module_of(path)
        here = room_of(module)
        assert here is not None, f"{module} is in no room"
        found += [(module, here, name) for name in imports_of(path)]
    return found


def test_a_room_imports_only_rooms_below_it() -> None:
    wrong = []
    for module, here, name in imports():
        there = room_of(name)
        if there is not None and there not in ROOMS[here] | {here} and (here, there) not in LATE:
            wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_there_is_a_floor_plan() -> None:
    graphlib.TopologicalSorter(ROOMS).prepare()  # raises on a cycle


def test_third_parties_stay_in_their_rooms() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, here, name in imports()
        if here not in AT_HOME.get(name.partition(".")[0], {here})
    ]
    assert wrong == []


def test_wire_rules_and_values_do_no_io() -> None:
    pure, forbidden = {"wire", "rules", "values"}, {"asyncio", "socket", "os", "threading"}
    wrong = [f"{module} imports {name}" for module, _, name in imports() if _is_in(module, pure) and name in forbidden]
    assert wrong == []


def _is_in(module: str, rooms: set[str]) -> bool:
    return not rooms.isdisjoint(module.split("."))


def test_a_file_says_what_lives_in_it_and_fits_in_the_head() -> None:
    texts = {module_of(path): path.read_text() for path in sources()}
    assert [module_of(path) for path in sources() if not ast.get_docstring(tree_of(path))] == []
    written = {module: text.count("\n") for module, text in texts.items() if MADE not in text}
    assert {module: lines for module, lines in written.items() if lines > LONGEST_FILE} == {}


def test_what_no_case_names_is_refused() -> None:
    wrong = [
        f"{module_of(path)}:{node.pattern.lineno}: use assert_never, or raise"
        for path in sources()
        for node in nodes_of(path)
        if isinstance(node, ast.match_case) and _takes_all(node.pattern) and not _refuses(node.body[-1])
    ]
    assert wrong == []


def _takes_all(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def _refuses(last: ast.stmt) -> bool:
    call = last.value if isinstance(last, ast.Expr) else None
    return isinstance(last, ast.Raise) or (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "assert_never"
    )


# A docstring of a function names what the function does to what; these begin a riddle, or a noun.
NO_VERBS = (
    "A An All As Each For How If In It Its No Nobody Nothing Of On One Our Some Somebody That The These They This Those"
    " What When Where Whether Which Who Why"
)


def test_a_docstring_of_a_function_begins_with_a_verb() -> None:
    wrong = []
    for path in sources():
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
                text = ast.get_docstring(node) or ""
                if text.split(" ", 1)[0].rstrip(",:") in NO_VERBS.split() or text.startswith("`"):
                    wrong.append(f"{module_of(path)}:{node.lineno}: {text[:60]}")
    assert wrong == []


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(each) for each in node.decorator_list)
