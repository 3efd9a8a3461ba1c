"""Writes the Istio objects that make Envoy ask: an extension provider, and CUSTOM policies.

With them, Envoy asks about every request that Mixer was asked about. They select workloads by
namespace or labels; a service's name alone selects none. A second kind of policy denies requests
with hosts other than those of the workload's APIs: the host determines the API, and callers can
send any host.

CUSTOM exists since Istio 1.9; for Istio 1.7 and 1.8 there is an EnvoyFilter.
"""

from __future__ import annotations

from typing import Any, Final

from mixer_compat.migrate.reading.references import ROOT_NAMESPACE
from mixer_compat.migrate.writing.draft import Draft, Target

PROVIDER: Final = "extauthz"
SERVICE: Final = "extauthz.extauthz.svc.cluster.local"
PORT: Final = 9001
TIMEOUT: Final = "0.5s"
"""How long Envoy waits for an answer; Istio's default is ten minutes."""


def write_mesh_config() -> dict[str, Any]:
    """Writes the part of MeshConfig that names the service as an extension provider."""
    return {
        "extensionProviders": [
            {
                "name": PROVIDER,
                "envoyExtAuthzGrpc": {
                    "service": SERVICE,
                    "port": PORT,
                    "timeout": TIMEOUT,
                    "failOpen": False,
                },
            }
        ]
    }


def write_policies(draft: Draft) -> list[dict[str, Any]]:
    """Writes AuthorizationPolicies: those that make Envoy ask, and those that restrict hosts."""
    policies: list[dict[str, Any]] = []
    places = dict.fromkeys(_place(target) for target in draft.guarded)
    wide = {namespace for namespace, labels in places if not labels}
    for namespace, labels in places:
        if labels and ({namespace, ROOT_NAMESPACE} & wide):
            continue  # the whole namespace asks already
        if namespace != ROOT_NAMESPACE and ROOT_NAMESPACE in wide:
            continue
        policies.append(
            _policy(
                _name("extauthz", labels),
                namespace,
                labels,
                {"action": "CUSTOM", "provider": {"name": PROVIDER}, "rules": [{}]},
            )
        )
    return policies + _write_pins(draft)


def _write_pins(draft: Draft) -> list[dict[str, Any]]:
    """Policies that deny requests to a workload of one API with the host of another."""
    pins: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    for api in draft.apis:
        hosts = draft.list_hosts(api)
        if "*" in hosts:
            continue
        for target in api.targets:
            place = (target.namespace, target.service)
            if not target.service or place in seen:
                continue
            seen.add(place)
            own = [host for other in draft.apis_serving(target) for host in draft.list_hosts(other)]
            both = [each for host in dict.fromkeys(own) for each in (host, f"{host}:*")]
            pins.append(
                _policy(
                    f"extauthz-hosts-{target.service}",
                    target.namespace or ROOT_NAMESPACE,
                    target.labels or (("app", target.service),),
                    {"action": "DENY", "rules": [{"to": [{"operation": {"notHosts": both}}]}]},
                )
            )
    return pins


def write_envoy_filters(draft: Draft) -> list[dict[str, Any]]:
    """Writes EnvoyFilters that do the same in Istio 1.7 and 1.8."""
    filters: list[dict[str, Any]] = []
    for namespace, labels in dict.fromkeys(_place(target) for target in draft.guarded):
        spec: dict[str, Any] = {"workloadSelector": {"labels": dict(labels)}} if labels else {}
        spec["configPatches"] = [
            {
                "applyTo": "HTTP_FILTER",
                "match": {
                    "context": "SIDECAR_INBOUND",
                    "listener": {
                        "filterChain": {
                            "filter": {
                                "name": "envoy.http_connection_manager",
                                "subFilter": {"name": "envoy.router"},
                            }
                        }
                    },
                },
                "patch": {
                    "operation": "INSERT_BEFORE",
                    "value": {
                        "name": "envoy.filters.http.ext_authz",
                        "typed_config": {
                            "@type": "type.googleapis.com/"
                            "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
                            "transport_api_version": "V3",
                            "failure_mode_allow": False,
                            "grpc_service": {
                                "envoy_grpc": {"cluster_name": f"outbound|{PORT}||{SERVICE}"},
                                "timeout": TIMEOUT,
                            },
                        },
                    },
                },
            }
        ]
        filters.append(
            {
                "apiVersion": "networking.istio.io/v1alpha3",
                "kind": "EnvoyFilter",
                "metadata": {"name": _name("extauthz", labels), "namespace": namespace},
                "spec": spec,
            }
        )
    return filters


def _place(target: Target) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The namespace of a policy, and the labels by which it selects workloads."""
    return target.namespace or ROOT_NAMESPACE, target.labels


def _name(base: str, labels: tuple[tuple[str, str], ...]) -> str:
    words = [
        "".join(mark if mark.isalnum() else "-" for mark in value.lower()).strip("-")
        for _, value in labels
    ]
    return "-".join([base, *words])[:253]


def _policy(
    name: str, namespace: str, labels: tuple[tuple[str, str], ...], spec: dict[str, Any]
) -> dict[str, Any]:
    selector = {"selector": {"matchLabels": dict(labels)}} if labels else {}
    return {
        "apiVersion": "security.istio.io/v1beta1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**selector, **spec},
    }
