"""Tokens that somebody made up, spoilt or found, sent through a real Envoy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

import httpx2
import pytest

from tests.e2e.deciding.test_paths import send
from tests.e2e.envoys import EnvoyVersion
from tests.e2e.running import Deployment, Gateway
from tests.e2e.world import AUDIENCE, World
from tests.keys import a_jwk, base64url, public_pem, rsa_key, sign_jws

pytestmark = pytest.mark.e2e

PATH: Final = "/tokens/1.0.0/open"
Make = Callable[[World], str]


def call(gateway: Gateway, token: str) -> httpx2.Response:
    return gateway.call("POST", PATH, [("authorization", f"Bearer {token}")])


def _sign(**changes: Any) -> Make:
    return lambda world: world.sign(**changes)


def _claims(**changes: Any) -> dict[str, Any]:
    now_s = int(time.time())
    return {
        "iss": "https://idp.example/",
        "aud": AUDIENCE,
        "azp": "mobile-client",
        "exp": now_s + 3600,
        **changes,
    }


def _unsigned(algorithm: str) -> Make:
    return lambda _: f"{base64url({'alg': algorithm, 'typ': 'JWT'})}.{base64url(_claims())}."


def _spoil(spoil: Callable[[str], str]) -> Make:
    return lambda world: world.keep_secret(spoil(world.sign()))


def _swap_payload(token: str) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{base64url(_claims(azp='other', sub='root'))}.{signature}"


def _change_last_byte(token: str) -> str:
    """The last character but one is six bits of the last byte: another one is another byte."""
    return f"{token[:-2]}{'B' if token[-2] == 'A' else 'A'}{token[-1]}"


def _of_size(size: int) -> Make:
    """A genuine token of about so many bytes."""
    return lambda world: world.sign(padding="x" * ((size - len(world.sign(padding=""))) * 3 // 4))


INVALID: Final[dict[str, Make]] = {
    "no algorithm": _unsigned("none"),
    "no algorithm in capitals": _unsigned("NONE"),
    "no algorithm in a mixed case": _unsigned("nOnE"),
    "none with a genuine signature": _sign(header={"alg": "none"}),
    "the public key as a shared secret": _sign(
        key=public_pem(rsa_key()).encode(), algorithm="HS256"
    ),
    "the JWK as a shared secret": _sign(
        key=json.dumps(a_jwk(rsa_key())).encode(), algorithm="HS256"
    ),
    "an algorithm that is not allowed": _sign(algorithm="RS512"),
    "another padding": _sign(algorithm="PS256"),
    "an algorithm that is no text": _sign(header={"alg": ["RS256"]}),
    "another key": _sign(key=rsa_key("intruder")),
    "an unknown kid": _sign(header={"kid": "k2"}),
    "a kid that is a path": _sign(header={"kid": "../../../dev/null"}),
    "a kid that is no text": _sign(header={"kid": 1}),
    "an unknown critical extension": _sign(header={"crit": ["exp"]}),
    "an empty list of critical extensions": _sign(header={"crit": []}),
    "a detached payload": _sign(header={"b64": False, "crit": ["b64"]}),
    "a key of its own": _sign(
        key=rsa_key("intruder"), header={"jwk": a_jwk(rsa_key("intruder")), "kid": None}
    ),
    "a key set of its own": _sign(
        key=rsa_key("intruder"), header={"jku": "http://127.0.0.1:1/jwks", "kid": None}
    ),
    "a certificate of its own": _sign(
        key=rsa_key("intruder"), header={"x5u": "http://127.0.0.1:1/x5u", "x5c": ["AAAA"]}
    ),
    "another kind of token": _sign(header={"typ": "logout+jwt"}),
    "another issuer": _sign(iss="https://evil.example/"),
    "an issuer without its slash": _sign(iss="https://idp.example"),
    "no issuer": _sign(iss=...),
    "an issuer that is a list": _sign(iss=["https://idp.example/"]),
    "another audience": _sign(aud="elsewhere"),
    "other audiences": _sign(aud=["elsewhere", "nowhere"]),
    "no audience": _sign(aud=...),
    "an empty list of audiences": _sign(aud=[]),
    "an audience that is an object": _sign(aud={AUDIENCE: True}),
    "no expiry": _sign(exp=...),
    "an expiry that is text": _sign(exp="9999999999"),
    "an expiry that is true": _sign(exp=True),
    "a start that is text": _sign(nbf="0"),
    "issued tomorrow": lambda world: world.sign(iat=int(time.time()) + 86_400),
    "a user that is an object": _sign(sub={"admin": True}),
    "claims of somebody else": _spoil(_swap_payload),
    "a cut signature": _spoil(lambda token: token[:-8]),
    "no signature": _spoil(lambda token: token.rpartition(".")[0] + "."),
    "half of it": _spoil(lambda token: token[: len(token) // 2]),
    "the last byte changed": _spoil(_change_last_byte),
    "four parts": _spoil(lambda token: f"{token}.{base64url(b'more')}"),
    "an encrypted token's form": lambda _: ".".join([base64url(b'{"alg":"dir"}')] * 5),
    "claims that are a list": lambda _: sign_jws({"alg": "RS256", "kid": "k1"}, b"[]"),
    "claims that are no JSON": lambda _: sign_jws({"alg": "RS256", "kid": "k1"}, b"{"),
    "claims that stand twice": lambda _: sign_jws(
        {"alg": "RS256", "kid": "k1"},
        json.dumps(_claims())[:-1].encode() + b',"azp":"other-client"}',
    ),
    "claims that are not UTF-8": lambda _: sign_jws({"alg": "RS256", "kid": "k1"}, b'{"a":"\xff"}'),
    "deep nesting": lambda _: sign_jws({"alg": "RS256", "kid": "k1"}, b"[" * 3000),
    "letters beyond ASCII": _spoil(lambda token: token.replace(".", ".ü", 1)),
    "a word": lambda _: "nonsense",
    "dots": lambda _: "..",
    "more than 16 KiB": _of_size(17_000),
}


@pytest.fixture
def gateway(deployment: Deployment, version: EnvoyVersion) -> Gateway:
    return deployment.gateway(version)


@pytest.mark.parametrize("make", INVALID.values(), ids=INVALID)
def test_what_is_not_genuine_is_invalid(gateway: Gateway, world: World, make: Make) -> None:
    answer = call(gateway, make(world))
    assert (answer.status_code, answer.json()["reason"]) == (401, "invalid_credentials")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_what_has_ended_has_expired(gateway: Gateway, world: World) -> None:
    for ended_s in (0, -1, 1.5, time.time() - 60):
        answer = call(gateway, world.sign(exp=ended_s))
        assert (answer.status_code, answer.json()["reason"]) == (401, "token_expired"), ended_s


def test_what_has_not_begun_is_inactive(gateway: Gateway, world: World) -> None:
    for begins_s in (int(time.time()) + 600, time.time() + 600.5, 1e300):
        answer = call(gateway, world.sign(nbf=begins_s))
        assert (answer.status_code, answer.json()["reason"]) == (401, "token_inactive"), begins_s


GOOD: Final[dict[str, Make]] = {
    "a plain one": _sign(),
    "one of several audiences": _sign(aud=["elsewhere", AUDIENCE]),
    "an expiry with a fraction": lambda world: world.sign(exp=time.time() + 60.25),
    "an expiry far away": _sign(exp=1e300),
    "just begun": lambda world: world.sign(nbf=int(time.time())),
    "an access token by its type": _sign(header={"typ": "at+jwt"}),
    "no kid": _sign(header={"kid": None}),
    "headers that are not believed": _sign(
        header={"jwk": a_jwk(rsa_key("intruder")), "jku": "http://127.0.0.1:1/", "x5u": "x"}
    ),
    "15 KB": _of_size(15_000),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_what_is_genuine_comes_through(gateway: Gateway, world: World, make: Make) -> None:
    answer = call(gateway, make(world))
    assert answer.status_code == 200, answer.text
    assert ["x-extauthz-application", "mobile"] in answer.json()["headers"]


@pytest.mark.parametrize("size", [1_000_000, 100_000])
def test_envoy_itself_refuses_what_is_far_too_long(gateway: Gateway, size: int) -> None:
    answer = send(gateway, PATH, method="POST", headers=f"authorization: Bearer {'a' * size}\r\n")
    assert (answer.status, answer.target, answer.reason) == (431, None, "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("Bearer", "missing_credentials"),
        ("Basic {token}", "missing_credentials"),
        ("{token}", "missing_credentials"),
        ("Bearer {token},{token}", "ambiguous_credentials"),
        ("Bearer {token}, Bearer {token}", "ambiguous_credentials"),
        ("Bearer {token} {token}", "invalid_credentials"),
        ("Bearer\t{token}", "missing_credentials"),
    ],
)
def test_a_header_of_another_form_is_no_credential(
    gateway: Gateway, world: World, value: str, reason: str
) -> None:
    answer = gateway.call("POST", PATH, {"authorization": value.format(token=world.sign())})
    assert answer.status_code in {400, 401}
    assert answer.json()["reason"] == reason


def test_two_tokens_are_ambiguous_however_good(gateway: Gateway, world: World) -> None:
    pair = [
        ("authorization", f"Bearer {world.sign()}"),
        ("authorization", f"Bearer {world.sign()}"),
    ]
    answer = gateway.call("POST", PATH, pair)
    assert (answer.status_code, answer.json()["reason"]) == (400, "ambiguous_credentials")
    same = [pair[0], pair[0]]
    answer = gateway.call("POST", PATH, same)
    assert (answer.status_code, answer.json()["reason"]) == (400, "ambiguous_credentials")


def test_nothing_that_was_sent_is_in_a_log(deployment: Deployment, world: World) -> None:
    gateway = deployment.gateway()
    token = world.sign()
    assert call(gateway, token).status_code == 200
    assert call(gateway, token[:-4]).status_code == 401
    assert len(world.secrets) > len(world.keys)
    assert all(file.stat().st_size for file in deployment.told.logs)
    assert deployment.told.find_leaks(world.secrets) == []
