"""Where a request came from, as far as our own proxies say so."""

from __future__ import annotations

import pytest

from extauthz.policy.client_address import read_client_address
from tests.builders import a_request

PROXY = "198.51.100.9"


@pytest.mark.parametrize(
    ("hops", "forwarded", "expected"),
    [
        (0, [], PROXY),
        (0, ["203.0.113.5"], PROXY),
        (1, [], PROXY),
        (1, ["203.0.113.5"], "203.0.113.5"),
        (1, ["10.0.0.1, 203.0.113.5"], "203.0.113.5"),
        (1, ["10.0.0.1", "203.0.113.5"], "203.0.113.5"),
        (1, [f"203.0.113.5,{PROXY}"], "203.0.113.5"),
        (2, ["203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        (2, ["10.9.9.9, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        (2, ["203.0.113.5"], "203.0.113.5"),
        (9, ["203.0.113.5"], "203.0.113.5"),
        (1, ["203.0.113.5:4711"], "203.0.113.5"),
        (1, ["[2001:db8::1]:4711"], "2001:db8::1"),
        (1, ["2001:db8::1"], "2001:db8::1"),
        (1, [""], PROXY),
        (2, [", , 203.0.113.5"], "203.0.113.5"),
    ],
)
def test_counts_trusted_hops_from_the_right(hops: int, forwarded: list[str], expected: str) -> None:
    request = a_request(client=PROXY, headers=[("X-Forwarded-For", one) for one in forwarded])
    assert read_client_address(request, hops) == expected


@pytest.mark.parametrize("forged", ["127.0.0.1", f"127.0.0.1, {PROXY}", PROXY, ",,,", "unknown"])
def test_what_the_client_writes_itself_is_never_reached(forged: str) -> None:
    request = a_request(client=PROXY, headers={"X-Forwarded-For": f"{forged}, 203.0.113.5"})
    assert read_client_address(request, 1) == "203.0.113.5"


def test_is_empty_when_the_proxy_sent_none() -> None:
    assert read_client_address(a_request(client=""), 0) == ""
