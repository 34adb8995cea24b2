"""The table of errors, and the words for what BullMQ's scripts return."""

from __future__ import annotations

import enum
from http import HTTPStatus

import pytest

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError, finished_error, invalid_arguments

# Return code, code on the wire, text of Node's `finishedErrors` for job 5.
FINISHED = [
    (-1, "NOT_FOUND", "Missing key for job 5. moveToFinished"),
    (-2, "NOT_LOCKED", "Missing lock for job 5. moveToFinished"),
    (-3, "CONFLICT", "Job 5 is not in the active state. moveToFinished"),
    (-4, "CONFLICT", "Job 5 has pending dependencies. moveToFinished"),
    (-5, "NOT_FOUND", "Missing key for parent job bull:q:1. moveToFinished"),
    (-6, "NOT_LOCKED", "Lock mismatch for job 5. Cmd moveToFinished from active"),
    (-7, "CONFLICT", "The parent job bull:q:1 cannot be replaced. moveToFinished"),
    (-8, "CONFLICT", "Job 5 belongs to a job scheduler and cannot be removed directly. moveToFinished"),
    (-9, "CONFLICT", "Cannot complete job 5 because it has at least one failed child. moveToFinished"),
    (-10, "CONFLICT", "Cannot create job scheduler iteration - job ID already exists. moveToFinished"),
    (
        -11,
        "CONFLICT",
        "Cannot create job scheduler iteration - current and next time slots already have jobs. moveToFinished",
    ),
    (-99, "INTERNAL", "Unknown code -99 error for 5. moveToFinished"),
]


def finished(code: int) -> GatewayError:
    return finished_error(code, command="moveToFinished", job_id="5", state="active", parent_key="bull:q:1")


@pytest.mark.parametrize(("code", "name", "text"), FINISHED)
def test_a_script_s_refusal_has_node_s_words(code: int, name: str, text: str) -> None:
    error = finished(code)
    assert (error.code, error.message, str(error)) == (ErrorCode[name], text, text)


def test_no_two_return_codes_share_a_text() -> None:
    assert len({finished(code).message for code, *_ in FINISHED}) == len(FINISHED)


@pytest.mark.parametrize("id", ["{", "{}", "{command}", "{job_id.__class__}", "%s", "é"])
def test_a_job_id_is_never_taken_for_a_template(id: str) -> None:
    assert finished_error(-1, command="removeJob", job_id=id).message == f"Missing key for job {id}. removeJob"
    assert finished_error(-99, command="removeJob", job_id=id).message == f"Unknown code -99 error for {id}. removeJob"


def test_every_code_is_its_own_name_on_the_wire() -> None:
    assert {code.value for code in ErrorCode} == {code.name for code in ErrorCode}
    assert {code.value for code in ErrorCode} == {
        "INVALID_MESSAGE",
        "INVALID_ARGUMENTS",
        "UNKNOWN_FUNCTION",
        "UNAUTHORIZED",
        "FORBIDDEN",
        "NOT_FOUND",
        "NOT_LOCKED",
        "CONFLICT",
        "TOO_MANY_REQUESTS",
        "REDIS_UNAVAILABLE",
        "KEYS_UNAVAILABLE",
        "OUTCOME_UNKNOWN",
        "TIMEOUT",
        "SHUTTING_DOWN",
        "INTERNAL",
    }


def test_every_code_has_a_meaning_and_the_http_status_of_an_error() -> None:
    for code in ErrorCode:
        assert code.meaning
        assert code.http_status >= HTTPStatus.BAD_REQUEST
    assert ErrorCode.INTERNAL.http_status == HTTPStatus.INTERNAL_SERVER_ERROR


def test_a_code_without_a_status_or_without_a_meaning_cannot_be_defined() -> None:
    for row in ("NEW", ("NEW", HTTPStatus.CONFLICT), ("NEW", "no status")):
        with pytest.raises(TypeError, match="missing"):
            enum.StrEnum("Incomplete", {"__new__": ErrorCode.__new_member__, "NEW": row})


def test_wrong_arguments_name_the_place() -> None:
    error = invalid_arguments("Expected a whole number >= 0 - at `args[2].delay`")
    assert (error.code, error.message) == (
        ErrorCode.INVALID_ARGUMENTS,
        "Expected a whole number >= 0 - at `args[2].delay`",
    )
