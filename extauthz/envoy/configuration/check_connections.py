"""Rules about connections: certificates of clients, and trailers to upstreams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from extauthz.documents.lines import NodePath
from extauthz.envoy.configuration.trees import Tree, find_value, read_type

SERVER_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
UPSTREAM: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
Found = Iterator[tuple[NodePath, str]]
"""Paths below a mapping, and what is wrong there."""


def check_server_tls(tree: Tree) -> Found:
    """Finds listeners that accept certificates of any authority, or ask clients for none."""
    at = "common_tls_context"
    common = find_value(tree, at)
    for below in _VALIDATIONS:
        if find_value(common, *below, "trust_chain_verification") == "ACCEPT_UNTRUSTED":
            message = (
                "Envoy accepts any certificate, whoever signed it, so a client can call "
                "as the application whose name it writes into its own; remove it"
            )
            yield (at, *below, "trust_chain_verification"), message
    if tree.get("require_client_certificate") is not True:
        return
    # Others come from the control plane.
    is_whole = all(find_value(common, key) is None for key in _VALIDATED_ELSEWHERE)
    if is_whole and all(find_value(common, "validation_context", key) is None for key in _SIGNERS):
        message = (
            "without trusted_ca in a validation_context, Envoy asks clients for no certificate; "
            "add it"
        )
        yield ("require_client_certificate",), message


_VALIDATIONS: Final = (
    ("validation_context",),
    ("combined_validation_context", "default_validation_context"),
)
_VALIDATED_ELSEWHERE: Final = (
    "combined_validation_context",
    "validation_context_sds_secret_config",
)
_SIGNERS: Final = (
    "trusted_ca",
    "ca_certificate_provider_instance",
    "custom_validator_config",
    "verify_certificate_hash",
    "verify_certificate_spki",
)


def check_upstream(tree: Tree) -> Found:
    """Finds upstreams that get identity headers which a client wrote into its trailers."""
    for options in tree["typed_extension_protocol_options"].values():
        if read_type(options) != UPSTREAM or all(find_value(options, *at) is None for at in _HTTP2):
            continue
        filters = find_value(options, "http_filters") or []
        if not any(
            find_value(one, "typed_config", "mutations", "request_trailers_mutations")
            for one in filters
        ):
            yield (), _TRAILERS


def check_old_cluster(_tree: Tree) -> Found:
    """Says of a cluster with the deprecated options what `check_upstream` says of others."""
    yield ("http2_protocol_options",), _TRAILERS


_TRAILERS: Final = (
    "an upstream that speaks HTTP/2 gets request trailers, and a client may name them "
    "x-extauthz-user; remove them with a header_mutation filter "
    "(request_trailers_mutations) in the http_filters of its HttpProtocolOptions"
)
_HTTP2: Final = (
    ("explicit_http_config", "http2_protocol_options"),
    ("auto_config",),
    ("use_downstream_protocol_config",),
)
"""Where an upstream may speak HTTP/2. What is empty there, is a mapping that says so."""
