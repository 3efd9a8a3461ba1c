"""Which introspection answers are of tokens that are taken, and what operators are told if not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from extauthz.model.decision import Denial, Reason
from extauthz.model.issuers import Issuer
from extauthz.policy.authentication.claim_checks import (
    check_claims,
    check_introspected,
    list_some,
    show_text,
)
from tests.builders import START_US
from tests.deciding import OPAQUE_ENDPOINT
from tests.keys import ISSUER, START_S, an_issuer, claims_of

INVALID, EXPIRED, INACTIVE = (
    Reason.INVALID_CREDENTIALS,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_INACTIVE,
)
ANSWER = {"active": True, "client_id": "abc123", "aud": ["httpbin"]}


def reason_of_answer(issuer: Issuer | None = None, **members: Any) -> Reason | None:
    outcome = check_introspected({**ANSWER, **members}, issuer or an_issuer(), START_US)
    return outcome.reason if isinstance(outcome, Denial) else None


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, None),
        ({"aud": "other"}, INVALID),
        ({"aud": None}, INVALID),
        ({"iss": ISSUER}, None),
        ({"iss": "https://other.example/"}, INVALID),
        ({"iss": None}, None),
        ({"exp": START_S - 10}, EXPIRED),
        ({"exp": "soon"}, INVALID),
        ({"exp": None, "sub": None, "nbf": None, "iat": None}, None),
        ({"nbf": START_S + 10}, INACTIVE),
    ],
)
def test_an_introspection_answer_is_judged_by_what_it_says(
    members: dict[str, Any], expected: Reason | None
) -> None:
    assert reason_of_answer(**members) is expected


def test_without_audiences_no_member_must_be_there() -> None:
    issuer = an_issuer(audiences=frozenset())
    assert check_introspected({"active": True}, issuer, START_US) == {"active": True}
    assert isinstance(check_introspected({"active": True}, an_issuer(), START_US), Denial)


TYPES = [
    *((kind, None) for kind in ("Bearer", "bearer", "BEARER", " Bearer ", "access_token", None)),
    *((kind, INVALID) for kind in ("Refresh", "Offline", "ID", "id_token", "N_A", "mac", "", 1)),
    *((kind, INVALID) for kind in ("refresh_token", "Logout", ["Bearer"], True, "DPoP")),
]


@pytest.mark.parametrize(("kind", "expected"), TYPES)
def test_only_access_tokens_pass(kind: Any, expected: Reason | None) -> None:
    assert reason_of_answer(token_type=kind) is expected


@pytest.mark.parametrize("kind", ["Refresh", "offline", "ID", "id_token", "refresh_token"])
@pytest.mark.parametrize("name", ["typ", "token_use", "token_type"])
def test_a_claim_that_names_another_kind_counts_at_either_door(name: str, kind: str) -> None:
    assert reason_of_answer(None, **{name: kind}) is INVALID
    outcome = check_claims({**claims_of(), name: kind}, an_issuer(), START_US)
    assert isinstance(outcome, Denial)


@pytest.mark.parametrize("claims", [{"typ": "Bearer"}, {"token_use": "access"}, {"typ": 7}])
def test_a_claim_that_names_no_other_kind_is_nobodys_business(claims: dict[str, Any]) -> None:
    assert isinstance(check_claims({**claims_of(), **claims}, an_issuer(), START_US), dict)


def test_a_missing_token_type_passes_unless_it_is_required() -> None:
    strict = an_issuer(introspection=replace(OPAQUE_ENDPOINT, require_token_type=True))
    assert reason_of_answer(strict) is INVALID
    assert reason_of_answer(strict, token_type=None) is INVALID
    assert reason_of_answer(strict, token_type="Bearer") is None
    # It is a rule for answers: JWTs have no such claim.
    assert isinstance(check_claims(claims_of(), strict, START_US), dict)


@pytest.mark.parametrize(
    "bound",
    [
        {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
        {"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}},
        {"cnf": {"jkt": "x"}, "token_type": "DPoP"},
        {"cnf": {}},
        {"cnf": "x"},
        {"token_type": "DPoP"},
        {"token_type": "dpop"},
    ],
)
def test_a_bound_token_is_no_bearer_token_unless_it_is_allowed(bound: dict[str, Any]) -> None:
    assert reason_of_answer(**bound) is INVALID
    assert reason_of_answer(an_issuer(allow_bound_tokens=True), **bound) is None
    claims = {**claims_of(), **bound}
    assert isinstance(check_claims(claims, an_issuer(), START_US), Denial)
    assert isinstance(check_claims(claims, an_issuer(allow_bound_tokens=True), START_US), dict)


def test_a_binding_that_is_null_is_none() -> None:
    assert reason_of_answer(cnf=None) is None


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        (
            {"aud": "shop"},
            "its aud is 'shop', and the issuer's audiences are 'cart', 'httpbin'",
        ),
        (
            {"aud": ["a", "b"]},
            "its aud is 'a', 'b', and the issuer's audiences are 'cart', 'httpbin'",
        ),
        ({"aud": ...}, "it has no aud, and the issuer's audiences are 'cart', 'httpbin'"),
        ({"iss": "https://a/"}, f"its iss is 'https://a/', and the issuer is '{ISSUER}'"),
        (
            {"exp": START_S - 3600},
            "its exp is 2023-11-14T21:13:20Z, and it is 2023-11-14T22:13:20Z",
        ),
    ],
)
def test_operators_are_told_both_sides(claims: dict[str, Any], found: str) -> None:
    issuer = an_issuer(audiences=frozenset({"httpbin", "cart"}))
    outcome = check_claims(claims_of(**claims), issuer, START_US)
    assert isinstance(outcome, Denial)
    assert outcome.found == found


def test_what_a_stranger_wrote_is_shown_cut_short() -> None:
    assert len(show_text("x" * 10_000)) < 110
    assert show_text("\x1b[2J") == r"'\x1b[2J'"
    assert show_text({"a": 1}) == "no text but dict"
    assert list_some(map(str, range(10**9))) == "'0', '1', '2', '3', '4', …"
