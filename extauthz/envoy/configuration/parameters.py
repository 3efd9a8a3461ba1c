"""Defines and checks the parameters of an Envoy configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from extauthz.answers.upstream import default_identity_headers
from extauthz.errors import ConfigError, Problem

EXTAUTHZ_CLUSTER: Final = "extauthz"
USAGE_CLUSTER: Final = "extauthz-usage"
"""The same service, for access logs, so that these have a connection of their own. A server inside
an Envoy closes a connection on which many calls were cancelled, as timed-out checks are, and
everything on its way in a stream of access logs would be lost."""
OWN_HEADERS: Final = tuple(default_identity_headers().values())
"""The header fields of identities by the default settings."""
_ERROR_STATUSES: Final = frozenset(
    {*range(400, 418), *range(421, 425), 426, 428, 429, 431, *range(500, 509), 510, 511}
)
"""The statuses of envoy.type.v3.StatusCode."""


class EscapedSlashes(Enum):
    """What Envoy does with ``%2F`` and ``%5C`` in a path."""

    KEEP_UNCHANGED = "KEEP_UNCHANGED"
    REJECT_REQUEST = "REJECT_REQUEST"
    UNESCAPE_AND_REDIRECT = "UNESCAPE_AND_REDIRECT"
    UNESCAPE_AND_FORWARD = "UNESCAPE_AND_FORWARD"


class UnderscoreHeaders(Enum):
    """What Envoy does with header names like ``x_user``, which CGI reads as ``x-user``."""

    ALLOW = "ALLOW"
    REJECT_REQUEST = "REJECT_REQUEST"
    DROP_HEADER = "DROP_HEADER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A service behind Envoy, and the requests that are routed to it.

    Attributes:
        address: ``host:port``, ``[ipv6]:port`` or ``unix:/path``.
        name: of Envoy's cluster; each upstream needs its own.
        prefix: beginning of the paths that are routed to it. Of the upstreams with the request's
            host, the first whose prefix fits is used.
        hosts: authorities as Envoy matches them: exact, ``*.example.com`` or ``*``; the most
            specific one counts.
        speaks_http2: as gRPC services do, instead of HTTP/1.1.
        context: context extensions of the route; ``extauthz.api`` names the API.
    """

    address: str
    name: str = "upstream"
    prefix: str = "/"
    hosts: tuple[str, ...] = ("*",)
    speaks_http2: bool = False
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Envoy's own certificate. With `client_ca_file`, clients need one that this CA has signed."""

    certificate_file: str
    key_file: str
    client_ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """How Envoy trusts extauthz: its certificate must name `server_name`."""

    ca_file: str
    server_name: str
    certificate_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyParameters:
    """The parameters of an Envoy in front of some services.

    Attributes:
        upstreams: in the order in which they are tried.
        extauthz: where extauthz serves gRPC: ``host:port`` or ``unix:/path``.
        listen: where Envoy serves; port 0 takes a free one.
        admin_port: on 127.0.0.1; None for no admin interface.
        listen_tls, extauthz_tls: None for plain text.
        timeout_ms: how long Envoy waits for a decision.
        allow_on_failure: let requests pass when there is no decision. Not recommended.
        status_on_error: status for clients when there is no decision; Envoy's own default, 403,
            would look like a denial.
        raw_headers: send repeated header fields apart and bytes as they are.
        peer_certificate: send the client's certificate; needs `listen_tls` with a client CA.
        max_body_bytes: of a request's body to send along; 0 for none. A longer body is
            answered with 413, unless `partial_body`: then it is cut.
        metadata_namespaces: of dynamic metadata to send along.
        trusted_hops: proxies in front of this Envoy whose X-Forwarded-For entries count.
        use_remote_address: Envoy adds its peer to X-Forwarded-For, and drops what clients say in
            x-envoy-* headers. False where a proxy in front of it does both. extauthz is told.
        own_headers: fields that only extauthz sets; taken out of request trailers, which reach
            upstreams that speak HTTP/2.
        stdout_log: a line of JSON on standard output for each finished request, with what was
            decided.
        access_logs: report every finished request to extauthz (ALS v3).
    """

    upstreams: tuple[Upstream, ...]
    extauthz: str = "127.0.0.1:9001"
    listen: str = "127.0.0.1:10000"
    admin_port: int | None = 9901
    listen_tls: ServerTls | None = None
    extauthz_tls: ClientTls | None = None
    timeout_ms: int = 200
    allow_on_failure: bool = False
    status_on_error: int = 503
    validate_mutations: bool = True
    raw_headers: bool = True
    peer_certificate: bool = False
    clear_route_cache: bool = False
    max_body_bytes: int = 0
    partial_body: bool = False
    metadata_namespaces: tuple[str, ...] = ()
    normalize_path: bool = True
    merge_slashes: bool = True
    escaped_slashes: EscapedSlashes = EscapedSlashes.REJECT_REQUEST
    underscore_headers: UnderscoreHeaders = UnderscoreHeaders.REJECT_REQUEST
    trusted_hops: int = 0
    use_remote_address: bool = True
    own_headers: tuple[str, ...] = OWN_HEADERS
    stdout_log: bool = True
    access_logs: bool = False


def read_address(text: str) -> tuple[str, int] | str:
    """Host and port of ``host:port`` or ``[ipv6]:port``, or the path of ``unix:/path``.

    Raises:
        ValueError: it is neither.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{text!r}: write unix:/path with an absolute path")
        return path
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if (
        not host
        or (":" in host and not bracketed)
        or not (port.isascii() and port.isdigit() and int(port) < 65536)
    ):
        raise ValueError(f"{text!r}: write host:port, [ipv6]:port or unix:/path")
    return host, int(port)


def is_ip_address(host: str) -> bool:
    """Whether a host is an IP address, so that it needs no name resolution."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_parameters(parameters: EnvoyParameters) -> None:
    """Checks all parameters.

    Raises:
        ConfigError: lists every invalid parameter.
    """
    problems = []
    addresses = {"extauthz": parameters.extauthz, "listen": parameters.listen}
    for number, upstream in enumerate(parameters.upstreams):
        addresses[f"upstreams[{number}].address"] = upstream.address
    for path, text in addresses.items():
        try:
            address = read_address(text)
        except ValueError as exc:
            problems.append(Problem(path=path, message=str(exc)))
            continue
        if path == "listen" and isinstance(address, tuple) and not is_ip_address(address[0]):
            message = f"{text!r}: Envoy listens on an IP address; write one"
            problems.append(Problem(path=path, message=message))
    if not parameters.upstreams:
        problems.append(Problem(path="upstreams", message="name at least one"))
    names = [EXTAUTHZ_CLUSTER, USAGE_CLUSTER, *(upstream.name for upstream in parameters.upstreams)]
    problems += [
        Problem(path="upstreams", message=f"the name {name!r} is taken; give each its own")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if parameters.peer_certificate and (
        parameters.listen_tls is None or parameters.listen_tls.client_ca_file is None
    ):
        message = "clients show no certificate without listen_tls and its client_ca_file"
        problems.append(Problem(path="peer_certificate", message=message))
    if parameters.timeout_ms <= 0:
        problems.append(Problem(path="timeout_ms", message="must be greater than 0"))
    if parameters.status_on_error not in _ERROR_STATUSES:
        message = f"{parameters.status_on_error} is no error status that Envoy knows; write 503"
        problems.append(Problem(path="status_on_error", message=message))
    if problems:
        raise ConfigError(problems)
