"""Ids that BullMQ's own keys have."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest
from msgspec import Raw

from bullmq_proxy.gateway.broker.functions import TABLE
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.rules.ids import is_reserved
from bullmq_proxy.gateway.rules.options import OptionsCache

OWN_KEYS = (
    "meta",
    "wait",
    "id",
    "events",
    "waiting-children",
    "stalled-check",
    "de:a:b",
    "dn:a:b",
    "metrics:failed:data",
    "repeat:a:b",
    "a:b:failed",
)
NO_JOBS = (*OWN_KEYS, "repeat:nightly", "1:lock", "1:processed")
OTHERS = (
    "metadata",
    "Meta",
    "wait1",
    "waiting-child",
    "a:de:b",
    "repeat:s1:1700000000000",
    "1",
    "ö",
    "events\n",
    "a\nmeta",
)


@pytest.mark.parametrize("id", OWN_KEYS)
def test_no_job_can_have_the_name_of_a_key_of_the_queue(id: str) -> None:
    assert is_reserved(id)
    with pytest.raises(GatewayError) as refused:
        OptionsCache().prepare(Raw(msgspec.json.encode({"jobId": id})))
    assert refused.value.code is ErrorCode.INVALID_ARGUMENTS
    assert refused.value.message == f"Custom Id cannot be `{id}`: it is one of BullMQ's own keys"


@pytest.mark.parametrize("id", NO_JOBS)
def test_no_function_works_on_a_key_of_the_queue(id: str) -> None:
    for name in ("removeJob", "remove", "updateJobData", "moveJobToWait", "waitUntilJobFinished"):
        args = [Raw(msgspec.json.encode(arg)) for arg in cast("tuple[object, ...]", (id, {}, "token"))]
        function = TABLE[name]
        with pytest.raises(GatewayError) as refused:
            function.bind(args[: sum(parameter.required for parameter in function.parameters)])
        assert refused.value.message == "Expected a job's id, not the name of one of BullMQ's own keys - at `args[0]`"


@pytest.mark.parametrize(("sent", "id"), [("7", "7"), ("7.0", "7"), ("1e3", "1000"), ("-5", "-5"), ('"7"', "7")])
@pytest.mark.parametrize("name", ["removeJob", "getJobState", "getJobLogs", "waitUntilJobFinished"])
def test_a_whole_number_is_an_id_everywhere(name: str, sent: str, id: str) -> None:
    assert TABLE[name].bind([Raw(sent.encode())])[0] == id


@pytest.mark.parametrize("sent", ["1.5", "true", "null", "[]", "{}"])
def test_what_is_neither_text_nor_a_whole_number_is_none(sent: str) -> None:
    for name in ("removeJob", "getJobState"):
        with pytest.raises(GatewayError, match=r"Expected a (string|whole number).* at `args\[0\]`"):
            TABLE[name].bind([Raw(sent.encode())])


@pytest.mark.parametrize("id", OTHERS)
def test_other_ids_are_a_clients_to_choose(id: str) -> None:
    assert not is_reserved(id)
    TABLE["removeJob"].bind([Raw(msgspec.json.encode(id))])
