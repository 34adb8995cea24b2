"""A queue as it lies in Redis, in a form that can be compared with another queue's; and what "equal" means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import redis

T = TypeVar("T")

# Each key that matches, its type and what it holds: in one call, for hundreds of them take Python long.
_READ: Final = """
local readers = {
  hash = {'HGETALL'}, list = {'LRANGE', 0, -1}, set = {'SMEMBERS'}, stream = {'XRANGE', '-', '+'}, string = {'GET'},
  zset = {'ZRANGE', 0, -1, 'WITHSCORES'},
}
local found, cursor = {}, '0'
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local kind = redis.call('TYPE', key).ok
    local reader = readers[kind]
    if reader then
      found[key] = {key, kind, redis.call(reader[1], key, unpack(reader, 2))}
    end
  end
until cursor == '0'
local all = {}
for _, entry in pairs(found) do
  all[#all + 1] = entry
end
return all
"""

# Fields of jobs and events that hold JSON.
_JSON_FIELDS: Final = ("data", "opts", "parent", "progress", "returnvalue", "stacktrace")
_TIME: Final = re.compile(r"\d{10,}(\.\d+)?")
_LEAST_TIME: Final = 1_000_000_000  # ms: times, and what is left until a date; smaller numbers are neither
_SCORE_SHIFT: Final = 0x1000  # a delayed job's score is its time, times this, plus a counter
TOLERANCE: Final = 5_000  # ms between a thing done on one queue and on the other
_DUE: Final = re.compile(r"\d{13}")  # when it is due, in the id of a scheduler's job
_SCHEDULED_KEY: Final = re.compile(r"(?P<scheduler>repeat:.*):(?P<due>\d{13})(?P<part>(:[a-z]+)?)")
_FROM_NOW: Final = ("delay", "offset")  # of a scheduler and its jobs: they depend on the moment of the call
_SCHEDULED: Final = frozenset(("repeat", "repeatJobKey", "rjk", "every", "ic"))


def keyspace(store: redis.Redis, queue: str) -> dict[str, Any]:
    """Everything that Redis holds of a queue, by the key's last part; the queue's name is replaced by `QUEUE`.

    Queues of other prefixes, and those whose names begin with this one's and a dash, count as parts of it.
    """
    base = f"bull:{queue}:"
    stored: Any = store.eval(_READ, 0, f"*:{queue}[-:]*")
    stored.sort()
    names = _numbered([key.removeprefix(base) for key, _, _ in stored])
    found = {name: _shown(name, kind, value) for name, (_, kind, value) in zip(names, stored, strict=True)}
    return renamed(found, queue, "QUEUE")


def _numbered(names: list[str]) -> list[str]:
    """The keys of a scheduler's jobs with `#1`, `#2`, … in place of the times when they are due."""
    due: dict[str, list[str]] = {}
    found = [_SCHEDULED_KEY.fullmatch(name) for name in names]
    for match in filter(None, found):
        times = due.setdefault(match["scheduler"], [])
        if match["due"] not in times:
            times.append(match["due"])  # keys are sorted
    return [
        f"{match['scheduler']}:#{due[match['scheduler']].index(match['due']) + 1}{match['part']}" if match else name
        for name, match in zip(names, found, strict=True)
    ]


def renamed(value: T, old: str, new: str) -> T:
    """A JSON value with one text replaced by another, in all its strings."""
    text = json.dumps(value, ensure_ascii=False)
    if old not in text:
        return value
    result: T = json.loads(text.replace(old, new))
    return result


def _shown(name: str, kind: str, value: Any) -> Any:
    match kind:
        case "hash":
            return _fields(value)
        case "set":
            return sorted(value)
        case "zset":
            return _members(name.rpartition(":")[2], _pairs(value))
        case "stream":
            return [_fields(entry) for _, entry in value]
        case _:
            return value


def _pairs(flat: list[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _fields(flat: list[str]) -> dict[str, Any]:
    return {field: _field(field, text) for field, text in _pairs(flat)}


def _members(name: str, members: Iterator[tuple[str, str]]) -> list[list[Any]]:
    if name in ("waiting-children", "completed", "failed"):  # jobs of one millisecond are in the order of their names
        return sorted([member, float(score)] for member, score in members)
    if name == "delayed":
        return [[member, float(score) // _SCORE_SHIFT] for member, score in members]
    return [[member, float(score)] for member, score in members]


def _field(field: str, text: str) -> Any:
    if field not in _JSON_FIELDS:
        return text
    try:
        return {"json": json.loads(text)}
    except ValueError:
        return text


def differences(node: Any, ours: Any, place: str = "") -> list[str]:
    """Where two JSON values differ. Numbers are one kind, key order is free, times may be some seconds apart."""
    if repr(node) == repr(ours):  # as most are, and finding that in each member takes a hundred times as long
        return []
    if isinstance(node, dict) and isinstance(ours, dict):
        found = []
        scheduled = not _SCHEDULED.isdisjoint(node)
        for key in sorted(node.keys() | ours.keys()):
            where = f"{place}.{key}"
            if key not in node or key not in ours:
                found.append(f"{where}: Node {_text(node, key)}, we {_text(ours, key)}")
            elif not (scheduled and key in _FROM_NOW and _are_near(node[key], ours[key])):
                found.extend(differences(node[key], ours[key], where))
        return found
    if isinstance(node, list) and isinstance(ours, list):
        found = [] if len(node) == len(ours) else [f"{place}: Node has {len(node)} items, we {len(ours)}"]
        pairs = enumerate(zip(node, ours, strict=False))
        return found + [line for index, pair in pairs for line in differences(*pair, f"{place}[{index}]")]
    if _equal(node, ours):
        return []
    return [f"{place or '.'}: Node {json.dumps(node, ensure_ascii=False)}, we {json.dumps(ours, ensure_ascii=False)}"]


def _text(members: dict[str, Any], key: str) -> str:
    return json.dumps(members[key], ensure_ascii=False) if key in members else "has none"


def _equal(node: Any, ours: Any) -> bool:
    if isinstance(node, bool) or isinstance(ours, bool):
        return node is ours
    if node == ours:
        return True
    if isinstance(node, str) and isinstance(ours, str) and _DUE.sub("", node) == _DUE.sub("", ours):
        pairs = zip(_DUE.findall(node), _DUE.findall(ours), strict=False)
        return all(abs(int(one) - int(other)) <= TOLERANCE for one, other in pairs)
    times = [_time(node), _time(ours)]
    return times[0] is not None and times[1] is not None and abs(times[0] - times[1]) <= TOLERANCE


def _are_near(node: Any, ours: Any) -> bool:
    try:
        return min(float(node), float(ours)) > 0 and abs(float(node) - float(ours)) <= TOLERANCE
    except (TypeError, ValueError):
        return False


def _time(value: Any) -> float | None:
    """A time in milliseconds, whether a number or, as in hashes and streams, a text."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        value = float(value)
    return float(value) if isinstance(value, int | float) and value >= _LEAST_TIME else None
