"""Reads Envoy's CheckRequest (ext_authz v3) into the neutral request value.

Rules:

- The request is read as Envoy received it, and not judged: only bytes that are no CheckRequest, or
  that have no method or path, are refused here.
- Header fields come as `headers` (a map; Envoy has joined repeated fields with commas) or,
  with `encode_raw_headers`, as `header_map` (repeated fields kept apart, any bytes). Pseudo
  headers are left out.
- There must be one host: with a `host` field or a second ``:authority`` that differs, an empty one,
  or one that is no ``host[:port]``, the request has no valid host.
- An Envoy that sends only some header fields (`allowed_headers`) omits pseudo headers, too, unless
  its list has them. So when one of the three that every request has is missing, other fields may be
  missing, too.
- The path is split at the first ``?``, and the query is cut at the first ``#``. Nothing is decoded.
  A ``#`` in the path itself is kept, and therefore refused: no request target has a fragment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, HeaderValue, Metadata
from extauthz.envoy.proto.ext_authz_pb2 import Peer as WirePeer
from extauthz.errors import MalformedRequest
from extauthz.model.request import NO_PEER, ApiRequest, Headers, Peer, read_field_value
from extauthz.model.routing.authority import find_host, read_host

PARTIAL_BODY_HEADER: Final = "x-envoy-auth-partial-body"
_IN_EVERY_REQUEST: Final = frozenset({":authority", ":method", ":path"})
_MAX_CACHED_PEER_BYTES: Final = 8192
_EXACT_FLOAT: Final = 2**53
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def read_check_request(data: bytes) -> ApiRequest:
    """The request that a serialised envoy.service.auth.v3.CheckRequest asks about.

    Raises:
        MalformedRequest: the bytes are no CheckRequest, or it has no method or no path.
    """
    try:
        attributes = CheckRequest.FromString(data).attributes
        source = _find_peer(attributes.source)
        destination = _find_peer(attributes.destination)
    except DecodeError as exc:
        raise MalformedRequest("the message is not a CheckRequest (ext_authz v3)") from exc
    extensions = attributes.context_extensions
    http = attributes.request.http
    method, path = http.method, http.path
    if not method or not path:
        raise MalformedRequest(
            "the CheckRequest names no method or no path; is it a filter for HTTP that asks?"
        )
    path, _, query = path.partition("?")
    if "#" in query:
        query = query[: query.index("#")]
    raw = http.header_map.headers
    headers, authorities, are_whole = (
        _read_header_map(raw) if raw else _read_headers({**http.headers}, are_apart=False)
    )
    return ApiRequest(
        method=method,
        host=_find_host(http.host, authorities, headers),
        path=path,
        query=query or http.query,
        scheme=http.scheme,
        protocol=http.protocol,
        headers=headers,
        headers_are_partial=not are_whole and http.protocol != "",
        source=source,
        destination=destination,
        context=dict(extensions) if extensions else _NOTHING,
        metadata=(
            _read_metadata(attributes.metadata_context)
            if attributes.HasField("metadata_context")
            else _NOTHING
        ),
        route_metadata=(
            _read_metadata(attributes.route_metadata_context)
            if attributes.HasField("route_metadata_context")
            else _NOTHING
        ),
        sni=attributes.tls_session.sni,
        body=http.raw_body or http.body.encode(),
        # A client may send the header too, beside Envoy's own: any "true" counts.
        body_is_partial=PARTIAL_BODY_HEADER in headers
        and "true" in headers.get_all(PARTIAL_BODY_HEADER),
        size=http.size,
        request_id=http.id,
    )


def read_header_fields(data: bytes, names: Collection[str]) -> dict[str, str]:
    """Header fields of a checked request, before it is read as a whole. Raises nothing.

    Args:
        data: as for `read_check_request`.
        names: of the fields, in lower case.

    Returns:
        The values by name; without fields that stand twice, which nobody can say the value of.
    """
    try:
        http = CheckRequest.FromString(data).attributes.request.http
    except DecodeError:
        return {}
    entries = http.header_map.headers
    if not entries:
        return {name: value for name, value in http.headers.items() if name in names}
    fields: dict[str, str] = {}
    twice = set()
    for entry in entries:
        name = entry.key
        if name in fields:
            twice.add(name)
        elif name in names:
            fields[name] = read_field_value(entry.raw_value) or entry.value
    return {name: value for name, value in fields.items() if name not in twice}


def _find_host(host: str, authorities: tuple[str, ...], headers: Headers) -> str | None:
    """See `ApiRequest.host`. Envoy joins repeated Host lines with commas, which no host has."""
    if host and "host" not in headers and (not authorities or authorities == (host,)):
        return read_host(host)  # as every Envoy tells it
    fields = headers.get_all("host")
    if len(authorities) > 1 or len(fields) > 1:
        return None
    if host:
        authorities = (host, *authorities)
    return find_host((*authorities, *fields))


_Fields = tuple[Headers, tuple[str, ...], bool]
"""Header fields, the values of ``:authority``, and whether the pseudo headers are there."""


def _read_headers(fields: dict[str, str | bytes], *, are_apart: bool) -> _Fields:
    authority = fields.pop(":authority", None)
    method, path = fields.pop(":method", None), fields.pop(":path", None)
    fields.pop(":scheme", None)
    fields.pop(":protocol", None)
    are_whole = authority is not None and method is not None and path is not None
    authorities = () if authority is None else (read_field_value(authority),)
    return Headers.of_dict(fields, are_apart=are_apart), authorities, are_whole


def _read_header_map(entries: Collection[HeaderValue]) -> _Fields:
    fields: dict[str, str | bytes] = {
        entry.key: entry.raw_value or entry.value for entry in entries
    }
    if len(fields) == len(entries):
        return _read_headers(fields, are_apart=True)
    pairs = [(entry.key, read_field_value(entry.raw_value) or entry.value) for entry in entries]
    return (
        Headers((pair for pair in pairs if pair[0][:1] != ":"), are_apart=True),
        tuple(value for name, value in pairs if name == ":authority"),
        fields.keys() >= _IN_EVERY_REQUEST,
    )


def _find_peer(data: bytes) -> Peer:
    if not data:
        return NO_PEER
    return _cached_peer(data) if len(data) <= _MAX_CACHED_PEER_BYTES else _read_peer(data)


def _read_peer(data: bytes) -> Peer:
    peer = WirePeer.FromString(data)
    return Peer(
        address=peer.address.socket_address.address,
        principal=peer.principal,
        certificate=unquote(peer.certificate),
        service=peer.service,
        labels=MappingProxyType(dict(peer.labels)),
        is_local=peer.address.WhichOneof("address") in {"pipe", "envoy_internal_address"},
    )


_cached_peer = lru_cache(maxsize=1024)(_read_peer)


def _read_metadata(metadata: Metadata) -> Mapping[str, Any]:
    return {name: _read_struct(struct) for name, struct in metadata.filter_metadata.items()}


def _read_struct(struct: Struct) -> dict[str, Any]:
    # The parser bounds the nesting (100 messages), and so the recursion.
    return {name: _read_value(value) for name, value in struct.fields.items()}


def _read_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _read_struct(value.struct_value)
        case "list_value":
            return [_read_value(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            # JSON's 3 is a double on this wire; NaN and infinity are no integers.
            exact = number.is_integer() and abs(number) <= _EXACT_FLOAT
            return int(number) if exact else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None
