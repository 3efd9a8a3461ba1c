"""Checks the claims of a JWT or of an introspection answer (RFC 7662) against the issuer's rules.

There is one function for each claim, called in a fixed order; the clock is an argument. A claim
that is null counts as absent: RFC 7519 gives null no meaning, and issuers write it for claims that
they leave out. Denials say what was found and what was expected, for operators only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NewType

from extauthz.model.decision import Denial, Reason
from extauthz.model.issuers import Issuer
from extauthz.policy.authentication.claims import read_numeric_date_us

_S: Final = 1_000_000
_MOST_SHOWN: Final = 5
_MOST_CLAIMS_SHOWN: Final = 20
_LONGEST_SHOWN: Final = 100

_ACCESS_TOKEN_TYPES: Final = frozenset(("bearer", "dpop", "access_token"))
"""``token_type`` of an introspection answer (RFC 6749 5.1, RFC 9449 5), in lower case.

Keycloak writes Refresh, Offline or ID there for tokens of these kinds, and calls them active. N_A
(RFC 8693 2.2.1) says that a token is no access token.
"""
_KIND_CLAIMS: Final = ("typ", "token_type", "token_use")
"""Claims that tell kinds of tokens apart at Keycloak, Simple JWT, Cognito and Ory Hydra. Other
issuers may use these names for anything."""
OTHER_KINDS: Final = frozenset(
    (
        *("id", "id_token", "refresh", "refresh_token", "offline", "offline_token"),
        *("logout", "logout_token", "logout+jwt", "n_a"),
    )
)

VerifiedClaims = NewType("VerifiedClaims", dict[str, Any])
"""Claims that were verified."""


def drop_absent(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The claims without those that are null."""
    return {name: value for name, value in claims.items() if value is not None}


def check_claims(claims: Mapping[str, Any], issuer: Issuer, now_us: int) -> VerifiedClaims | Denial:
    """Checks the claims of a JWT whose signature is valid; gives them, or the denial."""
    return _check(claims, issuer, now_us, _CHECKS)


def check_introspected(
    answer: Mapping[str, Any], issuer: Issuer, now_us: int
) -> VerifiedClaims | Denial:
    """Checks an introspection answer that says "active" (RFC 7662); returns its claims or a denial.

    ``exp`` and ``iss`` are optional in an answer. ``aud`` is required when audiences are
    configured: otherwise a token for another service would pass.
    """
    claims = drop_absent(answer)
    denial = _judge_token_type(claims, issuer)
    if denial is not None:
        return denial
    return _check(claims, issuer, now_us, _CHECKS if "iss" in claims else _CHECKS_BUT_ISSUER)


def check_key_claims(
    claims: Mapping[str, Any], issuer: Issuer, now_us: int
) -> VerifiedClaims | Denial:
    """Checks the times of a signed API key. It may have no expiry, and is for no audience."""
    return _check(claims, issuer, now_us, _CHECKS_OF_KEYS)


def check_validated(
    claims: Mapping[str, Any], issuer: Issuer, now_us: int
) -> VerifiedClaims | Denial:
    """Checks what an issuer with `key_validation` says of a token that may make the call.

    It decided for this call, so only the time that has passed since then matters.
    """
    return _check(claims, issuer, now_us, (_judge_expiry,))


def show_text(value: Any) -> str:
    """A value from outside for a message: text is quoted and shortened, of others only the type."""
    if not isinstance(value, str):
        return f"no text but {type(value).__name__}"
    return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "…")


def list_some(names: Iterable[Any], most: int = _MOST_SHOWN) -> str:
    """The first `most` names for a message, with an ellipsis when there are more."""
    some = [show_text(name) for name in islice(names, most + 1)]
    return ", ".join(some[:most]) + (", …" if len(some) > most else "")


def say_no_client(claims: Mapping[str, Any], issuer: Issuer) -> str:
    """Explains why verified claims name no client: the claims expected, and those present.

    Only names are shown, because values may be private.
    """
    looked_for = list_some(issuer.claims.consumer_key)
    there = list_some(sorted(claims), _MOST_CLAIMS_SHOWN)
    return f"no claim names its client: looked for {looked_for}, and it has {there}"


_Check = Callable[[Mapping[str, Any], Issuer, int], Denial | None]


def _check(
    claims: Mapping[str, Any], issuer: Issuer, now_us: int, checks: tuple[_Check, ...]
) -> VerifiedClaims | Denial:
    for check in checks:
        denial = check(claims, issuer, now_us)
        if denial is not None:
            return denial
    return VerifiedClaims(dict(claims))


def _invalid(detail: str, found: str = "") -> Denial:
    return Denial(reason=Reason.INVALID_CREDENTIALS, detail=detail, found=found)


def _show_instant(instant_us: int) -> str:
    try:
        return datetime.fromtimestamp(instant_us // _S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{instant_us // _S} s after 1970"


def _judge_token_type(claims: Mapping[str, Any], issuer: Issuer) -> Denial | None:
    kind = claims.get("token_type")
    if kind is None:
        endpoint = issuer.introspection
        if endpoint is None or not endpoint.require_token_type:
            return None
        found = "the answer has no token_type, and require_token_type is set"
    elif isinstance(kind, str) and kind.strip().lower() in _ACCESS_TOKEN_TYPES:
        return None
    else:
        found = f"its token_type is {show_text(kind)}"
    return _invalid("The token is not an access token.", found)


def _judge_kind(claims: Mapping[str, Any], _issuer: Issuer, _now_us: int) -> Denial | None:
    for name in _KIND_CLAIMS:
        kind = claims.get(name)
        if isinstance(kind, str) and kind.strip().lower() in OTHER_KINDS:
            return _invalid("The token is not an access token.", f"its {name} is {show_text(kind)}")
    return None


def _judge_binding(claims: Mapping[str, Any], issuer: Issuer, _now_us: int) -> Denial | None:
    """RFC 7800: a bound token needs proof of possession. RFC 9449 7.2: so does a DPoP token."""
    if issuer.allow_bound_tokens:
        return None
    kind = claims.get("token_type")
    if "cnf" not in claims and not (isinstance(kind, str) and kind.strip().lower() == "dpop"):
        return None
    return _invalid(
        "The token is bound to a key of its holder, and is not taken as a bearer token.",
        "it has cnf, or token_type DPoP, and no proof is looked at here; to take such tokens "
        "without it, set allow_bound_tokens",
    )


def _judge_expiry(claims: Mapping[str, Any], issuer: Issuer, now_us: int) -> Denial | None:
    if "exp" not in claims:
        return None
    expires_at_us = read_numeric_date_us(claims["exp"])
    if expires_at_us is None:
        return _invalid("The token's expiry is not a number.")
    # RFC 7519 4.1.4: not accepted on or after this time.
    if now_us >= expires_at_us + issuer.leeway_s * _S:
        return Denial(
            reason=Reason.TOKEN_EXPIRED,
            detail="The token has expired.",
            found=f"its exp is {_show_instant(expires_at_us)}, and it is {_show_instant(now_us)}",
        )
    return None


def _judge_not_before(claims: Mapping[str, Any], issuer: Issuer, now_us: int) -> Denial | None:
    if "nbf" not in claims:
        return None
    starts_at_us = read_numeric_date_us(claims["nbf"])
    if starts_at_us is None:
        return _invalid("The token's start time is not a number.")
    if now_us + issuer.leeway_s * _S < starts_at_us:
        return Denial(
            reason=Reason.TOKEN_INACTIVE,
            detail="The token is not valid yet.",
            found=f"its nbf is {_show_instant(starts_at_us)}, and it is {_show_instant(now_us)}",
        )
    return None


def _judge_issued_at(claims: Mapping[str, Any], issuer: Issuer, now_us: int) -> Denial | None:
    if "iat" not in claims:
        return None
    issued_at_us = read_numeric_date_us(claims["iat"])
    if issued_at_us is None:
        return _invalid("The token's issue time is not a number.")
    if now_us + issuer.leeway_s * _S < issued_at_us:
        return _invalid(
            "The token was issued in the future.",
            f"its iat is {_show_instant(issued_at_us)}, and it is {_show_instant(now_us)}",
        )
    return None


def _judge_issuer(claims: Mapping[str, Any], issuer: Issuer, _now_us: int) -> Denial | None:
    if claims.get("iss") == issuer.issuer:
        return None
    return _invalid(
        "The token's issuer is not accepted.",
        f"its iss is {show_text(claims.get('iss'))}, and the issuer is {issuer.issuer!r}",
    )


def _judge_audience(claims: Mapping[str, Any], issuer: Issuer, _now_us: int) -> Denial | None:
    if not issuer.audiences:
        return None
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if (
        isinstance(named, list)
        and all(isinstance(one, str) for one in named)
        and not issuer.audiences.isdisjoint(named)
    ):
        return None
    if audience is None:
        found = "it has no aud"
    elif audience == []:
        found = "its aud is empty"
    else:
        found = f"its aud is {list_some(named) if isinstance(named, list) else show_text(named)}"
    return _invalid(
        "The token is not meant for this service.",
        f"{found}, and the issuer's audiences are {list_some(sorted(issuer.audiences))}",
    )


_CHECKS: Final[tuple[_Check, ...]] = (
    _judge_kind,
    _judge_expiry,
    _judge_not_before,
    _judge_issued_at,
    _judge_issuer,
    _judge_audience,
    _judge_binding,
)
_CHECKS_OF_KEYS: Final[tuple[_Check, ...]] = (_judge_expiry, _judge_not_before, _judge_issued_at)
_CHECKS_BUT_ISSUER: Final = tuple(check for check in _CHECKS if check is not _judge_issuer)
