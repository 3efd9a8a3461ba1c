"""Tests of percent escapes, against the standard library's reader."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.routing.escapes import decode_if_sound, decode_octets

# What quoted-printable, whose decoder is borrowed, gives a meaning of its own.
_PIECES = [b"%", b"=", b"%4", b"%41", b"%c3", b"%0a", b"\n", b"\r", b" ", b".", b"a", b"F", b"\xff"]
texts = st.lists(st.sampled_from(_PIECES), max_size=20).map(b"".join)


@given(texts)
def test_decodes_as_the_standard_library_does(octets: bytes) -> None:
    assert decode_octets(octets) == unquote_to_bytes(octets)


@given(texts)
def test_knows_broken_escapes(octets: bytes) -> None:
    is_broken = re.search(rb"%(?![0-9A-Fa-f]{2})", octets) is not None
    assert (decode_if_sound(octets) is None) == is_broken


@pytest.mark.parametrize(
    "octets", [b"%", b"%4", b"%g1", b"%%41", b"%=41", b"%\n\n", b"%\r\n41", b"a=%\n%41"]
)
def test_leaves_what_is_broken_as_it_is(octets: bytes) -> None:
    assert decode_if_sound(octets) is None
    assert decode_octets(octets) == unquote_to_bytes(octets)
