"""The neutral request: header fields, and what it never shows."""

from __future__ import annotations

import pytest

from extauthz.model.request import Headers, Peer
from tests.builders import a_request


def test_header_names_are_lower_case_whatever_was_sent() -> None:
    headers = Headers({"X-Api-Key": "a", "ACCEPT": "b"})
    assert headers.get("x-api-key") == "a"
    assert headers.get("accept") == "b"
    assert list(headers) == ["x-api-key", "accept"]
    assert "accept" in headers and len(headers) == 2


def test_repeated_fields_are_kept_apart_and_in_order() -> None:
    headers = Headers([("Cookie", "a"), ("Accept", "x"), ("cookie", "b"), ("COOKIE", "c")])
    assert headers.get("cookie") == "a"
    assert headers.get_all("cookie") == ("a", "b", "c")
    assert headers.get_all("accept") == ("x",)
    assert len(headers) == 2


def test_a_field_repeated_with_the_same_value_is_still_repeated() -> None:
    assert Headers([("authorization", "x"), ("Authorization", "x")]).get_all("authorization") == (
        "x",
        "x",
    )


def test_absent_and_empty_fields_differ() -> None:
    headers = Headers({"empty": ""})
    assert headers.get("absent") is None
    assert headers.get_all("absent") == ()
    assert "absent" not in headers
    assert headers.get("empty") == ""
    assert headers.get_all("empty") == ("",)
    assert "empty" in headers


def test_takes_a_lower_case_dict_over_as_it_is() -> None:
    headers = Headers.of_dict({"accept": "a", "host": "b"})
    assert (headers.get("accept"), headers.get_all("host")) == ("a", ("b",))


def test_bytes_are_text_when_somebody_asks() -> None:
    headers = Headers.of_dict({"a": "ö".encode(), "b": b"\xf6", "c": b"", "d": "d"}, are_apart=True)
    assert [headers.get(name) for name in "abcde"] == ["ö", "ö", "", "d", None]
    assert headers.get_all("a") == ("ö",) and headers.are_apart
    mixed = Headers.of_dict({"A": b"a", "b": b"\xf6"}, are_apart=True)
    assert (mixed.get("a"), mixed.get("b"), mixed.are_apart) == ("a", "ö", True)


def test_headers_show_names_and_never_values() -> None:
    headers = Headers([("Authorization", "Bearer secret"), ("authorization", "secret-two")])
    assert repr(headers) == "Headers(authorization)"
    assert str(headers) == "Headers(authorization)"


def test_a_request_shows_neither_credentials_nor_bodies_nor_certificates() -> None:
    request = a_request(
        headers={"x-api-key": "secret-key"},
        body=b"secret-body",
        source=Peer(address="192.0.2.1", certificate="secret-pem"),
    )
    shown = repr(request)
    assert "secret" not in shown
    assert "x-api-key" in shown and "192.0.2.1" in shown


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/json", False),
        ("", False),
        (None, False),
    ],
)
def test_knows_who_speaks_grpc(content_type: str | None, *, is_grpc: bool) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert a_request(headers=headers).is_grpc is is_grpc
