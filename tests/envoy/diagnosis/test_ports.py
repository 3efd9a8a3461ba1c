"""What a port speaks, seen from outside, against what a cluster expects of it."""

from __future__ import annotations

from typing import Final

import pytest

from extauthz.envoy.configuration.trees import Tree
from extauthz.envoy.diagnosis.diagnose import diagnose, list_addresses
from extauthz.envoy.diagnosis.findings import Weight
from extauthz.envoy.diagnosis.ports import Health, Port, Protocol
from extauthz.envoy.diagnosis.service import read_service
from tests.envoy.diagnosis.states import (
    TYPES,
    a_cluster,
    a_filter,
    a_listener,
    a_state,
    an_ext_authz,
)

CONTEXT: Final = f"{TYPES}envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
PLAIN: Final = a_cluster()
TLS: Final = a_cluster(transport_socket={"typed_config": {"@type": CONTEXT}})
MUTUAL: Final = a_cluster(
    transport_socket={
        "typed_config": {"@type": CONTEXT, "common_tls_context": {"tls_certificates": [{"x": 1}]}}
    }
)
LISTENER: Final = a_listener(a_filter(an_ext_authz()))


@pytest.mark.parametrize(
    ("cluster", "protocol", "health", "code"),
    [
        (PLAIN, Protocol.NOBODY, None, "nobody_listens"),
        (PLAIN, Protocol.UNKNOWN, None, "not_grpc"),
        (PLAIN, Protocol.HTTP1, None, "not_grpc"),
        (TLS, Protocol.HTTP1, None, "not_grpc"),
        (PLAIN, Protocol.HTTP2, None, None),
        (PLAIN, Protocol.HTTP2, Health.SERVING, None),
        (PLAIN, Protocol.HTTP2, Health.NOT_SERVING, "not_serving"),
        (PLAIN, Protocol.HTTP2, Health.ABSENT, "not_extauthz"),
        (TLS, Protocol.HTTP2, Health.SERVING, "tls_not_spoken"),
        (PLAIN, Protocol.TLS, None, "tls_wanted"),
        (PLAIN, Protocol.MUTUAL_TLS, None, "tls_wanted"),
        (TLS, Protocol.TLS, None, None),
        (TLS, Protocol.MUTUAL_TLS, None, "certificate_wanted"),
        (MUTUAL, Protocol.MUTUAL_TLS, None, None),
    ],
)
def test_a_port_fits_its_cluster_or_is_told_of(
    cluster: Tree, protocol: Protocol, health: Health | None, code: str | None
) -> None:
    state = a_state(LISTENER, clusters=[cluster])
    ports = {"127.0.0.1:9001": Port(protocol=protocol, health=health)}
    assert list_addresses(state) == tuple(ports)
    diagnosis = diagnose(state, ports=ports)
    assert [one.code for one in diagnosis.findings] == ([] if code is None else [code])
    assert f"127.0.0.1:9001, from here: {protocol.value}" in diagnosis.looked_at[-1]


def test_an_address_that_only_envoy_reaches_is_no_finding() -> None:
    state = a_state(LISTENER, stats={"cluster.extauthz.upstream_cx_active": 1})
    assert not diagnose(state, ports={"127.0.0.1:9001": Port(protocol=Protocol.NOBODY)}).findings


@pytest.mark.parametrize(
    ("status", "metrics", "codes"),
    [
        ("ready", 'extauthz_decisions_total{api="a} 7"} 3.0\n', []),
        (
            "ready",
            "extauthz_decisions_total 1e+06\nextauthz_calls_shed_total 4.0\n",
            ["calls_shed"],
        ),
        ("degraded", "extauthz_decisions_total 3.0\n", ["service_not_ready"]),
        ("not ready", "extauthz_workers 0.0\n", ["service_not_ready", "another_answers"]),
    ],
)
def test_what_the_service_says_of_itself_is_told(
    status: str, metrics: str, codes: list[str]
) -> None:
    checks = {"catalog": {"status": "ready"}, "counters": {"status": status}}
    service = read_service({"status": status, "checks": checks}, metrics)
    state = a_state(LISTENER, stats={"http.in.ext_authz.ok": 5})
    findings = diagnose(state, service=service).findings
    assert [one.code for one in findings] == codes
    weights = {one.code: one.weight for one in findings}
    # It may have been started since: Envoy's counters are older.
    assert weights.get("another_answers", Weight.WARNING) is Weight.WARNING
    if status == "degraded":
        assert findings[0].weight is Weight.WARNING
        assert "(counters: degraded)" in findings[0].seen
