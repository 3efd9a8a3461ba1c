"""Where a request came from, as far as our own proxies say so."""

from __future__ import annotations

import pytest

from extauthz.model.request import ApiRequest, Peer
from extauthz.policy.request.client_address import (
    REMOTE_ADDRESS_EXTENSION,
    read_client_address,
    say_why_unknown,
)
from tests.builders import a_request

PROXY = "198.51.100.9"
CLIENT = "203.0.113.5"
OWN = "10.0.0.4"
"""What Envoy writes for a peer on loopback."""
NOBODY = ""


def a_forwarded(*fields: str, peer: str = PROXY, **more: str) -> ApiRequest:
    headers = [("X-Forwarded-For", field) for field in fields]
    return a_request(client=peer, headers=headers, context=more)


@pytest.mark.parametrize(
    ("hops", "forwarded", "expected"),
    [
        (0, [], PROXY),
        (0, [CLIENT], PROXY),
        (1, [CLIENT], CLIENT),
        (1, [f"10.0.0.1, {CLIENT}"], CLIENT),
        (1, ["10.0.0.1", CLIENT], CLIENT),
        (1, [f"{CLIENT},{PROXY}"], CLIENT),
        (1, [CLIENT, PROXY], CLIENT),
        (2, [f"{CLIENT}, 10.0.0.2"], CLIENT),
        (2, [f"10.9.9.9, {CLIENT}, 10.0.0.2"], CLIENT),
        (2, [f"10.9.9.9, {CLIENT}, 10.0.0.2,{PROXY}"], CLIENT),
        (1, [f"{CLIENT}:4711"], CLIENT),
        (1, ["[2001:db8::1]:4711"], "2001:db8::1"),
        (1, ["2001:db8::1"], "2001:db8::1"),
        (1, [f"{CLIENT},::ffff:{PROXY}"], CLIENT),
        # Fewer proxies wrote than are in front: who stands there is none of them.
        (1, [], NOBODY),
        (1, [PROXY], NOBODY),
        (2, [CLIENT], NOBODY),
        (9, [CLIENT], NOBODY),
        (1, [""], NOBODY),
        (2, [f", , {CLIENT}"], NOBODY),
        # No address at all.
        (1, ["unknown"], NOBODY),
        (1, ["_hidden"], NOBODY),
        (1, ["0.0.0.0"], NOBODY),
        (1, ["::"], NOBODY),
        (1, ["a" * 60_000], NOBODY),
    ],
)
def test_counts_trusted_hops_from_the_right(hops: int, forwarded: list[str], expected: str) -> None:
    assert read_client_address(a_forwarded(*forwarded), hops) == expected


@pytest.mark.parametrize("word", ["True", "TRUE", "yes", "1", "", "false "])
def test_a_word_that_says_nothing_of_the_peer_is_no_answer(word: str) -> None:
    request = a_forwarded(CLIENT, OWN, peer="127.0.0.1", **{REMOTE_ADDRESS_EXTENSION: word})
    assert read_client_address(request, 1) == NOBODY
    assert read_client_address(request, 1, use_remote_address=True) == NOBODY
    assert read_client_address(a_forwarded(CLIENT, **{REMOTE_ADDRESS_EXTENSION: word}), 1) == CLIENT


@pytest.mark.parametrize("forged", ["127.0.0.1", f"127.0.0.1, {PROXY}", PROXY, ",,,", "unknown"])
def test_what_the_client_writes_itself_is_never_reached(forged: str) -> None:
    assert read_client_address(a_forwarded(f"{forged}, {CLIENT}"), 1) == CLIENT


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("hops", "forwarded", "use", "expected"),
    [
        (1, f"{CLIENT},{OWN}", True, CLIENT),
        (1, f"10.9.9.9,{CLIENT},{OWN}", True, CLIENT),
        (2, f"{CLIENT},10.0.0.2,{OWN}", True, CLIENT),
        (1, OWN, True, NOBODY),
        (1, CLIENT, False, CLIENT),
        (1, f"10.9.9.9,{CLIENT}", False, CLIENT),
        (2, f"{CLIENT},10.0.0.2", False, CLIENT),
        (1, f"{CLIENT},{OWN}", None, NOBODY),
        (1, f"{CLIENT},127.0.0.1", None, NOBODY),
    ],
)
def test_a_peer_on_loopback_is_judged_by_what_envoy_does(
    *, peer: str, hops: int, forwarded: str, use: bool | None, expected: str
) -> None:
    request = a_forwarded(forwarded, peer=peer)
    assert read_client_address(request, hops, use_remote_address=use) == expected
    if use is not None:
        # The route's own word goes before that of the settings.
        told = a_forwarded(forwarded, peer=peer, **{REMOTE_ADDRESS_EXTENSION: str(use).lower()})
        assert read_client_address(told, hops) == expected
        assert read_client_address(told, hops, use_remote_address=not use) == expected


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
def test_without_proxies_a_peer_on_loopback_is_the_client(peer: str) -> None:
    assert read_client_address(a_forwarded(CLIENT, peer=peer), 0) == peer


@pytest.mark.parametrize(
    ("forwarded", "use"), [(f"{CLIENT},{PROXY}", False), (CLIENT, True), (f"{CLIENT},{OWN}", True)]
)
def test_what_contradicts_the_settings_is_not_believed(*, forwarded: str, use: bool) -> None:
    assert read_client_address(a_forwarded(forwarded), 1, use_remote_address=use) == NOBODY
    assert read_client_address(a_forwarded(forwarded), 1, use_remote_address=not use) != NOBODY


@pytest.mark.parametrize("use", [None, True, False])
def test_a_peer_without_an_ip_address_is_never_added(*, use: bool | None) -> None:
    """As a Unix socket, and an ambient waypoint's internal listener."""
    request = a_request(source=Peer(is_local=True), headers={"x-forwarded-for": CLIENT})
    assert read_client_address(request, 1, use_remote_address=use) == CLIENT
    assert read_client_address(request, 0, use_remote_address=use) == NOBODY


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "nonsense", "192.0.2.1:80", "1" * 99])
@pytest.mark.parametrize("hops", [0, 1])
def test_is_empty_when_the_proxy_told_none(address: str, hops: int) -> None:
    assert read_client_address(a_forwarded(CLIENT, peer=address), hops) == NOBODY


@pytest.mark.parametrize(
    ("request_", "hops", "words"),
    [
        (a_request(client=""), 0, "source.ip"),
        (a_forwarded(CLIENT, peer="::1"), 1, "credentials.use_remote_address"),
        (a_forwarded(), 2, "credentials.trusted_hops is 2"),
        (a_forwarded(), 1, "let the header through"),
    ],
)
def test_says_what_to_do_about_an_unknown_address(
    request_: ApiRequest, hops: int, words: str
) -> None:
    assert read_client_address(request_, hops) == NOBODY
    assert words in say_why_unknown(request_, hops)
