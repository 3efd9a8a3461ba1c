"""Envoy's typed configuration messages, made from `extauthz.envoy.configuration.parameters`.

Imports `envoy-data-plane`, which takes half a second: import this inside functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import betterproto2
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    KeepaliveSettings,
    Pipe,
    SocketAddress,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import (
    BufferSettings,
    CheckSettings,
    ExtAuthz,
    ExtAuthzPerRoute,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation as HeaderMutationFilter,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as UpstreamHttpOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any as AnyMessage

from extauthz.envoy.configuration.access_log import make_grpc_log, make_stdout_log
from extauthz.envoy.configuration.parameters import (
    EXTAUTHZ_CLUSTER,
    USAGE_CLUSTER,
    ClientTls,
    EnvoyParameters,
    ServerTls,
    Upstream,
    is_ip_address,
    read_address,
)
from extauthz.policy.request.client_address import REMOTE_ADDRESS_EXTENSION

FILTER_NAME: Final = "envoy.filters.http.ext_authz"
_CONNECT_TIMEOUT: Final = timedelta(seconds=1)
_PING_INTERVAL: Final = timedelta(seconds=30)
_PING_TIMEOUT: Final = timedelta(seconds=5)
_MAX_CHECKS_IN_FLIGHT: Final = 10_000
"""Envoy's own default, 1024, would turn a burst of requests into failed checks."""


def write_dict(message: betterproto2.Message) -> dict[str, Any]:
    """A message in its JSON form, with the field names that Envoy's documentation uses."""
    return message.to_dict(casing=betterproto2.Casing.SNAKE)


def make_bootstrap(parameters: EnvoyParameters) -> Bootstrap:
    """Makes the complete bootstrap of an Envoy."""
    admin = None
    if parameters.admin_port is not None:
        admin = Admin(address=_make_address(("127.0.0.1", parameters.admin_port)))
    upstreams = [
        _make_upstream_cluster(upstream, parameters.own_headers)
        for upstream in parameters.upstreams
    ]
    return Bootstrap(
        admin=admin,
        static_resources=BootstrapStaticResources(
            listeners=[_make_listener(parameters)],
            clusters=[*make_extauthz_clusters(parameters), *upstreams],
        ),
    )


def make_filter(parameters: EnvoyParameters) -> HttpFilter:
    """Makes the ext_authz HTTP filter that asks extauthz."""
    body = None
    if parameters.max_body_bytes:
        body = BufferSettings(
            max_request_bytes=parameters.max_body_bytes,
            allow_partial_message=parameters.partial_body,
            pack_as_bytes=True,
        )
    config = ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=EXTAUTHZ_CLUSTER),
            timeout=timedelta(milliseconds=parameters.timeout_ms),
        ),
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=parameters.allow_on_failure,
        failure_mode_allow_header_add=parameters.allow_on_failure,
        status_on_error=HttpStatus(code=StatusCode(parameters.status_on_error)),
        validate_mutations=parameters.validate_mutations,
        encode_raw_headers=parameters.raw_headers,
        include_peer_certificate=parameters.peer_certificate,
        include_tls_session=parameters.listen_tls is not None,
        clear_route_cache=parameters.clear_route_cache,
        with_request_body=body,
        metadata_context_namespaces=list(parameters.metadata_namespaces),
    )
    return HttpFilter(name=FILTER_NAME, typed_config=AnyMessage.pack(config))


def make_extauthz_clusters(parameters: EnvoyParameters) -> list[Cluster]:
    """Makes the clusters of extauthz: for checks, and with `access_logs` for these."""
    names = [EXTAUTHZ_CLUSTER, *([USAGE_CLUSTER] if parameters.access_logs else [])]
    return [_make_extauthz_cluster(name, parameters) for name in names]


def _make_extauthz_cluster(name: str, parameters: EnvoyParameters) -> Cluster:
    """An HTTP/2 cluster of extauthz. Its pings detect connections that died silently."""
    pings = KeepaliveSettings(interval=_PING_INTERVAL, timeout=_PING_TIMEOUT)
    cluster = _make_cluster(
        name, parameters.extauthz, Http2ProtocolOptions(connection_keepalive=pings)
    )
    cluster.circuit_breakers = CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_requests=_MAX_CHECKS_IN_FLIGHT, max_pending_requests=_MAX_CHECKS_IN_FLIGHT
            )
        ]
    )
    if parameters.extauthz_tls is not None:
        cluster.transport_socket = _make_client_tls(parameters.extauthz_tls)
    return cluster


def _make_upstream_cluster(upstream: Upstream, own_headers: Sequence[str]) -> Cluster:
    if not upstream.speaks_http2:
        return _make_cluster(upstream.name, upstream.address)
    filters = _make_trailer_filters(own_headers) if own_headers else ()
    return _make_cluster(upstream.name, upstream.address, Http2ProtocolOptions(), filters)


def _make_trailer_filters(own_headers: Sequence[str]) -> tuple[HttpFilter, ...]:
    """Filters that remove our fields from request trailers; ext_authz answers cannot do that."""
    mutations = Mutations(
        request_trailers_mutations=[HeaderMutation(remove=name) for name in own_headers]
    )
    config = AnyMessage.pack(HeaderMutationFilter(mutations=mutations))
    return (
        HttpFilter(name="envoy.filters.http.header_mutation", typed_config=config),
        HttpFilter(
            name="envoy.filters.http.upstream_codec", typed_config=AnyMessage.pack(UpstreamCodec())
        ),
    )


def _make_cluster(
    name: str,
    address: str,
    http2: Http2ProtocolOptions | None = None,
    filters: Sequence[HttpFilter] = (),
) -> Cluster:
    place = read_address(address)
    named = isinstance(place, tuple) and not is_ip_address(place[0])
    endpoint = LbEndpoint(endpoint=Endpoint(address=_make_address(place)))
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS if named else ClusterDiscoveryType.STATIC,
        connect_timeout=_CONNECT_TIMEOUT,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )
    if http2 is not None:
        options = UpstreamHttpOptions(
            explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
                http2_protocol_options=http2
            ),
            http_filters=list(filters),
        )
        cluster.typed_extension_protocol_options = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": AnyMessage.pack(options)
        }
    return cluster


def _make_listener(parameters: EnvoyParameters) -> Listener:
    logs = [make_grpc_log()] if parameters.access_logs else []
    if parameters.stdout_log:
        logs.append(make_stdout_log())
    manager = HttpConnectionManager(
        stat_prefix="ingress",
        # As at any edge: uses the peer's address, and drops x-envoy-* headers of clients.
        use_remote_address=parameters.use_remote_address,
        xff_num_trusted_hops=parameters.trusted_hops,
        # Routes and extauthz must read a host in the same way, however it is written.
        strip_trailing_host_dot=True,
        normalize_path=parameters.normalize_path,
        merge_slashes=parameters.merge_slashes,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction[
            parameters.escaped_slashes.value
        ],
        common_http_protocol_options=HttpProtocolOptions(
            headers_with_underscores_action=HttpProtocolOptionsHeadersWithUnderscoresAction[
                parameters.underscore_headers.value
            ]
        ),
        # The handshake of a WebSocket is checked like any other request.
        upgrade_configs=[HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")],
        access_log=logs,
        route_config=_make_routes(parameters),
        http_filters=[
            make_filter(parameters),
            HttpFilter(name="envoy.filters.http.router", typed_config=AnyMessage.pack(Router())),
        ],
    )
    chain = FilterChain(
        filters=[
            Filter(
                name="envoy.filters.network.http_connection_manager",
                typed_config=AnyMessage.pack(manager),
            )
        ]
    )
    if parameters.listen_tls is not None:
        chain.transport_socket = _make_server_tls(parameters.listen_tls)
    return Listener(
        name="ingress",
        address=_make_address(read_address(parameters.listen)),
        filter_chains=[chain],
    )


def _make_routes(parameters: EnvoyParameters) -> RouteConfiguration:
    routes: dict[str, list[Route]] = {}
    for upstream in parameters.upstreams:
        route = Route(
            match=RouteMatch(prefix=upstream.prefix), route=RouteAction(cluster=upstream.name)
        )
        if upstream.context:
            settings = CheckSettings(context_extensions=dict(upstream.context))
            per_route = ExtAuthzPerRoute(check_settings=settings)
            route.typed_per_filter_config = {FILTER_NAME: AnyMessage.pack(per_route)}
        for host in upstream.hosts:
            routes.setdefault(host, []).append(route)
    told = {REMOTE_ADDRESS_EXTENSION: "true" if parameters.use_remote_address else "false"}
    of_all = ExtAuthzPerRoute(check_settings=CheckSettings(context_extensions=told))
    return RouteConfiguration(
        name="ingress",
        ignore_port_in_host_matching=True,
        # Those of a route are merged into these.
        typed_per_filter_config={FILTER_NAME: AnyMessage.pack(of_all)},
        virtual_hosts=[
            VirtualHost(name=host, domains=[host], routes=found) for host, found in routes.items()
        ],
    )


def _make_server_tls(tls: ServerTls) -> TransportSocket:
    common = CommonTlsContext(
        tls_certificates=[_make_certificate(tls.certificate_file, tls.key_file)],
        alpn_protocols=["h2", "http/1.1"],
    )
    if tls.client_ca_file is not None:
        common.validation_context = CertificateValidationContext(
            trusted_ca=DataSource(filename=tls.client_ca_file)
        )
    context = DownstreamTlsContext(
        common_tls_context=common, require_client_certificate=tls.client_ca_file is not None
    )
    return TransportSocket(
        name="envoy.transport_sockets.tls", typed_config=AnyMessage.pack(context)
    )


def _make_client_tls(tls: ClientTls) -> TransportSocket:
    name = SubjectAltNameMatcher(
        san_type=SubjectAltNameMatcherSanType.IP_ADDRESS
        if is_ip_address(tls.server_name)
        else SubjectAltNameMatcherSanType.DNS,
        matcher=StringMatcher(exact=tls.server_name),
    )
    common = CommonTlsContext(
        alpn_protocols=["h2"],
        validation_context=CertificateValidationContext(
            trusted_ca=DataSource(filename=tls.ca_file), match_typed_subject_alt_names=[name]
        ),
    )
    if tls.certificate_file is not None and tls.key_file is not None:
        common.tls_certificates = [_make_certificate(tls.certificate_file, tls.key_file)]
    # An IP address is not allowed as a server name (RFC 6066 section 3).
    sni = "" if is_ip_address(tls.server_name) else tls.server_name
    context = UpstreamTlsContext(common_tls_context=common, sni=sni)
    return TransportSocket(
        name="envoy.transport_sockets.tls", typed_config=AnyMessage.pack(context)
    )


def _make_certificate(certificate_file: str, key_file: str) -> TlsCertificate:
    return TlsCertificate(
        certificate_chain=DataSource(filename=certificate_file),
        private_key=DataSource(filename=key_file),
    )


def _make_address(place: tuple[str, int] | str) -> Address:
    if isinstance(place, str):
        return Address(pipe=Pipe(path=place))
    return Address(socket_address=SocketAddress(address=place[0], port_value=place[1]))
