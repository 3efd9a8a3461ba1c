"""``extauthz explain --application``: a decision for a person who has no credential of the client's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.builders import API_KEY
from tests.cli.conftest import Run

SUBSCRIBED = ("--application", "mobile", "--api", "HttpbinAPI")


def told(run: Run, *arguments: str) -> dict[str, Any]:
    done = run("explain", "--json", *arguments)
    assert done.code == 0, done.err
    # The seconds until a limit is free again go on between two commands.
    found: dict[str, Any] = json.loads(re.sub(r";t=\d+", ";t=…", done.out))
    return found


def step(explained: dict[str, Any], name: str) -> str:
    found: str = next(it["found"] for it in explained["steps"] if it["step"] == name)
    return found


def test_explains_a_whole_decision_without_a_credential(run: Run) -> None:
    done = run("explain", *SUBSCRIBED, "--resource", "/ip")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "GET localhost/httpbin/1.0.0/ip" in lines
    assert "match pass HttpbinAPI 1.0.0, resource GET /ip" in lines
    assert "authenticate pass assumed, not checked: by jwt, application mobile," in lines
    assert "scopes pass not checked, as the credential's scopes are not given" in lines
    assert "with x-extauthz-application: mobile" in lines
    assert lines[-1] == "ALLOW"


@pytest.mark.parametrize(
    ("application", "key"), [("mobile", API_KEY), ("rogue", "rogue-key"), ("late", "late-key")]
)
@pytest.mark.parametrize(
    "url", ["/httpbin/1.0.0/once", "/httpbin/1.0.0/health", "/pets/7", "/old/1", "/nowhere"]
)
def test_decides_as_for_a_key_of_the_application(
    application: str, key: str, url: str, folder: Path, run: Run
) -> None:
    catalog = folder / "catalog" / "all.yaml"
    catalog.write_text(catalog.read_text().replace("[jwt, api_key]", "[api_key]"))
    with_key = told(run, "--url", url, "-H", f"x-api-key: {key}")
    as_application = told(run, "--url", url, "--application", application)
    assert as_application.pop("assumed") == application and with_key.pop("assumed") is None
    for one in (with_key, as_application):
        if one["upstream"] is not None:
            one["upstream"]["remove_headers"] = []  # the key itself
        one["steps"] = [it for it in one["steps"] if it["step"] != "authenticate"]
        one["client"] = one["client"] and one["client"]["status"]
    assert as_application == with_key


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--resource", "/ip", "--scopes", "scope_ip"), None),
        (("--resource", "/ip", "--scopes", "other"), "insufficient_scope"),
        (("--resource", "/ip", "--scopes", ""), "insufficient_scope"),
        (("--resource", "/admin", "--scopes", "scope_a,scope_b"), None),
        (("--resource", "/admin", "--scopes", "scope_a"), "insufficient_scope"),
        (("--path", "/ip"), None),
        (("--path", "/httpbin/1.0.0/ip"), None),
        (("--path", "/ip?page=1"), None),
        (("--path", "/nothing"), "resource_not_found"),
        (("--path", "/ip", "-X", "put"), "method_not_allowed"),
        (("--resource", "/ip", "--key-type", "SANDBOX"), None),
    ],
)
def test_takes_what_is_said_of_the_credential(
    arguments: tuple[str, ...], reason: str | None, run: Run
) -> None:
    assert told(run, *SUBSCRIBED, *arguments)["reason"] == reason


def test_a_blocked_application_is_blocked_here_too(run: Run) -> None:
    explained = told(run, "--application", "rogue", "--api", "Pets")
    assert explained["reason"] == "blocked"


def test_counts_nothing(run: Run) -> None:
    for _ in range(3):
        explained = told(run, *SUBSCRIBED, "--resource", "/once")
        assert "(Once): 1 left of 1 requests per" in step(explained, "rate limits")


def test_says_when_the_application_could_not_authenticate_in_truth(folder: Path, run: Run) -> None:
    catalog = folder / "catalog" / "all.yaml"
    catalog.write_text(catalog.read_text().replace("/pets,", "/pets, security: [jwt],"))
    explained = told(run, "--application", "late", "--api", "Pets")
    assert explained["reason"] == "subscription_not_found"
    assert explained["advice"][-1] == (
        "In truth it cannot authenticate: application late has no consumer key in the catalog."
    )
    assert not [it for it in told(run, *SUBSCRIBED, "--path", "/ip")["advice"] if "truth" in it]


def test_a_key_of_the_other_type_is_refused_where_the_api_takes_one(folder: Path, run: Run) -> None:
    (folder / "catalog" / "more.yaml").write_text(
        "apis: [{name: Prod, version: v1, context: /prod, key_types: [PRODUCTION],"
        " resources: [{methods: [GET], path: '/{id}/b'}]}]\n"
        "subscriptions: [{application: mobile, api: Prod, version: v1}]\n"
    )
    as_mobile = ("--application", "mobile", "--api", "Prod")
    assert told(run, *as_mobile)["reason"] is None
    assert told(run, *as_mobile, "--key-type", "SANDBOX")["reason"] == "wrong_key_type"


def test_a_path_is_made_that_leads_to_the_resource(folder: Path, run: Run) -> None:
    (folder / "catalog" / "more.yaml").write_text(
        "apis: [{name: Tree, version: v1, context: /tree, resources: ["
        "{methods: [GET], path: '/a/1'}, {methods: [POST], path: '/a/{id}'},"
        "{methods: [GET], path: '/a/{id}/{part}.{format}'}, {methods: [GET], path: '/b/*'},"
        "{methods: ['*'], path: '/straße/{id}'}]}]\n"
    )
    for template, method in (
        ("/a/1", "GET"),
        ("/a/{id}", "POST"),
        ("/a/{id}/{part}.{format}", "GET"),
        ("/b/*", "GET"),
        ("/straße/{id}", "*"),
    ):
        explained = told(run, "--api", "Tree", "--resource", template)
        assert step(explained, "match") == f"Tree v1, resource {method} {template}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--application", "mobil", "--api", "HttpbinAPI", "--resource", "/ip"),
            "there is no application 'mobil' in the catalog; did you mean 'mobile'?",
        ),
        (
            ("--application", "mobile", "--api", "HttpbinApi", "--resource", "/ip"),
            "there is no API 'HttpbinApi' in the catalog; did you mean 'HttpbinAPI'?",
        ),
        (
            ("--api", "Pets", "--version", "v2"),
            "there is no version of API 'Pets' 'v2' in the catalog; known are: v1",
        ),
        (
            ("--api", "HttpbinAPI", "--resource", "/ipp"),
            "HttpbinAPI 1.0.0 has no resource '/ipp': GET /ip, GET /admin, GET /once, GET /health",
        ),
        (
            ("--api", "HttpbinAPI"),
            "say which resource of HttpbinAPI 1.0.0 is meant: "
            "GET /ip, GET /admin, GET /once, GET /health",
        ),
    ],
)
def test_a_name_that_is_not_there_gets_the_one_that_is_like_it(
    arguments: tuple[str, ...], said: str, run: Run
) -> None:
    done = run("explain", *arguments)
    assert (done.code, done.out, done.err) == (2, "", f"extauthz: {said}\n")


def test_asks_for_the_version_where_none_is_the_default(folder: Path, run: Run) -> None:
    (folder / "catalog" / "more.yaml").write_text(
        "apis: [{name: Pets, version: v2, context: /pets2, resources: [{methods: [GET], path: /*}]}]\n"
    )
    done = run("explain", "--api", "Pets")
    assert done.err == "extauthz: API 'Pets' has no default version; say which of v1, v2\n"
    assert told(run, "--api", "Pets", "--version", "v2")["reason"] == "missing_credentials"
