"""Job options: Node's checks in Node's words and order, and the packed form that BullMQ's scripts store."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from bullmq.job import Job
from bullmq.scripts import Scripts
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.options import PRIORITY_LIMIT, OptionsCache, Prepared
from tests.wire.strategies import damaged, json_texts

ONE_OF_EACH: dict[str, Any] = {
    "jobId": "mine",
    "priority": 3,
    "delay": 5000,
    "attempts": 4,
    "backoff": {"type": "exponential", "delay": 1000, "jitter": 0.5},
    "lifo": True,
    "removeOnComplete": {"age": 3600, "count": 100, "limit": 10},
    "removeOnFail": 50,
    "keepLogs": 7,
    "stackTraceLimit": 10,
    "sizeLimit": 1000,
    "timestamp": 1700000000000,
    "parent": {"id": "1", "queue": "bull:parents"},
    "failParentOnFailure": True,
}


def prepare(options: Any, place: str = "args[2]") -> Prepared:
    text = options if isinstance(options, str) else json.dumps(options)
    return OptionsCache().prepare(Raw(text.encode()), place)


def refusal(options: Any, place: str = "args[2]") -> str:
    with pytest.raises(GatewayError) as refused:
        prepare(options, place)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENTS
    return refused.value.message


# Options that break one rule of Node's `Queue.add` or `Job.validateOptions`, and its words; in the order of its checks.
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"jobId": "0"}, "JobId cannot be '0' or start with '0:'"),
    ({"jobId": "0:1:2"}, "JobId cannot be '0' or start with '0:'"),
    (
        {
            "ignoreDependencyOnFailure": True,
            "continueParentOnFailure": True,
            "failParentOnFailure": True,
            "removeDependencyOnFailure": True,
        },
        "The following options cannot be used together: removeDependencyOnFailure, failParentOnFailure,"
        " continueParentOnFailure, ignoreDependencyOnFailure",
    ),
    (
        {"ignoreDependencyOnFailure": True, "failParentOnFailure": True},
        "The following options cannot be used together: failParentOnFailure, ignoreDependencyOnFailure",
    ),
    ({"jobId": "12"}, "Custom Id cannot be integers"),
    ({"jobId": "-5"}, "Custom Id cannot be integers"),
    ({"jobId": "a:b"}, "Custom Id cannot contain :"),
    ({"jobId": "a:b:c:d"}, "Custom Id cannot contain :"),
    ({"priority": 1.5}, "Priority should not be float"),
    ({"priority": PRIORITY_LIMIT + 1}, "Priority should be between 0 and 2097151"),
    ({"deduplication": {}}, "Deduplication id must be provided"),
    ({"deduplication": {"id": ""}}, "Deduplication id must be provided"),
    (
        {"deduplication": {"id": "d"}, "parent": {"id": "1", "queue": "bull:q"}},
        "Deduplication and parent options cannot be used together",
    ),
    ({"debounce": {"id": "d"}}, "Debounce option has been removed. Use deduplication option instead"),
    ({"backoff": {"type": "fixed", "jitter": 1.5}}, "Jitter should be between 0 and 1"),
    ({"backoff": {"type": "fixed", "jitter": -0.1}}, "Jitter should be between 0 and 1"),
]


class TestNodesRules:
    @pytest.mark.parametrize(("options", "message"), BROKEN)
    def test_each_is_refused_in_node_s_words(self, options: dict[str, Any], message: str) -> None:
        assert refusal(options) == message

    @pytest.mark.parametrize(
        ("first", "second", "message"),
        [(one, other, text) for (one, text), (other, _) in pairwise(BROKEN) if not one.keys() & other.keys()],
    )
    def test_of_two_broken_rules_the_one_that_node_checks_first_is_said(
        self, first: dict[str, Any], second: dict[str, Any], message: str
    ) -> None:
        assert refusal({**second, **first}) == message

    @pytest.mark.parametrize(
        "id", ["", "a", "01", "1e3", "-0", "+1", "1.0", "a:b:c", "00", "0a", "٣", " 1", "--1", "-"]
    )
    def test_an_id_that_node_takes_is_taken(self, id: str) -> None:
        assert prepare({"jobId": id}).job_id == id

    @pytest.mark.parametrize(("priority", "kept"), [(0, 0), (1, 1), (3.0, 3), (PRIORITY_LIMIT, PRIORITY_LIMIT)])
    def test_a_priority_is_a_whole_number_however_it_is_written(self, priority: float, kept: int) -> None:
        options = prepare({"priority": priority})
        assert options.priority == kept
        assert json.loads(options.shown)["priority"] == kept
        assert b"." not in options.shown

    def test_one_flag_for_the_parent_is_fine(self) -> None:
        flags = {"failParentOnFailure": True, "removeDependencyOnFailure": False}
        assert json.loads(prepare(flags).shown) == {"attempts": 0, **flags}

    @pytest.mark.parametrize("jitter", [0, 0.5, 1])
    def test_a_jitter_from_0_to_1_is_fine(self, jitter: float) -> None:
        assert prepare({"backoff": {"type": "fixed", "jitter": jitter}})

    def test_the_size_of_the_data_is_counted_in_bytes(self) -> None:
        options = prepare({"sizeLimit": 4})
        options.check_size("mail", Raw('"é"'.encode()))
        with pytest.raises(GatewayError) as refused:
            options.check_size("mail", Raw('"éa"'.encode()))
        assert refused.value.message == "The size of job mail exceeds the limit 4 bytes"
        prepare({"sizeLimit": 0}).check_size("mail", Raw(b'"no limit at all"'))


class TestOurRules:
    """What TypeScript leaves to the compiler is checked here, with the place."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"delay": -1}, "Expected a whole number >= 0 - at `args[2].delay`"),
            ({"delay": 1.5}, "Expected a whole number, got a number that is not whole - at `args[2].delay`"),
            ({"delay": "1"}, "Expected a whole number, got a string - at `args[2].delay`"),
            ({"delay": 2**53}, "Expected a whole number <= 9007199254740991 - at `args[2].delay`"),
            ({"attempts": 2**64}, "Expected a whole number <= 9007199254740991 - at `args[2].attempts`"),
            (
                {"removeOnComplete": 10**30},
                "Expected a whole number <= 9007199254740991 - at `args[2].removeOnComplete`",
            ),
            ({"removeOnFail": {"age": -1}}, "Expected a whole number >= 0 - at `args[2].removeOnFail.age`"),
            (
                {"removeOnFail": {"count": 10**30}},
                "Expected a whole number <= 9007199254740991 - at `args[2].removeOnFail.count`",
            ),
            ({"jobId": 12}, "Expected a string, got a whole number - at `args[2].jobId`"),
            ({"priority": "1"}, "Expected a number, got a string - at `args[2].priority`"),
            ({"parent": {"id": "1"}}, "Object missing required field `queue` - at `args[2].parent`"),
            ({"backoff": {"delay": 1}}, "Object missing required field `type` - at `args[2].backoff`"),
            (
                {"backoff": {"type": "fixed", "delai": 1}},
                "Unknown option `delai`, did you mean `delay`? - at `args[2].backoff`",
            ),
            ({"prioirty": 1}, "Unknown option `prioirty`, did you mean `priority`? - at `args[2]`"),
            ({"zzz": 1}, "Unknown option `zzz` - at `args[2]`"),
            (
                {"repeat": {}},
                "Unknown option `repeat`: jobs that repeat are set up by `upsertJobScheduler` - at `args[2]`",
            ),
            ({"backoff": None, "attempts": "3"}, "Expected a whole number, got a string - at `args[2].attempts`"),
            ({"backoff": {}}, "Object missing required field `type` - at `args[2].backoff`"),
            ([1], "Expected an object, got an array - at `args[2]`"),
            (7, "Expected an object, got a whole number - at `args[2]`"),
        ],
    )
    def test_the_place_and_the_nearest_name_are_said(self, options: Any, message: str) -> None:
        assert refusal(options) == message

    def test_the_place_is_the_caller_s(self) -> None:
        assert refusal({"delay": -1}, "args[0][3].opts") == "Expected a whole number >= 0 - at `args[0][3].opts.delay`"

    def test_a_long_unknown_name_is_cut(self) -> None:
        assert len(refusal({"x" * 10_000: 1})) < 200
        assert refusal({"a\nb": 1}) == "Unknown option `a\nb` - at `args[2]`"

    def test_deep_nesting_is_refused(self) -> None:
        assert refusal('{"debounce":' + "[" * 100_000 + "]" * 100_000 + "}")

    @given(st.binary(max_size=80) | damaged(st.just(json.dumps(ONE_OF_EACH).encode())) | json_texts())
    def test_nothing_but_a_refusal_is_ever_raised(self, text: bytes) -> None:
        try:
            prepared = OptionsCache().prepare(Raw(text))
        except GatewayError as refused:
            assert refused.code is ErrorCode.INVALID_ARGUMENTS
        else:
            assert json.loads(prepared.shown)["attempts"] >= 0


class TestStoredForm:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            ONE_OF_EACH,
            *({name: value} for name, value in ONE_OF_EACH.items() if name not in ("delay",)),
            {"delay": 1},
            {"backoff": 500},
            {"removeOnComplete": True, "removeOnFail": False},
            {"deduplication": {"id": "d", "ttl": 1000, "extend": True, "replace": True, "keepLastIfActive": False}},
            {"continueParentOnFailure": True, "parent": {"id": "1", "queue": "bull:q"}},
            {"ignoreDependencyOnFailure": True, "parent": {"id": "1", "queue": "bull:q"}},
            {"removeDependencyOnFailure": True, "parent": {"id": "1", "queue": "bull:q"}},
        ],
    )
    def test_it_is_what_the_bullmq_package_packs(self, options: dict[str, Any]) -> None:
        job = Job(SimpleNamespace(backend=None, qualifiedName="bull:q"), "mail", {}, options)
        theirs = Scripts.encodeOpts(None, job.opts)
        if "delay" not in options:
            del theirs["delay"]  # the package stores a 0 that nobody asked for; Node does not
        if theirs["backoff"] is None:
            del theirs["backoff"]  # so does it with null
        ours = prepare(options)
        assert msgspec.msgpack.decode(ours.packed) == theirs
        assert ours.parent_key == job.parentKey
        assert ours.parent == job.parent
        assert ours.deduplication_id == job.deduplication_id

    def test_options_that_only_redis_knows_by_short_names(self) -> None:
        options = {
            "keepLogs": 7,
            "deduplication": {"id": "d"},
            "failParentOnFailure": True,
            "telemetry": {"metadata": "trace", "omitContext": True},
        }
        assert msgspec.msgpack.decode(prepare(options).packed) == {
            "attempts": 0,
            "kl": 7,
            "de": {"id": "d"},
            "fpof": True,
            "tm": "trace",
            "omc": True,
        }
        assert json.loads(prepare(options).shown) == {"attempts": 0, **options}

    @pytest.mark.parametrize("options", ["null", "{}", '{"telemetry":{}}'])
    def test_no_options_are_stored_as_no_attempts(self, options: str) -> None:
        assert msgspec.msgpack.decode(prepare(options).packed) == {"attempts": 0}

    @pytest.mark.parametrize("delay", [0, 5000])
    def test_a_number_as_backoff_is_a_fixed_one(self, delay: int) -> None:
        assert json.loads(prepare({"backoff": delay}).shown)["backoff"] == {"type": "fixed", "delay": delay}

    def test_what_an_add_needs_is_at_hand(self) -> None:
        prepared = prepare(ONE_OF_EACH)
        assert (prepared.job_id, prepared.priority, prepared.delay, prepared.timestamp, prepared.size_limit) == (
            "mine",
            3,
            5000,
            1700000000000,
            1000,
        )
        assert prepared.parent_key == "bull:parents:1"
        assert prepared.parent == {"id": "1", "queueKey": "bull:parents", "fpof": True}

    @pytest.mark.parametrize(
        ("options", "may_be"),
        [({}, False), ({"jobId": ""}, False), ({"jobId": "a"}, True), ({"deduplication": {"id": "d"}}, True)],
    )
    def test_only_an_id_can_meet_a_job_that_is_there(self, options: dict[str, Any], may_be: bool) -> None:
        assert prepare(options).may_be_duplicate is may_be


class TestCache:
    def test_the_same_text_is_prepared_once(self) -> None:
        cache = OptionsCache()
        assert cache.prepare(Raw(b'{"delay":1}')) is cache.prepare(Raw(b'{"delay":1}'))

    def test_long_texts_are_not_kept(self) -> None:
        cache, long = OptionsCache(), Raw(json.dumps({"jobId": "x" * 300}).encode())
        assert cache.prepare(long) is not cache.prepare(long)

    def test_it_does_not_grow_without_end(self) -> None:
        cache = OptionsCache()
        first = cache.prepare(Raw(b"{}"))
        for number in range(3000):
            cache.prepare(Raw(b'{"jobId":"a%d"}' % number))
        assert len(cache._prepared) <= cache._MAX_ENTRIES
        assert cache.prepare(Raw(b"{}")) == first

    def test_what_was_refused_is_refused_again(self) -> None:
        cache = OptionsCache()
        for _ in range(2):
            with pytest.raises(GatewayError):
                cache.prepare(Raw(b'{"priority":1.5}'))
