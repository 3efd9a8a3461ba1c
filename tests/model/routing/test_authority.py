"""Which host an authority names, and which text names none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.routing.authority import MAX_HOST, find_host, read_host

LABEL = "a" * 63
LONGEST = ".".join([LABEL, LABEL, LABEL, "a" * 61])


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM", "api.example.com"),
        ("api.example.com:8080", "api.example.com"),
        ("api.example.com:", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("api.example.com.:8080", "api.example.com"),
        ("localhost:1", "localhost"),
        ("reviews_v2.default.svc.cluster.local:9080", "reviews_v2.default.svc.cluster.local"),
        ("xn--strae-oqa.example", "xn--strae-oqa.example"),
        ("-a-.example", "-a-.example"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.1.", "192.0.2.1"),
        ("[2001:DB8::1]:443", "[2001:db8::1]"),
        ("[2001:db8:0:0::1]", "[2001:db8::1]"),
        ("[::1]:", "[::1]"),
        (LONGEST, LONGEST),
        (f"{LONGEST}.:65535", LONGEST),
    ],
)
def test_reads_a_host(authority: str, host: str) -> None:
    assert read_host(authority) == host


@pytest.mark.parametrize(
    "authority",
    [
        "",
        ".",
        ":80",
        "api.example.com..",
        "api..example.com",
        ".api.example.com",
        "api.example.com:80:80",
        "api.example.com:80x",
        "api.example.com:-1",
        "api.example.com:+80",
        "api.example.com:65536",
        "api.example.com:٣",
        "api.example.com:80.",
        "x@api.example.com",
        "x:y@api.example.com",
        "api%2eexample.com",
        "api.example.com%00",
        "api.example.com,other.example.com",
        "api.example.com api.example.com",
        " api.example.com",
        "api.example.com\t",
        "api.example.com\n",
        "api.example.com/",
        "api.example.com\\",
        "api.example.com?a",
        "api.example.com#a",
        "http://api.example.com",
        "*.example.com",
        "stra\xdfe.example",
        "ban\u212a.example",
        "api\u3002example.com",
        "2001:db8::1",
        "::1",
        "[2001:db8::1",
        "2001:db8::1]",
        "[::1]evil:80",
        "[::1].",
        "[::1]:80:80",
        "[fe80::1%25eth0]",
        "[192.0.2.1]",
        "[v1.a]",
        "[]",
        "192.0.2.01",
        "192.0.2.256",
        "192.0.2",
        "3221225985",
        "0xc0.0.2.1",
        "api.example.0x1",
        f"{'a' * 64}.example",
        f"{LONGEST}a",
        "a" * (MAX_HOST + 1),
        "a." * 100_000,
    ],
)
def test_what_is_no_host_names_none(authority: str) -> None:
    assert read_host(authority) is None


@given(st.from_regex(r"[A-Za-z0-9_-]{1,20}(\.[A-Za-z_-]{1,20}){0,3}", fullmatch=True))
def test_case_port_and_the_dot_of_the_root_change_no_host(name: str) -> None:
    host = read_host(name)
    same = (host, name.upper(), f"{name}.", f"{name}:80", f"{name}.:80")
    assert {read_host(one or "") for one in same} == {host}


@given(st.text(max_size=40))
def test_a_host_is_its_own_host(authority: str) -> None:
    host = read_host(authority)
    assert host is None or read_host(host) == host


@pytest.mark.parametrize(
    ("authorities", "host"),
    [
        ([], ""),
        (["a.example"], "a.example"),
        (["a.example", "A.example.:80"], "a.example"),
        (["a.example", "b.example"], None),
        (["a.example", ""], None),
        ([""], None),
        (["x@a.example"], None),
    ],
)
def test_finds_the_one_host_that_all_name(authorities: list[str], host: str | None) -> None:
    assert find_host(authorities) == host
