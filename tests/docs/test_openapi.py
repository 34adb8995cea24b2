"""The OpenAPI document: its schemas are valid, its references lead somewhere, its examples are what they say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import jsonschema_rs
import yaml

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.broker.functions.flows import FLOWS
from bullmq_proxy.gateway.errors import ErrorCode
from bullmq_proxy.gateway.schema import openapi_document, openapi_yaml
from tests.sessions.peer import Gateway
from tests.sessions.test_examples import prepare
from tests.support.valkey import ValkeyProcess

DOCUMENT = openapi_document()
OPERATIONS = [
    (path, method, operation) for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
]


def inner(value: Any, name: str) -> Iterator[Any]:
    """Every member of that name, however deep."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in members:
        if key == name:
            yield each
        yield from inner(each, name)


def schemas() -> Iterator[dict[str, Any]]:
    yield from DOCUMENT["components"]["schemas"].values()
    yield from (each["schema"] for content in inner(DOCUMENT, "content") for each in content.values())


def test_the_yaml_says_what_the_document_says() -> None:
    assert yaml.load(openapi_yaml(), yaml.CSafeLoader) == DOCUMENT


def test_every_schema_is_one_of_draft_2020_12() -> None:
    for schema in schemas():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_every_reference_leads_somewhere() -> None:
    for reference in inner(DOCUMENT, "$ref"):
        found: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_every_example_of_arguments_fits_its_schema() -> None:
    for content in inner(DOCUMENT["paths"], "content"):
        for each in content.values():
            if "example" in each:
                schema = {**each["schema"], "components": DOCUMENT["components"]}
                jsonschema_rs.Draft202012Validator(schema).validate(each["example"])


def test_each_operation_has_a_name_of_its_own_and_the_parameters_of_its_path() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    for path, _, operation in OPERATIONS:
        known = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
        assert known == re.findall(r"\{(\w+)\}", path)


def test_every_error_code_stands_beside_its_status() -> None:
    shown = "".join(response["description"] for response in DOCUMENT["components"]["responses"].values())
    assert all(f"{code.http_status.value} `{code.value}`" in shown for code in ErrorCode)


def test_every_function_is_there_and_by_get_if_it_does_not_write() -> None:
    for start, table in ("/queue/{queue}", TABLE), ("/flows", FLOWS):
        for function in table:
            methods = set(DOCUMENT["paths"][f"{start}/{function.name}"])
            assert methods == ({"post"} if function.writes else {"post", "get"})


def test_it_is_a_document_of_oas_3_1() -> None:
    import_module("tests.docs.openapi_calls").validate()


async def test_every_operation_answers_as_it_says(valkey: ValkeyProcess, prefix: str) -> None:
    async with Gateway(valkey.url, prefix=prefix, bad_messages_per_second=1_000_000) as gateway:
        await prepare(await gateway.queue("mails"), await gateway.connect("/flows"), "mails")
        call_all = import_module("tests.docs.openapi_calls").call_all
        statuses = await asyncio.to_thread(call_all, f"http://127.0.0.1:{gateway.port}")
    assert {200, 400, 404} <= statuses
