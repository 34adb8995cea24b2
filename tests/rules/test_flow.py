"""Flows as pure data: what is checked, in which order jobs are laid out, how results are written."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.flow import MAX_DEPTH, Added, FlowJob, FlowNode, added_flow, parse_child_key, plan
from bullmq_proxy.gateway.rules.options import JobOptions

Node = dict[str, Any]
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def node(name: str, *children: Node, **opts: Any) -> Node:
    return {"name": name, "queueName": "q", "opts": opts, "children": list(children)}


def planned(*trees: Node, defaults: dict[str, Any] | None = None, max_queue_name: int = 100) -> list[FlowJob]:
    roots = msgspec.json.decode(json.dumps(trees), type=list[FlowNode])
    options = {name: msgspec.convert(value, JobOptions) for name, value in (defaults or {}).items()}
    places = [(root, f"args[0][{index}]") for index, root in enumerate(roots)]
    return plan(places, prefix="bull", max_queue_name=max_queue_name, defaults=options)


def refusal(*trees: Node, **more: Any) -> str:
    with pytest.raises(GatewayError) as refused:
        planned(*trees, **more)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENTS
    return refused.value.message


def shown(root: FlowJob, outcome: dict[FlowJob, Added]) -> Any:
    return json.loads(b"".join(map(bytes, added_flow(root, outcome))))


class TestOrder:
    def test_it_is_level_by_level_parents_first(self) -> None:
        jobs = planned(
            node("a", node("a1", node("a11")), node("a2", node("a21"))),
            node("b"),
            node("c", node("c1", node("c11", node("c111")))),
        )
        names = [job.node.name for job in jobs]
        assert names == ["a", "b", "c", "a1", "a2", "c1", "a11", "a21", "c11", "c111"]

    def test_places_lead_back_to_the_nodes(self) -> None:
        jobs = planned(node("a"), node("b", node("c"), node("d", node("e"))))
        assert {job.node.name: job.place for job in jobs} == {
            "a": "args[0][0]",
            "b": "args[0][1]",
            "c": "args[0][1].children[0]",
            "d": "args[0][1].children[1]",
            "e": "args[0][1].children[1].children[0]",
        }


class TestJobs:
    def test_ids_are_the_client_s_or_new(self) -> None:
        own, new, empty = planned(node("a", jobId="mine"), node("b"), node("c", jobId=""))
        assert (own.id, own.is_own_id) == ("mine", True)
        for job in (new, empty):
            assert UUID.fullmatch(job.id)
            assert not job.is_own_id
        assert new.id != empty.id

    def test_children_have_their_parent_in_place_of_what_they_say(self) -> None:
        _, child = planned(node("a", node("b", parent={"id": "x", "queue": "y"}, failParentOnFailure=True), jobId="a"))
        assert child.options.parent_key == "bull:q:a"
        assert child.options.parent == {"id": "a", "queueKey": "bull:q", "fpof": True}

    def test_a_root_has_the_parent_that_it_names(self) -> None:
        [root] = planned(node("a", parent={"id": "x", "queue": "bull:y"}))
        assert root.options.parent_key == "bull:y:x"

    def test_a_node_can_have_a_prefix_of_its_own_and_its_children_have_not(self) -> None:
        root, child = planned({**node("a", node("b"), jobId="a"), "prefix": "x:y"})
        assert (root.key, child.qualified) == ("x:y:q:a", "bull:q")
        assert child.options.parent_key == "x:y:q:a"

    def test_defaults_are_for_what_is_left_out(self) -> None:
        defaults = {
            "q": {"attempts": 3, "delay": 5, "telemetry": {"metadata": "m"}, "jobId": "x"},
            "other": {"delay": 9},
        }
        [job] = planned(node("a", delay=7), defaults=defaults)
        assert json.loads(job.options.shown) == {"attempts": 3, "delay": 7, "jobId": "x"}
        assert UUID.fullmatch(job.id)

    def test_the_time_is_now_or_as_told(self) -> None:
        now, told = planned(node("a"), node("b", timestamp=5))
        assert now.timestamp > 1_700_000_000_000
        assert told.timestamp == 5


class TestChecks:
    def test_of_several_errors_the_first_in_node_s_order_is_told(self) -> None:
        ours = "Expected an object or null, got a whole number - at `args[0][0].children[0].opts`"
        twofold = {**node("b"), "opts": 5}
        assert refusal(node("a", twofold, jobId="1")) == ours
        no_deduplication = "Deduplication options cannot be used on flow nodes with children"
        assert refusal(node("1", jobId="1"), node("a", node("b"), deduplication={"id": "x"})) == no_deduplication
        assert refusal(node("a", node("b"), priority=0.5, deduplication={"id": ""})) == no_deduplication
        assert refusal(node("a", node("b", priority=0.5)), node("c", jobId="1")) == "Custom Id cannot be integers"

    @pytest.mark.parametrize("value", [False, 0, ""])
    def test_a_deduplication_that_is_nothing_is_left_to_the_later_checks(self, value: Any) -> None:
        assert "at `args[0][0].opts.deduplication`" in refusal(node("a", node("b"), deduplication=value))

    def test_no_node_with_a_parent_keeps_the_last(self) -> None:
        keep = {"id": "x", "keepLastIfActive": True}
        message = "keepLastIfActive deduplication cannot be used on flow nodes with a parent"
        assert refusal(node("a", node("b", deduplication=keep))) == message
        assert (
            refusal(node("a", node("b")), defaults={"q": {"deduplication": keep}}) != message
        )  # the root's comes first
        assert "at `args[0][0].children[0].opts.deduplication`" in refusal(node("a", node("b", deduplication=5)))
        assert planned(node("a", deduplication=keep))[0].options.deduplication_id == "x"

    def test_half_a_character_is_refused_wherever_it_stands(self) -> None:
        for text in (
            r'{"name":"\ud800","queueName":"q"}',
            r'{"name":"a","queueName":"q","opts":{"jobId":"\ud800"}}',
            r'{"name":"a","queueName":"q","children":[{"name":"b","queueName":"q","opts":{"deduplication":{"id":"\ud800"}}}]}',
            r'{"name":"a","queueName":"q","opts":{"\ud800":1}}',
        ):
            with pytest.raises((GatewayError, msgspec.DecodeError)):
                plan([(msgspec.json.decode(text, type=FlowNode), "args[0]")], prefix="bull", max_queue_name=100)

    def test_the_limits_are_the_settings(self) -> None:
        assert refusal(node("a"), max_queue_name=0).endswith(", 0 are allowed - at `args[0][0].queueName`")

    @pytest.mark.parametrize("above", [1, 2, 5])
    def test_no_job_waits_for_itself(self, above: int) -> None:
        tree = node("last", jobId="same")
        for n in range(above - 1):
            tree = node("middle", tree, jobId=f"m{n}")
        place = "args[0][0]" + ".children[0]" * above
        assert refusal(node("a", tree, jobId="same")) == f"A job cannot wait for itself - at `{place}.opts.jobId`"

    @given(st.integers(MAX_DEPTH - 2, MAX_DEPTH + 3))
    def test_depth_is_bounded(self, levels: int) -> None:
        tree = node("last")
        for _ in range(levels - 1):
            tree = node("a", tree)
        if levels <= MAX_DEPTH:
            assert len(planned(tree)) == levels
        else:
            assert refusal(tree).startswith(f"A flow can have {MAX_DEPTH} levels - at `args[0][0].children[0]")


trees = st.recursive(
    st.builds(node, st.text(max_size=3)),
    lambda below: st.builds(node, st.text(max_size=3), below, below),
    max_leaves=20,
)


class TestResults:
    @given(trees)
    def test_the_tree_has_the_form_of_the_flow(self, tree: Node) -> None:
        jobs = planned(tree)
        result = shown(jobs[0], {job: Added(job.id) for job in jobs})

        def same(node: Node, flow: Node) -> None:
            assert flow["job"]["name"] == node["name"]
            assert "err" not in flow
            assert len(flow.get("children", [])) == len(node["children"])
            assert ("children" in flow) is bool(node["children"])
            for pair in zip(node["children"], flow.get("children", []), strict=True):
                same(*pair)

        same(tree, result)

    def test_what_happened_is_told_beside_the_job(self) -> None:
        root, first, second = planned(node("a", node("b"), node("c")))
        error = GatewayError(ErrorCode.CONFLICT, "no")
        outcome = {root: Added("r"), first: Added("f", duplicate=True), second: Added("s", error=error)}
        result = shown(root, outcome)
        assert result["job"]["id"] == "r"
        assert result["children"][0]["job"]["duplicate"] is True
        assert result["children"][1]["err"] == {"message": "no", "code": "CONFLICT"}


class TestChildKeys:
    @pytest.mark.parametrize(
        ("key", "parts"),
        [
            ("bull:q:1", ("bull", "q", "1")),
            ("my:own:prefix:q:1", ("my:own:prefix", "q", "1")),
            ("a::", ("a", "", "")),
            ("a:b", ("a", "b", "")),
            ("a", ("a", "", "")),
            ("", ("", "", "")),
        ],
    )
    def test_they_are_split_at_the_last_two_colons(self, key: str, parts: tuple[str, str, str]) -> None:
        assert parse_child_key(key) == parts
