"""What becomes of an API Manager's rows: a valid catalog, whatever they hold, and never a weaker one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.catalog.documents.build import build_catalog, read_catalog_file
from extauthz.catalog.wso2.data_api import read_revoked
from extauthz.catalog.wso2.rows import RowReader, Rows, api_key_of, application_key_of
from extauthz.catalog.wso2.shapes import (
    ApiKeyRow,
    ApiRow,
    ApplicationRow,
    BlockRow,
    ConditionRow,
    KeyManagerRow,
    KeyMappingRow,
    PolicyRow,
    Row,
    SubscriptionRow,
)
from extauthz.catalog.wso2.writing.blocks import write_deny_rules, write_revoked
from extauthz.catalog.wso2.writing.document import Written, write_document
from extauthz.catalog.wso2.writing.issuers import write_issuers
from extauthz.catalog.wso2.writing.limits import Tiers, Unreadable, write_condition, write_tier
from extauthz.catalog.wso2.writing.report import Report
from extauthz.catalog.wso2.writing.valid import make_valid
from extauthz.documents.values import SourceText

FILE: Final = Path("/nonexistent/catalog.json")


def a_limit(requests: int = 5, unit: str = "min", length: int = 1) -> dict[str, Any]:
    counted = {"timeUnit": unit, "unitTime": length, "requestCount": requests}
    return {"quotaType": "requestCount", "requestCount": counted}


def a_policy(**fields: Any) -> PolicyRow:
    return PolicyRow.model_validate({"name": "Gold", "defaultLimit": a_limit(), **fields})


@pytest.mark.parametrize(
    ("fields", "document"),
    [
        ({}, {"limits": [{"requests": 5, "per": "60s", "algorithm": "fixed_window"}]}),
        ({"defaultLimit": a_limit(7, "hours", 2)},
         {"limits": [{"requests": 7, "per": "7200s", "algorithm": "fixed_window"}]}),
        ({"defaultLimit": a_limit(7, "months")},
         {"limits": [{"requests": 7, "per": "2592000s", "algorithm": "fixed_window"}]}),
        ({"defaultLimit": a_limit(2_147_483_647)}, None),
        ({"name": "Unlimited"}, None),
        ({"rateLimitCount": 5, "rateLimitTimeUnit": "sec", "stopOnQuotaReach": False},
         {"limits": [{"requests": 5, "per": "60s", "algorithm": "fixed_window"}],
          "burst": {"requests": 5, "per": "1s"}, "stop_on_quota_reach": False}),
        ({"rateLimitCount": -1, "stopOnQuotaReach": None},
         {"limits": [{"requests": 5, "per": "60s", "algorithm": "fixed_window"}]}),
        ({"defaultLimit": {"bandwidth": {"timeUnit": "day", "unitTime": 1, "dataAmount": 2,
                                         "dataUnit": "MB"}}},
         {"limits": [{"bytes": 2_097_152, "per": "86400s", "algorithm": "fixed_window"}]}),
        ({"defaultLimit": {"eventCount": {"timeUnit": "days", "unitTime": 1, "eventCount": 9}}},
         {"limits": [{"requests": 9, "per": "86400s", "algorithm": "fixed_window"}]}),
        ({"conditionGroups": [{"conditionGroupId": 4, "defaultLimit": a_limit(1), "condition": [
            {"conditionType": "Header", "name": "X-Tier", "value": "^a$", "isInverted": True},
            {"conditionType": "IPRange", "value": "10.0.0.1-10.0.0.9"}]}]},
         {"limits": [{"requests": 5, "per": "60s", "algorithm": "fixed_window"}],
          "conditions": [{"name": "condition_4",
                          "when": [{"header": {"name": "X-Tier", "matches": "^a$"}, "invert": True},
                                   {"ip_range": {"from": "10.0.0.1", "to": "10.0.0.9"}}],
                          "limits": [{"requests": 1, "per": "60s",
                                      "algorithm": "fixed_window"}]}]}),
    ],
    ids=str,
)  # fmt: skip
def test_a_policy_becomes_a_tier(fields: dict[str, Any], document: dict[str, Any] | None) -> None:
    assert write_tier(a_policy(**fields), Report()) == document


@pytest.mark.parametrize(
    "fields",
    [
        {"defaultLimit": None},
        {"defaultLimit": {"quotaType": "somethingNew"}},
        {"defaultLimit": a_limit(5, "fortnight")},
        {"defaultLimit": a_limit(0)},
        {"defaultLimit": a_limit(5, "min", 0)},
        {"rateLimitCount": 10**9, "rateLimitTimeUnit": "sec"},
        {"conditionGroups": [{"conditionGroupId": 1, "defaultLimit": a_limit(), "condition": []}]},
        {"conditionGroups": [{"condition": [{"conditionType": "IP", "value": "10.0.0.1"}]}]},
        {"name": " Gold"},
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_read_is_never_unlimited(fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        write_tier(a_policy(**fields), Report())


def test_a_condition_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(Unreadable, match="unknown type"):
        write_condition(ConditionRow.model_validate({"conditionType": "Moon", "value": "full"}))


# A whole API Manager


def the_rows(**changed: Any) -> Rows:
    """One API, one application, one subscription."""
    api = {
        "uuid": "a",
        "apiId": 1,
        "name": "Shop",
        "version": "1",
        "context": "/shop/1",
        "status": "PUBLISHED",
        "urlMappings": [{"httpMethod": "GET", "urlPattern": "/*", "throttlingPolicy": "Unlimited"}],
        **changed.get("api", {}),
    }
    application = {"uuid": "p", "id": 2, "name": "App", "subName": "bob",
                   **changed.get("application", {})}  # fmt: skip
    subscription = {"subscriptionId": 3, "apiId": 1, "appId": 2, "policyId": "Gold",
                    "subscriptionState": "UNBLOCKED", **changed.get("subscription", {})}  # fmt: skip
    return Rows(
        apis={"a": ApiRow.model_validate(api)},
        applications={"p": ApplicationRow.model_validate(application)},
        subscriptions={"3": SubscriptionRow.model_validate(subscription)},
        policies={("subscription", "carbon.super", "Gold"): a_policy()},
        blocks=(BlockRow.model_validate(changed.get("block", {})),),
    )


def test_rows_of_a_release_without_uuids_are_joined_by_number() -> None:
    (subscription,) = write_document(the_rows()).tree["subscriptions"]
    assert subscription == {
        "application": "bob:App",
        "api": "Shop",
        "version": "1",
        "state": "UNBLOCKED",
        "tier": "Gold",
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"api": {"status": "SOMETHING"}},
        {"api": {"apiType": "GRAPHQL"}},
        {"api": {"context": "/"}},
        {"api": {"policy": "Missing"}},
        {"api": {"urlMappings": []}},
        {"api": {"urlMappings": [{"httpMethod": "GET", "urlPattern": "/*", "authScheme": "None"},
                                 {"httpMethod": "GET", "urlPattern": "/admin*x"}]}},
        {"api": {"urlMappings": [{"httpMethod": "GET", "urlPattern": "/x", "scopes": ["a"]},
                                 {"httpMethod": "GET", "urlPattern": "/x", "scopes": ["b"]}]}},
    ],
    ids=str,
)  # fmt: skip
def test_an_api_that_cannot_be_carried_over_is_not_served_at_all(changed: dict[str, Any]) -> None:
    written = write_document(the_rows(**changed))
    assert written.tree["apis"] == [] and written.tree["subscriptions"] == []
    assert any("'Shop' '1'" in line for line in written.left_out)


@pytest.mark.parametrize(
    "changed",
    [
        {"application": {"policy": "Missing"}},
        {"subscription": {"policyId": "Missing"}},
        {"subscription": {"subscriptionState": "PERHAPS"}},
        {"subscription": {"subscriptionState": None}},
        {"subscription": {"apiId": 99}},
    ],
    ids=str,
)
def test_what_names_something_missing_gives_no_right(changed: dict[str, Any]) -> None:
    written = write_document(the_rows(**changed))
    assert written.tree["subscriptions"] == [] and written.left_out


@pytest.mark.parametrize(
    ("block", "rules"),
    [
        ({"api": ["/shop/1"]}, [{"api": "Shop", "version": "1"}]),
        ({"application": ["bob:App"]}, [{"application": "bob:App"}]),
        ({"user": ["eve@carbon.super"]}, [{"user": "eve@carbon.super"}, {"user": "eve"}]),
        ({"ip": [{"fixedIp": "10.0.0.9", "invert": False}]}, [{"ip": "10.0.0.9/32"}]),
        ({"ip": [{"startingIp": "10.0.0.8", "endingIp": "10.0.0.11"}]}, [{"ip": "10.0.0.8/30"}]),
    ],
    ids=str,
)
def test_what_is_blocked_is_denied(block: dict[str, Any], rules: list[dict[str, str]]) -> None:
    assert write_document(the_rows(block=block)).tree["deny"] == rules


def test_an_inverted_block_denies_every_other_address() -> None:
    block = BlockRow.model_validate({"ip": [{"fixedIp": "128.0.0.0/1", "invert": True}]})
    rules = write_deny_rules(Rows(blocks=(block,)), {}, set(), Report())
    assert sorted(rule["ip"] for rule in rules) == ["0.0.0.0/1", "::/0"]


def test_a_client_and_a_user_are_revoked_up_to_a_time() -> None:
    now_ms = 1_764_000_000_999
    revoked = read_revoked(
        {
            "revokedJWTConsumerKeyList": [{"consumer_key": "c", "revocation_time": now_ms}],
            "revokedJWTSubjectEntityList": [
                {
                    "entity_id": "bob@carbon.super",
                    "entity_type": "USER_ID",
                    "revocation_time": now_ms,
                },
                {"entity_id": "d", "entity_type": "CLIENT_ID", "revocation_time": None},
                {"entity_id": "e", "entity_type": "new", "revocation_time": 1e12},
            ],
        },
        [],
    )
    written = write_revoked(Rows(revoked=revoked), Report())
    after, never = "2025-11-24T16:00:01.000+00:00", "9999-12-31T23:59:58.001+00:00"
    assert written == [
        {"consumer_key": "c", "issued_before": after},
        {"consumer_key": "d", "issued_before": never},
        {"consumer_key": "e", "issued_before": "2001-09-09T01:46:40.001+00:00"},
        {"user": "bob", "issued_before": after},
        {"user": "bob@carbon.super", "issued_before": after},
        {"user": "e", "issued_before": "2001-09-09T01:46:40.001+00:00"},
    ]


@pytest.mark.parametrize(
    ("expires_ms", "expires"),
    [
        (1_764_000_000_000, {"expires": "2025-11-24T16:00:00.000+00:00"}),
        (1_764_000_000, {}),
        (0, {}),
        (9_223_372_036_854_775_807, {}),
    ],
    ids=str,
)
def test_a_revoked_token_is_forgotten_only_after_a_plausible_time(
    expires_ms: int, expires: dict[str, str]
) -> None:
    revoked = read_revoked([{"jwt_signature": "t", "expiry_time": expires_ms}], [])
    assert write_revoked(Rows(revoked=revoked), Report()) == [{"jti": "t", **expires}]


@pytest.mark.parametrize(
    ("properties", "document"),
    [
        (None, {}),
        ({"permittedIP": "", "permittedReferer": None}, {}),
        (
            {"permittedIP": "192.168.1.2/24, 10.0.0.1"},
            {"networks": ["192.168.1.0/24", "10.0.0.1/32"]},
        ),
        ({"permittedReferer": "*.gef.com/*"}, {"referer_patterns": ["*.gef.com/*"]}),
        ({"permittedIP": "everywhere"}, None),
        ({"permittedIP": ["10.0.0.1"]}, None),
        ({"permittedReferer": "a b"}, None),
    ],
    ids=str,
)
def test_who_may_use_an_api_key(
    properties: dict[str, Any] | None, document: dict[str, Any] | None
) -> None:
    """A restriction that cannot be read refuses the key, and nothing else of its application."""
    digest = "ab" * 32
    key = {"apiKeyHash": digest, "keyName": "ci", "status": "ACTIVE", "appId": 2,
           "additionalProperties": properties}  # fmt: skip
    rows = the_rows().amend("api_keys", {digest: ApiKeyRow.model_validate(key)})
    written = write_document(rows)
    (application,) = written.tree["applications"]
    if document is None:
        assert "api_keys" not in application
        assert any("API key 'ci' is refused" in line for line in written.left_out)
    else:
        assert application["api_keys"] == [{"sha256": digest, **document}]


def test_policies_of_applications_and_users_count_each_user_apart() -> None:
    policies = {
        ("application", "carbon.super", "Gold"): a_policy(),
        ("subscription", "carbon.super", "Gold"): a_policy(),
        ("api", "carbon.super", "Gold"): a_policy(applicableLevel="userLevel"),
        ("api", "carbon.super", "All"): a_policy(applicableLevel="apiLevel"),
    }
    tiers = Tiers(Rows(policies=policies), Report()).documents
    assert {name for name, tier in tiers.items() if tier.get("per_user")} == {
        "application:Gold",
        "api:Gold",
    }


def a_key_manager(jwks: str, **fields: Any) -> KeyManagerRow:
    configuration = {"issuer": "https://idp", "certificate_type": "JWKS", "certificate_value": jwks}
    return KeyManagerRow.model_validate({"name": "K", "configuration": configuration, **fields})


def test_no_tenant_takes_over_the_issuer_of_another() -> None:
    managers = {
        ("a.example", "K"): a_key_manager("https://evil/jwks"),
        ("b.example", "K"): a_key_manager("https://idp/jwks"),
        ("carbon.super", "K"): a_key_manager("https://idp/jwks"),
    }
    issuers = write_issuers(Rows(key_managers=managers), None, report := Report())
    assert [it["jwks_url"] for it in issuers.documents] == ["https://idp/jwks"]
    assert set(issuers.by_key_manager) == {("b.example", "K"), ("carbon.super", "K")}
    assert any("'K' of a.example" in line for line in report.lines)


def test_claim_mappings_are_names_of_claims() -> None:
    row = a_key_manager("https://idp/jwks")
    row.configuration["claim_mappings"] = [
        {"remoteClaim": "dept", "localClaim": "http://wso2/dept"}
    ]
    issuers = write_issuers(Rows(key_managers={("carbon.super", "K"): row}), None, Report())
    assert issuers.documents[0]["claims"]["mappings"] == {"dept": "http://wso2/dept"}


def test_a_row_that_cannot_be_read_is_named_by_what_identifies_it() -> None:
    refused: list[str] = []
    items = [{"name": "Shop", "version": "1", "context": None}, {"name": "Good", "version": "1", "context": "/g"}]  # fmt: skip
    rows = RowReader(ApiRow, "API").read(items, refused)
    assert [row.name for row in rows] == ["Good"]
    (line,) = refused
    assert line.startswith("API name 'Shop', version '1': context ")


# Anything

_TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["Gold", "Unlimited", "a", "1", "/x", "/*", "GET", "min", "carbon.super", "/shop/1"]),
)  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**13) | _TEXT,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


def rows_of(kind: type[Row], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Rows of a kind: what of anything can be read."""
    tree = st.fixed_dictionaries({}, optional={name: of | _JSON for name, of in fields.items()})
    return st.lists(tree, max_size=4).map(lambda items: RowReader(kind, "row").read(items, []))


_MAPPINGS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"httpMethod": _TEXT, "urlPattern": _TEXT, "authScheme": st.sampled_from(
            ["None", "Any"]), "scopes": st.lists(_TEXT, max_size=2), "throttlingPolicy": _TEXT}),
    max_size=3,
)  # fmt: skip
_LIMITS = st.builds(a_limit, st.integers(-1, 2**31), _TEXT, st.integers(-1, 3))


@settings(deadline=None)
@given(
    apis=rows_of(ApiRow, uuid=_TEXT, apiId=st.integers(0, 3), name=_TEXT, version=_TEXT,
                 context=_TEXT, policy=_TEXT, status=st.just("PUBLISHED"), urlMappings=_MAPPINGS,
                 isDefaultVersion=st.booleans(), organization=_TEXT),
    applications=rows_of(ApplicationRow, uuid=_TEXT, id=st.integers(0, 3), name=_TEXT,
                         subName=_TEXT, policy=_TEXT),
    subscriptions=rows_of(SubscriptionRow, subscriptionId=st.integers(0, 3), policyId=_TEXT,
                          apiId=st.integers(0, 3), appId=st.integers(0, 3)),
    key_mappings=rows_of(KeyMappingRow, applicationId=st.integers(0, 3), consumerKey=_TEXT,
                         keyManager=_TEXT),
    policies=rows_of(PolicyRow, name=_TEXT, defaultLimit=_LIMITS, rateLimitCount=st.integers(-1, 5),
                     rateLimitTimeUnit=_TEXT),
    key_managers=rows_of(KeyManagerRow, name=_TEXT, configuration=st.dictionaries(
        st.sampled_from(["issuer", "certificate_type", "certificate_value"]), _TEXT)),
    block=st.fixed_dictionaries({}, optional={"api": st.lists(_TEXT, max_size=2),
                                              "application": st.lists(_TEXT, max_size=2),
                                              "user": st.lists(_TEXT, max_size=2)}),
)  # fmt: skip
def test_any_rows_make_a_valid_catalog(
    apis: list[ApiRow],
    applications: list[ApplicationRow],
    subscriptions: list[SubscriptionRow],
    key_mappings: list[KeyMappingRow],
    policies: list[PolicyRow],
    key_managers: list[KeyManagerRow],
    block: dict[str, Any],
) -> None:
    rows = Rows(
        apis={api_key_of(row): row for row in apis},
        applications={application_key_of(row): row for row in applications},
        subscriptions={str(row.id): row for row in subscriptions},
        key_mappings={(row.consumer_key, row.key_manager, ""): row for row in key_mappings},
        policies={("subscription", "carbon.super", row.name): row for row in policies},
        key_managers={("carbon.super", row.name): row for row in key_managers},
        blocks=(BlockRow.model_validate(block),),
    )
    written = make_valid(without_files(write_document(rows)), FILE)
    # With the subscriptions, which `make_valid` does not look at.
    build_catalog(
        [read_catalog_file(SourceText(file="c.json", text="{}"), FILE.parent, written.tree)]
    )


def without_files(written: Written) -> Written:
    """Without the issuers whose key files are not there."""
    for issuer in written.tree["issuers"]:
        if issuer.pop("pem_file", None):
            issuer["jwks_url"] = "https://keys.example"
    return written
