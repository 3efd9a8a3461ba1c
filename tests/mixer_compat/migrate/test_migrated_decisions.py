"""The written catalog decides as the old configuration did, for all four kinds of it."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.model.request import ApiRequest
from tests.builders import API_KEY, a_request, sha256
from tests.deciding import Deciding
from tests.keys import ISSUER, a_jwk, a_jwks, a_jwt, public_pem, rsa_key
from tests.mixer_compat.migrate.conftest import FIXTURES, Migrate

CONSUMER = f"api_keys: [{{sha256: {sha256(API_KEY).hex()}}}]"


def to(host: str, path: str = "/", **fields: Any) -> ApiRequest:
    return a_request(path, host=host, **fields)


# WSO2


def wso2_issuer(folder: Any) -> str:
    (folder / "jwks.json").write_text(a_jwks(a_jwk(rsa_key())))
    return (
        f"issuers: [{{issuer: {ISSUER}, audiences: [httpbin], jwks_file: jwks.json, "
        "subscriptions_from_token: true}]"
    )


def bearer(scope: str = "", *, api: str = "HttpbinAPI", version: str = "1.0.0") -> dict[str, str]:
    token = a_jwt(
        scope=scope,
        subscribedAPIs=[{"name": api, "version": version, "subscriptionTier": "Unlimited"}],
    )
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("path", "headers", "answer"),
    [
        ("/ip", bearer("scope_ip"), "allowed"),
        ("/ip?a=b", bearer("scope_ip"), "allowed"),
        ("/ip", bearer("scope_headers"), "insufficient_scope"),
        ("/ip", bearer(), "insufficient_scope"),
        ("/ip/", bearer(), "insufficient_scope"),
        ("/headers", bearer("other scope_headers"), "allowed"),
        ("/delay/3", bearer(), "allowed"),
        ("/fits/no/pattern", bearer(), "allowed"),
        ("/ip", {}, "missing_credentials"),
        ("/fits/no/pattern", {}, "missing_credentials"),
        ("/ip", {"authorization": "Bearer a.b.c"}, "invalid_credentials"),
        ("/ip", bearer("scope_ip", api="Other"), "subscription_not_found"),
        ("/ip", bearer("scope_ip", api="httpbinapi"), "allowed"),
        ("/ip", bearer("scope_ip", version="2.0.0"), "subscription_not_found"),
    ],
)
async def test_a_wso2_api_asks_for_tokens_subscriptions_and_scopes(
    path: str, headers: dict[str, str], answer: str, migrate: Migrate
) -> None:
    migrated = migrate(FIXTURES / "wso2.yaml")
    deciding = await migrated.decide_by(added=wso2_issuer(migrated.out))
    assert await deciding.reason(a_request(path, headers=headers)) == answer


@pytest.mark.parametrize("word", ["false", "0", "no", ""])
async def test_wso2_without_validate_subscription_takes_any_good_token(
    word: str, migrate: Migrate
) -> None:
    text = (FIXTURES / "wso2.yaml").read_text()
    migrated = migrate(
        text.replace('validate_subscription: "true"', f'validate_subscription: "{word}"')
    )
    deciding = await migrated.decide_by(added=wso2_issuer(migrated.out))
    headers = bearer("scope_ip", api="Other")
    assert await deciding.reason(a_request("/ip", headers=headers)) == "allowed"
    assert await deciding.reason(a_request("/headers", headers=headers)) == "insufficient_scope"


async def test_no_token_is_good_until_the_issuer_is_filled_in(migrate: Migrate) -> None:
    migrated = migrate(FIXTURES / "wso2.yaml")
    deciding = await migrated.decide_by()
    request = a_request("/ip", headers=bearer("scope_ip"))
    assert await deciding.reason(request) == "invalid_credentials"
    assert "subscriptions_from_token: true" in migrated.text("issuers.yaml.example")


@pytest.mark.parametrize(
    ("tier", "reason"),
    [
        ("", "allowed"),
        ("Unlimited", "allowed"),
        ("Gold", "allowed"),
        ("Silver", "allowed"),
        ("Bronze", "allowed"),
        ("Platinum", "subscription_not_found"),
    ],
)
async def test_the_example_of_issuers_takes_wso2s_tokens(
    tier: str, reason: str, migrate: Migrate
) -> None:
    migrated = migrate(FIXTURES / "wso2.yaml")
    (migrated.out / "server.pem").write_text(public_pem(rsa_key()))
    example = migrated.text("issuers.yaml.example")
    (issuer,) = (await migrated.decide_by(added=example)).catalog.issuers.values()
    assert issuer.keys is not None
    assert issuer.keys.pem == public_pem(rsa_key())
    (migrated.out / "jwks.json").write_text(a_jwks(a_jwk(rsa_key())))  # what the double reads
    deciding = await migrated.decide_by(
        added=example.replace("pem_file: server.pem", "jwks_file: jwks.json")
    )
    token = a_jwt(
        kid=None,
        iss="https://localhost:9443/oauth2/token",
        aud="http://org.wso2.apimgt/gateway",
        azp=...,
        consumerKey="abc123",
        subscribedAPIs=[{"name": "HttpbinAPI", "version": "1.0.0", "subscriptionTier": tier}],
    )
    request = a_request("/ip", headers={"authorization": f"Bearer {token}"})
    assert await deciding.reason(request) == reason
    request = a_request("/headers", headers={"authorization": f"Bearer {token[:-8]}AAAAAAAA"})
    assert await deciding.reason(request) == "invalid_credentials"


# Apigee


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"x-api-key": API_KEY}, "allowed"),
        ({}, "missing_credentials"),
        ({"x-api-key": "bad"}, "invalid_credentials"),
        ({"apikey": API_KEY}, "missing_credentials"),
    ],
)
async def test_an_apigee_api_takes_keys_where_they_stood(
    headers: dict[str, str], answer: str, migrate: Migrate
) -> None:
    deciding = await migrate(FIXTURES / "apigee.yaml").decide_by(
        added=f"applications: [{{name: app, {CONSUMER}}}]\n"
        "subscriptions: [{application: app, api: shop, version: v1}]"
    )
    assert await deciding.reason(to("shop", "/items/7", headers=headers)) == answer


async def test_an_application_of_another_product_is_refused(migrate: Migrate) -> None:
    deciding = await migrate(FIXTURES / "apigee.yaml").decide_by(
        added=f"applications: [{{name: app, {CONSUMER}}}]"
    )
    request = to("shop", headers={"x-api-key": API_KEY})
    assert await deciding.reason(request) == "subscription_not_found"


# 3scale


@pytest.mark.parametrize(
    ("path", "headers", "answer"),
    [
        (f"/?user_key={API_KEY}", {}, "allowed"),
        ("/", {"user-key": API_KEY}, "allowed"),
        ("/", {}, "missing_credentials"),
        ("/?user_key=bad", {}, "invalid_credentials"),
        ("/", {"x-api-key": API_KEY}, "missing_credentials"),
    ],
)
async def test_a_threescale_api_takes_user_keys_where_they_stood(
    path: str, headers: dict[str, str], answer: str, migrate: Migrate
) -> None:
    api = "threescale-2555417834789"
    deciding = await migrate(FIXTURES / "threescale.yaml").decide_by(
        added=f"applications: [{{name: app, {CONSUMER}}}]\n"
        f"subscriptions: [{{application: app, api: {api}, version: v1}}]"
    )
    assert await deciding.reason(to("anything", path, headers=headers)) == answer


# Quotas


async def count_allowed(deciding: Deciding, request: ApiRequest, offered: int = 30) -> int:
    return [await deciding.reason(request) for _ in range(offered)].count("allowed")


@pytest.mark.parametrize(
    ("host", "headers", "allowed"),
    [
        ("productpage", {}, 5),
        ("productpage.default.svc.cluster.local", {"x-forwarded-for": "198.51.100.7"}, 5),
        ("productpage", {"x-forwarded-for": "10.28.11.20"}, 20),
        ("productpage", {"cookie": "user=alice"}, 30),
        ("productpage", {"cookie": "theme=user=dark"}, 5),
        ("reviews", {}, 1),
        ("reviews.default", {"x-forwarded-for": "10.28.11.20"}, 1),
        ("reviews", {"cookie": "user=alice"}, 30),
    ],
)
async def test_a_quota_and_its_overrides_hold(
    host: str, headers: dict[str, str], allowed: int, migrate: Migrate
) -> None:
    deciding = await migrate(FIXTURES / "quota.yaml").decide_by()
    assert await count_allowed(deciding, to(host, headers=headers)) == allowed


async def test_a_quota_counts_each_source_and_destination_apart(migrate: Migrate) -> None:
    deciding = await migrate(FIXTURES / "quota.yaml").decide_by()
    sources = [{}, {"x-forwarded-for": "198.51.100.1"}, {"x-forwarded-for": "198.51.100.2"}]
    for host, allowed in (("productpage", 5), ("reviews", 1)):
        for headers in sources:
            assert await count_allowed(deciding, to(host, headers=headers)) == allowed
    deciding.clock.advance(2.1)  # both windows of a second are over, that of five is not
    assert await count_allowed(deciding, to("productpage")) == 5
    assert await count_allowed(deciding, to("reviews")) == 0


def a_quota(
    params: str, *, adapter: str = "memquota", dimensions: str = "{}", more: str = ""
) -> str:
    return f"""\
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {{name: counts, namespace: istio-system}}
spec: {{compiledAdapter: {adapter}, params: {params}}}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {{name: rq, namespace: istio-system}}
spec: {{compiledTemplate: quota, params: {{dimensions: {dimensions}}}}}
---
apiVersion: config.istio.io/v1alpha2
kind: QuotaSpecBinding
metadata: {{name: rq, namespace: default}}
spec: {{quotaSpecs: [{{name: rq}}], services: [{{name: one}}, {{name: two}}]}}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {{name: rq, namespace: istio-system}}
spec: {{actions: [{{handler: counts, instances: [rq]}}]}}
---
{more or A_SPEC}"""


A_SPEC = """\
apiVersion: config.istio.io/v1alpha2
kind: QuotaSpec
metadata: {name: rq, namespace: default}
spec: {rules: [{quotas: [{quota: RQ, charge: 1}]}]}
"""


async def test_services_that_shared_a_count_still_do(migrate: Migrate) -> None:
    migrated = migrate(a_quota("{quotas: [{name: rq, maxAmount: 3, validDuration: 60s}]}"))
    deciding = await migrated.decide_by()
    assert await count_allowed(deciding, to("one"), 2) == 2
    assert await count_allowed(deciding, to("two"), 5) == 1


async def test_a_charge_of_more_than_one_divides_the_limit(migrate: Migrate) -> None:
    spec = A_SPEC.replace("charge: 1", "charge: 2")
    quota = a_quota("{quotas: [{name: rq, maxAmount: 5, validDuration: 60s}]}", more=spec)
    deciding = await migrate(quota).decide_by()
    assert await count_allowed(deciding, to("one")) == 2


async def test_a_quota_of_nothing_lets_nothing_through(migrate: Migrate) -> None:
    migrated = migrate(a_quota("{quotas: [{name: rq, maxAmount: 0, validDuration: 1s}]}"))
    deciding = await migrated.decide_by()
    assert await deciding.reason(to("one")) == "blocked"


async def test_an_override_for_what_is_not_known_here_holds_for_all(migrate: Migrate) -> None:
    migrated = migrate(
        a_quota(
            "{quotas: [{name: rq, maxAmount: 9, validDuration: 60s, "
            "overrides: [{dimensions: {from: reviews}, maxAmount: 4, validDuration: 60s}]}]}",
            dimensions="{from: 'source.labels[`app`] | `unknown`'}",
        )
    )
    deciding = await migrated.decide_by()
    assert await count_allowed(deciding, to("one")) == 4
    assert len([line for line in migrated.told("stricter") if "overrides[0]" in line]) == 1


A_LABEL = "{to: 'destination.labels[`app`] | `unknown`'}"


def an_override_of(label: str) -> str:
    return a_quota(
        "{quotas: [{name: rq, maxAmount: 9, validDuration: 60s, "
        f"overrides: [{{dimensions: {{to: {label}}}, maxAmount: 4, validDuration: 600s}}]}}]}}",
        dimensions=A_LABEL,
    )


async def test_an_override_for_a_label_that_is_no_services_name_holds_for_all(
    migrate: Migrate,
) -> None:
    migrated = migrate(an_override_of("one-app"))
    deciding = await migrated.decide_by()
    assert await count_allowed(deciding, to("one")) == 4
    assert await count_allowed(deciding, to("two")) == 4
    assert len([line for line in migrated.told("stricter") if "overrides[0]" in line]) == 1


async def test_an_override_for_a_label_that_is_a_services_name_holds_for_that_service(
    migrate: Migrate,
) -> None:
    migrated = migrate(an_override_of("two"))
    deciding = await migrated.decide_by()
    assert await count_allowed(deciding, to("one")) == 9
    assert await count_allowed(deciding, to("two")) == 4
    assert not [line for line in migrated.told("stricter") if "overrides[0]" in line]


async def test_another_version_is_counted_too_and_that_is_told(migrate: Migrate) -> None:
    quota = a_quota("{quotas: [{name: rq, maxAmount: 2, validDuration: 60s}]}")
    migrated = migrate(quota.replace("{name: one}", "{name: pets}"), FIXTURES / "lists.yaml")
    assert any("all versions of Pets" in line for line in migrated.told("stricter"))
    deciding = await migrated.decide_by()
    assert await count_allowed(deciding, to("pets", "/pets")) == 2


@pytest.mark.parametrize(
    ("algorithm", "written"),
    [("", "fixed_window"), ("FIXED_WINDOW", "fixed_window"), ("ROLLING_WINDOW", "sliding_window")],
)
async def test_redisquota_keeps_its_store_and_its_window(
    algorithm: str, written: str, migrate: Migrate
) -> None:
    said = f", rateLimitAlgorithm: {algorithm}, bucketDuration: 500ms" if algorithm else ""
    migrated = migrate(
        a_quota(
            "{redisServerUrl: 'user:hunter2@redis.default:6379', connectionPoolSize: 10, "
            f"quotas: [{{name: rq.instance.istio-system, maxAmount: 5, validDuration: "
            f"1s{said}}}]}}",
            adapter="redisquota",
        )
    )
    assert "url: 'redis://redis.default:6379'" in migrated.text("extauthz.yaml")
    assert f"per: 1s, algorithm: {written}" in migrated.text("catalog/catalog.yaml")
    assert "hunter2" not in "".join(
        path.read_text() for path in migrated.out.rglob("*") if path.is_file()
    )
    assert any("credential" in line for line in migrated.told("not_carried"))
    deciding = await migrated.decide_by()
    assert await count_allowed(deciding, to("one")) == 5


# Lists and deniers


@pytest.mark.parametrize(
    ("host", "path", "client", "answer"),
    [
        ("pets-old", "/pets", "192.0.2.1", "blocked"),
        ("pets", "/pets", "192.0.2.1", "allowed"),
        ("admin", "/", "10.57.3.4", "allowed"),
        ("admin", "/", "192.0.2.7", "allowed"),
        ("admin", "/", "192.0.2.8", "blocked"),
        ("admin", "/", "10.58.0.0", "blocked"),
        ("admin", "/", "2001:db8::1", "blocked"),
        ("ratings", "/", "203.0.113.9", "blocked"),
        ("ratings", "/", "203.0.113.8", "allowed"),
        ("pets", "/pets", "203.0.113.9", "allowed"),
        ("unknown", "/", "192.0.2.1", "api_not_found"),
    ],
)
async def test_lists_and_deniers_refuse_whom_they_refused(
    host: str, path: str, client: str, answer: str, migrate: Migrate
) -> None:
    deciding = await migrate(FIXTURES / "lists.yaml").decide_by()
    assert await deciding.reason(to(host, path, client=client)) == answer


def a_check(handler: str, instance: str, match: str = "") -> str:
    return f"""\
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {{name: h, namespace: istio-system}}
spec: {handler}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {{name: i, namespace: istio-system}}
spec: {instance}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {{name: r, namespace: istio-system}}
spec: {{match: '{match}', actions: [{{handler: h, instances: [i]}}]}}
"""


DENIER = "{compiledAdapter: denier, params: {status: {code: 7}}}"
NOTHING = "{compiledTemplate: checknothing}"
ADDRESS = '{compiledTemplate: listentry, params: {value: source.ip | ip("0.0.0.0")}}'


def a_list(entries: str, more: str) -> str:
    return f"{{compiledAdapter: listchecker, params: {{overrides: {entries}, {more}}}}}"


@pytest.mark.parametrize(
    ("handler", "instance", "match", "allowed", "refused"),
    [
        (DENIER, NOTHING, "", [], ["192.0.2.1", "::1"]),
        (DENIER, NOTHING, 'source.ip == ip("192.0.2.1")', ["192.0.2.2"], ["192.0.2.1"]),
        (DENIER, NOTHING, 'source.ip != ip("192.0.2.1")', ["192.0.2.1"], ["192.0.2.2", "::1"]),
        (DENIER, NOTHING, "false", ["192.0.2.1"], []),
        (
            DENIER,
            NOTHING,
            'source.ip == ip("192.0.2.1") || source.ip == ip("192.0.2.2")',
            ["192.0.2.3"],
            ["192.0.2.1", "192.0.2.2"],
        ),
        (DENIER, NOTHING, 'request.headers["a"] == "b"', [], ["192.0.2.1"]),
        (DENIER, NOTHING, "nonsense((", [], ["192.0.2.1"]),
        (
            a_list("[192.0.2.0/24]", "entryType: IP_ADDRESSES, blacklist: true"),
            ADDRESS,
            "",
            ["198.51.100.1"],
            ["192.0.2.1"],
        ),
        (
            a_list("[192.0.2.0/24]", "entryType: IP_ADDRESSES"),
            ADDRESS,
            "",
            ["192.0.2.1"],
            ["198.51.100.1", "::1"],
        ),
        (
            a_list("[192.0.2.0/24, 198.51.100.0/24]", "entryType: IP_ADDRESSES"),
            ADDRESS,
            "",
            ["192.0.2.1", "198.51.100.1"],
            ["203.0.113.1", "::1"],
        ),
        (a_list("[]", "entryType: IP_ADDRESSES"), ADDRESS, "", [], ["192.0.2.1", "::1"]),
        (
            a_list("[]", "entryType: IP_ADDRESSES, blacklist: true, providerUrl: http://l"),
            ADDRESS,
            "",
            [],
            ["192.0.2.1"],
        ),
        (
            a_list("[reviews]", "blacklist: true"),
            '{compiledTemplate: listentry, params: {value: "source.labels[`app`]"}}',
            "",
            [],
            ["192.0.2.1"],
        ),
        ("{adapter: opa, params: {}}", "{template: authorization}", "", [], ["192.0.2.1"]),
    ],
)
async def test_what_cannot_be_said_is_refused_and_no_less(
    handler: str,
    instance: str,
    match: str,
    allowed: list[str],
    refused: list[str],
    migrate: Migrate,
) -> None:
    other = a_quota("{quotas: [{name: rq, maxAmount: 1000, validDuration: 1s}]}")
    migrated = migrate(a_check(handler, instance, match), other)
    deciding = await migrated.decide_by()
    for client in allowed:
        assert await deciding.reason(to("one", client=client)) == "allowed"
    for client in refused:
        assert await deciding.reason(to("two", client=client)) == "blocked"


@pytest.mark.parametrize("blacklist", ["true", "false"])
@pytest.mark.parametrize("entries", ["[192.0.2.0/24]", "[192.0.2.0/24, 198.51.100.0/24]"])
async def test_a_caller_without_an_address_passes_no_list_of_addresses(
    entries: str, blacklist: str, migrate: Migrate
) -> None:
    handler = a_list(entries, f"entryType: IP_ADDRESSES, blacklist: {blacklist}")
    other = a_quota("{quotas: [{name: rq, maxAmount: 1000, validDuration: 1s}]}")
    deciding = await migrate(a_check(handler, ADDRESS), other).decide_by()
    # Not "blocked": the address is not on the wrong list, but not known.
    assert await deciding.reason(to("two", client="")) == "malformed_request"


OLD = """\
apiVersion: config.istio.io/v1alpha2
kind: {kind}
metadata: {{name: h, namespace: istio-system}}
spec: {spec}
---
apiVersion: config.istio.io/v1alpha2
kind: {template}
metadata: {{name: h, namespace: istio-system}}
spec: {{}}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {{name: r, namespace: istio-system}}
spec: {{actions: [{{handler: h.{kind}, instances: [h.{template}]}}]}}
"""


@pytest.mark.parametrize(
    ("kind", "template", "spec", "answer"),
    [
        ("denier", "checknothing", "{status: {code: 7}}", "blocked"),
        ("opa", "authorization", "{policy: x}", "blocked"),
        ("prometheus", "metric", "{metrics: []}", "allowed"),
        ("stdio", "logentry", "{}", "allowed"),
        ("noop", "checknothing", "{}", "allowed"),
        ("extauthz", "authorization", "{}", "allowed"),
    ],
)
async def test_adapters_with_a_kind_of_their_own_are_known(
    kind: str, template: str, spec: str, answer: str, migrate: Migrate
) -> None:
    old = OLD.format(kind=kind, template=template, spec=spec)
    migrated = migrate(old, a_quota("{quotas: [{name: rq, maxAmount: 99, validDuration: 1s}]}"))
    deciding = await migrated.decide_by()
    assert await deciding.reason(to("one")) == answer


@pytest.mark.parametrize(
    ("kind", "entries", "blacklist", "answer"),
    [
        ("STRINGS", "[v1]", "true", "blocked"),
        ("STRINGS", "[V1]", "true", "allowed"),
        ("CASE_INSENSITIVE_STRINGS", "[V1]", "true", "blocked"),
        ("REGEX", '["^v[12]$"]', "true", "blocked"),
        ("REGEX", '["^v[23]$"]', "true", "allowed"),
        ("REGEX", '["(("]', "true", "blocked"),
        ("STRINGS", "[v1]", "false", "allowed"),
        ("STRINGS", "[v2]", "false", "blocked"),
        ("WHATEVER", "[v2]", "true", "blocked"),
    ],
)
async def test_lists_of_versions_are_read_as_they_were(
    kind: str, entries: str, blacklist: str, answer: str, migrate: Migrate
) -> None:
    checks = a_check(
        a_list(entries, f"entryType: {kind}, blacklist: {blacklist}"),
        "{compiledTemplate: listentry, params: {value: api.version}}",
        'api.service == "Pets"',
    )
    deciding = await migrate(checks, FIXTURES / "lists.yaml").decide_by()
    # pets-old is version v1, which the lists of the other file refuse as well.
    if answer == "blocked":
        assert await deciding.reason(to("pets-old", "/pets")) == "blocked"
    rules = [rule for rule in deciding.catalog.deny_rules.rules if rule.name == "r"]
    assert any(rule.version == "v1" for rule in rules) is (answer == "blocked")
