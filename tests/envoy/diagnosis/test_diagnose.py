"""What is found in what an Envoy says of itself, case by case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from extauthz.envoy.configuration.trees import Tree
from extauthz.envoy.diagnosis.diagnose import diagnose
from extauthz.envoy.diagnosis.findings import Finding, Weight, sort_findings
from extauthz.envoy.diagnosis.state import EnvoyState
from tests.envoy.diagnosis.states import (
    ADMIN,
    ROUTER,
    TYPES,
    a_cluster,
    a_filter,
    a_host,
    a_listener,
    a_state,
    an_ext_authz,
)

PER_ROUTE: Final = f"{TYPES}envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
TLS: Final = f"{TYPES}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
OPTIONS: Final = f"{TYPES}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
LISTENER: Final = a_listener(a_filter(an_ext_authz()))


def _find(state: EnvoyState, listener: str = "") -> dict[str, Finding]:
    return {one.code: one for one in diagnose(state, listener).findings}


def _listener(**fields: Any) -> Tree:
    return a_listener(a_filter(an_ext_authz(**fields)))


def _on_routes(configs: Mapping[str, Any], level: str = "route") -> Tree:
    route: Tree = {"match": {"prefix": "/pay"}, "route": {"cluster": "x"}}
    host: Tree = {"name": "shop", "domains": ["*"], "routes": [route]}
    routes: Tree = {"name": "r", "virtual_hosts": [host]}
    place = {"all": routes, "host": host, "route": route}.get(level)
    if place is None:
        weighted = {"name": "x", "typed_per_filter_config": configs}
        route["route"] = {"weighted_clusters": {"clusters": [weighted]}}
    else:
        place["typed_per_filter_config"] = configs
    return a_listener(a_filter(an_ext_authz()), route_config=routes)


NAME: Final = "envoy.filters.http.ext_authz"
OFF: Final = {NAME: {"@type": PER_ROUTE, "disabled": True}}
OFF_BY_ROUTE: Final = {
    NAME: {"@type": f"{TYPES}envoy.config.route.v3.FilterConfig", "disabled": True}
}


def _stats(**counters: int) -> EnvoyState:
    return a_state(
        LISTENER, stats={f"cluster.extauthz.{key}": value for key, value in counters.items()}
    )


def _with_tls(cluster: Tree | None = None, **counters: int) -> EnvoyState:
    socket = {"name": "tls", "typed_config": {"@type": TLS, **(cluster or {})}}
    return a_state(
        LISTENER,
        clusters=[a_cluster(transport_socket=socket)],
        stats={
            f"cluster.extauthz.{key.replace('__', '.')}": value for key, value in counters.items()
        },
    )


CASES: Final[Mapping[str, tuple[EnvoyState, str, Weight, str]]] = {
    "no listener": (a_state(), "no_http_listener", Weight.ERROR, "says LIVE"),
    "no filter anywhere": (
        a_state(a_listener(), stats={"http.in.downstream_rq_total": 7}),
        "not_in_chain",
        Weight.ERROR,
        "its filters: router); it received 7 requests",
    ),
    "no filter beside others": (
        a_state(LISTENER, a_listener(name="metrics")),
        "not_in_chain",
        Weight.NOTE,
        "'metrics'",
    ),
    "an entry that is off": (
        a_state(a_listener(a_filter(an_ext_authz(), disabled=True))),
        "filter_disabled",
        Weight.ERROR,
        "disabled: true",
    ),
    "a share of requests": (
        a_state(
            _listener(
                filter_enabled={
                    "default_value": {"numerator": 25, "denominator": "TEN_THOUSAND"},
                    "runtime_key": "share",
                }
            ),
            stats={"http.in.ext_authz.disabled": 9},
        ),
        "filter_enabled",
        Weight.WARNING,
        "0.25 % of requests, or what the runtime key 'share' says; 9 requests",
    ),
    "metadata decide": (
        a_state(_listener(filter_enabled_metadata={"filter": "rbac"})),
        "filter_enabled_metadata",
        Weight.WARNING,
        "only if dynamic metadata matches",
    ),
    "shadow": (
        a_state(_listener(shadow_mode=True)),
        "shadow_mode",
        Weight.ERROR,
        "shadow_mode",
    ),
    "off for all": (
        a_state(_on_routes(OFF, "all")),
        "disabled_on_route",
        Weight.ERROR,
        "the route configuration 'r'",
    ),
    "off for a host": (
        a_state(_on_routes(OFF, "host")),
        "disabled_on_route",
        Weight.ERROR,
        "the virtual host 'shop'",
    ),
    "off for a route": (
        a_state(_on_routes(OFF_BY_ROUTE)),
        "disabled_on_route",
        Weight.WARNING,
        "the route '/pay' of 'shop'",
    ),
    "off for a weighted cluster": (
        a_state(_on_routes(OFF, "weighted")),
        "disabled_on_route",
        Weight.WARNING,
        "the route '/pay' of 'shop'",
    ),
    "for another name": (
        a_state(_on_routes({"authz": OFF[NAME]})),
        "route_config_unused",
        Weight.WARNING,
        f"('authz'); the filter's name is '{NAME}'",
    ),
    "never called": (
        a_state(
            LISTENER,
            stats={
                "http.in.downstream_rq_total": 5,
                **{f"http.in.ext_authz.{key}": 0 for key in ("ok", "denied", "error")},
            },
        ),
        "never_called",
        Weight.WARNING,
        "it received 5 requests, and the filter asked about none",
    ),
    "an old Envoy": (
        a_state(LISTENER, info={"version": "abc/1.35.9/Clean"}),
        "envoy_too_old",
        Weight.WARNING,
        "1.35.9",
    ),
    "draining": (
        a_state(LISTENER, info={"state": "DRAINING"}),
        "envoy_not_live",
        Weight.WARNING,
        "DRAINING",
    ),
    "google's client": (
        a_state(_listener(grpc_service={"google_grpc": {"target_uri": "x:1"}})),
        "google_grpc",
        Weight.WARNING,
        "google_grpc",
    ),
    "a name misspelled": (
        a_state(_listener(grpc_service={"envoy_grpc": {"cluster_name": "extauth"}})),
        "cluster_missing",
        Weight.ERROR,
        "'extauth', which Envoy does not have (it has 1, did you mean 'extauthz'?)",
    ),
    "warming": (
        a_state(
            LISTENER,
            clusters=[],
            dumps=[
                {
                    "@type": f"{ADMIN}ClustersConfigDump",
                    "dynamic_warming_clusters": [{"cluster": a_cluster()}],
                }
            ],
        ),
        "cluster_warming",
        Weight.ERROR,
        "still warming",
    ),
    "HTTP/1.1": (
        a_state(LISTENER, clusters=[{"name": "extauthz"}]),
        "cluster_without_http2",
        Weight.ERROR,
        "has no HTTP/2",
    ),
    "HTTP/1.1, said aloud": (
        a_state(
            LISTENER,
            clusters=[
                {
                    "name": "extauthz",
                    "typed_extension_protocol_options": {
                        "x": {
                            "@type": OPTIONS,
                            "explicit_http_config": {"http_protocol_options": {}},
                        }
                    },
                }
            ],
        ),
        "cluster_without_http2",
        Weight.ERROR,
        "has no HTTP/2",
    ),
    "no hosts": (a_state(LISTENER, hosts=[]), "no_hosts", Weight.ERROR, "has no host"),
    "sick hosts": (
        a_state(LISTENER, hosts=[a_host(), a_host(9002, failed_outlier_check=True)]),
        "unhealthy_hosts",
        Weight.WARNING,
        "1 of 2 hosts are not healthy (127.0.0.1:9002: ejected as an outlier)",
    ),
    "announced as unhealthy": (
        a_state(LISTENER, hosts=[a_host(eds_health_status="UNHEALTHY")]),
        "unhealthy_hosts",
        Weight.ERROR,
        "announced as UNHEALTHY",
    ),
    "did not for a while": (
        _stats(upstream_cx_connect_fail=2, upstream_cx_active=1),
        "cannot_connect",
        Weight.NOTE,
        "2 connections",
    ),
    "nobody there": (
        _stats(upstream_cx_connect_fail=2, upstream_cx_connect_timeout=1),
        "cannot_connect",
        Weight.ERROR,
        "(1 of them by time-out)",
    ),
    "closed": (
        _stats(upstream_cx_destroy_remote=4),
        "connections_closed",
        Weight.ERROR,
        "4 connections were closed",
    ),
    "handshakes": (
        _with_tls(ssl__connection_error=3),
        "tls_failed",
        Weight.ERROR,
        "3 handshakes failed",
    ),
    "untrusted": (
        _with_tls(ssl__connection_error=3, ssl__fail_verify_error=3),
        "certificate_not_trusted",
        Weight.ERROR,
        "3 times, because no authority that Envoy trusts signed it",
    ),
    "a certificate is wanted": (
        _with_tls(upstream_cx_destroy_remote=2),
        "certificate_wanted",
        Weight.ERROR,
        "no certificate of its own: 2 connections",
    ),
    "timed out": (
        _stats(upstream_rq_timeout=3, upstream_rq_200=5),
        "timed_out",
        Weight.ERROR,
        "3 calls were not answered in time (200 ms); 5 were",
    ),
    "seldom timed out": (
        _stats(upstream_rq_timeout=3, upstream_rq_200=500),
        "timed_out",
        Weight.WARNING,
        "3 calls",
    ),
    "full, before 1.38": (
        _stats(upstream_rq_pending_overflow=3),
        "breaker_full",
        Weight.ERROR,
        "upstream_rq_pending_overflow 3); max_requests is 1024",
    ),
    "full, from 1.38 on": (
        _stats(upstream_rq_active_overflow=3),
        "breaker_full",
        Weight.ERROR,
        "upstream_rq_active_overflow 3)",
    ),
    "low": (
        a_state(
            LISTENER,
            clusters=[
                a_cluster(
                    circuit_breakers={
                        "thresholds": [{"priority": "HIGH"}, {"max_pending_requests": 10}]
                    }
                )
            ],
        ),
        "breaker_too_low",
        Weight.WARNING,
        "max_pending_requests is 10",
    ),
    "errors that nothing explains": (
        a_state(LISTENER, stats={f"http.in.ext_authz.{key}": 4 for key in ("ok", "error")}),
        "unanswered",
        Weight.WARNING,
        "4 checks were not answered, 4 were",
    ),
    "open, and used": (
        a_state(
            _listener(failure_mode_allow=True),
            stats={"http.in.ext_authz.failure_mode_allowed": 6},
        ),
        "failure_mode_allow",
        Weight.ERROR,
        "6 requests passed without a decision",
    ),
    "open": (
        a_state(_listener(failure_mode_allow=True)),
        "failure_mode_allow",
        Weight.WARNING,
        "no request has passed",
    ),
    "disallowed headers": (
        a_state(_listener(disallowed_headers={"patterns": [{"prefix": "x-"}]})),
        "disallowed_headers",
        Weight.ERROR,
        "hides from extauthz: x-api-key, x-forwarded-for",
    ),
    "allowed headers": (
        a_state(
            _listener(
                allowed_headers={
                    "patterns": [
                        {"safe_regex": {"regex": "x-.*|apikey|.*oki.*"}},
                        {"suffix": "tion"},
                        {"contains": "tent-"},
                        {"exact": "Accept", "ignore_case": True},
                    ]
                }
            )
        ),
        "allowed_headers",
        Weight.WARNING,
        "hides from extauthz: origin",
    ),
    "all allowed": (
        a_state(_listener(allowed_headers={"patterns": [{"safe_regex": {"regex": ".*"}}]})),
        "allowed_headers",
        Weight.NOTE,
        "lets through",
    ),
    "retries": (
        a_state(
            _listener(
                grpc_service={
                    "envoy_grpc": {
                        "cluster_name": "extauthz",
                        "retry_policy": {"retry_on": "unavailable"},
                    }
                }
            ),
            stats={"cluster.extauthz.upstream_rq_retry": 2},
        ),
        "retry_policy",
        Weight.WARNING,
        "2 checks were sent again",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_is_found_with_its_weight_and_figures(case: str) -> None:
    state, code, weight, seen = CASES[case]
    found = _find(state)
    assert found.keys() == {code}
    assert found[code].weight is weight
    assert seen in found[code].seen
    assert found[code].why and found[code].todo


@pytest.mark.parametrize(
    ("duration", "version", "code"),
    [
        ("0s", "1.37.0", "timeout_too_short"),
        ("0s", "1.38.0", "timeout_too_long"),
        ("0.005s", "1.39.3", "timeout_too_short"),
        ("600s", "1.39.3", "timeout_too_long"),
        ("0.200s", "1.39.3", None),
        (None, "1.39.3", None),
    ],
)
def test_a_timeout_of_nothing_means_what_the_version_makes_of_it(
    duration: str | None, version: str, code: str | None
) -> None:
    service: Tree = {"envoy_grpc": {"cluster_name": "extauthz"}}
    if duration is not None:
        service["timeout"] = duration
    state = a_state(_listener(grpc_service=service), info={"version": f"abc/{version}/Clean"})
    assert list(_find(state)) == ([] if code is None else [code])


def test_nothing_is_found_in_a_healthy_one_and_it_says_what_it_looked_at() -> None:
    state = a_state(
        LISTENER,
        stats={
            "http.in.downstream_rq_total": 4,
            "http.in.ext_authz.ok": 3,
            "http.in.ext_authz.denied": 1,
            "http.in.ext_authz.error": 0,
            "cluster.extauthz.upstream_rq_200": 4,
            "cluster.extauthz.upstream_cx_active": 1,
        },
    )
    diagnosis = diagnose(state)
    assert not diagnosis.findings
    assert diagnosis.looked_at == (
        "listener 'ingress': filters ext_authz, router; 4 requests, 3 allowed, 1 denied, 0 not "
        "answered",
        "cluster 'extauthz': plain text, 1 of 1 hosts healthy, 1 connections open, 4 answers",
    )


def test_routes_and_filters_that_came_by_xds_are_looked_at() -> None:
    listener = a_listener({"name": NAME, "config_discovery": {}}, rds={"route_config_name": "r"})
    routes = {"name": "r", "typed_per_filter_config": OFF}
    state = a_state(
        listener,
        dumps=[
            {
                "@type": f"{ADMIN}RoutesConfigDump",
                "dynamic_route_configs": [{"route_config": routes}],
            },
            {
                "@type": f"{ADMIN}EcdsConfigDump",
                "ecds_filters": [{"ecds_filter": {"name": NAME, "typed_config": an_ext_authz()}}],
            },
        ],
    )
    assert _find(state).keys() == {"disabled_on_route"}


def test_a_rejected_update_is_told_of_without_a_word_of_its_details() -> None:
    refused = {
        "name": "ingress",
        "error_state": {"details": "Unable to parse JSON: {password: hunter2}"},
    }
    dumps = [{"@type": f"{ADMIN}ListenersConfigDump", "dynamic_listeners": [refused]}]
    found = _find(a_state(dumps=dumps))
    assert found["update_rejected"].seen.endswith("of the listener 'ingress'")
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("level", "weight"), [("all", Weight.NOTE), ("host", Weight.WARNING), ("route", Weight.WARNING)]
)
def test_an_entry_that_is_off_is_on_where_routes_configure_it(level: str, weight: Weight) -> None:
    routes = _on_routes({NAME: {"@type": PER_ROUTE, "check_settings": {}}}, level)
    manager = routes["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][0]["disabled"] = True
    assert _find(a_state(routes))["filter_disabled"].weight is weight


def test_what_is_redacted_is_not_judged() -> None:
    context = {"extauthz.use_remote_address": "[redacted]"}
    config = {"@type": PER_ROUTE, "check_settings": {"context_extensions": context}}
    assert not _find(a_state(_on_routes({NAME: config})))


def test_a_service_that_only_a_route_asks_is_looked_at() -> None:
    service = {"envoy_grpc": {"cluster_name": "other"}}
    config = {"@type": PER_ROUTE, "check_settings": {"grpc_service": service}}
    assert _find(a_state(_on_routes({NAME: config}))).keys() == {"cluster_missing"}


def test_a_listener_that_is_named_is_looked_at_alone() -> None:
    other = a_listener(a_filter(an_ext_authz(shadow_mode=True)), name="other", stat_prefix="other")
    state = a_state(LISTENER, other)
    assert not _find(state, "ingress")
    assert _find(state, "other").keys() == {"shadow_mode"}


@pytest.mark.parametrize("kind", ["ratelimit.v3.RateLimit", "local_ratelimit.v3.LocalRateLimit"])
def test_a_rate_limit_is_told_of_before_ext_authz_only(kind: str) -> None:
    limit = {
        "name": "limits",
        "typed_config": {"@type": f"{TYPES}envoy.extensions.filters.http.{kind}"},
    }
    ours = a_filter(an_ext_authz())
    assert _find(a_state(a_listener(limit, ours))).keys() == {"rate_limit_first"}
    assert not _find(a_state(a_listener(ours, limit)))


def test_nonsense_in_the_place_of_a_configuration_is_no_failure() -> None:
    for nonsense in ("", 7, [], [7], {"": 7}, None):
        listener = a_listener(
            {"name": nonsense, "typed_config": nonsense},
            a_filter(
                an_ext_authz(
                    grpc_service=nonsense, filter_enabled=nonsense, allowed_headers=nonsense
                )
            ),
            route_config=nonsense,
        )
        clusters = [a_cluster(circuit_breakers=nonsense, transport_socket=nonsense)]
        state = a_state(listener, ROUTER, clusters=clusters, hosts=[{"address": nonsense}])
        assert diagnose(state).looked_at


def test_findings_are_sorted_by_weight_and_come_once() -> None:
    made = [
        Finding(weight=weight, code=code, seen="", why="", todo="")
        for code, weight in zip("abcd", [Weight.NOTE, *Weight], strict=True)
    ]
    assert [one.code for one in sort_findings([*made, *made])] == ["b", "c", "a", "d"]
