"""What proxies ask over HTTP, as the request that it is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import MalformedRequest
from extauthz.http_check.answer import Asker
from extauthz.http_check.question import find_asker, read_question
from extauthz.serving.http_messages import Question

Fields = tuple[tuple[str, str], ...]

FORWARDED: Fields = (
    ("X-Forwarded-Method", "DELETE"),
    ("X-Forwarded-Host", "api.example:8443"),
    ("X-Forwarded-Uri", "/pets/1?all=%2F&x=1#part"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-For", "203.0.113.9, 192.0.2.7"),
)
ORIGINAL: Fields = (
    ("X-Original-Method", "DELETE"),
    ("X-Original-Host", "api.example:8443"),
    ("X-Original-URI", "/pets/1?all=%2F&x=1#part"),
    ("X-Original-Proto", "https"),
    ("X-Original-Address", "192.0.2.7"),
)
TOLD: dict[Asker, Fields] = {Asker.FORWARD_AUTH: FORWARDED, Asker.AUTH_REQUEST: ORIGINAL}
TARGETS = {
    Asker.ENVOY: "/envoy/pets/1?all=%2F&x=1#part",
    Asker.FORWARD_AUTH: "/forward-auth",
    Asker.AUTH_REQUEST: "/auth-request",
}
COMPLETE: Fields = (("x-forwarded-proto", "https"), ("x-request-id", "7"))


def a_question(asker: Asker, *fields: tuple[str, str], method: str = "GET") -> Question:
    encoded = [(name.encode(), value.encode()) for name, value in fields]
    return Question(method, TARGETS[asker], encoded)


@pytest.mark.parametrize("asker", TOLD)
def test_reads_what_is_told_in_fields(asker: Asker) -> None:
    own = (("Host", "extauthz:9002"), ("X-Api-Key", "k"), ("X-Api-Key", "l"))
    request = read_question(a_question(asker, *own, *TOLD[asker]), asker)
    assert (request.method, request.host, request.scheme) == ("DELETE", "api.example", "https")
    assert (request.path, request.query) == ("/pets/1", "all=%2F&x=1")
    assert request.source.address == "192.0.2.7"
    assert request.headers.get_all("x-api-key") == ("k", "l")
    assert request.headers.are_apart
    assert "host" not in request.headers and "x-forwarded-uri" not in request.headers
    assert not request.headers_are_partial
    assert request.door == "http"


@pytest.mark.parametrize("asker", TOLD)
@pytest.mark.parametrize("place", range(5))
def test_refuses_a_question_that_lacks_a_part(asker: Asker, place: int) -> None:
    """A client could write it."""
    told = TOLD[asker]
    missing = told[place][0].lower()
    with pytest.raises(MalformedRequest, match=missing):
        read_question(a_question(asker, *told[:place], *told[place + 1 :]), asker)


@pytest.mark.parametrize("asker", TOLD)
@pytest.mark.parametrize("place", range(5))
def test_refuses_a_question_that_tells_a_part_twice(asker: Asker, place: int) -> None:
    told = TOLD[asker]
    name, value = told[place]
    question = a_question(asker, *told, (name.upper(), value))
    if name == "X-Forwarded-For":  # a list: the proxy's entry is the last
        assert read_question(question, asker).source.address == "192.0.2.7"
    else:
        with pytest.raises(MalformedRequest, match=f"{name.lower()} twice"):
            read_question(question, asker)


def test_reads_envoys_own_question() -> None:
    question = a_question(
        Asker.ENVOY,
        ("host", "api.example"),
        ("x-two", "1,2"),
        ("content-length", "7"),
        ("x-envoy-internal", "true"),
        *COMPLETE,
        method="PATCH",
    )
    request = read_question(question, Asker.ENVOY)
    assert (request.method, request.host, request.size) == ("PATCH", "api.example", 7)
    assert (request.path, request.query) == ("/pets/1", "all=%2F&x=1")
    assert not request.headers.are_apart, "Envoy joins repeated fields"
    assert "x-envoy-internal" not in request.headers
    assert (request.request_id, request.headers_are_partial) == ("7", False)


def test_envoys_default_fields_are_not_all() -> None:
    fields = (("host", "api.example"), ("content-length", "0"), ("authorization", "Bearer x"))
    assert read_question(a_question(Asker.ENVOY, *fields), Asker.ENVOY).headers_are_partial


@pytest.mark.parametrize(
    ("said", "address"), [(None, ""), (False, ""), (True, "192.0.2.7")], ids=str
)
def test_envoys_last_entry_is_the_client_only_where_the_settings_say_so(
    *, said: bool | None, address: str
) -> None:
    fields = (("host", "api.example"), ("x-forwarded-for", "203.0.113.9,192.0.2.7"), *COMPLETE)
    request = read_question(a_question(Asker.ENVOY, *fields), Asker.ENVOY, use_remote_address=said)
    assert request.source.address == address


def test_several_hosts_are_none() -> None:
    fields = (("host", "api.example"), ("host", "other.example"), *COMPLETE)
    assert read_question(a_question(Asker.ENVOY, *fields), Asker.ENVOY).host is None


@pytest.mark.parametrize(
    ("target", "asker"),
    [
        ("/envoy/", Asker.ENVOY),
        ("/envoy/pets?x", Asker.ENVOY),
        ("/forward-auth?x=/envoy/", Asker.FORWARD_AUTH),
        ("/auth-request", Asker.AUTH_REQUEST),
        ("/envoy", None),
        ("/envoyx/pets", None),
        ("/", None),
        ("/forward-auth/", None),
        ("*", None),
    ],
)
def test_the_path_says_who_asks(target: str, asker: Asker | None) -> None:
    assert find_asker(target) is asker


@given(
    asker=st.sampled_from(list(Asker)),
    method=st.text(max_size=8),
    target=st.text(max_size=40),
    fields=st.lists(
        st.tuples(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([name.encode() for name, _ in (*FORWARDED, *ORIGINAL)]),
            ),
            st.binary(max_size=40),
        ),
        max_size=20,
    ),
)
def test_any_question_is_read_or_refused(
    asker: Asker, method: str, target: str, fields: list[tuple[bytes, bytes]]
) -> None:
    question = Question(method, TARGETS[asker] + target, fields)
    try:
        request = read_question(question, asker)
    except MalformedRequest:
        return
    assert request.path and request.method
    assert "?" not in request.path
