"""What the upstream learns of the caller is what was decided, and never a credential."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import httpx2
import pytest

from extauthz.envoy.configuration.parameters import UnderscoreHeaders
from tests.e2e.envoys import EnvoyVersion
from tests.e2e.running import Deployment, Gateway
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

OURS: Final = ("x-extauthz-application", "x-extauthz-user", "x-extauthz-tier")
ROOT: Final = "root"


@pytest.fixture
def gateway(deployment: Deployment, version: EnvoyVersion) -> Gateway:
    """An Envoy that lets header names with underscores through, as many are set up to."""
    return deployment.gateway(version, underscore_headers=UnderscoreHeaders.ALLOW)


def seen_identity(answer: httpx2.Response) -> list[tuple[str, str]]:
    """Each field that an upstream could take for ours: CGI reads ``_`` and ``-`` alike."""
    assert answer.status_code == 200, answer.text
    return sorted(
        (name, value)
        for name, value in answer.json()["headers"]
        if name.lower().replace("_", "-") in OURS
    )


def _spell(spelling: Callable[[str], str], times: int = 1) -> list[tuple[str, str]]:
    return [(spelling(name), f"{ROOT}{number}") for name in OURS for number in range(times)]


SPOOFED: Final = {
    "once": _spell(str.lower),
    "twice": _spell(str.lower, times=2),
    "in upper case": _spell(str.upper),
    "in title case": _spell(str.title),
    "in several cases": [*_spell(str.lower), *_spell(str.upper), *_spell(str.title)],
    "empty": [(name, "") for name in OURS],
    "empty and not": [*((name, "") for name in OURS), *_spell(str.lower)],
    "as a list": [(name, f"{ROOT}, {ROOT}") for name in OURS],
    "with underscores": _spell(lambda name: name.replace("-", "_")),
    "with one underscore": _spell(lambda name: "_".join(name.rsplit("-", 1))),
    "with underscores in upper case": _spell(lambda name: name.replace("-", "_").upper()),
    "named as hop-by-hop": [("connection", ", ".join(OURS)), *_spell(str.lower)],
    "in both forms": [*_spell(str.lower), *_spell(lambda name: name.replace("-", "_"))],
}
# Who calls, and all that the upstream may learn of it.
CALLERS: Final = {
    "on a public resource": ("/world/1.0.0/public", False, []),
    "without a tier": (
        "/world/1.0.0/open",
        True,
        [("x-extauthz-application", "mobile"), ("x-extauthz-user", "alice")],
    ),
    "with everything": (
        "/keys/1.0.0/open",
        True,
        [
            ("x-extauthz-application", "mobile"),
            ("x-extauthz-tier", "Gold"),
            ("x-extauthz-user", "alice"),
        ],
    ),
}


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("spoofed", SPOOFED.values(), ids=SPOOFED)
def test_a_client_cannot_say_who_it_is(
    gateway: Gateway,
    world: World,
    spoofed: list[tuple[str, str]],
    caller: tuple[str, bool, list[tuple[str, str]]],
) -> None:
    path, has_key, expected = caller
    key = [("x-api-key", world.keys["mobile"])] if has_key else []
    assert seen_identity(gateway.call("POST", path, [*spoofed, *key])) == expected
    assert seen_identity(gateway.call("POST", path, [*key, *spoofed])) == expected


@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_a_grpc_client_cannot_say_who_it_is(
    gateway: Gateway, world: World, caller: tuple[str, bool, list[tuple[str, str]]]
) -> None:
    path, has_key, expected = caller
    spoofed = [*_spell(str.lower, times=2), *_spell(lambda name: name.replace("-", "_"))]
    key = [("x-api-key", world.keys["mobile"])] if has_key else []
    seen = gateway.call_grpc(path, [*spoofed, *key])
    ours = [(name, value) for name, value in seen if name.replace("_", "-") in OURS]
    assert sorted(ours) == expected


def test_a_token_says_who_the_user_is(gateway: Gateway, world: World) -> None:
    answer = gateway.call(
        "POST", "/world/1.0.0/open", {"authorization": f"Bearer {world.sign(sub='Zoë')}"}
    )
    # The upstream reads bytes; they are UTF-8.
    assert seen_identity(answer) == [
        ("x-extauthz-application", "mobile"),
        ("x-extauthz-user", "Zoë".encode().decode("latin-1")),
    ]


@pytest.mark.parametrize("subject", ["a\r\nx-extauthz-application: root", "a\0b", " a", "a" * 9000])
def test_a_name_that_no_header_can_hold_is_no_allow(
    gateway: Gateway, world: World, subject: str
) -> None:
    token = world.sign(sub=subject)
    answer = gateway.call("POST", "/tokens/1.0.0/open", {"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert "x-upstream" not in answer.headers


KEPT_QUERY: Final = "a=1&b=%2F%20%C3%BC+x&a=2&c&d=&=e&f=%zz&%61=3"


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("apikey={key}", ""),
        ("a=1&apikey={key}&b=2", "a=1&b=2"),
        ("apikey={key}&" + KEPT_QUERY, KEPT_QUERY),
        (KEPT_QUERY + "&apikey={key}", KEPT_QUERY),
        ("apikeys=1&xapikey=2&APIKEY=3&apikey={key}", "apikeys=1&xapikey=2&APIKEY=3"),
        ("a=1&api%6Bey={key}&b=2", "a=1&b=2"),
        ("%61%70%69%6b%65%79={key}&" + KEPT_QUERY, KEPT_QUERY),
        ("a=1&apikey={escaped}&b=2", "a=1&b=2"),
        ("api%6Bey={escaped}", ""),
        ("apikeys=1&api%256Bey=2&%41pikey=3&apikey={escaped}", "apikeys=1&api%256Bey=2&%41pikey=3"),
    ],
)
def test_a_key_in_the_query_is_taken_out_and_nothing_else(
    gateway: Gateway, world: World, query: str, kept: str
) -> None:
    key = world.keys["mobile"]
    escaped = "".join(f"%{octet:02x}" for octet in key.encode())
    sent = query.format(key=key, escaped=escaped)
    answer = gateway.call("POST", f"/keys/1.0.0/open?{sent}")
    assert answer.status_code == 200, answer.text
    assert key not in answer.text
    assert escaped not in answer.text
    assert answer.json()["target"] == "/keys/1.0.0/open" + (f"?{kept}" if kept else "")


def test_a_key_that_a_public_resource_does_not_need_stays_here(
    gateway: Gateway, world: World
) -> None:
    key = world.keys["mobile"]
    answer = gateway.call("POST", f"/world/1.0.0/public?apikey={key}&a=1", {"x-api-key": key})
    assert answer.status_code == 200, answer.text
    assert key not in answer.text
    assert answer.json()["target"] == "/world/1.0.0/public?a=1"


def test_many_cookies_beside_a_cookie_key_get_through(gateway: Gateway, world: World) -> None:
    cookies = f"session={world.keys['mobile']}; big={'q' * 9000}"
    answer = gateway.call("POST", "/keys/1.0.0/open", {"cookie": cookies})
    assert answer.status_code == 200, answer.text


def test_a_query_without_a_key_is_sent_on_byte_for_byte(gateway: Gateway, world: World) -> None:
    answer = gateway.call(
        "POST", f"/keys/1.0.0/open?{KEPT_QUERY}", {"x-api-key": world.keys["mobile"]}
    )
    assert answer.json()["target"] == f"/keys/1.0.0/open?{KEPT_QUERY}"


@pytest.mark.parametrize(
    ("cookies", "kept"),
    [
        (["session={key}"], []),
        (['a=1; session={key}; b="2=x"; c'], ['a=1; b="2=x"; c']),
        (["session={key}; a=1"], ["a=1"]),
        (["a=1", "session={key}", "b=2"], ["a=1; b=2"]),
        (
            ["sessions=1; xsession=2; session={key}; Session=3"],
            ["sessions=1; xsession=2; Session=3"],
        ),
    ],
)
def test_a_key_in_a_cookie_is_taken_out_and_nothing_else(
    gateway: Gateway, world: World, cookies: list[str], kept: list[str]
) -> None:
    key = world.keys["mobile"]
    sent = [("cookie", cookie.format(key=key)) for cookie in cookies]
    answer = gateway.call("POST", "/keys/1.0.0/open", sent)
    assert answer.status_code == 200, answer.text
    assert key not in answer.text
    assert [value for name, value in answer.json()["headers"] if name == "cookie"] == kept


@pytest.mark.parametrize("path", ["/keys/1.0.0/open", "/world/1.0.0/open"])
def test_a_key_in_a_header_is_taken_out(gateway: Gateway, world: World, path: str) -> None:
    key = world.keys["mobile"]
    answer = gateway.call("POST", path, [("X-API-Key", key), ("x-other", "stays")])
    assert answer.status_code == 200, answer.text
    assert key not in answer.text
    assert ["x-other", "stays"] in answer.json()["headers"]


def test_a_key_that_is_sent_in_two_places_is_taken_out_of_both(
    gateway: Gateway, world: World
) -> None:
    key = world.keys["mobile"]
    answer = gateway.call(
        "POST",
        f"/keys/1.0.0/open?apikey={key}",
        [("x-api-key", key), ("cookie", f"session={key}")],
    )
    assert answer.status_code == 200, answer.text
    assert key not in answer.text


def test_a_token_is_taken_out(gateway: Gateway, world: World) -> None:
    for token in (world.sign(), world.make_opaque()):
        answer = gateway.call("POST", "/world/1.0.0/open", {"authorization": f"bEaReR {token}"})
        assert answer.status_code == 200, answer.text
        assert "authorization" not in dict(answer.json()["headers"])
        assert token not in answer.text


def test_a_credential_that_was_not_needed_is_taken_out_too(gateway: Gateway, world: World) -> None:
    token, key = world.sign(), world.keys["mobile"]
    answer = gateway.call(
        "POST", "/world/1.0.0/open", {"authorization": f"Bearer {token}", "x-api-key": key}
    )
    assert answer.status_code == 200, answer.text
    assert token not in answer.text
    assert key not in answer.text


def test_an_api_may_have_its_credentials_forwarded(gateway: Gateway, world: World) -> None:
    key = world.keys["mobile"]
    answer = gateway.call("POST", "/forwarding/1.0.0/open?a=1", {"x-api-key": key})
    assert ["x-api-key", key] in answer.json()["headers"]
    answer = gateway.call("POST", f"/forwarding/1.0.0/open?apikey={key}&a=1")
    assert answer.json()["target"] == f"/forwarding/1.0.0/open?apikey={key}&a=1"


def test_the_client_sees_how_much_is_left_however_its_key_is_spelled(
    gateway: Gateway, world: World
) -> None:
    key = world.keys["mobile"]
    escaped = "".join(f"%{octet:02x}" for octet in key.encode())
    left = []
    for query, headers in (
        ("", {"x-api-key": key}),
        (f"?apikey={key}", {}),
        (f"?api%6Bey={escaped}", {}),
    ):
        answer = gateway.call("POST", f"/keys/1.0.0/open{query}", headers)
        assert answer.headers["ratelimit-policy"] == '"subscription";q=1000000;w=3600'
        found = re.fullmatch(r'"subscription";r=(\d+);t=\d+', answer.headers["ratelimit"])
        assert found is not None
        left.append(int(found[1]))
    assert left == [left[0], left[0] - 1, left[0] - 2]
