"""Paths and queries: what leads where, and what is a 400 in which words."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bullmq_proxy.gateway.errors import ErrorCode, GatewayError
from bullmq_proxy.gateway.wire.connection_options import EventsOptions, Limits, WorkerOptions
from bullmq_proxy.gateway.wire.endpoints import Endpoint, PageEndpoint, SessionEndpoint
from bullmq_proxy.gateway.wire.routes import RouteParameters, parse_target, validate
from tests.support.limits import LIMITS, limits

PREFIXES = ["/queue", "/queues", "/ws/queues"]


def route(target: str, limits: Limits = LIMITS) -> RouteParameters:
    return validate(parse_target(target), limits)


def worker_options(target: str) -> WorkerOptions:
    options = route(target).options
    assert isinstance(options, WorkerOptions)
    return options


def events_options(target: str) -> EventsOptions:
    options = route(target).options
    assert isinstance(options, EventsOptions)
    return options


def refusal(target: str, limits: Limits = LIMITS) -> str:
    with pytest.raises(GatewayError) as refused:
        route(target, limits)
    assert refused.value.code is ErrorCode.INVALID_ARGUMENTS
    return refused.value.message


class TestPaths:
    @pytest.mark.parametrize("prefix", PREFIXES)
    @pytest.mark.parametrize(
        ("rest", "endpoint"),
        [
            ("", SessionEndpoint.QUEUE),
            ("/process/7", SessionEndpoint.WORKER),
            ("/events", SessionEndpoint.EVENTS),
        ],
    )
    @pytest.mark.parametrize("end", ["", "/"])
    def test_all_three_apis_are_under_all_prefixes(self, prefix: str, rest: str, endpoint: Endpoint, end: str) -> None:
        target = f"{prefix}/mails{rest}{end}"
        assert (parse_target(target).endpoint, route(target).queue) == (endpoint, "mails")
        if endpoint is SessionEndpoint.WORKER:
            assert worker_options(target).concurrency == 7

    @pytest.mark.parametrize("target", ["/flows", "/flows/", "/flows?token=key"])
    def test_flows_have_a_path_of_their_own(self, target: str) -> None:
        assert (parse_target(target).endpoint, route(target).queue) == (SessionEndpoint.FLOWS, "")
        assert refusal("/flows?prefix=x") == "Unknown option - at `?prefix`; known are token"

    @pytest.mark.parametrize(
        ("path", "endpoint"),
        [
            ("/", PageEndpoint.ROOT),
            ("/health", PageEndpoint.HEALTH),
            ("/ready", PageEndpoint.READY),
            ("/metrics", PageEndpoint.METRICS),
        ],
    )
    def test_plain_http_pages(self, path: str, endpoint: Endpoint) -> None:
        for target in (path, f"{path}?x=1", f"{path}?token=key#fragment"):
            assert parse_target(target).endpoint is endpoint
            assert route(target) == RouteParameters("", None, ())

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "*",
            "//",
            "/queue",
            "/queues/",
            "/Queue/a",
            "/ws",
            "/ws/queue/a",
            "/ws/queues",
            "/queue/a/b",
            "/queue/a/process",
            "/queue/a/process/1/2",
            "/queue/a/events/x",
            "/queue/a//",
            "/health/",
            "/flows/q",
            "/queues/flows/x",
            "/favicon.ico",
            "http://host/queue/a",
            "/queue/../health",
        ],
    )
    def test_everything_else_is_not_found(self, path: str) -> None:
        with pytest.raises(GatewayError) as missing:
            route(path)
        assert missing.value.code is ErrorCode.NOT_FOUND
        assert "/queue/NAME" in missing.value.message


class TestQueueNames:
    @pytest.mark.parametrize(
        "name", ["a", "two words", "héllo", "{tag}q", "a/b", "100%", "日本語", "x" * 100, "?&#=+;", "."]
    )
    def test_a_name_is_percent_decoded(self, name: str) -> None:
        assert route(f"/queue/{quote(name, safe='')}/events").queue == name

    def test_a_plus_is_a_plus(self) -> None:
        assert route("/queue/a+b").queue == "a+b"

    def test_a_name_that_is_no_utf_8_is_refused(self) -> None:
        for name in ("%ff", "a%C3", "%ED%A0%80"):
            assert refusal(f"/queue/{name}") == "The queue name is not percent-encoded UTF-8 - at the path"

    def test_a_name_must_be_there(self) -> None:
        assert refusal("/queue//events") == "Queue name must be provided - at the path"
        assert refusal("/queue//process/1") == "Queue name must be provided - at the path"

    @pytest.mark.parametrize("name", [":", "a:b", "%3A", "a%3ab"])
    def test_a_name_has_no_colon(self, name: str) -> None:
        assert refusal(f"/queue/{name}") == "Queue name cannot contain : - at the path"

    def test_a_name_is_at_most_100_characters_or_what_is_set(self) -> None:
        assert refusal(f"/queue/{'é' * 101}") == "The queue name has 101 characters, 100 are allowed - at the path"
        assert refusal("/queue/abc", limits(max_queue_name=2)).startswith("The queue name has 3 characters, 2 are")
        assert route(f"/queue/{quote('é' * 100)}").queue == "é" * 100


class TestConcurrency:
    @pytest.mark.parametrize("number", [1, 2, 1000])
    def test_it_is_a_whole_number(self, number: int) -> None:
        assert worker_options(f"/queue/q/process/{number}") == WorkerOptions(concurrency=number)

    @pytest.mark.parametrize("text", ["0", "1001", "-1", "1.5", "1e3", "", "many", "%31", "٣", "+1", "9" * 5000, " 1"])
    def test_anything_else_is_refused(self, text: str) -> None:
        assert refusal(f"/queue/q/process/{text}/") == (
            f"Expected a whole number from 1 to 1000 as concurrency, got `{text[:100]}` - at the path"
        )

    def test_the_limit_is_a_setting(self) -> None:
        assert "from 1 to 5 " in refusal("/queue/q/process/6", limits(max_concurrency=5))


class TestWorkerOptions:
    def test_the_defaults_are_bullmq_s(self) -> None:
        assert worker_options("/queue/q/process/1") == WorkerOptions(
            concurrency=1,
            lock_duration=30_000,
            stalled_interval=30_000,
            max_stalled_count=3,
            limiter=None,
            remove_on_complete=None,
            remove_on_fail=None,
            name=None,
            max_data_points=0,
            ack_timeout=15_000,
            max_runtime=0,
            overrun="fail",
            grace=0,
            consumer=None,
            confirm=False,
        )

    @pytest.mark.parametrize(
        ("query", "options"),
        [
            ("lockDuration=500", {"lock_duration": 500}),
            ("lockDuration=86400000", {"lock_duration": 86_400_000}),
            ("stalledInterval=1000", {"stalled_interval": 1000}),
            ("maxStalledCount=0", {"max_stalled_count": 0}),
            ("limiter.max=10&limiter.duration=1000", {"limiter": (10, 1000)}),
            ("removeOnComplete=true", {"remove_on_complete": True}),
            ("removeOnComplete=false", {"remove_on_complete": False}),
            ("removeOnComplete=100", {"remove_on_complete": 100}),
            ("removeOnFail=-1", {"remove_on_fail": -1}),
            (
                "removeOnFail=%7B%22age%22:60,%22count%22:5,%22limit%22:9%7D",
                {"remove_on_fail": {"age": 60, "count": 5, "limit": 9}},
            ),
            ("name=mailer%201", {"name": "mailer 1"}),
            ("name=", {"name": None}),
            ("metrics.maxDataPoints=0", {"max_data_points": 0}),
            ("metrics.maxDataPoints=20160", {"max_data_points": 20160}),
            ("ackTimeout=0", {"ack_timeout": 0}),
            ("maxRuntime=5000", {"max_runtime": 5000}),
            ("grace=600000", {"grace": 600_000}),
            ("grace=1&consumer=a:0:0:1:x", {"grace": 1, "consumer": "a:0:0:1:x"}),
            ("overrun=release", {"overrun": "release"}),
            ("overrun=fail", {"overrun": "fail"}),
            ("confirm=1", {"confirm": True}),
            ("confirm=true", {"confirm": True}),
            ("confirm=YES", {"confirm": True}),
            ("confirm", {"confirm": True}),
            ("confirm=", {"confirm": True}),
            ("confirm=0", {"confirm": False}),
            ("confirm=no", {"confirm": False}),
            ("confirm=false", {"confirm": False}),
            ("confirm=0&confirm=1", {"confirm": True}),
            ("token=key&ackTimeout=5", {"ack_timeout": 5}),
        ],
    )
    def test_every_option_can_be_set(self, query: str, options: dict[str, Any]) -> None:
        assert worker_options(f"/queue/q/process/2?{query}") == WorkerOptions(concurrency=2, **options)

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("lockDuration=499", "Expected a whole number from 500 to 86400000 - at `?lockDuration`"),
            ("lockDuration=86400001", "Expected a whole number from 500 to 86400000 - at `?lockDuration`"),
            ("lockDuration=", "Expected a whole number from 500 to 86400000 - at `?lockDuration`"),
            ("stalledInterval=1e4", "Expected a whole number from 500 to 86400000 - at `?stalledInterval`"),
            ("maxStalledCount=-1", "Expected a whole number from 0 to 1000000 - at `?maxStalledCount`"),
            ("maxRuntime=2147483648", "Expected a whole number from 0 to 2147483647 - at `?maxRuntime`"),
            ("grace=600001", "Expected a whole number from 0 to 600000 - at `?grace`"),
            ("consumer=x", "consumer needs grace, too - at `?grace`"),
            ("grace=0&consumer=x", "consumer needs grace, too - at `?grace`"),
            ("grace=1&consumer=", "Expected the `consumer` of the `welcome` on an earlier connection - at `?consumer`"),
            (
                "grace=1&consumer=" + "x" * 201,
                "Expected the `consumer` of the `welcome` on an earlier connection - at `?consumer`",
            ),
            ("overrun=stop", "Expected fail or release - at `?overrun`"),
            ("ackTimeout=٣", "Expected a whole number from 0 to 86400000 - at `?ackTimeout`"),
            ("ackTimeout=" + "9" * 5000, "Expected a whole number from 0 to 86400000 - at `?ackTimeout`"),
            ("limiter.max=1", "limiter.max and limiter.duration go together - at `?limiter.duration`"),
            ("limiter.duration=1", "limiter.max and limiter.duration go together - at `?limiter.max`"),
            ("limiter.max=0&limiter.duration=1", "Expected a whole number from 1 to 1000000000 - at `?limiter.max`"),
            ("limiter.max=1&limiter.duration=0", "Expected a whole number from 1 to 86400000 - at `?limiter.duration`"),
            ("metrics.maxDataPoints=-1", "Expected a whole number from 0 to 100000 - at `?metrics.maxDataPoints`"),
            ("metrics.maxDataPoints=1.5", "Expected a whole number from 0 to 100000 - at `?metrics.maxDataPoints`"),
            ("confirm=maybe", "Expected 1 or 0 - at `?confirm`"),
        ],
    )
    def test_what_cannot_be_used_is_refused_in_words(self, query: str, message: str) -> None:
        assert refusal(f"/queue/q/process/1?{query}") == message

    @pytest.mark.parametrize("name", ["removeOnComplete", "removeOnFail"])
    @pytest.mark.parametrize(
        "value", ["", "yes", "1.5", '{"age":-1}', '{"agee":1}', "[1]", "null", "9" * 30, "[" * 9999]
    )
    def test_what_is_kept_of_finished_jobs_is_a_flag_a_number_or_an_object(self, name: str, value: str) -> None:
        assert refusal(f"/queue/q/process/1?{name}={quote(value)}") == (
            f'Expected true, false, a number, or JSON such as {{"age":3600,"count":100}} - at `?{name}`'
        )

    def test_an_unknown_option_offers_the_nearest(self) -> None:
        assert refusal("/queue/q/process/1?lockduration=1").startswith(
            "Unknown option, did you mean `lockDuration`? - at `?lockduration`; known are lockDuration, "
        )
        assert refusal("/queue/q?zzz=1") == "Unknown option - at `?zzz`; known are token"
        assert len(refusal(f"/queue/q?{'z' * 5000}=1")) < 200


class TestEventsOptions:
    @pytest.mark.parametrize("query", ["?events=", "?events=,", "?events=%20"])
    def test_an_empty_list_is_none(self, query: str) -> None:
        assert events_options(f"/queue/q/events{query}").subscription.in_force() == []

    @pytest.mark.parametrize("query", ["", "?events=*", "?events=completed,*"])
    def test_no_list_or_a_star_are_all_events(self, query: str) -> None:
        options = events_options(f"/queue/q/events{query}")
        assert options.subscription.in_force() == ["*"]
        assert options.last_event_id is None

    def test_names_are_separated_by_commas(self) -> None:
        options = events_options("/queue/q/events?events=failed,%20completed,custom:mine")
        assert options.subscription.in_force() == ["completed", "custom:mine", "failed"]

    @pytest.mark.parametrize(
        ("text", "id"), [("1700000000000-0", (1700000000000, 0)), ("5", (5, 0)), ("0-0", (0, 0)), ("7-12", (7, 12))]
    )
    def test_it_can_resume_behind_an_id(self, text: str, id: tuple[int, int]) -> None:
        options = events_options(f"/queue/q/events?lastEventId={text}")
        assert options.last_event_id == id

    def test_an_unknown_event_lists_the_known_ones(self) -> None:
        message = refusal("/queue/q/events?events=complete")
        assert message.startswith(
            "Unknown event `complete`, did you mean `completed`? - at `events`; known are active, "
        )

    @pytest.mark.parametrize(
        "text", ["", "$", "abc", "-", "1-", "-1", "1-2-3", "18446744073709551615-0", "1-18446744073709551616", "٣"]
    )
    def test_what_is_no_stream_id_is_refused(self, text: str) -> None:
        assert refusal(f"/queue/q/events?lastEventId={quote(text)}") == (
            f"Expected a stream id such as `1700000000000-0`, got `{text}` - at `lastEventId`"
        )


class TestTokens:
    @pytest.mark.parametrize("path", ["/queue/q", "/queue/q/process/1", "/queue/q/events", "/health"])
    def test_the_key_of_the_query_string_is_found_on_every_path(self, path: str) -> None:
        assert parse_target(f"{path}?token=a%2Bb").token == "a+b"
        assert route(f"{path}?token=key-1").queue == route(path).queue
        assert parse_target(path).token is None

    def test_it_is_found_before_the_rest_is_checked(self) -> None:
        assert parse_target("/queue/a:b/process/none?token=key-1&nonsense=1").token == "key-1"


@given(
    st.text()
    | st.lists(
        st.sampled_from(
            ["/", "queue", "queues", "ws", "process", "events", "?", "=", "&", "%", "1", "token", "%ff", "#"]
        )
    ).map("".join)
)
def test_no_target_raises_anything_but_an_error_for_the_client(target: str) -> None:
    try:
        found, endpoint = route(target), parse_target(target).endpoint
    except GatewayError as refused:
        assert refused.code in (ErrorCode.NOT_FOUND, ErrorCode.INVALID_ARGUMENTS)
    else:
        assert not endpoint.value.is_of_one_queue or 0 < len(found.queue) <= LIMITS.max_queue_name


@given(st.text(min_size=1, max_size=100).filter(lambda name: ":" not in name))
def test_every_name_of_a_queue_can_be_asked_for(name: str) -> None:
    assert route(f"/queue/{quote(name, safe='')}").queue == name
