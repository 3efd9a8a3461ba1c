"""The token for the upstream: what it says, how it is signed, and when it is signed anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from extauthz.answers.backend_jwt import (
    BackendJwtSigner,
    read_private_key,
    write_wso2_claims,
)
from extauthz.answers.backend_jwt_style import BackendJwtStyle, SigningAlgorithm
from extauthz.answers.upstream import UpstreamStyle, find_header_basis, write_upstream_changes
from extauthz.envoy.authorization import AnswerStyle, AuthorizationService
from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, CheckResponse
from extauthz.errors import ConfigError
from extauthz.model.applications import Application
from extauthz.model.decision import Allow, Decision
from extauthz.model.identity import ANONYMOUS, Identity, KeyType, Place, PlaceKind, SecurityScheme
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.ports import NO_DEADLINE, Deadline
from extauthz.serving.methods import Call
from tests.builders import START_US, FakeClock, S, a_request, a_resource, a_tier, an_api
from tests.keys import ec_key, ed25519_key, rsa_key

HEADER = "x-jwt-assertion"
DIALECT = "http://wso2.org/claims/"
ALICE = Identity(
    scheme=SecurityScheme.JWT,
    application=Application(name="mobile", owner="bob", tier=a_tier("50PerMin")),
    key_type=KeyType.SANDBOX,
    user="alice",
    consumer_key="abc123",
)


def an_allow(identity: Identity = ALICE, **fields: Any) -> Allow:
    api = fields.pop("api", None) or an_api()
    fields.setdefault("tier", "Gold")
    return Allow(id="d-1", route=Route(api, api.resources[0]), identity=identity, **fields)


def a_signer(clock: FakeClock | None = None, **fields: Any) -> BackendJwtSigner:
    key = fields.pop("key", None) or rsa_key()
    max_cached = fields.pop("max_cached", 100)
    return BackendJwtSigner(
        key=key,
        style=BackendJwtStyle(**fields),
        clock=clock or FakeClock(),
        max_cached=max_cached,
    )


def claims_in(token: str, key: Any = None, algorithm: str = "RS256") -> dict[str, Any]:
    """The claims, once the signature is known to be genuine. Times are of a FakeClock."""
    public = (key or rsa_key()).public_key()
    claims: dict[str, Any] = jwt.decode(
        token, public, [algorithm], options={"verify_exp": False, "verify_iat": False}
    )
    return claims


def test_says_who_calls_in_wso2s_words() -> None:
    claims = claims_in(a_signer().write(an_allow()))
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": "wso2.org/products/am",
        "iat": START_US // S,
        "exp": START_US // S + 900,
        DIALECT + "subscriber": "bob",
        DIALECT + "applicationname": "mobile",
        DIALECT + "applicationtier": "50PerMin",
        DIALECT + "apiname": "HttpbinAPI",
        DIALECT + "apicontext": "/httpbin/1.0.0",
        DIALECT + "version": "1.0.0",
        DIALECT + "tier": "Gold",
        DIALECT + "keytype": "SANDBOX",
        DIALECT + "usertype": "Application_User",
        DIALECT + "enduser": "alice",
    }


@pytest.mark.parametrize(
    ("dialect", "name"),
    [("urn:claims", "urn:claims/enduser"), ("urn:claims/", "urn:claims/enduser"), ("", "enduser")],
)
def test_puts_the_dialect_in_front_of_each_name(dialect: str, name: str) -> None:
    assert claims_in(a_signer(dialect=dialect).write(an_allow()))[name] == "alice"


def test_issuer_life_and_key_id_are_the_settings() -> None:
    token = a_signer(issuer="me", ttl_us=60 * S, key_id="k7").write(an_allow())
    claims = claims_in(token)
    assert claims["iss"] == "me" and claims["exp"] - claims["iat"] == 60
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "k7", "typ": "JWT"}
    assert "kid" not in jwt.get_unverified_header(a_signer().write(an_allow()))


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (ALICE, "Application_User"),
        (replace(ALICE, user=""), "Application"),
        (replace(ALICE, user="abc123"), "Application"),
        (replace(ALICE, scheme=SecurityScheme.OPAQUE), "Application_User"),
        (replace(ALICE, scheme=SecurityScheme.API_KEY, user="bob"), "Application"),
        (replace(ALICE, scheme=SecurityScheme.MTLS), "Application"),
        (replace(ALICE, claims={"aut": "APPLICATION"}), "Application"),
        (replace(ALICE, user="abc123", claims={"aut": "APPLICATION_USER"}), "Application_User"),
        (replace(ALICE, claims={"aut": ["APPLICATION"]}), "Application_User"),
    ],
)
def test_says_whether_a_person_stands_behind_the_call(identity: Identity, expected: str) -> None:
    assert write_wso2_claims(an_allow(identity))["usertype"] == expected


def test_leaves_out_what_nothing_is_known_for() -> None:
    unknown = Identity(scheme=SecurityScheme.JWT)
    claims = write_wso2_claims(an_allow(unknown, tier=""))
    assert claims == {
        "apiname": "HttpbinAPI",
        "apicontext": "/httpbin/1.0.0",
        "version": "1.0.0",
        "tier": "Unlimited",
        "keytype": "PRODUCTION",
        "usertype": "Application",
    }


def test_names_the_application_as_its_api_manager_does() -> None:
    shop = Application(name="bob:ShopApp", display_name="ShopApp", uuid="a-1", number=7)
    claims = write_wso2_claims(an_allow(replace(ALICE, application=shop)))
    assert claims["applicationname"] == "ShopApp"
    assert (claims["applicationid"], claims["applicationUUId"]) == ("7", "a-1")


SAID = {"application": {"id": 7, "name": "shop", "owner": "eve", "tier": "Big", "x": [], "y": True}}


def test_takes_the_application_from_a_self_contained_token() -> None:
    identity = Identity(scheme=SecurityScheme.JWT, claims=SAID, subscribed={})
    claims = write_wso2_claims(an_allow(identity))
    assert [claims[f"application{part}"] for part in ("id", "name", "tier")] == ["7", "shop", "Big"]
    assert claims["subscriber"] == "eve"


def test_takes_no_application_from_the_token_of_another_issuer() -> None:
    claims = write_wso2_claims(an_allow(Identity(scheme=SecurityScheme.JWT, claims=SAID)))
    assert "applicationname" not in claims and "subscriber" not in claims


def test_the_catalogs_application_wins_over_the_tokens() -> None:
    claims = write_wso2_claims(an_allow(replace(ALICE, claims=SAID, subscribed={})))
    assert (claims["applicationname"], claims["subscriber"]) == ("mobile", "bob")
    assert "applicationid" not in claims


def test_a_request_without_identity_gets_no_token() -> None:
    assert a_signer().write(an_allow(ANONYMOUS)) == ""


# Signing anew


def test_gives_the_same_token_until_four_fifths_of_its_life_have_passed() -> None:
    clock = FakeClock()
    signer = a_signer(clock, ttl_us=100 * S)
    first = signer.write(an_allow())
    clock.advance(79.999999)
    assert signer.write(an_allow()) == first
    clock.advance(0.000001)
    second = signer.write(an_allow())
    assert claims_in(second)["iat"] == START_US // S + 80
    assert claims_in(second)["jti"] != claims_in(first)["jti"]
    assert signer.write(an_allow()) == second


def test_signs_anew_when_the_clock_was_set_back() -> None:
    clock = FakeClock()
    signer = a_signer(clock)
    first = signer.write(an_allow())
    clock.advance(-3600)
    assert claims_in(signer.write(an_allow()))["iat"] == claims_in(first)["iat"] - 3600


@pytest.mark.parametrize(
    "other",
    [
        an_allow(replace(ALICE, user="mallory")),
        an_allow(replace(ALICE, key_type=KeyType.PRODUCTION)),
        an_allow(replace(ALICE, application=Application(name="mobile", owner="eve"))),
        an_allow(api=an_api(version="2.0.0")),
        an_allow(api=an_api(name="Pets")),
        an_allow(tier="Bronze"),
    ],
)
def test_a_token_is_for_one_caller_on_one_api(other: Allow) -> None:
    signer = a_signer()
    mine, other_ones = signer.write(an_allow()), signer.write(other)
    assert claims_in(mine) != claims_in(other_ones)
    assert signer.write(an_allow()) == mine and signer.write(other) == other_ones


@given(users=st.lists(st.text(max_size=3), max_size=12))
def test_a_token_always_says_the_caller_that_it_is_given_out_for(users: list[str]) -> None:
    signer = a_signer(key=ed25519_key(), algorithm=SigningAlgorithm.EDDSA, max_cached=3)
    for user in users:
        token = signer.write(an_allow(replace(ALICE, user=user)))
        claims = claims_in(token, ed25519_key(), "EdDSA")
        assert claims.get(DIALECT + "enduser", "") == user


def test_forgets_the_token_that_was_not_used_longest() -> None:
    signer = a_signer(max_cached=2)
    alice, bob, carol = (an_allow(replace(ALICE, user=user)) for user in ("alice", "bob", "carol"))
    first, second = signer.write(alice), signer.write(bob)
    assert signer.write(alice) == first
    signer.write(carol)
    assert signer.write(alice) == first
    assert signer.write(bob) != second


def test_shows_no_token_in_its_repr() -> None:
    signer = a_signer()
    token = signer.write(an_allow())
    assert token not in repr(signer) and token not in repr(vars(signer))


# Keys


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> bytes:
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return made


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        *((algorithm, rsa_key()) for algorithm in SigningAlgorithm if algorithm.value[1] == "S"
          and algorithm.value[0] in "RP"),
        (SigningAlgorithm.ES256, ec_key("P-256")),
        (SigningAlgorithm.ES384, ec_key("P-384")),
        (SigningAlgorithm.ES512, ec_key("P-521")),
        (SigningAlgorithm.EDDSA, ed25519_key()),
    ],
)  # fmt: skip
def test_signs_with_each_algorithm(algorithm: SigningAlgorithm, key: Any, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem(key))
    found = read_private_key(tmp_path / "key.pem", algorithm)
    token = a_signer(key=found, algorithm=algorithm).write(an_allow())
    assert claims_in(token, key, algorithm.value)[DIALECT + "enduser"] == "alice"


@pytest.mark.parametrize(
    ("content", "algorithm", "message"),
    [
        (pem(ec_key("P-256")), "RS256", "does not fit RS256, which takes an RSA key of 2048 bits"),
        (pem(rsa_key("small", bits=1024)), "RS256", "does not fit RS256"),
        (pem(rsa_key()), "ES256", "does not fit ES256, which takes an EC key on the curve secp2"),
        (pem(ec_key("P-256")), "ES384", "takes an EC key on the curve secp384r1"),
        (pem(rsa_key()), "EdDSA", "takes an Ed25519 key"),
        (pem(x25519.X25519PrivateKey.generate()), "EdDSA", "takes an Ed25519 key"),
        (pem(rsa_key(), BestAvailableEncryption(b"pw")), "RS256", "is encrypted; give a key"),
        (b"no key", "RS256", "holds no PEM private key"),
        (b"", "RS256", "holds no PEM private key"),
        (None, "RS256", "does not exist"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_says_why_a_key_cannot_be_used(
    content: bytes | None, algorithm: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_private_key(file, SigningAlgorithm(algorithm))
    (problem,) = caught.value.problems
    assert problem.file == str(file) and message in problem.message


# As one of the headers that only this service sets


def a_style(**fields: Any) -> UpstreamStyle:
    return UpstreamStyle(backend_jwt=a_signer(**fields))


def test_is_set_over_the_clients_own_and_never_removed() -> None:
    request = a_request(headers={HEADER: "forged"})
    changes = write_upstream_changes(an_allow(), request, a_style())
    fields = dict(changes.set_headers)
    assert claims_in(fields[HEADER])[DIALECT + "enduser"] == "alice"
    assert HEADER not in changes.remove_headers


def test_the_clients_own_is_removed_when_there_is_no_identity() -> None:
    request = a_request(headers={HEADER: "forged"})
    changes = write_upstream_changes(an_allow(ANONYMOUS), request, a_style())
    assert HEADER in changes.remove_headers
    assert HEADER not in dict(changes.set_headers)


def test_a_header_that_reads_like_it_is_removed() -> None:
    request = a_request(headers={"x_jwt_assertion": "forged"})
    changes = write_upstream_changes(an_allow(), request, a_style())
    assert "x_jwt_assertion" in changes.remove_headers


def test_stays_when_a_credential_is_taken_out_of_a_header_of_that_name() -> None:
    place = Place(PlaceKind.HEADER, HEADER)
    request = a_request(headers={HEADER: "the client's token"})
    changes = write_upstream_changes(an_allow(credential_places=(place,)), request, a_style())
    assert HEADER in dict(changes.set_headers) and HEADER not in changes.remove_headers


def test_is_written_for_each_request() -> None:
    assert find_header_basis(an_allow(), a_request(), a_style()) is None


def test_without_a_signer_the_header_is_nobodys() -> None:
    request = a_request(headers={HEADER: "the client's"})
    changes = write_upstream_changes(an_allow(), request, UpstreamStyle())
    assert HEADER not in dict(changes.set_headers) and HEADER not in changes.remove_headers


@pytest.mark.parametrize("identity", [ALICE, ANONYMOUS])
async def test_goes_to_envoy_as_a_header_that_replaces_the_clients(identity: Identity) -> None:
    clock = FakeClock()
    api = an_api(a_resource(security=(SecurityScheme.NONE,)))

    async def decide(request: ApiRequest, *, deadline: Deadline, shadow: bool = False) -> Decision:
        assert request.headers.get(HEADER) == "forged" and deadline == NO_DEADLINE and not shadow
        return an_allow(identity, api=api)

    style = AnswerStyle(upstream=UpstreamStyle(backend_jwt=a_signer(clock)))
    service = AuthorizationService(decide=decide, style=style, clock=clock)
    question = CheckRequest()
    http = question.attributes.request.http
    http.method, http.path, http.host = "GET", "/httpbin/1.0.0/ip", "api.example.com"
    http.headers[HEADER] = "forged"
    answer = CheckResponse.FromString(await service.check(question.SerializeToString(), Call()))
    set_headers = {option.header.key: option for option in answer.ok_response.headers}
    removed = list(answer.ok_response.headers_to_remove)
    if identity is ANONYMOUS:
        assert HEADER in removed and HEADER not in set_headers
    else:
        option = set_headers[HEADER]
        assert HEADER not in removed
        assert not option.append.value and option.append_action == 2
        assert claims_in(option.header.value)[DIALECT + "apiname"] == "HttpbinAPI"
