"""The documents that are made from the code: they are up to date, valid, and their examples are what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.schema import (
    asyncapi_document,
    asyncapi_yaml,
    client_files,
    functions_markdown,
    openapi_yaml,
)
from bullmq_proxy.gateway.schema.page_tables import TABLES, fill, names
from bullmq_proxy.gateway.schema.tables import apis, groups
from bullmq_proxy.gateway.wire.events import EVENTS
from bullmq_proxy.gateway.wire.routes import parse_target, validate
from tests.docs.markdown import FUNCTIONS, PAGES, sections
from tests.support import contract
from tests.support.limits import LIMITS
from tests.support.node import INSTALL_TIMEOUT, answer, find_node
from tests.support.service import ROOT

ASYNCAPI = ROOT / "docs" / "asyncapi.yaml"
OPENAPI = ROOT / "docs" / "openapi.yaml"
VALIDATOR = Path(__file__).with_name("asyncapi")

DOCUMENT = asyncapi_document()
MESSAGES = [(channel, name) for channel, shown in DOCUMENT["channels"].items() for name in shown["messages"]]


def message(channel: str, name: str) -> dict[str, Any]:
    """A message of the document; references are followed."""
    found: dict[str, Any] = DOCUMENT["channels"][channel]["messages"][name]
    return found if "$ref" not in found else at(found["$ref"])


def at(reference: str) -> Any:
    """What a reference leads to."""
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def references(value: Any) -> Iterator[str]:
    """All references within."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


class TestFiles:
    @pytest.mark.parametrize(
        ("path", "made"), [(FUNCTIONS, functions_markdown), (ASYNCAPI, asyncapi_yaml), (OPENAPI, openapi_yaml)]
    )
    def test_it_is_up_to_date(self, path: Path, made: Any) -> None:
        fresh = path.is_file() and path.read_text(encoding="utf-8") == made()
        assert fresh, f"docs/{path.name} is not what the code says: run `make docs`"

    def test_those_of_the_clients_are(self) -> None:
        for path, text in client_files(ROOT).items():
            fresh = (ROOT / path).is_file() and (ROOT / path).read_text(encoding="utf-8") == text
            assert fresh, f"{path} is not what the code says: run `make docs`"

    def test_the_yaml_says_what_the_document_says(self) -> None:
        assert yaml.load(asyncapi_yaml(), yaml.CSafeLoader) == DOCUMENT


class TestTables:
    @pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
    def test_they_are_up_to_date(self, page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        assert fill(text) == text, f"a table in {page.name} is not what the code says: run `make docs`"

    def test_each_is_shown(self) -> None:
        assert {name for page in PAGES for name in names(page.read_text(encoding="utf-8"))} == TABLES.keys()

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no generated table `colours`; known are settings"):
            fill("<!-- generated: colours -->\n<!-- end -->\n")

    def test_the_text_around_a_table_stays(self) -> None:
        page = "before\n<!-- generated: permissions -->\nold\n<!-- end -->\nafter\n"
        filled = fill(page)
        assert filled.startswith("before\n<!-- generated: permissions -->\n| permission |")
        assert filled.endswith("|\n<!-- end -->\nafter\n")
        assert "old" not in filled


class TestFunctionsPage:
    def test_every_function_has_a_row_and_a_section(self) -> None:
        parts = sections(FUNCTIONS)
        titles = [part.title for part in parts]
        codes = {code for part in parts for code in part.codes}
        for api in apis():
            for function in api.table:
                assert function.signature in codes
                assert any(title.split(" ")[0] == function.name for title in titles), function.name

    def test_every_group_has_a_heading(self) -> None:
        titles = {part.title for part in sections(FUNCTIONS)}
        assert {group.title for api in apis() for group in groups(api.table)} <= titles

    def test_no_two_headings_have_one_anchor(self) -> None:
        anchors = [part.anchor for part in sections(FUNCTIONS)]
        assert len(anchors) == len(set(anchors))


class TestAsyncApi:
    @pytest.mark.skipif(find_node() is None, reason="node is missing: AsyncAPI's own parser is not asked")
    @pytest.mark.timeout(INSTALL_TIMEOUT)
    def test_it_is_valid_by_the_parser_of_asyncapi(self) -> None:
        verdict = answer(VALIDATOR / "validate.cjs", VALIDATOR, ASYNCAPI)
        # Version 3.0 is what tools know; that there is a later one is no fault.
        assert [each for each in verdict["found"] if each["code"] != "asyncapi-latest-version"] == []
        assert set(verdict["channels"]) == DOCUMENT["channels"].keys()
        assert set(verdict["operations"]) == DOCUMENT["operations"].keys()

    def test_references_lead_somewhere(self) -> None:
        for reference in references(DOCUMENT):
            at(reference)

    def test_every_function_is_an_operation_with_a_reply(self) -> None:
        for api in apis():
            operations = [
                operation
                for operation in DOCUMENT["operations"].values()
                if operation["channel"]["$ref"] == f"#/channels/{api.name}"
            ]
            assert {operation["title"] for operation in operations} == {function.signature for function in api.table}
            assert all(operation["reply"]["messages"] for operation in operations)

    def test_every_event_is_a_message(self) -> None:
        assert EVENTS | {"gap", "custom"} <= DOCUMENT["channels"]["events"]["messages"].keys()
        assert all(message("events", event)["summary"] for event in EVENTS)

    def test_every_error_code_is_in_the_error(self) -> None:
        code = at("#/components/schemas/ErrorObject/properties/code")
        assert set(code["enum"]) == set(ErrorCode)

    @pytest.mark.parametrize(
        ("channel", "path"),
        [("queue", "/queue/mails"), ("worker", "/queue/mails/process/1"), ("events", "/queue/mails/events")],
    )
    def test_the_options_of_a_connection(self, channel: str, path: str) -> None:
        with pytest.raises(GatewayError) as refused:
            validate(parse_target(f"{path}?nonsense=1"), LIMITS)
        known = refused.value.message.partition("known are ")[2].split(", ")
        assert set(DOCUMENT["channels"][channel]["bindings"]["ws"]["query"]["properties"]) == set(known)


QUERY = DOCUMENT["channels"]["worker"]["bindings"]["ws"]["query"]["properties"]
RANGES = {name: (shown["minimum"], shown["maximum"]) for name, shown in QUERY.items() if "maximum" in shown}


class TestWorkerOptions:
    @pytest.mark.parametrize("name", RANGES)
    def test_the_ends_of_a_range_are_those_of_the_gateway(self, name: str) -> None:
        least, most = RANGES[name]
        for value in (least, most):
            self._check(**{name: value})
        for value in (least - 1, most + 1):
            with pytest.raises(GatewayError):
                self._check(**{name: value})

    @pytest.mark.parametrize("name", [name for name, shown in QUERY.items() if "default" in shown])
    def test_the_default_is_that_of_the_gateway(self, name: str) -> None:
        assert self._check() == self._check(**{name: QUERY[name]["default"]})

    @staticmethod
    def _check(**query: int) -> Any:
        if query.keys() & {"limiter.max", "limiter.duration"}:
            query = {"limiter.max": 1, "limiter.duration": 1, **query}
        shown = "&".join(f"{name}={value}" for name, value in query.items())
        return validate(parse_target(f"/queue/mails/process/1?{shown}"), LIMITS)


class TestExamples:
    def test_they_are_what_their_schema_says(self) -> None:
        for channel, name in MESSAGES:
            examples = message(channel, name)["examples"]
            assert examples, name
            for example in examples:
                contract.check(channel, name, example["payload"])

    @pytest.mark.parametrize("api", apis(), ids=lambda api: api.name)
    def test_their_arguments_are_taken_by_the_functions(self, api: Any) -> None:
        for function in api.table:
            asked = message(api.name, f"{function.name}Request")["examples"][0]["payload"]["data"]
            function.bind(as_text(asked.get("args", [])))

    def test_they_are_of_one_kind_only(self) -> None:
        for operation in DOCUMENT["operations"].values():
            channel = operation["channel"]["$ref"].removeprefix("#/channels/")
            for listed in (operation["messages"], operation.get("reply", {}).get("messages", [])):
                names = [each["$ref"].rpartition("/")[2] for each in listed]
                for name in names:
                    for example in message(channel, name)["examples"]:
                        assert contract.kinds(channel, example["payload"], names) == [name]


def as_text(arguments: list[Any]) -> list[msgspec.Raw]:
    """Arguments as they come from the wire."""
    return [msgspec.Raw(msgspec.json.encode(argument)) for argument in arguments]
