"""What each key of a catalog becomes."""

from __future__ import annotations

import hashlib
import json
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.catalog.documents.build import CHUNK, build_catalog, read_catalog_file
from extauthz.catalog.documents.shapes import CatalogDocument, catalog_schema
from extauthz.catalog.files.reading import CatalogReader
from extauthz.catalog.parts import index_catalog
from extauthz.documents.values import SourceText
from extauthz.errors import ConfigError
from extauthz.model.apis import Api, ApiState, CostSource
from extauthz.model.catalog import Catalog, RevokedToken
from extauthz.model.conditions import AddressCondition, Pattern, TextCondition, TextSource
from extauthz.model.identity import KeyType, Place, PlaceKind, Secret, SecurityScheme
from extauthz.model.issuers import KeyLocation, KeyValidationEndpoint, SignedKeyKind
from extauthz.model.limits import Algorithm, CalendarUnit, QuotaUnit
from extauthz.model.referers import read_referer_pattern
from extauthz.model.subscriptions import SubscriptionState
from tests.builders import S

GOOD = Path(__file__).parents[1] / "good"
DAY = 86_400 * S


def load(*trees: dict[str, Any]) -> Catalog:
    """The catalog of some trees, each as a JSON file."""
    return build_catalog(
        [
            read_catalog_file(SourceText(file=f"{n}.json", text=json.dumps(tree)), Path())
            for n, tree in enumerate(trees)
        ]
    )


def find_messages(*trees: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*trees)
    return [str(problem) for problem in caught.value.problems]


def an_api_tree(**fields: Any) -> dict[str, Any]:
    fields = {"name": "Pets", "version": "v1", **fields}
    if "openapi" not in fields:
        fields.setdefault("resources", [{"methods": ["GET"], "path": "/"}])
    return fields


def load_api(**fields: Any) -> Api:
    (api,) = load({"apis": [an_api_tree(**fields)]}).apis.values()
    return api


def test_a_peppered_key_needs_the_settings_pepper() -> None:
    keys = [{"sha256": "00" * 32}, {"hmac_sha256": "11" * 32}]
    text = json.dumps({"applications": [{"name": "mobile", "api_keys": keys}]})
    files = [read_catalog_file(SourceText(file="c.json", text=text), Path())]
    assert len(build_catalog(files, has_pepper=True).api_keys) == 2
    with pytest.raises(ConfigError, match=r"api_keys\[1\]\.hmac_sha256: .*api_key_pepper_file"):
        build_catalog(files, has_pepper=False)


@pytest.fixture(name="everything", scope="module")
def load_everything() -> Catalog:
    return index_catalog(CatalogReader([GOOD / "everything.yaml"]).read())


def test_reads_every_key_of_an_api(everything: Catalog) -> None:
    api = everything.apis["Pets", "1.10"]
    assert api.base_paths == ("/1.10/pets", "/pets")
    assert api.hosts == ("api.example.com", "*.pets.example")
    assert api.is_default_version
    assert api.state is ApiState.DEPRECATED
    assert api.tier is everything.tiers["Api"]
    assert api.key_types == {KeyType.SANDBOX}
    assert not api.subscription_required
    assert api.unsubscribed_tier is everything.tiers["Subscription"]
    assert api.audiences == {"pets", "shop"}
    assert (api.uuid, api.provider) == ("6a1f", "alice")
    assert api.bearer_header == "x-token"
    assert api.api_key_places == (
        Place(PlaceKind.HEADER, "x-key"),
        Place(PlaceKind.QUERY, "Key"),
        Place(PlaceKind.COOKIE, "Key"),
    )
    assert api.forward_credentials and api.allow_preflight
    resource, by_header, by_query = api.resources
    assert (resource.methods, resource.template) == (("GET", "POST"), "/{id}")
    assert (resource.scopes, resource.all_scopes) == (("read", "write"), True)
    assert resource.security == (SecurityScheme.NONE,)
    assert resource.tier is everything.tiers["Resource"]
    assert (resource.cost, resource.cost_from) == (3, None)
    assert (by_header.cost, by_header.cost_from) == (
        2, CostSource(place=Place(PlaceKind.HEADER, "x-cost"), maximum=50),
    )  # fmt: skip
    assert (by_query.cost, by_query.cost_from) == (
        1, CostSource(place=Place(PlaceKind.QUERY, "n"), maximum=1_000),
    )  # fmt: skip


def test_reads_resources_of_an_openapi_document(everything: Catalog) -> None:
    api = everything.apis["Described", "v1"]
    assert api.base_paths == ("/base",)
    assert {(it.methods, it.template) for it in api.resources} == {
        (("GET",), "/things/{id}"),
        (("PUT",), "/things/{id}"),
    }


def test_reads_every_key_of_an_application(everything: Catalog) -> None:
    mobile = everything.applications["mobile"]
    assert (mobile.owner, mobile.tier) == ("alice", everything.tiers["Application"])
    assert (mobile.display_name, mobile.uuid, mobile.number) == ("Mobile App", "a-1", 7)
    key = everything.api_keys[hashlib.sha256(b"test").digest()]
    assert key.application is mobile and key.key_type is KeyType.SANDBOX
    assert key.scopes == frozenset({"read"})
    assert key.networks == tuple(
        map(ip_network, ("192.0.2.0/24", "2001:db8::1/128", "198.51.100.0/24"))
    )
    assert key.referers == ("https://app.example/",)
    assert key.referer_patterns == tuple(
        map(read_referer_pattern, ("www.example.com/path", "sub.example.com/*"))
    )
    assert key.expires_at_us == 1_896_091_200 * S
    other = everything.api_keys[hashlib.sha256(b"test2").digest()]
    assert (other.key_type, other.scopes, other.expires_at_us) == (KeyType.PRODUCTION, None, None)
    bound = everything.api_keys[hashlib.sha256(b"bound").digest()]
    assert (bound.application, bound.user, bound.api) == (mobile, "carol", ("Pets", "1.10"))
    nobodys = everything.api_keys[hashlib.sha256(b"3").digest()]
    assert (nobodys.application, nobodys.user, nobodys.api) == (None, "", ("Pets", "1.10"))
    client = everything.consumer_keys["https://idp.example", "abc"]
    assert (client.application, client.key_type) == (mobile, KeyType.SANDBOX)
    assert everything.consumer_keys["", "anywhere"].key_type is KeyType.PRODUCTION
    assert everything.certificates["spiffe://cluster.local/ns/a/sa/b"].application is mobile


def test_reads_every_key_of_a_subscription(everything: Catalog) -> None:
    subscription = everything.subscriptions["mobile", "Pets", "1.10"]
    assert subscription.tier is everything.tiers["Subscription"]
    assert subscription.state is SubscriptionState.ON_HOLD


def test_reads_every_key_of_a_tier(everything: Catalog) -> None:
    tiers = everything.tiers
    (hourly,) = tiers["Api"].limits
    assert (hourly.algorithm, hourly.requests, hourly.window_us, hourly.shadow) == (
        Algorithm.FIXED_WINDOW, 1, 3_600 * S, True,
    )  # fmt: skip
    assert tiers["Resource"].limits[0].algorithm is Algorithm.BURST
    monthly, secondly = tiers["Application"].limits
    assert monthly.algorithm is Algorithm.CALENDAR and monthly.unit is CalendarUnit.MONTH
    assert monthly.timezone is not None and monthly.timezone.key == "Europe/Berlin"
    assert (secondly.algorithm, secondly.window_us) == (Algorithm.SLIDING_WINDOW, S)
    weekly = tiers["Subscription"]
    assert weekly.limits[0].timezone is not None and weekly.limits[0].timezone.key == "UTC"
    assert weekly.burst is not None and not weekly.stop_on_quota_reach and weekly.per_user
    assert (weekly.burst.requests, weekly.burst.window_us, weekly.burst.shadow) == (
        6, 50_000, True,
    )  # fmt: skip
    assert everything.unauthenticated_tier is tiers["Unauthenticated"]


def test_reads_every_key_of_a_condition_group(everything: Catalog) -> None:
    tier = everything.tiers["Conditional"]
    assert [(it.quota_unit, it.requests) for it in tier.limits] == [
        (QuotaUnit.REQUESTS, 8), (QuotaUnit.BYTES, 10 * 1024 * 1024),
    ]  # fmt: skip
    office, second = tier.conditions
    assert (office.name, second.name) == ("office", "condition-2")
    assert office.when == (
        AddressCondition(family=4, first=0xC0000200, last=0xC00002FF, invert=True),
        AddressCondition(
            family=6, first=int(IPv6Address("2001:db8::1")), last=int(IPv6Address("2001:db8::9"))
        ),
        TextCondition(source=TextSource.HEADER, name="x-plan", pattern=Pattern("^gold$")),
    )
    assert [limit.requests for limit in office.limits] == [9]
    assert office.burst is not None and office.burst.algorithm is Algorithm.BURST
    assert second.when == (
        TextCondition(source=TextSource.QUERY, name="Kind", pattern=Pattern("bulk")),
        TextCondition(source=TextSource.CLAIM, name="plan", pattern=Pattern("(?i)trial")),
    )
    (daily,) = second.limits
    assert (daily.quota_unit, daily.requests, daily.shadow) == (QuotaUnit.BYTES, 1024, True)
    assert second.burst is None


@pytest.mark.parametrize(
    ("written", "size"),
    [("500", 500), ("7B", 7), ("1KB", 1024), ("2MB", 2 * 1024**2), ("3GB", 3 * 1024**3), (9, 9)],
)
def test_a_kilobyte_is_1024_bytes(written: object, size: int) -> None:
    tier = {"limits": [{"bytes": written, "per": "1m"}]}
    (limit,) = load({"tiers": {"T": tier}}).tiers["T"].limits
    assert (limit.requests, limit.quota_unit) == (size, QuotaUnit.BYTES)


def test_says_that_bytes_are_not_counted_yet(caplog: pytest.LogCaptureFixture) -> None:
    load({"tiers": {"Gold": {"limits": [{"bytes": 1, "per": "1m"}]}}})
    (record,) = caplog.records
    assert "0.json: tiers.Gold.limits[0]: bytes are counted from reports" in record.getMessage()
    assert record.levelname == "WARNING"


def test_requests_and_bytes_of_one_period_stand_side_by_side() -> None:
    tier = {"limits": [{"bytes": 1, "per": "1m"}, {"requests": 1, "per": "1m"}]}
    assert len(load({"tiers": {"T": tier}}).tiers["T"].limits) == 2


def test_reads_every_key_of_an_issuer(everything: Catalog) -> None:
    issuer = everything.issuers["https://idp.example"]
    assert (issuer.audiences, issuer.algorithms) == (frozenset({"pets"}), ("ES256",))
    assert issuer.keys == KeyLocation(
        discovery_url="https://idp.example/.well-known/openid-configuration"
    )
    assert (issuer.claims.consumer_key, issuer.claims.scopes) == (("cid",), ("scp",))
    assert (issuer.claims.user, issuer.claims.key_type) == (("email", "sub"), ("kt",))
    assert issuer.claims.mappings == (("given_name", "name"),)
    assert everything.opaque_issuers == (issuer, everything.issuers["by-soap"])
    endpoint = issuer.introspection
    assert endpoint is not None and endpoint.allow_foreign_tokens
    assert (endpoint.url, endpoint.client_id) == ("https://idp.example/introspect", "gw")
    assert endpoint.client_secret == Secret("gateways-secret") and endpoint.credentials_in_body
    assert (endpoint.timeout_us, endpoint.ttl_us, endpoint.inactive_ttl_us) == (
        250_000, 120 * S, 0,
    )  # fmt: skip
    assert (issuer.leeway_s, issuer.ttl_us) == (2, 60 * S)
    assert (issuer.refresh_us, issuer.cooldown_us) == (3_600 * S, 10 * S)
    assert issuer.subscriptions_from_token and issuer.allow_bound_tokens and issuer.suspended
    assert endpoint.require_token_type
    assert issuer.ca.startswith("-----BEGIN CERTIFICATE-----\n")


def test_reads_every_key_of_a_key_validation(everything: Catalog) -> None:
    issuer = everything.issuers["by-soap"]
    assert issuer.key_validation == KeyValidationEndpoint(
        url="https://apim.example:9443/services/"
        "APIKeyValidationService.APIKeyValidationServiceHttpsSoap12Endpoint",
        username="admin",
        password=Secret("gateways-secret"),
        timeout_us=300_000,
        ttl_us=180 * S,
        inactive_ttl_us=1 * S,
        allow_foreign_tokens=True,
    )
    # No keys, so no audiences are needed; the answer names the subscription.
    assert (issuer.audiences, issuer.subscriptions_from_token) == (frozenset(), True)
    assert everything.validates_calls


def test_reads_every_place_of_keys(everything: Catalog) -> None:
    keys = {name: issuer.keys for name, issuer in everything.issuers.items()}
    pem, jwks = ((GOOD / "keys" / name).read_text() for name in ("p256.pem", "jwks.json"))
    assert keys["by-url"] == KeyLocation(jwks_url="https://a.example/jwks")
    assert keys["by-discovery"] == KeyLocation(discovery_url="https://a.example/oidc")
    assert keys["by-pem"] == KeyLocation(pem=pem)
    assert keys["by-jwks"] == KeyLocation(jwks=jwks)
    itself = keys["by-jwks-itself"]
    assert itself is not None and itself.jwks is not None
    assert json.loads(itself.jwks)["keys"][0]["crv"] == "Ed25519"
    itself = keys["by-pem-itself"]
    assert itself is not None and itself.pem is not None
    assert itself.pem.startswith("-----BEGIN PUBLIC KEY-----\n")
    secret = Secret("an-example-secret-of-32-bytes-or-more")
    assert keys["by-secret"] == KeyLocation(hmac_secret=secret)
    assert everything.issuers["by-secret"].algorithms == ("HS256",)
    assert everything.issuers["by-url"].algorithms == ("RS256",)


def test_reads_every_key_of_a_signer_of_api_keys(everything: Catalog) -> None:
    portal, by_file, publisher, by_text = everything.api_key_signers
    assert (portal.issuer.issuer, portal.kind) == ("portal", SignedKeyKind.API_KEY)
    assert portal.key_ids == {"gateway_certificate_alias"} and not by_text.key_ids
    assert portal.issuer.algorithms == ("ES256",)
    assert portal.issuer.keys == KeyLocation(pem=(GOOD / "keys" / "p256.pem").read_text())
    assert (portal.issuer.leeway_s, portal.issuer.ttl_us) == (2, 60 * S)
    assert not portal.issuer.subscriptions_from_token
    assert by_file.issuer.keys is not None and by_file.issuer.keys.jwks is not None
    assert by_file.issuer.subscriptions_from_token
    assert publisher.kind is SignedKeyKind.INTERNAL and everything.takes_internal_keys
    assert by_text.issuer.keys is not None and by_text.issuer.keys.pem is not None


def test_reads_deny_rules_custom_limits_and_revoked_tokens(everything: Catalog) -> None:
    rules = everything.deny_rules
    by_address = rules.find_for_client("203.0.113.9", "Pets", "1.10")
    assert by_address is not None and by_address.name == "ip 203.0.113.0/24"
    assert rules.find_for_caller("192.0.2.1", "Pets", "1.10", "rogue", "mallory") is None
    inverted = rules.find_for_caller("192.0.2.1", "Pets", "1.10", "mobile", "alice")
    assert inverted is not None and inverted.name == "rogues"
    (limit,) = everything.custom_limits
    assert (limit.name, limit.template) == ("per-ip", "$clientIp:$api")
    assert limit.tier is everything.tiers["Resource"]
    mapped = int(IPv4Address("192.0.2.7"))
    assert limit.when == (AddressCondition(family=4, first=mapped, last=mapped),)
    assert limit.apis == {"Pets"}
    noon_us = 1_896_091_200 * S
    assert everything.revoked == (
        RevokedToken(token_id="j1", expires_at_us=noon_us - 3_600 * S),
        RevokedToken(token_id="j2"),
        RevokedToken(digest=hashlib.sha256(b"signature").digest()),
        RevokedToken(consumer_key="abc", issuer="https://idp.example", issued_before_us=noon_us),
        RevokedToken(user="alice", issued_before_us=noon_us, expires_at_us=noon_us + 28 * DAY),
    )


def test_the_good_catalog_holds_every_key() -> None:
    tree = yaml.safe_load((GOOD / "everything.yaml").read_text())
    schema = catalog_schema()
    used: set[tuple[str, str]] = set()

    def visit(node: Any, described: dict[str, Any]) -> None:
        for choice in described.get("anyOf", []):
            visit(node, choice)
        if "$ref" in described:
            name = described["$ref"].rpartition("/")[2]
            if isinstance(node, dict):
                used.update((name, key) for key in node)
            described = schema["$defs"][name]
        if isinstance(node, list):
            for item in node:
                visit(item, described.get("items", {}))
        elif isinstance(node, dict):
            for key, value in node.items():
                below = described.get("properties", {}).get(key)
                visit(value, below or described.get("additionalProperties") or {})

    visit(tree, {**schema})
    every = {
        (name, key) for name, part in schema["$defs"].items() for key in part.get("properties", {})
    }
    assert every == used
    assert set(schema["properties"]) == set(tree)


def test_the_schema_describes_every_key_for_editors() -> None:
    schema = catalog_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in [schema, *schema["$defs"].values()]:
        for key, described in part.get("properties", {}).items():
            assert described.get("description"), key


def test_the_schema_shows_defaults_as_users_write_them() -> None:
    issuer = catalog_schema()["$defs"]["IssuerDocument"]["properties"]
    assert issuer["leeway"]["default"] == "5s"
    assert issuer["token_ttl"]["default"] == "5m"


def test_a_key_set_with_a_private_key_is_a_problem(tmp_path: Path) -> None:
    keys = json.loads((GOOD / "keys" / "jwks.json").read_text())
    keys["keys"].append({**keys["keys"][0], "d": "AAAA"})
    (tmp_path / "jwks.json").write_text(json.dumps(keys))
    issuer = {"issuer": "a", "audiences": ["a"], "algorithms": ["ES256"], "jwks_file": "jwks.json"}
    text = SourceText(file="x.json", text=json.dumps({"issuers": [issuer]}))
    with pytest.raises(ConfigError, match=r"keys\[1\]: a private key"):
        build_catalog([read_catalog_file(text, tmp_path)])


@pytest.mark.parametrize(
    ("context", "version", "default", "base_paths"),
    [
        ("/httpbin/1.0.0", "1.0.0", False, ("/httpbin/1.0.0",)),
        ("/httpbin/1.0.0", "1.0.0", True, ("/httpbin/1.0.0", "/httpbin")),
        ("/httpbin", "1.0.0", False, ("/httpbin/1.0.0",)),
        ("/httpbin", "1.0.0", True, ("/httpbin/1.0.0", "/httpbin")),
        ("/httpbin1.0.0", "1.0.0", False, ("/httpbin1.0.0/1.0.0",)),
        ("/{version}/httpbin", "v1", False, ("/v1/httpbin",)),
        ("/{version}/httpbin", "v1", True, ("/v1/httpbin", "/httpbin")),
        ("/v1", "v1", True, ("/v1", "")),
        (None, "v1", False, ("",)),
        (None, "v1", True, ("",)),
    ],
)
def test_plans_base_paths(
    context: str | None, version: str, *, default: bool, base_paths: tuple[str, ...]
) -> None:
    api = load_api(context=context, version=version, default_version=default)
    assert api.base_paths == base_paths


def test_security_of_a_resource_goes_before_the_apis_and_both_before_the_default() -> None:
    assert load_api().resources[0].security == (SecurityScheme.JWT, SecurityScheme.API_KEY)
    api = load_api(
        security=["mtls"],
        resources=[
            {"methods": ["GET"], "path": "/a"},
            {"methods": ["GET"], "path": "/b", "security": ["none"]},
        ],
    )
    assert [it.security for it in api.resources] == [(SecurityScheme.MTLS,), (SecurityScheme.NONE,)]


def test_resources_go_before_those_of_the_openapi_document(tmp_path: Path) -> None:
    document = {"openapi": "3.0.3", "paths": {"/a/{id}": {"get": {}, "put": {}}}}
    (tmp_path / "pets.json").write_text(json.dumps(document))
    written = {"methods": ["GET"], "path": "/a/{name}", "scopes": ["read"]}
    tree = {"apis": [an_api_tree(openapi="pets.json", resources=[written])]}
    text = SourceText(file="x.json", text=json.dumps(tree))
    (api,) = build_catalog([read_catalog_file(text, tmp_path)]).apis.values()
    assert [(it.methods, it.template, it.scopes) for it in api.resources] == [
        (("GET",), "/a/{name}", ("read",)),
        (("PUT",), "/a/{id}", ()),
    ]


def test_problems_of_an_openapi_document_name_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("openapi: 3.0.3\npaths:\n  pets:\n    get: {}\n")
    tree = {"apis": [an_api_tree(openapi="pets.yaml")]}
    text = SourceText(file="x.json", text=json.dumps(tree))
    with pytest.raises(ConfigError) as caught:
        build_catalog([read_catalog_file(text, tmp_path)])
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(tmp_path / "pets.yaml"), 3)
    assert "starts with a slash" in problem.message


def test_a_tier_of_the_api_beside_one_of_a_resource_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = an_api_tree(tier="A", resources=[{"methods": ["GET"], "path": "/", "tier": "B"}])
    load({"apis": [api], "tiers": {"A": {}, "B": {}}})
    assert "replaces tier B" in caplog.text


def test_templates_that_differ_in_their_spelling_alone_are_the_same() -> None:
    for one, other in (("/@me", "/%40me"), ("/{id}:purge", "/{key}%3apurge"), ("/ß", "/%C3%9F")):
        resources = [{"methods": ["GET"], "path": path} for path in (one, other)]
        (message,) = find_messages({"apis": [an_api_tree(resources=resources)]})
        assert "matches the same as" in message and "before it" in message


def test_a_template_with_needless_escapes_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    load({"apis": [an_api_tree(resources=[{"methods": ["GET"], "path": "/caf%C3%A9/@me"}])]})
    assert not caplog.records
    load({"apis": [an_api_tree(resources=[{"methods": ["GET"], "path": "/a/%24count"}])]})
    (record,) = caplog.records
    assert "escapes that are not needed, like /a/%24count" in record.getMessage()


def test_files_are_merged_and_problems_name_the_right_one() -> None:
    apis = {"apis": [an_api_tree()]}
    applications = {"applications": [{"name": "mobile", "tier": "Gold"}]}
    subscriptions = {
        "subscriptions": [{"application": "mobile", "api": "Pets", "version": "v1"}],
        "tiers": {"Gold": {}},
    }
    catalog = load(subscriptions, apis, applications)
    assert ("mobile", "Pets", "v1") in catalog.subscriptions
    (message,) = find_messages(apis, applications, subscriptions, {"tiers": {"Gold": {}}})
    assert message.startswith("3.json:1: tiers.Gold: tier 'Gold' is in another file too")


def test_the_only_issuer_is_that_of_a_consumer_key() -> None:
    issuer = {"issuer": "idp", "audiences": ["a"], "jwks_url": "https://a.example/"}
    application = {"name": "mobile", "consumer_keys": [{"id": "abc"}]}
    catalog = load({"issuers": [issuer], "applications": [application]})
    assert list(catalog.consumer_keys) == [("idp", "abc")]
    (message,) = find_messages(
        {"issuers": [issuer, {**issuer, "issuer": "b"}], "applications": [application]}
    )
    assert "the catalog has 2 issuers; add issuer" in message


def test_unlimited_needs_no_definition_and_may_have_one() -> None:
    catalog = load({"applications": [{"name": "a", "tier": "Unlimited"}]})
    assert catalog.applications["a"].tier is catalog.tiers["Unlimited"]
    assert not catalog.tiers["Unlimited"].limits
    limited = {"Unlimited": {"limits": [{"requests": 1, "per": "1s"}]}}
    assert load({"tiers": limited}).tiers["Unlimited"].limits[0].requests == 1


def test_a_null_section_is_as_if_left_out() -> None:
    assert not load({"apis": None, "deny": None}).apis


def test_templates_that_overlap_in_too_many_ways_are_a_problem() -> None:
    choices = [("a", f"{{p{depth}}}") for depth in range(10)]
    resources = [
        {"methods": ["GET"], "path": "/" + "/".join(segments)} for segments in product(*choices)
    ]
    (message,) = find_messages({"apis": [an_api_tree(resources=resources)]})
    assert "overlap in too many ways" in message


def a_subscription_tree(number: int, **fields: str) -> dict[str, str]:
    return {"application": f"app-{number}", "api": "Pets", "version": "v1", **fields}


def many_subscriptions(count: int) -> dict[str, Any]:
    return {
        "apis": [an_api_tree()],
        "applications": [{"name": f"app-{number}"} for number in range(count)],
        "subscriptions": [a_subscription_tree(number) for number in range(count)],
    }


def test_loads_more_subscriptions_than_are_checked_in_one_go() -> None:
    count = 2 * CHUNK + 1
    assert len(load(many_subscriptions(count)).subscriptions) == count


def test_names_the_line_of_a_bad_subscription_behind_the_first_chunk() -> None:
    tree = many_subscriptions(CHUNK + 2)
    tree["subscriptions"][CHUNK + 1]["state"] = "GONE"
    text = json.dumps(tree, indent=1)
    line = text[: text.index('"GONE"')].count("\n") + 1
    with pytest.raises(ConfigError) as caught:
        read_catalog_file(SourceText(file="x.json", text=text), Path())
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (line, f"subscriptions[{CHUNK + 1}].state")


def test_lists_so_many_problems_and_counts_the_rest() -> None:
    tree = many_subscriptions(1_500)
    tree["applications"] = []
    messages = find_messages(tree)
    assert len(messages) == 1_001
    assert messages[-1] == "0.json: 500 more problems are not listed"


NAMES = st.text("abcdefgh", min_size=1, max_size=3)


@given(
    tree=st.fixed_dictionaries(
        {},
        optional={
            name: st.recursive(
                st.none() | st.booleans() | st.integers() | NAMES,
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        NAMES | st.sampled_from(["name", "version", "issuer", "tier", "per", "ip"]),
                        inner,
                        max_size=4,
                    )
                ),
                max_leaves=8,
            )
            for name in CatalogDocument.model_fields
        },
    )
)
def test_no_tree_does_anything_but_load_or_raise_config_error(tree: dict[str, Any]) -> None:
    try:
        load(tree)
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems and all(problem.message for problem in problems)
