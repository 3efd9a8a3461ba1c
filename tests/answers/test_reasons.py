"""What each reason means: the table once more, typed from the design and not from the code."""

from __future__ import annotations

import pytest

from extauthz.answers.reasons import MEANINGS, WSO2_THROTTLE_CODES, wso2_code
from extauthz.model.decision import Denial, Reason
from extauthz.model.limits import LimitLevel

# reason: HTTP, rpc, WSO2 code, HTTP in the profile "wso2"
TABLE: dict[str, tuple[int, int, int, int]] = {
    "missing_credentials": (401, 16, 900902, 401),
    "invalid_credentials": (401, 16, 900901, 401),
    "ambiguous_credentials": (400, 3, 900901, 401),
    "token_expired": (401, 16, 900903, 401),
    "token_inactive": (401, 16, 900904, 401),
    "token_revoked": (401, 16, 900901, 401),
    "wrong_key_type": (401, 16, 900905, 401),
    "audience_not_allowed": (401, 16, 900914, 403),
    "credential_not_permitted": (403, 7, 900908, 403),
    "api_not_found": (404, 5, 404, 404),
    "resource_not_found": (404, 5, 900906, 404),
    "method_not_allowed": (405, 5, 900906, 405),
    "api_blocked": (503, 14, 700700, 503),
    "subscription_not_found": (403, 7, 900908, 403),
    "subscription_blocked": (403, 7, 900907, 401),
    "subscription_inactive": (403, 7, 900909, 403),
    "insufficient_scope": (403, 7, 900910, 403),
    "rate_limited": (429, 8, 900800, 429),
    "blocked": (403, 7, 900805, 403),
    "malformed_request": (400, 3, 900901, 400),
    "unavailable": (503, 14, 900900, 503),
}

THROTTLE_CODES = {
    "api": 900800,
    "resource": 900802,
    "application": 900803,
    "subscription": 900804,
    "burst": 900807,
    "custom": 900806,
    "client": 900806,
}


def test_the_table_has_every_reason() -> None:
    assert set(TABLE) == {reason.value for reason in Reason}
    assert set(MEANINGS) == set(Reason)


@pytest.mark.parametrize(("name", "expected"), TABLE.items())
def test_a_reason_means_what_the_table_says(name: str, expected: tuple[int, int, int, int]) -> None:
    reason = Reason(name)
    meaning = MEANINGS[reason]
    assert (
        meaning.http_status,
        meaning.rpc_code,
        meaning.wso2_code,
        meaning.wso2_status,
    ) == expected
    assert wso2_code(Denial(reason=reason)) == expected[2]
    assert meaning.title and meaning.wso2_message and meaning.wso2_description


def test_no_reason_reads_like_success() -> None:
    for meaning in MEANINGS.values():
        assert 400 <= meaning.http_status <= 599
        assert 400 <= meaning.wso2_status <= 599
        assert 1 <= meaning.rpc_code <= 16


def test_every_level_has_a_code() -> None:
    assert set(THROTTLE_CODES) == {level.value for level in LimitLevel}
    assert set(WSO2_THROTTLE_CODES) == set(LimitLevel)


@pytest.mark.parametrize(("level", "code"), THROTTLE_CODES.items())
def test_a_rate_limit_is_named_by_its_level(level: str, code: int) -> None:
    assert wso2_code(Denial(reason=Reason.RATE_LIMITED, level=LimitLevel(level))) == code
