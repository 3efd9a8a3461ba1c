"""What stands in a CheckRequest stands in the request value, whoever wrote the bytes."""

from __future__ import annotations

import datetime as dt
import string
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    EnvoyInternalAddress,
    HeaderMap,
    HeaderValue,
    Metadata,
    Pipe,
)
from envoy_data_plane.envoy.service.auth.v3 import (
    AttributeContext,
    AttributeContextHttpRequest,
    AttributeContextPeer,
    AttributeContextRequest,
    AttributeContextTlsSession,
    CheckRequest,
)
from envoy_data_plane.google.protobuf import Struct
from hypothesis import given
from hypothesis import strategies as st

from extauthz.envoy.check_request import read_check_request, read_header_fields
from extauthz.errors import MalformedRequest
from tests.envoy.wire import a_check, a_check_from, a_check_of, an_address

PEM = "-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n"
URL_ENCODED_PEM = "-----BEGIN%20CERTIFICATE-----%0AMIIB%2B%2F%3D%0A-----END%20CERTIFICATE-----%0A"
CLAIMS = {
    "sub": "alice",
    "exp": 1700000000,
    "ratio": 0.5,
    "admin": False,
    "none": None,
    "roles": ["a", 2, {"b": True}],
    "nested": {"deep": {"er": "still"}},
}

FULL = AttributeContext(
    source=AttributeContextPeer(
        address=an_address("192.0.2.1"),
        service="web",
        labels={"app": "shop"},
        principal="spiffe://mesh/ns/a/sa/web",
        certificate=URL_ENCODED_PEM,
    ),
    destination=AttributeContextPeer(
        address=an_address("198.51.100.2"),
        service="httpbin",
        labels={"version": "v2"},
        principal="spiffe://mesh/ns/b/sa/httpbin",
    ),
    request=AttributeContextRequest(
        time=dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
        http=AttributeContextHttpRequest(
            id="request-7",
            method="POST",
            headers={"content-type": "text/plain", "x-one": "1"},
            path="/a%20b/c?x=1&y=2",
            host="API.example.com:8443",
            scheme="https",
            size=42,
            protocol="HTTP/2",
            raw_body=b"\x00\xffbody",
        ),
    ),
    context_extensions={"extauthz.api": "HttpbinAPI"},
    metadata_context=Metadata(
        filter_metadata={"envoy.filters.http.jwt_authn": Struct.from_dict(CLAIMS)}
    ),
    route_metadata_context=Metadata(filter_metadata={"team": Struct.from_dict({"name": "core"})}),
    tls_session=AttributeContextTlsSession(sni="api.example.com"),
)


def test_reads_every_field_of_another_codecs_message() -> None:
    request = read_check_request(a_check_of(FULL))
    assert request.method == "POST"
    assert request.host == "api.example.com"
    assert request.path == "/a%20b/c"
    assert request.query == "x=1&y=2"
    assert request.scheme == "https"
    assert request.protocol == "HTTP/2"
    assert request.request_id == "request-7"
    assert request.size == 42
    assert request.body == b"\x00\xffbody"
    assert not request.body_is_partial
    assert {name: request.headers.get(name) for name in request.headers} == {
        "content-type": "text/plain",
        "x-one": "1",
    }
    assert request.source.address == "192.0.2.1"
    assert request.source.service == "web"
    assert request.source.labels == {"app": "shop"}
    assert request.source.principal == "spiffe://mesh/ns/a/sa/web"
    assert request.source.certificate == PEM
    assert request.destination.address == "198.51.100.2"
    assert request.destination.service == "httpbin"
    assert request.destination.labels == {"version": "v2"}
    assert request.destination.principal == "spiffe://mesh/ns/b/sa/httpbin"
    assert request.context == {"extauthz.api": "HttpbinAPI"}
    assert request.metadata == {"envoy.filters.http.jwt_authn": CLAIMS}
    assert isinstance(request.metadata["envoy.filters.http.jwt_authn"]["exp"], int)
    assert request.route_metadata == {"team": {"name": "core"}}
    assert request.sni == "api.example.com"


def test_leaves_out_what_the_message_leaves_out() -> None:
    request = read_check_request(a_check(size=-1))
    assert request.size == -1
    assert (request.query, request.scheme, request.sni, request.body) == ("", "", "", b"")
    assert (request.source.address, request.source.certificate) == ("", "")
    assert (request.context, request.metadata, request.route_metadata) == ({}, {}, {})
    assert len(request.headers) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"not a message",
        a_check(path=""),
        a_check(method=""),
        bytes(CheckRequest(attributes=AttributeContext())),
        b"\x0a\x04\x0a\x02\xff\xff",  # a source that is no Peer
    ],
    ids=["empty", "cut", "text", "no path", "no method", "no request", "bad peer"],
)
def test_refuses_what_is_no_check(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_check_request(data)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    try:
        request = read_check_request(data)
    except MalformedRequest:
        return
    assert request.method and request.path


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_changed_byte_crashes_the_reader(position: int, byte: int) -> None:
    data = bytearray(a_check_of(FULL))
    data[position % len(data)] = byte
    try:
        request = read_check_request(bytes(data))
    except MalformedRequest:
        return
    assert request.method


@pytest.mark.parametrize(
    ("sent", "path", "query"),
    [
        ("/a", "/a", ""),
        ("/a?", "/a", ""),
        ("/a?b=c?d", "/a", "b=c?d"),
        ("/a?b#c", "/a", "b"),
        ("/a#b?c", "/a#b", "c"),
        ("/%23/%3F", "/%23/%3F", ""),
        ("*", "*", ""),
    ],
)
def test_splits_the_path(sent: str, path: str, query: str) -> None:
    request = read_check_request(a_check(path=sent))
    assert (request.path, request.query) == (path, query)


def test_takes_a_query_that_stands_apart() -> None:
    assert read_check_request(a_check(path="/a", query="b=c")).query == "b=c"


@pytest.mark.parametrize(
    ("told", "fields", "host"),
    [
        ("API.example.com.:8080", [], "api.example.com"),
        ("a.example", [(":authority", "a.example")], "a.example"),
        ("a.example", [(":authority", "a.example"), ("host", "A.example:80")], "a.example"),
        ("", [(":authority", "a.example")], "a.example"),
        ("", [("accept", "*/*")], ""),
        ("", [(":authority", "")], None),
        ("a.example:80:80", [], None),
        ("a.example,b.example", [(":authority", "a.example,b.example")], None),
        ("a.example", [(":authority", "b.example")], None),
        ("a.example", [("host", "b.example")], None),
        ("a.example", [("Host", "b.example")], None),
        ("a.example", [("host", "")], None),
    ],
)
@pytest.mark.parametrize("raw", [False, True], ids=["headers", "header_map"])
def test_reads_the_one_host_that_is_told(
    *, told: str, fields: list[tuple[str, str]], host: str | None, raw: bool
) -> None:
    if raw:
        written = a_check(host=told, raw=[(name, value.encode()) for name, value in fields])
    else:
        written = a_check(host=told, headers=dict(fields))
    assert read_check_request(written).host == host


@pytest.mark.parametrize("name", ["host", ":authority"])
def test_a_host_that_is_told_in_two_lines_is_none(name: str) -> None:
    assert read_check_request(a_check(host="a", raw=[(name, b"a"), (name, b"a")])).host is None


PSEUDO = {":authority": "a", ":method": "GET", ":path": "/", ":scheme": "http"}
RAW_PSEUDO = [(name, value.encode()) for name, value in PSEUDO.items()]


@pytest.mark.parametrize("raw", [False, True], ids=["headers", "header_map"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"accept": "*/*"},
        {"x-empty": "", "accept": "*/*"},
        {"x-user": "Jörg", "cookie": "a=b; c=d"},
        {f"x-{number}": str(number) for number in range(50)},
    ],
    ids=["none", "one", "empty value", "not ascii", "many"],
)
def test_reads_headers_without_pseudo_headers(*, raw: bool, fields: dict[str, str]) -> None:
    sent = PSEUDO | fields
    data = (
        a_check(raw=[(name, value.encode()) for name, value in sent.items()])
        if raw
        else a_check(headers=sent)
    )
    headers = read_check_request(data).headers
    assert {name: headers.get(name) for name in headers} == fields


@pytest.mark.parametrize("raw", [False, True], ids=["headers", "header_map"])
def test_finds_headers_that_were_not_sent_in_lower_case(*, raw: bool) -> None:
    data = a_check(raw=[("X-Api-Key", b"k")]) if raw else a_check(headers={"X-Api-Key": "k"})
    assert read_check_request(data).headers.get("x-api-key") == "k"


def test_keeps_repeated_raw_headers_apart() -> None:
    data = a_check(
        raw=[(":path", b"/"), ("x-api-key", b"a"), ("accept", b"*/*"), ("x-api-key", b"b")]
    )
    headers = read_check_request(data).headers
    assert headers.get_all("x-api-key") == ("a", "b")
    assert list(headers) == ["x-api-key", "accept"]


def test_keeps_repeated_headers_apart_whatever_their_case() -> None:
    headers = read_check_request(a_check(raw=[("x-key", b"a"), ("X-Key", b"b")])).headers
    assert headers.get_all("x-key") == ("a", "b")


def test_reads_bytes_that_are_not_utf_8() -> None:
    headers = read_check_request(
        a_check(raw=[(":method", b"GET"), ("x-name", b"J\xf6rg"), ("x-utf8", "ö".encode())])
    ).headers
    assert headers.get("x-name") == "Jörg"
    assert headers.get("x-utf8") == "ö"
    assert ":method" not in headers


def test_reads_a_header_map_that_uses_text_values() -> None:
    attributes = AttributeContext(
        request=AttributeContextRequest(
            http=AttributeContextHttpRequest(
                method="GET",
                path="/",
                header_map=HeaderMap(headers=[HeaderValue(key="x-a", value="text")]),
            )
        )
    )
    assert read_check_request(a_check_of(attributes)).headers.get("x-a") == "text"


@given(st.lists(st.tuples(st.text(string.ascii_lowercase, min_size=1), st.binary(max_size=20))))
def test_no_raw_header_is_lost(fields: list[tuple[str, bytes]]) -> None:
    headers = read_check_request(a_check(raw=fields)).headers
    names = [name for name, _ in fields]
    assert list(headers) == list(dict.fromkeys(names))
    assert all(len(headers.get_all(name)) == names.count(name) for name in names)


@pytest.mark.parametrize(
    ("fields", "partial"),
    [
        ([], False),
        ([("x-envoy-auth-partial-body", b"false")], False),
        ([("x-envoy-auth-partial-body", b"true")], True),
        (
            [("x-envoy-auth-partial-body", b"false"), ("x-envoy-auth-partial-body", b"true")],
            True,
        ),
    ],
    ids=["not said", "whole", "cut", "the client says false too"],
)
def test_says_whether_the_body_was_cut(*, fields: list[tuple[str, bytes]], partial: bool) -> None:
    request = read_check_request(a_check(raw=fields, body="abc"))
    assert request.body == b"abc"
    assert request.body_is_partial is partial


@pytest.mark.parametrize(
    ("address", "ip", "is_local"),
    [
        (an_address("2001:db8::1"), "2001:db8::1", False),
        (Address(pipe=Pipe(path="/run/a.sock")), "", True),
        (
            Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name="main")),
            "",
            True,
        ),
        (Address(), "", False),
        (None, "", False),
    ],
    ids=["ipv6", "unix socket", "inside envoy", "empty", "none"],
)
def test_reads_the_peers_address(*, address: Address | None, ip: str, is_local: bool) -> None:
    request = read_check_request(a_check_from(AttributeContextPeer(address=address, service="s")))
    assert (request.source.address, request.source.service) == (ip, "s")
    assert request.source.is_local is is_local


def test_reads_a_peer_whose_certificate_is_large() -> None:
    peer = AttributeContextPeer(certificate="a%20" * 5000)
    assert read_check_request(a_check_from(peer)).source.certificate == "a " * 5000


def test_peers_labels_cannot_be_changed_by_who_reads_them() -> None:
    # Peers are shared between requests.
    peer = AttributeContextPeer(labels={"app": "shop"})
    labels: Any = read_check_request(a_check_from(peer)).source.labels
    with pytest.raises(TypeError):
        labels["app"] = "other"


@pytest.mark.parametrize(
    ("http", "partial"),
    [
        ({"protocol": "HTTP/1.1", "headers": {**PSEUDO, "accept": "*/*"}}, False),
        ({"protocol": "HTTP/1.1", "raw": RAW_PSEUDO}, False),
        ({"protocol": "HTTP/1.1", "raw": [*RAW_PSEUDO, ("a", b"1"), ("a", b"2")]}, False),
        # The list may name the host, or all beginnings of some kind.
        ({"protocol": "HTTP/1.1", "headers": {":authority": "a", "accept": "*/*"}}, True),
        ({"protocol": "HTTP/1.1", "raw": [(":authority", b"a"), (":path", b"/")]}, True),
        ({"protocol": "HTTP/2", "raw": [(":method", b"GET"), (":path", b"/")]}, True),
        ({"protocol": "HTTP/2", "raw": [(":authority", b"a"), ("a", b"1"), ("a", b"2")]}, True),
        ({"protocol": "HTTP/1.1", "headers": {"x-api-key": "a"}}, True),
        ({"protocol": "HTTP/2", "raw": [("x-api-key", b"a")]}, True),
        ({"protocol": "HTTP/2"}, True),
        # No Envoy leaves the protocol out.
        ({"headers": {"x-api-key": "a"}}, False),
    ],
)
def test_sees_that_envoy_keeps_headers_to_itself(*, http: dict[str, Any], partial: bool) -> None:
    assert read_check_request(a_check(host="a", **http)).headers_are_partial is partial


@pytest.mark.parametrize(
    ("check_request", "fields"),
    [
        (a_check(headers={"traceparent": "00-1", "cookie": "a=b"}), {"traceparent": "00-1"}),
        (a_check(raw=[("b3", b"0"), (":path", b"/")]), {"b3": "0"}),
        (a_check(raw=[("b3", b"0"), ("traceparent", b"00"), ("b3", b"1")]), {"traceparent": "00"}),
        (a_check(headers={"cookie": "a=b"}), {}),
        (a_check(), {}),
        (b"\xff\xff", {}),
    ],
    ids=["a map", "kept apart", "one twice", "another", "none", "no CheckRequest"],
)
def test_gives_header_fields_before_the_request_is_read(
    check_request: bytes, fields: dict[str, str]
) -> None:
    assert read_header_fields(check_request, ("traceparent", "b3")) == fields
