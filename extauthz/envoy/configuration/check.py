"""Checks a user's own Envoy configuration for settings that undo or weaken decisions.

It reads plain trees: an Envoy bootstrap or a part of one, Istio's mesh configuration (also inside a
ConfigMap) and AuthorizationPolicies, Envoy Gateway's SecurityPolicies. Every mapping in them is
examined, so that filters in EnvoyFilters and patches are found, too.

Each rule is a fact about Envoy that was tested and is described in docs/how-to/own-envoy.md. A
configuration without findings is not proven to be safe.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from extauthz.documents.document import Fault
from extauthz.documents.lines import NodePath
from extauthz.documents.values import SourceText, read_values
from extauthz.envoy.configuration.check_connections import (
    SERVER_TLS,
    Found,
    check_old_cluster,
    check_server_tls,
    check_upstream,
)
from extauthz.envoy.configuration.trees import Tree, find_value, read_type, walk
from extauthz.errors import ConfigError
from extauthz.policy.request.client_address import REMOTE_ADDRESS_EXTENSION

_EXT_AUTHZ: Final = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
_PER_ROUTE: Final = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
_MANAGER: Final = (
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_CAPITAL: Final = re.compile("[A-Z]")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._~%:\[\]-]+")
_OUTAGE_LOOKS_LIKE_A_DENIAL: Final = (
    "is not set, so clients get 403 in an outage, as if they were denied; set it to 503"
)
_FAILS_OPEN: Final = (
    "lets every request pass, unchecked and with forged identity headers, while extauthz "
    "does not answer; remove it"
)


def check_config(document: Any) -> tuple[list[Fault], bool]:
    """The faults of a document, and whether anything in it uses an external authorizer at all."""
    document = _open_mesh(document)
    faults: list[Fault] = []
    asks = False
    trees = list(walk(_to_snake(document), ()))
    authorizers = [
        find_value(tree, "grpc_service", "envoy_grpc", "cluster_name") for _, tree in trees
    ]
    for path, tree in trees:
        for is_there, find in _RULES:
            if find in _OF_UPSTREAMS and tree.get("name") in authorizers:
                continue
            if is_there(tree):
                asks = asks or find in _ASKING
                faults += [
                    Fault(path=_find_written((*path, *at), document), message=message)
                    for at, message in find(tree)
                ]
    return faults, asks


def _open_mesh(document: Any) -> Any:
    """Istio keeps its mesh configuration as a text in a ConfigMap, which may stand in a List."""
    items = find_value(document, "items")
    if find_value(document, "kind") == "List" and isinstance(items, list):
        return {"items": [_open_mesh(item) for item in items]}
    mesh = find_value(document, "data", "mesh")
    if find_value(document, "kind") != "ConfigMap" or not isinstance(mesh, str):
        return document
    try:
        return {"data": {"mesh": read_values(SourceText(file="mesh", text=mesh))}}
    except ConfigError:
        return document


def _to_snake(tree: Any) -> Any:
    """A tree with all keys in snake case: Envoy takes ``failureModeAllow``, too."""
    if isinstance(tree, dict):
        return {_write_snake(key): _to_snake(value) for key, value in tree.items()}
    return [_to_snake(value) for value in tree] if isinstance(tree, list) else tree


def _write_snake(key: str) -> str:
    return _CAPITAL.sub(lambda found: f"_{found[0].lower()}", key)


def _find_written(path: NodePath, document: Any) -> NodePath:
    """A path in snake case as the document writes it, as far as it goes."""
    written: list[str | int] = []
    for part in path:
        if isinstance(part, str) and isinstance(document, dict):
            part = next((key for key in document if _write_snake(key) == part), part)
        document = find_value(document, part)
        written.append(part)
    return tuple(written)


def _is_of(type_name: str) -> Callable[[Tree], bool]:
    return lambda tree: read_type(tree) == type_name


def _has(key: str) -> Callable[[Tree], bool]:
    return lambda tree: isinstance(tree.get(key), dict)


def _is_kind(kind: str, of: str) -> Callable[[Tree], bool]:
    def is_kind(tree: Tree) -> bool:
        return tree.get("kind") == kind and of in str(tree.get("api_version", ""))

    return is_kind


# Envoy


def _check_filter(tree: Tree) -> Found:
    if "http_service" in tree:
        yield ("http_service",), "extauthz answers gRPC; write grpc_service instead"
    if tree.get("transport_api_version") != "V3":
        yield ("transport_api_version",), "must be V3"
    if tree.get("failure_mode_allow") is True:
        yield ("failure_mode_allow",), _FAILS_OPEN
    if "status_on_error" not in tree:
        yield (), f"status_on_error {_OUTAGE_LOOKS_LIKE_A_DENIAL} (ServiceUnavailable)"
    if tree.get("encode_raw_headers") is not True:
        message = (
            "encode_raw_headers is not true: a repeated header field arrives as one "
            "value, joined by a comma, and bytes that are not UTF-8 arrive as '!'; set it"
        )
        yield (), message
    if tree.get("validate_mutations") is not True:
        yield (
            (),
            (
                "validate_mutations is not true: Envoy does not check the answers of extauthz; "
                "set it"
            ),
        )
    if tree.get("clear_route_cache") is True:
        message = "lets Envoy choose another route than the one that was decided on; remove it"
        yield ("clear_route_cache",), message
    for key in ("allowed_headers", "disallowed_headers"):
        if key in tree:
            message = (
                "hides header fields from extauthz: it does not find a credential or "
                "notice a second one there, and without x-forwarded-for it does not know "
                "the address of clients behind proxies; remove it, or allow all fields "
                "that docs/how-to/own-envoy.md lists"
            )
            yield (key,), message
    for key in ("filter_enabled", "filter_enabled_metadata"):
        if key in tree:
            message = (
                "requests that it does not select pass unchecked; remove it, unless that is "
                "intended"
            )
            yield (key,), message
    yield from _check_mutation_rules(tree)
    yield from _check_grpc_service(tree)


def _check_mutation_rules(tree: Tree) -> Found:
    rules = tree.get("decoder_header_mutation_rules")
    if not isinstance(rules, dict):
        return
    at = "decoder_header_mutation_rules"
    is_error = rules.get("disallow_is_error") is True
    if rules.get("disallow_all") is True:
        outcome = (
            "every allowed request is answered with 500"
            if is_error
            else "an allowed request keeps its credential and the identity headers that its client "
            "forged"
        )
        yield (at, "disallow_all"), f"{outcome}; remove it"
    if rules.get("disallow_system") is True:
        outcome = (
            "a request with a credential in its query is answered with 500"
            if is_error
            else "a credential in the query stays there, as :path may not change"
        )
        yield (at, "disallow_system"), f"{outcome}; remove it"
    if "disallow_expression" in rules and not is_error:
        message = (
            "identity headers that it matches stay as the client forged them; add "
            "disallow_is_error: true"
        )
        yield (at, "disallow_expression"), message


def _check_grpc_service(tree: Tree) -> Found:
    service = tree.get("grpc_service")
    if not isinstance(service, dict):
        return
    envoy = service.get("envoy_grpc")
    if isinstance(envoy, dict):
        name = str(envoy.get("cluster_name", ""))
        if not envoy.get("authority") and not _AUTHORITY.fullmatch(name):
            message = (
                "Envoy sends this name as the authority of its calls, and a server inside Envoy "
                "(server.host: envoy) refuses its characters: all requests get 503; set authority"
            )
            yield ("grpc_service", "envoy_grpc", "cluster_name"), message
    for path in (("retry_policy",), ("envoy_grpc", "retry_policy")):
        if find_value(service, *path):
            message = "a check that is sent again is counted again by limits; remove it"
            yield ("grpc_service", *path), message


def _check_route(tree: Tree) -> Found:
    if tree.get("disabled") is True:
        yield (
            ("disabled",),
            (
                "extauthz is not asked about requests of this route; remove it, unless that is "
                "intended"
            ),
        )


def _check_manager(tree: Tree) -> Found:
    filters = tree.get("http_filters") or []
    if not any(_is_of(_EXT_AUTHZ)(find_value(one, "typed_config") or {}) for one in filters):
        return
    for key in ("normalize_path", "merge_slashes"):
        if tree.get(key) is not True:
            yield (), f"{key} is not true: paths that are not in normal form get 400; set it"
    if tree.get("use_remote_address") is not True:
        message = (
            "use_remote_address is not true: Envoy believes x-envoy-* headers of "
            "clients, and does not add its peer to X-Forwarded-For; set it at the edge, "
            "or set credentials.use_remote_address of extauthz to false"
        )
        yield (), message
    yield from _check_remote_address(tree)
    if find_value(tree, "local_reply_config", "body_format"):
        message = (
            "replaces the body and content type of denials, so clients do not get the "
            "reason in the documented form; exclude replies with the response flag UAEX "
            "by a mapper"
        )
        yield ("local_reply_config", "body_format"), message
    yield from _check_hosts(tree)


def _check_remote_address(tree: Tree) -> Found:
    appends = tree.get("use_remote_address") is True and tree.get("skip_xff_append") is not True
    for path, below in walk(tree, ()):
        word = find_value(below, "context_extensions", REMOTE_ADDRESS_EXTENSION)
        if word is not None and word != str(appends).lower():
            message = (
                "does not agree with use_remote_address and skip_xff_append, so extauthz "
                f"reads wrong client addresses; must be {str(appends).lower()!r}"
            )
            yield (*path, "context_extensions", REMOTE_ADDRESS_EXTENSION), message


def _check_hosts(tree: Tree) -> Found:
    routes = tree.get("route_config")
    hosts = find_value(routes, "virtual_hosts") or []
    domains = [one for host in hosts for one in find_value(host, "domains") or []]
    if all(one == "*" for one in domains) and routes is not None:
        return
    if tree.get("strip_trailing_host_dot") is not True:
        message = (
            "strip_trailing_host_dot is not true: a.example. is decided as a.example and routed "
            "as another host; set it"
        )
        yield (), message
    strips = tree.get("strip_any_host_port") is True
    if not strips and find_value(routes, "ignore_port_in_host_matching") is not True:
        message = (
            "a host with a port is decided as the host without it, and routed as another "
            "host; set ignore_port_in_host_matching in the route configuration, or "
            "strip_any_host_port"
        )
        yield (), message


def _is_cluster_of_old(tree: Tree) -> bool:
    """Whether the cluster has the deprecated HTTP/2 options, which Envoy still accepts."""
    return "name" in tree and _has("http2_protocol_options")(tree)


# Istio and Envoy Gateway


def _check_provider(tree: Tree) -> Found:
    at = "envoy_ext_authz_grpc"
    provider = tree[at]
    if provider.get("fail_open") is True:
        yield (at, "fail_open"), _FAILS_OPEN
    if "timeout" not in provider:
        yield (at,), "timeout is not set, and Istio writes 600 s; set it, to 200ms for example"
    if "status_on_error" not in provider:
        yield (at,), f"statusOnError {_OUTAGE_LOOKS_LIKE_A_DENIAL}"


def _check_http_provider(_tree: Tree) -> Found:
    yield ("envoy_ext_authz_http",), "extauthz answers gRPC; write envoyExtAuthzGrpc instead"


def _check_policy(tree: Tree) -> Found:
    if find_value(tree, "spec", "action") == "CUSTOM" and not find_value(
        tree, "spec", "provider", "name"
    ):
        yield (
            ("spec",),
            (
                "with action CUSTOM and without provider.name, no service is asked; name the "
                "extension provider"
            ),
        )


def _check_security_policy(tree: Tree) -> Found:
    at = ("spec", "ext_auth")
    asked = find_value(tree, *at)
    if not isinstance(asked, dict):
        return
    if "grpc" not in asked:
        yield at, "extauthz answers gRPC; write grpc instead of http"
    if asked.get("fail_open") is True:
        yield (*at, "fail_open"), _FAILS_OPEN
    if asked.get("recompute_route") is True:
        message = "lets Envoy choose another route than the one that was decided on; remove it"
        yield (*at, "recompute_route"), message
    if "headers_to_ext_auth" in asked:
        message = (
            "is the whole list of header fields that extauthz sees; add all fields that "
            "docs/how-to/own-envoy.md lists, or remove it"
        )
        yield (*at, "headers_to_ext_auth"), message
    if "status_on_error" not in asked:
        yield at, f"statusOnError {_OUTAGE_LOOKS_LIKE_A_DENIAL}"


_ASKING: Final = (_check_filter, _check_provider, _check_http_provider, _check_security_policy)
"""Rules about the objects that use an external authorizer."""
_OF_UPSTREAMS: Final = (check_upstream, check_old_cluster)
_RULES: Final[tuple[tuple[Callable[[Tree], bool], Callable[[Tree], Found]], ...]] = (
    (_is_of(_EXT_AUTHZ), _check_filter),
    (_is_of(_PER_ROUTE), _check_route),
    (_is_of(_MANAGER), _check_manager),
    (_is_of(SERVER_TLS), check_server_tls),
    (_has("typed_extension_protocol_options"), check_upstream),
    (_is_cluster_of_old, check_old_cluster),
    (_has("envoy_ext_authz_grpc"), _check_provider),
    (_has("envoy_ext_authz_http"), _check_http_provider),
    (_is_kind("AuthorizationPolicy", "istio.io"), _check_policy),
    (_is_kind("SecurityPolicy", "gateway.envoyproxy.io"), _check_security_policy),
)
