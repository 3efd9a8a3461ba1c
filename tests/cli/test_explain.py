"""``extauthz explain``: every step in words, what to do about a denial, and no secret shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from extauthz.inspection.advice import list_advice
from extauthz.model.decision import Denial, Deny, Reason
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.matching.match import check_route
from extauthz.policy.subscription import check_subscription
from tests.builders import API_KEY, a_catalog, a_request, a_resource, an_api
from tests.cli.conftest import SETTINGS, Run
from tests.keys import ISSUER, a_jwt, rsa_key

IP = "http://api.example.com/httpbin/1.0.0/ip"
LATER_S = 4_000_000_000


def a_fresh_jwt(**claims: Any) -> str:
    return a_jwt(exp=LATER_S, **claims)


def steps_in(out: str) -> dict[str, str]:
    """Each step's mark in the text form."""
    names = ("match", "deny rules", "authenticate", "subscription", "scopes", "rate limits")
    return {
        name: line.removeprefix(name).split()[0]
        for line in out.splitlines()
        for name in names
        if line.startswith(f"{name} ")
    }


def test_an_allowed_request_at_a_glance(run: Run) -> None:
    done = run("explain", "--url", IP, "-H", f"X-Api-Key: {API_KEY}")
    assert done.code == 0 and not done.err
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines[:8] == [
        "GET api.example.com/httpbin/1.0.0/ip",
        "",
        "match         pass  HttpbinAPI 1.0.0, resource GET /ip",
        "deny rules    pass  no deny rule fits",
        "authenticate  pass  by api_key, application mobile, user alice, PRODUCTION",
        "subscription  pass  UNBLOCKED, tier Gold",
        "scopes        pass  cover what the resource asks for",
        "rate limits   pass  subscription (Gold): 5000 left of 5000 requests per 60 s",
    ]
    assert "  with x-extauthz-application: mobile" in lines
    assert "  without x-api-key" in lines
    assert lines[-1] == "ALLOW"


def test_a_denied_request_at_a_glance(run: Run) -> None:
    done = run("explain", "--url", "/httpbin/1.0.0/ip")
    assert done.code == 0
    lines = done.out.splitlines()
    assert steps_in(done.out) == {
        "match": "pass",
        "deny rules": "pass",
        "authenticate": "deny",
        "subscription": "-",
        "scopes": "-",
        "rate limits": "-",
    }
    assert "The client gets 401:" in lines
    assert '  www-authenticate: Bearer realm="extauthz"' in lines
    assert '    "reason": "missing_credentials",' in lines
    assert lines[-1] == "DENY missing_credentials"


KEY = ("-H", f"x-api-key: {API_KEY}")
DENIED: dict[str, tuple[list[str], str, list[str]]] = {
    "nothing sent": (
        ["--url", IP],
        "missing_credentials",
        [
            "Send one of:",
            "  jwt: a bearer token in header authorization",
            "  api_key: in header x-api-key, header apikey, query parameter apikey",
        ],
    ),
    "unknown key": (
        ["--url", IP, "-H", "x-api-key: nobodys"],
        "invalid_credentials",
        ["Is it an API key? `extauthz key hash` gives", f"  {ISSUER}"],
    ),
    "no API": (
        ["--url", "/nowhere"],
        "api_not_found",
        ["APIs are served at:", "  */httpbin/1.0.0 (HttpbinAPI 1.0.0)"],
    ),
    "an API that is not there yet": (
        ["--url", "/new/v1/x"],
        "api_not_found",
        ["The state of New v1 is CREATED. To let calls through,", "  state: PUBLISHED"],
    ),
    "blocked API": (
        ["--url", "/old/v1/x"],
        "api_blocked",
        ["The state of Old v1 is BLOCKED. To let calls through,", "  state: PUBLISHED"],
    ),
    "no resource": (
        ["--url", "/httpbin/1.0.0/nothing"],
        "resource_not_found",
        ["HttpbinAPI 1.0.0 has, below /httpbin/1.0.0:", "  GET /ip"],
    ),
    "method": (
        ["--url", IP, "-X", "put"],
        "method_not_allowed",
        ["Allowed methods: GET, HEAD."],
    ),
    "path": (
        ["--url", "/httpbin/1.0.0/../ip"],
        "malformed_request",
        ["Send the path in its normal form: no `..`"],
    ),
    "host": (
        ["--url", IP, "-H", "host: api.example.com:80:80"],
        "malformed_request",
        ["Send one host name or IP address, once, with at most one port."],
    ),
    "not subscribed": (
        ["--url", "/pets/v1/1", *KEY],
        "subscription_not_found",
        [
            "To subscribe, add to the catalog:",
            "  subscriptions:",
            "    - {application: mobile, api: Pets, version: v1}",
        ],
    ),
    "a token that names no client": (
        ["--url", IP, "-H", f"authorization: Bearer {a_fresh_jwt(azp=..., sub='shop')}"],
        "subscription_not_found",
        [
            "The token names no client, unless sub does. If so, say it at its issuer:",
            "  claims: {consumer_key: [azp, client_id, consumerKey, sub]}",
        ],
    ),
    "unknown consumer key": (
        ["--url", IP, "-H", f"authorization: Bearer {a_fresh_jwt(azp='other: key')}"],
        "subscription_not_found",
        [
            "No application has the consumer key. Add it to one:",
            f"      consumer_keys: [{{id: 'other: key', issuer: '{ISSUER}'}}]",
            "    - {application: NAME, api: HttpbinAPI, version: 1.0.0}",
        ],
    ),
    "on hold": (
        ["--url", IP, "-H", "x-api-key: late-key"],
        "subscription_inactive",
        ["The subscription of late to HttpbinAPI 1.0.0 is ON_HOLD.", "  state: UNBLOCKED"],
    ),
    "scopes, any": (
        ["--url", IP, "-H", f"authorization: Bearer {a_fresh_jwt(scope='other')}"],
        "insufficient_scope",
        [
            "The resource asks for scope_ip (any of them is enough).",
            "The token has other; missing: scope_ip.",
        ],
    ),
    "scopes, all": (
        [
            *("--url", "/httpbin/1.0.0/admin"),
            *("-H", f"authorization: Bearer {a_fresh_jwt(scope='scope_b')}"),
        ],
        "insufficient_scope",
        [
            "The resource asks for scope_a, scope_b (all of them).",
            "The token has scope_b; missing: scope_a.",
        ],
    ),
    "expired": (
        ["--url", IP, "-H", f"authorization: Bearer {a_jwt(exp=1_700_000_000)}"],
        "token_expired",
        ["Get a new token or key; or is a clock wrong?"],
    ),
    "address": (
        ["--url", IP, "-H", "x-api-key: far-key", "--client", "198.51.100.1"],
        "credential_not_permitted",
        ["The key lists the addresses or referers"],
    ),
    "deny rule": (
        ["--url", IP, "-H", "x-api-key: rogue-key"],
        "blocked",
        ["Remove the rule below `deny` in the catalog"],
    ),
}


@pytest.mark.parametrize(("arguments", "reason", "advice"), DENIED.values(), ids=DENIED)
def test_says_what_to_do(arguments: list[str], reason: str, advice: list[str], run: Run) -> None:
    done = run("explain", *arguments)
    lines = done.out.splitlines()
    assert lines[-1] == f"DENY {reason}", done.out
    for expected in advice:
        assert any(line.startswith(expected) for line in lines), (expected, done.out)


@pytest.mark.parametrize("name", ["HttpbinAPI", "httpbinapi"])
def test_names_the_tier_of_a_token_that_the_catalog_lacks(name: str) -> None:
    catalog = a_catalog()
    resources = catalog.routes.resources_of(catalog.apis["HttpbinAPI", "1.0.0"])
    found = resources.find(["httpbin", "1.0.0", "ip"], 2, "GET")
    assert not isinstance(found, frozenset)
    identity = Identity(scheme=SecurityScheme.JWT, subscribed={(name, "1.0.0"): "Platinum"})
    denial = check_subscription(catalog, found.api, identity)
    assert isinstance(denial, Denial)
    deny = Deny(id="d", denial=denial, route=found, identity=identity)
    assert list_advice(deny, a_request(), catalog, CredentialPlaces()) == [
        "The token names the tier 'Platinum'. Add it below `tiers`."
    ]


@pytest.mark.parametrize("reason", Reason)
def test_has_advice_for_every_reason_even_when_little_is_known(reason: Reason) -> None:
    """Steps before the route was found give a reason and nothing else."""
    route = a_catalog().routes.find_api("api.example.com", ["httpbin", "1.0.0"])
    assert route is not None
    catalog = a_catalog()
    match = catalog.routes.resources_of(catalog.apis["HttpbinAPI", "1.0.0"])
    found = match.find(["httpbin", "1.0.0", "ip"], 2, "GET")
    assert not isinstance(found, frozenset)
    denial = Denial(reason=reason, scopes=("a",), allowed_methods=("GET",), retry_after_us=1)
    deny = Deny(id="d", denial=denial, route=found)
    advice = list_advice(deny, a_request(), catalog, CredentialPlaces())
    assert advice or reason in (Reason.SUBSCRIPTION_BLOCKED, Reason.SUBSCRIPTION_INACTIVE)


def test_the_advised_lines_let_the_request_pass(folder: Path, run: Run) -> None:
    before = run("explain", "--url", "/pets/v1/1", *KEY)
    lines = before.out.splitlines()
    at = lines.index("  subscriptions:")
    (folder / "catalog" / "more.yaml").write_text(
        "\n".join(line.removeprefix("  ") for line in lines[at : at + 2])
    )
    after = run("explain", "--url", "/pets/v1/1", *KEY)
    assert before.out.endswith("DENY subscription_not_found\n")
    assert after.out.endswith("ALLOW\n")


def test_fits_into_80_columns_but_for_what_is_sent(run: Run) -> None:
    done = run("explain", "--url", IP, "-H", f"authorization: Bearer {a_fresh_jwt(scope='x')}")
    too_long = [line for line in done.out.splitlines() if len(line.rstrip()) > 80]
    assert [line.split(":")[0] for line in too_long] == ["  www-authenticate"]


def test_finds_the_client_behind_proxies_as_the_service_does(folder: Path, run: Run) -> None:
    (folder / "extauthz.yaml").write_text(f"{SETTINGS}credentials: {{trusted_hops: 1}}\n")
    with (folder / "catalog" / "deny.yaml").open("w") as file:
        file.write("deny: [{ip: 198.51.100.0/24}]\n")

    def reason(*arguments: str) -> str:
        said = run("explain", "--json", "--url", "/httpbin/1.0.0/health", *arguments)
        found: str = json.loads(said.out)["reason"] or "allowed"
        return found

    # Without the header, the client is who is named.
    assert reason("--client", "198.51.100.7") == "blocked"
    assert reason("--client", "192.0.2.7") == "allowed"
    forwarded = ("--client", "192.0.2.7", "-H")
    assert reason(*forwarded, "x-forwarded-for: 198.51.100.7, 203.0.113.5") == "allowed"
    assert reason(*forwarded, "x-forwarded-for: 203.0.113.5, 198.51.100.7") == "blocked"
    unknown = ("--client", "127.0.0.1", "-H", "x-forwarded-for: 203.0.113.5")
    assert reason(*unknown) == "malformed_request"
    assert (
        "use_remote_address as in Envoy?"
        in run("explain", "--url", "/httpbin/1.0.0/health", *unknown).out
    )


def test_charges_nothing(run: Run) -> None:
    arguments = ("explain", "--url", "/httpbin/1.0.0/once", *KEY)
    for _ in range(3):
        done = run(*arguments)
        assert "(Once): 1 left of 1 requests per" in " ".join(done.out.split())
        assert done.out.endswith("ALLOW\n")


def test_a_public_resource_needs_nothing(run: Run) -> None:
    done = run("explain", "--url", "/httpbin/1.0.0/health")
    assert "no credential is needed" in done.out and done.out.endswith("ALLOW\n")


def test_json_says_the_same(run: Run) -> None:
    done = run("explain", "--json", "--url", IP)
    told = json.loads(done.out)
    assert (told["decision"], told["reason"]) == ("deny", "missing_credentials")
    assert [step["step"] for step in told["steps"]] == ["match", "deny rules", "authenticate"]
    assert [step["passed"] for step in told["steps"]] == [True, True, False]
    assert told["client"]["status"] == 401 and told["upstream"] is None
    assert told["advice"][0] == "Send one of:" and told["log"] == []
    allowed = json.loads(run("explain", "--json", "--url", IP, *KEY).out)
    assert (allowed["decision"], allowed["reason"], allowed["client"]) == ("allow", None, None)
    assert ["x-extauthz-user", "alice"] in allowed["upstream"]["set_headers"]


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (f"x-api-key:{API_KEY}", True),
        (f"X-API-Key:   {API_KEY}  ", True),
        (f"apikey: {API_KEY}", True),
        (f"authorization: bearer {a_fresh_jwt()}", True),
        (f"x-other: {API_KEY}", False),
    ],
)
def test_takes_headers_as_curl_does(header: str, allowed: bool, run: Run) -> None:  # noqa: FBT001
    done = run("explain", "--url", IP, "-H", header)
    assert done.out.endswith("ALLOW\n") == allowed


def test_a_host_header_is_the_host(folder: Path, run: Run) -> None:
    catalog = folder / "catalog" / "all.yaml"
    catalog.write_text(
        catalog.read_text().replace(
            "/httpbin/1.0.0\n", '/httpbin/1.0.0\n    hosts: ["a.example"]\n'
        )
    )
    url = "http://127.0.0.1:10000/httpbin/1.0.0/ip"
    assert run("explain", "--url", url, *KEY).out.endswith("DENY api_not_found\n")
    done = run("explain", "--url", url, *KEY, "-H", "Host: A.example:80")
    assert done.out.endswith("ALLOW\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "pets"),
        ("--url", "http://[::1/x"),
        ("--url", "/", "-H", "no-colon"),
        ("--url", "/", "-H", ": no name"),
        ("--url", "/", "--context", "no-equals"),
        ("--url", "/", "--client", "somebody"),
        ("--url", "/", "--resource", "/ip"),
        ("--api", "Pets", "--path", "x"),
        ("--url", "/", "--scopes", "a"),
        ("--url", "/", "--key-type", "SANDBOX"),
    ],
    ids=" ".join,
)
def test_says_how_a_request_is_written(arguments: tuple[str, ...], run: Run) -> None:
    done = run("explain", *arguments)
    assert done.code == 2 and not done.out
    assert "--" in done.err
    assert done.err.startswith("extauthz: ") and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one of the arguments --url --api is required"),
        (("--url", "/", "--api", "Pets"), "argument --api: not allowed with argument --url"),
        (
            ("--api", "Pets", "--path", "/x", "--resource", "/*"),
            "argument --resource: not allowed with argument --path",
        ),
    ],
)
def test_says_which_arguments_exclude_each_other(
    arguments: tuple[str, ...], said: str, run: Run
) -> None:
    done = run("explain", *arguments)
    assert done.code == 2 and not done.out
    assert done.err.startswith("usage: extauthz explain")
    assert done.err.endswith(f"extauthz explain: error: {said}\n")


# Secrets

SECRETS = ("sesame-key", "sesame-cookie", "sesame-query", "sesame-token")


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_shows_no_secret_of_the_request(form: tuple[str, ...], method: str, run: Run) -> None:
    done = run(
        *("explain", *form, "-X", method),
        *("--url", f"{IP}?apikey=sesame-query&page=sesame-query"),
        *("-H", "x-api-key: sesame-key", "-H", "cookie: a=sesame-cookie"),
        *("-H", "authorization: Bearer sesame-token"),
    )
    assert done.code == 0 and "deny" in done.out.lower()
    assert not [secret for secret in SECRETS if secret in done.out + done.err]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_shows_no_secret_of_an_allowed_request(
    form: tuple[str, ...], folder: Path, run: Run
) -> None:
    pem = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "jwt.pem").write_bytes(pem)
    (folder / "extauthz.yaml").write_text(
        "catalog: {files: [catalog/]}\n"
        "credentials: {api_key: [{query: apikey}, {cookie: key}]}\n"
        "responses: {backend_jwt: {private_key_file: jwt.pem}}\n"
    )
    url = f"/httpbin/1.0.0/ip?apikey={API_KEY}&q=sesame-query"
    by_query = run("explain", *form, "--url", url)
    cookie = f"cookie: key={API_KEY}; session=sesame-cookie"
    by_cookie = run("explain", *form, "--url", "/httpbin/1.0.0/ip", "-H", cookie)
    for done in (by_query, by_cookie):
        assert "x-jwt-assertion" in done.out and ("ALLOW" in done.out or "allow" in done.out)
        for secret in (API_KEY, "eyJ", *SECRETS):
            assert secret not in done.out + done.err


def test_an_error_about_a_header_does_not_show_it(run: Run) -> None:
    done = run("explain", "--url", "/", "-H", "x-a: b", "-H", "x-api-key=sesame-key")
    assert done.err == "extauthz: --header number 2 is not of the form 'name: value'\n"


BOTH_SIDES: dict[str, tuple[str, str]] = {
    "issuer": (
        a_fresh_jwt(iss="https://other.example/"),
        f"its iss is 'https://other.example/', and the catalog's issuers are '{ISSUER}'",
    ),
    "audience": (
        a_fresh_jwt(aud=["shop", "cart"]),
        "its aud is 'shop', 'cart', and the issuer's audiences are 'httpbin'",
    ),
    "no audience": (
        a_fresh_jwt(aud=...),
        "it has no aud, and the issuer's audiences are 'httpbin'",
    ),
    "algorithm": (a_jwt(algorithm="PS256"), "its alg is 'PS256', and the issuer's are 'RS256'"),
    "key": (
        a_jwt(key=rsa_key("other")),
        "it has the kid 'k1', and 1 of the issuer's keys were tried",
    ),
    "time": (a_jwt(), "its exp is 2023-11-14T22:18:20Z, and it is 20"),
    "no client": (
        a_fresh_jwt(azp=..., sub="private-name"),
        "no claim names its client: looked for 'azp', 'client_id', 'consumerKey', and it has "
        "'aud', 'exp', 'iat', 'iss', 'jti', 'scope', 'sub'",
    ),
}


@pytest.mark.parametrize("case", BOTH_SIDES)
def test_shows_both_sides_of_what_did_not_fit(case: str, run: Run) -> None:
    token, found = BOTH_SIDES[case]
    done = run("explain", "--json", "--url", IP, "-H", f"authorization: Bearer {token}")
    explained = json.loads(done.out)
    (step,) = [one for one in explained["steps"] if one["step"] == "authenticate"]
    assert found in step["found"]
    # The client is told none of it.
    assert found not in json.dumps(explained["client"])


# Hostile input


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_nothing_in_a_request_speaks_to_the_terminal(form: tuple[str, ...], run: Run) -> None:
    hostile = "\x1b[31m\x9b31m\x07\u202e[red]:smile:[/red]"
    markup = "[red]:smile:[/red]"
    done = run(
        *("explain", *form, "--url", f"/httpbin/1.0.0/ip{hostile}?{hostile}=1"),
        *("-X", hostile, "-H", f"x-{hostile}: {hostile}", "-H", f"Host: {hostile}"),
    )
    tokens = [a_fresh_jwt(sub=text, azp=text, scope="scope_ip") for text in (markup, hostile)]
    by_token, by_bad_token = (
        run("explain", *form, "--url", IP, "-H", f"authorization: Bearer {token}")
        for token in tokens
    )
    for one in (done, by_token, by_bad_token):
        assert one.code == 0
        shown = one.out.replace("\n", "")
        assert shown.isprintable(), [mark for mark in shown if not mark.isprintable()]
        assert form or one is by_bad_token or ":smile:[/red]" in shown


# What could not be decided


def test_says_whose_keys_could_not_be_had(folder: Path, run: Run) -> None:
    catalog = folder / "catalog" / "all.yaml"
    # Port 9 of loopback: nobody listens there.
    text = catalog.read_text().replace("jwks_file: ../jwks.json", "jwks_url: http://127.0.0.1:9/k")
    catalog.write_text(text)
    done = run("explain", "--url", IP, "-H", f"authorization: Bearer {a_fresh_jwt()}")
    lines = done.out.splitlines()
    assert done.code == 0 and lines[-1] == "DENY unavailable"
    assert steps_in(done.out)["authenticate"] == "deny"
    assert any(line.startswith("log: ") and f"the keys of {ISSUER} could" in line for line in lines)
    assert "Nothing was decided. Envoy's failure_mode_allow and" in done.out
    assert "The client gets" not in done.out


def test_an_identity_that_cannot_be_sent_is_a_denial_as_in_the_service(
    folder: Path, run: Run
) -> None:
    with (folder / "extauthz.yaml").open("a") as settings:
        settings.write("responses: {identity_headers: {scopes: x-scopes}}\n")
    scopes = " ".join(mark * 1000 for mark in "abcdefghi")
    token = a_fresh_jwt(scope=f"scope_ip {scopes}")
    done = run("explain", "--url", IP, "-H", f"authorization: Bearer {token}")
    assert done.out.endswith("DENY unavailable\n")
    assert "The caller's identity cannot be sent on: the value for header" in done.out
    assert "The client gets 503:" in done.out


def test_a_path_that_can_be_read_in_two_ways_is_told_with_what_to_send() -> None:
    api = an_api(a_resource("/@me"), a_resource("/{id}"), a_resource("/u/{id}"), base_paths=("/u",))
    catalog = a_catalog(api)

    def advice_on(path: str, context: dict[str, str]) -> list[str]:
        request = a_request(path, context=context)
        denial = check_route(catalog, request)
        assert isinstance(denial, Denial)
        return list_advice(Deny(id="1", denial=denial), request, catalog, CredentialPlaces())

    assert advice_on("/u/%40me", {}) == [
        "Send it without the escapes that it does not need: /u/@me"
    ]
    named = {"extauthz.api": api.name, "extauthz.version": api.version}
    assert advice_on("/u/7", named) == [
        "Say whether paths have the base path (`sent` or `stripped`): with base_path of the API,",
        "or with the context extension extauthz.base_path of the route.",
    ]
