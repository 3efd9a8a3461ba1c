"""Pages from which a key may be used, as WSO2 API Manager writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.referers import MAX_REFERER, read_referer_pattern

PAGE, HOST, DOMAIN = "www.abc.com/path", "sub.cds.com/*", "*.gef.com/*"


@pytest.mark.parametrize(
    ("pattern", "referer", "expected"),
    [
        # WSO2 API Manager 4.7's own cases
        (PAGE, "www.abc.com/path", True),
        (PAGE, "www.abc.com/path2", False),
        (HOST, "sub.cds.com/path1", True),
        (HOST, "sub2.cds.com/path1", False),
        (DOMAIN, "example.gef.com/path1", True),
        (DOMAIN, "gef2.com/path1", False),
        # as a browser sends them
        (PAGE, "https://www.abc.com/path", True),
        (PAGE, "http://WWW.ABC.com/path?tab=1#top", True),
        (PAGE, "https://www.abc.com/path/", False),
        (PAGE, "https://www.abc.com/PATH", False),
        (HOST, "https://sub.cds.com/", True),
        (HOST, "https://sub.cds.com", True),
        (HOST, "https://sub.cds.com:443/a", True),
        (HOST, "https://sub.cds.com:8443/a", False),
        (DOMAIN, "https://a.b.gef.com/", True),
        (DOMAIN, "https://gef.com/", False),
        # what looks like it and is not
        (PAGE, "https://wwwxabc.com/path", False),
        (HOST, "https://sub.cds.com.evil.example/", False),
        (HOST, "https://sub.cds.com@evil.example/", False),
        (HOST, "https://evil.example/sub.cds.com/", False),
        (HOST, "https://evil.example\\sub.cds.com/", False),
        (DOMAIN, "https://evil.example/x.gef.com/", False),
        (DOMAIN, "https://evil.example?x.gef.com/", False),
        (DOMAIN, "https://evilgef.com/", False),
        (HOST, "", False),
        (HOST, "about:blank", False),
        # with a scheme, a port, a part of a path
        ("https://abc.com/*", "https://abc.com/x", True),
        ("https://abc.com/*", "http://abc.com/x", False),
        ("https://abc.com/*", "abc.com/x", False),
        ("https://abc.com:443/*", "https://abc.com/x", True),
        ("abc.com:8080/*", "http://abc.com:8080/x", True),
        ("abc.com/docs/*", "https://abc.com/docs/x", True),
        ("abc.com/docs/*", "https://abc.com/docs2", False),
        ("abc.com", "https://abc.com/", True),
        ("abc.com", "https://abc.com/x", False),
    ],
)
def test_a_page_fits_or_not(pattern: str, referer: str, *, expected: bool) -> None:
    assert read_referer_pattern(pattern).fits(referer) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.com*",
        "abc.*",
        "abc.com*",
        "a*b.com/",
        "abc.com/*/x",
        "ftp://abc.com/",
        "a b/",
        "/x",
    ],
)
def test_refuses_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="write one like"):
        read_referer_pattern(text)


def test_a_very_long_referer_fits_nothing() -> None:
    assert not read_referer_pattern(HOST).fits("https://sub.cds.com/" + "a" * MAX_REFERER)


@given(st.text(), st.text())
def test_no_text_raises_an_unforeseen_error(pattern: str, referer: str) -> None:
    read_referer_pattern(HOST).fits(referer)
    try:
        made = read_referer_pattern(pattern)
    except ValueError:
        return
    made.fits(referer)


@given(
    st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True),
    st.from_regex(r"/[a-z/]{0,9}", fullmatch=True),
)
def test_a_page_of_another_host_never_fits(host: str, path: str) -> None:
    fits = host == "sub.cds.com" or host.endswith(".gef.com")
    found = [read_referer_pattern(it).fits(f"https://{host}{path}") for it in (HOST, DOMAIN)]
    assert any(found) is fits
