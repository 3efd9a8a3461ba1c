"""What Envoy says about a client's certificate, and what a client says about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.policy.authentication.xfcc import MAX_ESCAPED, MAX_PAIRS, MAX_XFCC_BYTES, read_xfcc


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", ()),
        ("Hash=00", ()),
        ("By=spiffe://a;Hash=00;URI=spiffe://b", ("spiffe://b",)),
        ('Hash=00;Subject="CN=c,O=o";URI=spiffe://b', ("spiffe://b", "CN=c,O=o")),
        ("URI=spiffe://b;URI=spiffe://c", ("spiffe://b", "spiffe://c")),
        ("DNS=a.example;DNS=b.example", ("a.example", "b.example")),
        ("DNS=a.example;URI=spiffe://b", ("spiffe://b", "a.example")),
        ("uri=spiffe://b", ("spiffe://b",)),
        ("URI=", ()),
        ('Subject=""', ()),
        (r'Subject="CN=\"quoted\\\""', ('CN="quoted\\"',)),
        ('Cert="-----BEGIN%20CERTIFICATE";URI=spiffe://b', ("spiffe://b",)),
        ("URI=spiffe://first,URI=spiffe://last", ("spiffe://last",)),
        ("URI=spiffe://first, Hash=00;DNS=last", ("last",)),
        ("URI=spiffe://first,Hash=00", ()),
        ('Subject="CN=a,O=o",By=x;URI=spiffe://last', ("spiffe://last",)),
    ],
)
def test_names_the_nearest_client(value: str, names: tuple[str, ...]) -> None:
    assert read_xfcc(value) == names


@pytest.mark.parametrize(
    "forged",
    [
        'URI="spiffe://admin',
        'Subject="',
        'URI=spiffe://admin;Subject="x\\',
        "URI",
        "URI=spiffe://admin;=",
        ";",
        '"',
    ],
)
@pytest.mark.parametrize(
    "own",
    [
        'Hash=00;Subject="CN=c";URI=spiffe://real',
        'Hash=00;Subject=";URI=spiffe://admin;DNS=a";URI=spiffe://real',
        'Hash=00;Subject=",URI=spiffe://admin;DNS=\\"";URI=spiffe://real',
    ],
)
def test_a_forged_element_in_front_never_names_anybody_else(forged: str, own: str) -> None:
    assert "spiffe://admin" not in (read_xfcc(f"{forged},{own}") or ())


def test_a_whole_forged_element_in_front_is_passed_over() -> None:
    value = 'URI=spiffe://admin;Subject="CN=root",Hash=00;Subject="CN=c";URI=spiffe://real'
    assert read_xfcc(value) == ("spiffe://real", "CN=c")


def test_names_are_not_decoded() -> None:
    # Envoy encodes only Cert and Chain: decoded, another certificate would become this one.
    assert read_xfcc("URI=spiffe://td/%61dmin") == ("spiffe://td/%61dmin",)


def test_too_long_is_not_read() -> None:
    longest = "URI=" + "a" * (MAX_XFCC_BYTES - 4)
    assert read_xfcc(longest) == ("a" * (MAX_XFCC_BYTES - 4),)
    assert read_xfcc(longest + "a") is None


@given(st.text(alphabet='URIDNS=;,"\\ ab:/', max_size=40) | st.text(max_size=20))
def test_nothing_raises(value: str) -> None:
    names = read_xfcc(value)
    assert names is None or all(names)


def test_believes_nothing_of_what_exceeds_its_bounds() -> None:
    last = "URI=spiffe://b"
    assert read_xfcc("Hash=00," * (MAX_PAIRS - 1) + last) == ("spiffe://b",)
    assert read_xfcc("Hash=00," * MAX_PAIRS + last) is None
    assert read_xfcc('Subject="' + r"\"" * MAX_ESCAPED + '";' + last) is not None
    assert read_xfcc('Subject="' + r"\"" * (MAX_ESCAPED + 1) + '";' + last) is None
