"""A new member of an enumeration reaches every module that tells its members apart.

A module does so when it names two or more of them other than to hand one on: as keys of a table, in
a set, in a `match`, in comparisons. It then names all of them, or stands in `LEFT_OUT` with those
that it leaves to its other cases. So whoever adds a member reads here which files to open.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from extauthz.model.apis import ApiState
from extauthz.model.decision import Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.limits import Algorithm, LimitLevel

ROOT = Path(__file__).resolve().parents[1]

_OF_MATCHING = "API_NOT_FOUND RESOURCE_NOT_FOUND METHOD_NOT_ALLOWED API_BLOCKED MALFORMED_REQUEST"
_OF_SUBSCRIPTIONS = "SUBSCRIPTION_NOT_FOUND SUBSCRIPTION_BLOCKED SUBSCRIPTION_INACTIVE"
_OF_ANY_STEP = "BLOCKED RATE_LIMITED UNAVAILABLE"

LEFT_OUT: dict[tuple[str, str], tuple[str, str]] = {
    ("Algorithm", "extauthz/catalog/documents/build_limits.py"): (
        "FIXED_WINDOW",
        "has no bounds of its own",
    ),
    ("Algorithm", "extauthz/counters/formulas.py"): ("FIXED_WINDOW", "the last case"),
    ("Algorithm", "extauthz/counters/outage/debts.py"): (
        "SLIDING_WINDOW",
        "its windows are aligned to nothing",
    ),
    ("Algorithm", "extauthz/counters/redis/script.py"): ("BURST", "the last case"),
    ("Algorithm", "extauthz/model/limits.py"): (
        "FIXED_WINDOW BURST",
        "their rules are named by their words",
    ),
    ("Algorithm", "mixer_compat/quota.py"): (
        "SLIDING_WINDOW BURST",
        "have no moment at which all is free again",
    ),
    ("ApiState", "extauthz/policy/matching/match.py"): (
        "DEPRECATED PROTOTYPED",
        "are served like PUBLISHED",
    ),
    ("CalendarUnit", "extauthz/answers/limit_headers.py"): (
        "MONTH YEAR",
        "have no fixed length, and the window is left out",
    ),
    ("LimitLevel", "extauthz/policy/limits/most_used.py"): (
        "APPLICATION BURST",
        "an application's is the last case, and a burst is counted as its tier is",
    ),
    ("LimitLevel", "extauthz/policy/limits/planning.py"): (
        "BURST CLIENT CUSTOM",
        "are planned apart from the tiers of a catalog's parts",
    ),
    ("LimitLevel", "extauthz/policy/throttled.py"): (
        "BURST CUSTOM CLIENT",
        "have no keys that a Traffic Manager throttles for a subject of the catalog",
    ),
    ("OutageMode", "extauthz/counters/outage/local.py"): ("LOCAL", "the last case"),
    ("PlaceKind", "extauthz/answers/upstream.py"): (
        "COOKIE CONNECTION",
        "cookies are the last case, and a connection has nothing to take out",
    ),
    ("PlaceKind", "extauthz/catalog/documents/build_apis.py"): (
        "CONNECTION",
        "cannot be written in a catalog",
    ),
    ("PlaceKind", "extauthz/inspection/advice.py"): (
        "HEADER COOKIE",
        "are called by their words",
    ),
    ("PlaceKind", "extauthz/policy/authentication/credentials.py"): (
        "COOKIE CONNECTION",
        "are read as parameters are",
    ),
    ("PlaceKind", "extauthz/policy/request/parameters.py"): (
        "HEADER CONNECTION",
        "hold no parameters",
    ),
    ("PlaceKind", "mixer_compat/manifests/parts.py"): (
        "CONNECTION",
        "cannot be written in a catalog",
    ),
    ("Reason", "extauthz/answers/denial.py"): (
        "MISSING_CREDENTIALS CREDENTIAL_NOT_PERMITTED API_NOT_FOUND RESOURCE_NOT_FOUND API_BLOCKED "
        f"MALFORMED_REQUEST BLOCKED UNAVAILABLE {_OF_SUBSCRIPTIONS}",
        "RFC 6750 has no error code for them",
    ),
    ("Reason", "extauthz/clients/key_validation.py"): (
        "AMBIGUOUS_CREDENTIALS API_BLOCKED API_NOT_FOUND AUDIENCE_NOT_ALLOWED BLOCKED "
        "CREDENTIAL_NOT_PERMITTED MALFORMED_REQUEST METHOD_NOT_ALLOWED RATE_LIMITED TOKEN_INACTIVE "
        "TOKEN_REVOKED UNAVAILABLE",
        "API Manager 2.6 has no status for them in its answer about a token",
    ),
    ("Reason", "extauthz/policy/authentication/authenticate.py"): (
        "MISSING_CREDENTIALS AMBIGUOUS_CREDENTIALS TOKEN_EXPIRED TOKEN_REVOKED WRONG_KEY_TYPE "
        f"AUDIENCE_NOT_ALLOWED CREDENTIAL_NOT_PERMITTED INSUFFICIENT_SCOPE {_OF_MATCHING} {_OF_SUBSCRIPTIONS} "
        f"{_OF_ANY_STEP}",
        "are not what a guess ends as, and count as no failed attempt",
    ),
    ("Reason", "mixer_compat/compat_wso2.py"): (
        f"{_OF_MATCHING} {_OF_ANY_STEP}",
        "WSO2's Mixer adapter never denied so; they are answered in full",
    ),
    ("SecurityScheme", "extauthz/answers/denial.py"): (
        "API_KEY MTLS NONE",
        "are not asked for with a Bearer challenge",
    ),
    ("SecurityScheme", "extauthz/catalog/documents/build_apis.py"): (
        "OPAQUE MTLS NONE",
        "are taken only where the catalog says so",
    ),
    ("SecurityScheme", "extauthz/policy/authentication/assumed.py"): (
        "MTLS",
        "is assumed without a user, and has no scopes",
    ),
    ("SecurityScheme", "extauthz/policy/authentication/authenticate.py"): (
        "JWT OPAQUE",
        "the last case",
    ),
    ("SecurityScheme", "extauthz/policy/authentication/bearer_tokens.py"): (
        "API_KEY MTLS NONE",
        "are no bearer tokens",
    ),
    ("SecurityScheme", "extauthz/policy/authentication/credentials.py"): (
        "MTLS NONE",
        "have no place in the request",
    ),
    ("SecurityScheme", "extauthz/policy/request/caller_claims.py"): (
        "API_KEY MTLS NONE",
        "name no person",
    ),
    ("TextSource", "mixer_compat/manifests/parts.py"): (
        "CLAIM",
        "is in the token, which is sent anyway",
    ),
    ("UsageSource", "extauthz/usage/summing.py"): (
        "MIXER_LOGENTRY MIXER_TRACESPAN MIXER_EDGE",
        "tell of requests that another source has told of",
    ),
    ("UsageOutcome", "mixer_compat/usage.py"): (
        "DENY",
        "a report does not say who refused a request: the upstream may have",
    ),
}
"""By enumeration and file: the members that the file does not name, and why it need not."""

_DOCUMENTED = [
    (Reason, "docs/reference/reasons.md"),
    (Reason, "README.md"),
    (LimitLevel, "docs/reference/reasons.md"),
    (SecurityScheme, "docs/reference/catalog.md"),
    (Algorithm, "docs/reference/catalog.md"),
    (ApiState, "docs/reference/catalog.md"),
]


def _read_enumerations() -> dict[str, frozenset[str]]:
    """The members of every enumeration of the model, by its name."""
    return {
        node.name: frozenset(
            target.id
            for line in node.body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name) and not target.id.startswith("_")
        )
        for path in (ROOT / "extauthz" / "model").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base) in ("Enum", "IntEnum") for base in node.bases)
    }


ENUMERATIONS = _read_enumerations()


def _find_handed_on(tree: ast.AST) -> Iterator[ast.expr]:
    """Arguments and results: a member that stands there is made, and not told apart."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from node.args
            yield from (keyword.value for keyword in node.keywords)
        elif isinstance(node, ast.Return) and node.value is not None:
            yield node.value


def _find_named(path: Path) -> dict[str, set[str]]:
    """The members that a module tells apart, by their enumeration."""
    tree = ast.parse(path.read_text())
    handed_on = set(_find_handed_on(tree))
    named: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in handed_on:
            enumeration = ast.unparse(node.value)
            if node.attr in ENUMERATIONS.get(enumeration, ()):
                named.setdefault(enumeration, set()).add(node.attr)
    return named


NAMED = {
    (enumeration, path.relative_to(ROOT).as_posix()): members
    for folder in ("extauthz", "mixer_compat")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not path.name.endswith("_pb2.py")
    for enumeration, members in _find_named(path).items()
    if len(members) > 1
}


@pytest.mark.parametrize(("enumeration", "file"), sorted(NAMED.keys() | LEFT_OUT.keys()))
def test_a_module_that_tells_members_apart_names_them_all(enumeration: str, file: str) -> None:
    missing = ENUMERATIONS[enumeration] - NAMED.get((enumeration, file), set())
    left_out, _ = LEFT_OUT.get((enumeration, file), ("", ""))
    forgotten = sorted(missing - set(left_out.split()))
    assert not forgotten, (
        f"open {file} and say what {enumeration}.{' and '.join(forgotten)} means there; if its "
        f"other cases are right for it, say so in LEFT_OUT of {Path(__file__).name}"
    )
    stale = sorted(set(left_out.split()) - missing)
    assert not stale, f"{file} names {stale} now: take them out of LEFT_OUT"


def test_the_tables_are_seen() -> None:
    """An empty list would make the test above pass for nothing."""
    assert {
        ("Reason", "extauthz/answers/reasons.py"),
        ("Reason", "extauthz/inspection/advice.py"),
        ("Reason", "mixer_compat/compat_wso2.py"),
        ("LimitLevel", "extauthz/policy/limits/answers.py"),
        ("SecurityScheme", "extauthz/policy/authentication/authenticate.py"),
        ("SecurityScheme", "extauthz/catalog/openapi/security.py"),
        ("Algorithm", "extauthz/counters/memory.py"),
        ("ApiState", "extauthz/policy/matching/match.py"),
        ("PlaceKind", "extauthz/policy/request/parameters.py"),
        ("SubscriptionState", "extauthz/policy/subscription.py"),
    } <= NAMED.keys()


@pytest.mark.parametrize(
    ("enumeration", "page"), [pytest.param(*each, id=each[1]) for each in _DOCUMENTED]
)
def test_a_page_names_every_word_that_its_readers_meet(
    enumeration: type[Reason | LimitLevel | SecurityScheme | Algorithm | ApiState], page: str
) -> None:
    named = set(re.findall(r"`(\w+)`", (ROOT / page).read_text()))
    missing = sorted(member.value for member in enumeration if member.value not in named)
    assert not missing, f"open {page} and say what {' and '.join(missing)} means"
