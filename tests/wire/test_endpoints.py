"""The table of endpoints: nothing is served, and nothing is allowed, that a row does not say."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from msgspec.structs import asdict

from bullmq_proxy.gateway.access.accounts import Account
from bullmq_proxy.gateway.access.authenticator import Authenticator
from bullmq_proxy.gateway.access.grants import Grant, Permission
from bullmq_proxy.gateway.access.usage import Usage
from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.shared_memory import SharedMemory
from bullmq_proxy.gateway.wire.endpoint_rows import Row, shown
from bullmq_proxy.gateway.wire.endpoints import ENDPOINTS, OPENED, Endpoint, PageEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.guest_endpoints import WorkersEndpoint
from bullmq_proxy.gateway.wire.routes import parse_request, parse_target, validate
from tests.support.limits import LIMITS

endpoints = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name.lower())
PATHS = [(path, endpoint) for endpoint in ENDPOINTS for path in endpoint.value.paths]


def asked(path: str, queue: str = "mails-1") -> str:
    """A path as clients write it."""
    return (
        path.replace("{queue}", queue)
        .replace("{concurrency}", "1")
        .replace("{function}", "count")
        .replace("{job}", "1")
        .replace("{worker}", "w")
        .replace("{file}", "main.js")
        .replace("{connection}", "a:0:0:1")
    )


def account(*permissions: Permission) -> Account:
    """An account of a key for `mails-*`."""
    return Account(Grant("shop", frozenset(permissions), ("mails-*",)), Usage(SharedMemory(1).row(0)))


class TestRows:
    def test_no_column_has_a_default(self) -> None:
        assert Row.__struct_defaults__ == ()

    @pytest.mark.parametrize("missing", Row.__struct_fields__)
    def test_a_row_without_one_of_the_columns_cannot_be_made(self, missing: str) -> None:
        whole = SessionEndpoint.QUEUE.value
        columns = asdict(whole)
        assert Row(**columns) == whole
        del columns[missing]
        with pytest.raises(TypeError, match=missing):
            Row(**columns)

    def test_a_path_has_no_parameter_that_the_gateway_does_not_know(self) -> None:
        with pytest.raises(ValueError, match="tenant"):
            replaced(SessionEndpoint.QUEUE.value, paths=("/queue/{tenant}",))

    def test_no_second_path_leaves_the_queue_out(self) -> None:
        with pytest.raises(AssertionError):
            replaced(SessionEndpoint.QUEUE.value, paths=("/queue/{queue}", "/anything"))

    def test_no_path_leads_to_two_endpoints_of_a_kind(self) -> None:
        opened = [(path, endpoint) for path, endpoint in PATHS if endpoint in OPENED]
        called = [(path, endpoint) for path, endpoint in PATHS if endpoint not in OPENED]
        for (one, first), (other, second) in (*combinations(opened, 2), *combinations(called, 2)):
            if set(first.value.methods).isdisjoint(second.value.methods):
                continue
            pairs = list(zip(one.split("/"), other.split("/"), strict=False))
            same_length = one.count("/") == other.count("/")
            assert not same_length or any(a != b and "{" not in a + b for a, b in pairs), (one, other)


def replaced(row: Row, **changes: Any) -> Row:
    """A row with other columns."""
    return Row(**asdict(row) | changes)


class TestPaths:
    @pytest.mark.parametrize(("path", "endpoint"), PATHS, ids=[path for path, _ in PATHS])
    def test_each_leads_to_its_endpoint(self, path: str, endpoint: Endpoint) -> None:
        methods = endpoint.value.methods
        method = "POST" if "POST" in methods else methods[0]
        target = parse_target(asked(path)) if endpoint in OPENED else parse_request(method, asked(path))
        assert target.endpoint is endpoint
        assert validate(target, LIMITS).queue == ("mails-1" if endpoint.value.is_of_one_queue else "")

    def test_a_path_that_is_not_listed_is_told_what_is(self) -> None:
        with pytest.raises(GatewayError) as missing:
            parse_target("/nothing")
        assert missing.value.code is ErrorCode.NOT_FOUND
        assert all(shown(endpoint.value.path) in missing.value.message for endpoint in ENDPOINTS)


class TestRights:
    def test_every_connection_needs_a_key_and_no_page_does(self) -> None:
        needed = {endpoint.name: endpoint.value.permissions for endpoint in ENDPOINTS}
        anything = frozenset(Permission)
        assert needed == {
            "QUEUE": anything,
            "WORKER": {Permission.CONSUME},
            "EVENTS": {Permission.OBSERVE},
            "FLOWS": anything,
            "QUEUE_FUNCTION": anything,
            "FLOWS_FUNCTION": anything,
            "QUEUES": {Permission.OBSERVE},
            "CONNECTIONS": {Permission.MANAGE},
            "DRAIN_CONNECTION": {Permission.MANAGE},
            "CLOSE_CONNECTION": {Permission.MANAGE},
            "HISTORY": {Permission.OBSERVE},
            "SCALE": {Permission.OBSERVE},
            "WHOAMI": anything,
            "ADD_JOBS": {Permission.PRODUCE},
            "GET_JOBS": {Permission.OBSERVE},
            "GET_JOB": {Permission.OBSERVE},
            "GET_LOGS": {Permission.OBSERVE},
            "UPDATE_PROGRESS": {Permission.CONSUME},
            "ADD_LOG": {Permission.CONSUME},
            **{worker.name: {Permission.MANAGE} for worker in WorkersEndpoint},
            **dict.fromkeys([page.name for page in PageEndpoint]),
        }

    @endpoints
    def test_a_key_reaches_no_queue_that_it_is_not_for(self, endpoint: Endpoint) -> None:
        account(*Permission).check(endpoint, "mails-1", ())
        if endpoint.value.is_of_one_queue:
            with pytest.raises(GatewayError, match="is not for the queue orders") as refused:
                account(*Permission).check(endpoint, "orders", ())
            assert refused.value.code is ErrorCode.FORBIDDEN

    @endpoints
    def test_a_key_without_the_permission_is_refused(self, endpoint: Endpoint) -> None:
        for permission in Permission:
            allowed = endpoint.value.permissions is None or permission in endpoint.value.permissions
            if allowed:
                account(permission).check(endpoint, "mails-1", ())
            else:
                with pytest.raises(GatewayError, match="it needs the permission"):
                    account(permission).check(endpoint, "mails-1", ())

    @endpoints
    def test_who_shows_no_key_has_no_rights(self, endpoint: Endpoint) -> None:
        nobody = Authenticator((), (), SharedMemory(1).row(0), no_auth=True).nobody
        if endpoint.value.permissions is None and not endpoint.value.is_of_one_queue:
            nobody.check(endpoint, "", ())
        else:
            with pytest.raises(GatewayError):
                nobody.check(endpoint, "mails-1", ())
