"""Parameters and cookies by name, however the name is spelled, and how much is read of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import MalformedRequest
from extauthz.model.identity import Place, PlaceKind
from extauthz.policy.request.parameters import (
    MAX_BYTES,
    MAX_ESCAPES,
    MAX_FOUND,
    cut_out,
    find_parameters,
    read_text,
    read_values,
)
from tests.builders import a_request


def query(name: str) -> Place:
    return Place(PlaceKind.QUERY, name)


COOKIE = Place(PlaceKind.COOKIE, "k")


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("a b", ["a%20b", "a+b", "%61%20%62"]),
        ("a+b", ["a+b", "a%2Bb", "a%2bb"]),
        ("ids[]", ["ids[]", "ids%5B%5D", "ids%5b]"]),
        ("clé", ["clé", "cl%C3%A9", "cl%c3%a9"]),
        ("a=b", ["a%3Db"]),
        ("a.b", ["a.b", "a%2Eb"]),
        ("a%b", ["a%25b", "a%b"]),
    ],
)
def test_finds_a_name_in_every_spelling(name: str, spelled: list[str]) -> None:
    for one in spelled:
        assert read_values(a_request(f"/?x=1&{one}=v"), query(name)) == ["v"], one


@pytest.mark.parametrize(
    ("name", "sent"),
    [("a b", "a%2Bb"), ("a.b", "axb"), ("key", "Key"), ("key", "key%00"), ("key", "%256Bey")],
)
def test_another_name_is_not_found(name: str, sent: str) -> None:
    assert not find_parameters(a_request(f"/?{sent}=v"), query(name))


NAME = "key"
PIECES = st.one_of(
    st.sampled_from(["key", "k%65y", "%6b%65%79", "KEY", "xkey", "keyx", "", "a=1", "a=key"]),
    st.text("key%65=+ab", max_size=6),
)


def read_names(text: str) -> list[str]:
    """The names that a reader sees who parts by both signs."""
    fields = text.replace(";", "&").split("&")
    return [decode(field.partition("=")[0]) for field in fields]


def decode(text: str) -> str:
    for letter in "key":
        text = text.replace(f"%{ord(letter):x}", letter).replace(f"%{ord(letter):X}", letter)
    return text


@given(st.lists(st.tuples(st.sampled_from("&;"), PIECES), max_size=6))
def test_no_reader_finds_the_name_in_what_is_left(pieces: list[tuple[str, str]]) -> None:
    text = "".join(f"{sign}{piece}" for sign, piece in pieces)[1:]
    request = a_request(f"/?{text}")
    found = find_parameters(request, query(NAME))
    left = cut_out(read_text(request, PlaceKind.QUERY), list(found)).decode()

    assert NAME not in read_names(left)
    assert bool(found) == (NAME in read_names(text))
    plain = [one.value.decode() for one in found if one.is_plain]
    fields = [field.partition("=") for field in text.split("&")]
    assert plain == [value for name, _, value in fields if decode(name) == NAME]
    if not found:
        assert left == text


# Bounds. What is beyond is refused, never passed over.


@pytest.mark.parametrize("filler", ["&", ";", "%", "a=1&", "key", "&ke", "x", "é"])
def test_refuses_a_query_that_is_longer_than_what_is_searched(filler: str) -> None:
    longest = (filler * MAX_BYTES).encode()[: MAX_BYTES - 1].decode("utf-8", "ignore")
    find_parameters(a_request(f"/?{longest}"), query("apikey"))
    with pytest.raises(MalformedRequest, match="query"):
        find_parameters(a_request(f"/?{longest}{filler}&apikey=k"), query("apikey"))


def test_refuses_cookies_that_are_longer_than_what_is_searched() -> None:
    half = "a" * (MAX_BYTES // 2)
    find_parameters(a_request(headers=[("cookie", half), ("cookie", "k=1")]), COOKIE)
    with pytest.raises(MalformedRequest, match="cookies"):
        find_parameters(a_request(headers=[("cookie", half), ("cookie", half)]), COOKIE)


def test_a_long_query_is_fine_where_nothing_is_looked_for_in_it() -> None:
    request = a_request("/?" + "a=1&" * 20_000, headers={"cookie": "k=1; " * 20_000})
    assert find_parameters(request, Place(PlaceKind.HEADER, "a")) == ()
    assert find_parameters(request, Place(PlaceKind.CONNECTION, "a")) == ()


def test_refuses_a_name_that_comes_too_often() -> None:
    assert len(find_parameters(a_request("/?" + "k&" * MAX_FOUND), query("k"))) == MAX_FOUND
    with pytest.raises(MalformedRequest):
        find_parameters(a_request("/?" + "k&" * (MAX_FOUND + 1)), query("k"))


def test_refuses_a_value_with_too_many_escapes() -> None:
    assert read_values(a_request("/?k=" + "%41" * MAX_ESCAPES), query("k")) == ["A" * MAX_ESCAPES]
    with pytest.raises(MalformedRequest, match="escapes"):
        read_values(a_request("/?k=" + "%41" * (MAX_ESCAPES + 1)), query("k"))


def test_the_escapes_of_other_values_do_not_count() -> None:
    assert read_values(a_request("/?a=" + "%41" * 4000 + "&k=1"), query("k")) == ["1"]
