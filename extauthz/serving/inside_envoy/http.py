"""Writes the HTTP filters of the shared listener, which run before Python.

A call reaches Python once its message has arrived, which it must within
`HostLimits.message_timeout_s`. Until then it waits before the filter that bounds the calls in
flight, and does not count there. Client streams cannot be buffered: each of these methods has a
route without both filters, and begins its answer at once, which ends Envoy's request timeout.

Sources: Envoy's v3 API reference, by the names of the fields; pyvoy's `get_envoy_config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pyvoy import PyvoyServer

from extauthz.serving.door import SLOW
from extauthz.serving.health import HEALTH_SERVICE
from extauthz.serving.inside_envoy.asgi_doors import ADDRESS_HEADER
from extauthz.serving.limits import HostLimits
from extauthz.serving.methods import RpcCode

STAT_PREFIX: Final = "grpc"

_TYPE: Final = "type.googleapis.com/"
_FILTERS: Final = f"{_TYPE}envoy.extensions.filters.http."
_WHOLE: Final = "envoy.filters.http.buffer"
_BOUND: Final = "envoy.filters.http.adaptive_concurrency"
_QUICK: Final = "0.025s"
_MIB: Final = 1024 * 1024


def write_http_filter(
    app: str, limits: HostLimits, *, client_streams: Sequence[str], names_address: bool
) -> dict[str, Any]:
    """Writes the network filter for HTTP/2, with the application at the end of its chain.

    Args:
        app: the ASGI application, as ``package.module:name``.
        limits: the host's limits.
        client_streams: the paths of methods whose request is a stream.
        names_address: whether to add the header with the address on which a call arrived.
    """
    config = PyvoyServer(app, lifespan=True, loop="uvloop").get_envoy_config()
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    http_filter: dict[str, Any] = chain["filters"][-1]
    http_filter["typed_config"] |= {
        "codec_type": "HTTP2",
        "stat_prefix": STAT_PREFIX,
        "server_header_transformation": "PASS_THROUGH",
        "request_headers_timeout": write_seconds(limits.handshake_timeout_s),
        "request_timeout": write_seconds(limits.message_timeout_s),
        "stream_idle_timeout": "0s",  # streams of access logs and health may be idle for hours
        "stream_flush_timeout": write_seconds(limits.keepalive_timeout_s),
        "common_http_protocol_options": {
            "max_connection_duration": write_seconds(limits.max_connection_age_s),
        },
        "http2_protocol_options": {
            "max_concurrent_streams": limits.max_concurrent_streams,
            "initial_stream_window_size": _MIB,
            "initial_connection_window_size": 4 * _MIB,
            "connection_keepalive": {
                "interval": write_seconds(limits.keepalive_time_s),
                "timeout": write_seconds(limits.keepalive_timeout_s),
            },
        },
        "local_reply_config": {"mappers": [_write_slow_reply(), _write_large_reply()]},
    }
    http_filter["typed_config"]["http_filters"][:0] = [
        _write_whole(limits),
        _write_in_flight_bound(limits),
    ]
    (virtual_host,) = http_filter["typed_config"]["route_config"]["virtual_hosts"]
    virtual_host["routes"] = [
        # Health must be answered under overload as well, and its watches last for hours.
        _write_route({"prefix": f"/{HEALTH_SERVICE}/"}, without=[_BOUND]),
        *(_write_route({"path": path}, without=[_WHOLE, _BOUND]) for path in client_streams),
    ]
    # For a client stream, the bytes that Python has not read yet. The HTTP/2 window of a stream is
    # smaller, so its caller has to wait before Envoy would refuse the stream.
    virtual_host["request_body_buffer_limit"] = _max_body_bytes(limits)
    if names_address:
        http_filter["typed_config"]["early_header_mutation_extensions"] = [_write_address_header()]
    return http_filter


def write_seconds(duration_s: float) -> str:
    """Writes a duration in the JSON form of protobuf."""
    return f"{duration_s:.3f}s"


def _max_body_bytes(limits: HostLimits) -> int:
    # More than a message may have, so that the application itself refuses larger messages.
    return limits.max_receive_bytes + _MIB


def _write_whole(limits: HostLimits) -> dict[str, Any]:
    """The filter that buffers a call until its request is complete."""
    return {
        "name": _WHOLE,
        "typed_config": {
            "@type": f"{_FILTERS}buffer.v3.Buffer",
            "max_request_bytes": _max_body_bytes(limits),
        },
    }


def _write_in_flight_bound(limits: HostLimits) -> dict[str, Any]:
    """The filter that refuses calls under overload, before Python runs for them.

    The bound is between `HostLimits.busy_in_flight` and `max_in_flight`. The longer the calls of
    the last tenth of a second took, compared with `_QUICK`, the lower it is.
    """
    return {
        "name": _BOUND,
        "typed_config": {
            "@type": f"{_FILTERS}adaptive_concurrency.v3.AdaptiveConcurrency",
            "gradient_controller_config": {
                "concurrency_limit_params": {
                    "max_concurrency_limit": limits.max_in_flight,
                    "concurrency_update_interval": "0.1s",
                },
                "min_rtt_calc_params": {
                    # A fixed value: to measure it, Envoy would refuse all but a few calls.
                    "fixed_value": _QUICK,
                    "min_concurrency": limits.busy_in_flight,
                },
            },
            "concurrency_limit_exceeded_status": {"code": "ServiceUnavailable"},
        },
    }


def _write_route(match: dict[str, str], *, without: Sequence[str]) -> dict[str, Any]:
    off = {"@type": f"{_TYPE}envoy.config.route.v3.FilterConfig", "disabled": True}
    return {
        "match": match,
        "non_forwarding_action": {},
        "typed_per_filter_config": dict.fromkeys(without, off),
    }


def _write_slow_reply() -> dict[str, Any]:
    return _write_reply(408, RpcCode.DEADLINE_EXCEEDED, SLOW)


def _write_large_reply() -> dict[str, Any]:
    return _write_reply(413, RpcCode.RESOURCE_EXHAUSTED, "the message is too large")


def _write_reply(status: int, code: RpcCode, message: str) -> dict[str, Any]:
    """A local reply with a gRPC status; Envoy's own would be UNKNOWN for these HTTP statuses."""
    comparison = {"op": "EQ", "value": {"default_value": status, "runtime_key": f"none.{status}"}}
    return {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "body": {"inline_string": message},
        "headers_to_add": [{"header": {"key": "grpc-status", "value": str(code.value)}}],
    }


def _write_address_header() -> dict[str, Any]:
    header = {"key": ADDRESS_HEADER, "value": "%DOWNSTREAM_LOCAL_ADDRESS%"}
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3."
            "HeaderMutation",
            "mutations": [{"remove": ADDRESS_HEADER}, {"append": {"header": header}}],
        },
    }
