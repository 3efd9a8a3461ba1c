"""Explanations, limits, the catalog and blocks, as a running service answers about them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import TypeAdapter

from extauthz.app.admin.inspection import (
    BlockedAnswer,
    BlocksAnswer,
    CatalogAnswer,
    ExplainAnswer,
    LimitsAnswer,
    UnblockedAnswer,
)
from tests.app.admin.services import Running, running
from tests.builders import API_KEY, sha256
from tests.redis_server import find_shared, stop_shared

TOKEN: Final = "a-token-of-the-tests-0123456789"
BEARER: Final = {"authorization": f"Bearer {TOKEN}"}
BLOCKS: Final = {"emergency": {"files": ["blocks.yaml"]}}
HIDDEN: Final = (API_KEY, "alice", "secret-", TOKEN)
"""What no answer holds."""


@pytest.fixture(scope="module", autouse=True)
def _redis_servers() -> Iterator[None]:
    yield
    stop_shared()


@asynccontextmanager
async def known(folder: Path, **settings: Any) -> AsyncIterator[Running]:
    """A service whose callers have a token."""
    (folder / "tokens").write_text(f"{TOKEN}\n")
    admin = {"admin": {"token_file": "tokens"}}
    async with running(folder, {**admin, **BLOCKS, **settings}) as it:
        it.http.headers.update(BEARER)
        yield it


async def post(it: Running, path: str, body: Any, status: int = 200) -> Any:
    answer = await it.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert not [secret for secret in HIDDEN if secret in answer.text]
    return answer.json()


async def test_explains_by_the_counters_and_blocks_of_the_service(tmp_path: Path) -> None:
    few = {"path": "/pets/v1/secret-dog/few", "method": "GET"}
    as_mobile = {**few, "as": {"application": "mobile"}}
    with_key = {**few, "headers": {"x-api-key": API_KEY}}
    async with known(tmp_path) as it:
        for asked in (with_key, as_mobile, with_key):
            told = await post(it, "/api/explain", asked)
            TypeAdapter(ExplainAnswer).validate_python(told)
            assert told["decision"] == "allow", "an explanation takes something"
        await it.decide("/pets/v1/dog/few")
        for asked in (with_key, as_mobile):
            told = await post(it, "/api/explain", asked)
            assert (told["decision"], told["reason"]) == ("deny", "rate_limited")
        await post(it, "/api/blocks", {"application": "mobile"})
        told = await until_in_force(it, as_mobile)
        assert "block-" in told["steps"][-1]["found"]
        rates = await it.get("/api/decisions")
        assert len(rates["decisions"]) == 1, "an explanation is no decision"


async def until_in_force(it: Running, asked: dict[str, Any]) -> Any:
    """What is explained once the block is read from its file; ten times a second it is."""
    for _ in range(500):
        told = await post(it, "/api/explain", asked)
        if told["reason"] == "blocked":
            return told
    raise AssertionError("the block does not come into force")


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({"path": "/", "as": {"application": "mobil"}}, 404, "unknown_name", "mean 'mobile'"),
        ({"api": "Petz"}, 404, "unknown_name", "did you mean 'Pets'"),
        ({"api": "Pets"}, 404, "unknown_name", "say which resource of Pets v1"),
        ({"path": "pets"}, 400, "bad_question", "must begin with a slash"),
        ({"path": "/", "aplication": "x"}, 400, "bad_body", "aplication"),
        ([], 400, "bad_body", "the body"),
    ],
)
async def test_says_what_is_wrong_with_a_question(
    body: Any, status: int, code: str, said: str, tmp_path: Path
) -> None:
    async with running(tmp_path) as it:
        told = await post(it, "/api/explain", body, status)
    assert told["error"]["code"] == code and said in told["error"]["message"]


async def test_keys_are_not_guessed_faster_than_at_a_door(tmp_path: Path) -> None:
    limit = {"credentials": {"failed_attempts": {"requests": 5, "per": "10m"}}}
    async with running(tmp_path, limit) as it:
        asked = {"path": "/pets/v1/dog", "headers": {"x-api-key": "secret-key"}}
        for number in range(5):
            told = await post(it, "/api/explain", {**asked, "client": f"192.0.2.{number}"})
            assert told["reason"] == "invalid_credentials"
        refused = await it.http.post("/api/explain", json=asked)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        # The doors do not count what was asked here.
        await it.decide("/pets/v1/dog")
        assert (await it.get("/api/decisions"))["decisions"][0]["outcome"] == "allow"


async def test_limits_are_listed_with_what_is_left(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        assert (await it.get("/api/limits"))["limits"] == []
        await it.decide("/pets/v1/dog/few")
        told = await it.get("/api/limits")
        TypeAdapter(LimitsAnswer).validate_python(told)
        (row,) = told["limits"]
        assert (row["level"], row["tier"], row["resource"]) == ("resource", "One", "/{pet}/few")
        assert (row["used"], row["limit"], row["share"], row["window"]) == (1, 1, 1.0, "1h")
        assert (row["counted"], told["processes"]) == ("process", 1)
        assert (await it.get("/api/limits?level=client"))["limits"] == []
        wrong = await it.http.get("/api/limits?level=nothing")
        assert wrong.status_code == 400 and wrong.json()["error"]["code"] == "bad_parameter"


async def test_the_catalog_is_searched_page_by_page(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        told = await it.get("/api/catalog?search=mobile&kind=application")
        TypeAdapter(CatalogAnswer).validate_python(told)
        (mobile,) = told["results"]
        assert (mobile["name"], mobile["subscription_count"]) == ("mobile", 1)
        found: list[Any] = []
        page = await it.get("/api/catalog?limit=1")
        while page["next"]:
            found += page["results"]
            page = await it.get(f"/api/catalog?limit=1&after={page['next']}")
        found += page["results"]
        whole = await it.get("/api/catalog?limit=100")
        assert found == whole["results"] and whole["next"] is None
        assert {it["kind"] for it in found} == {
            "api", "application", "api_key", "tier", "subscription",
        }  # fmt: skip
        key = sha256(API_KEY).hex()
        (one,) = (await it.get(f"/api/catalog?search={key}"))["results"]
        assert (one["id"], one["application"]) == (key[:12], "mobile")
        assert not [secret for secret in HIDDEN if secret in json.dumps(whole)]
        other = await it.http.get("/api/catalog?after=0.api.1")
        assert (other.status_code, other.json()["error"]["code"]) == (409, "catalog_changed")


@pytest.mark.parametrize("place", ["file", "redis"])
async def test_blocks_and_unblocks_where_a_token_says_who(place: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {}
    if place == "redis":
        deployment = find_shared("redis")
        deployment.flush()
        settings = {
            "counters": {"store": "redis", "url": f"unix://{deployment.servers[0].socket}"},
            "emergency": {},
        }
    async with known(tmp_path, **settings) as it:
        told = await post(it, "/api/blocks", {"user": "alice", "for": "1h", "force": True})
        TypeAdapter(BlockedAnswer).validate_python(told)
        assert told["created"]
        if place == "redis":
            assert (told["written_to"], told["processes"], told["in_force"]) == ("redis", 1, 1)
        again = await post(it, "/api/blocks", {"user": "alice", "for": "2h", "force": True})
        assert (again["id"], again["created"]) == (told["id"], False)
        gone = (await it.http.delete(f"/api/blocks/{told['id']}")).json()
        TypeAdapter(UnblockedAnswer).validate_python(gone)
        assert gone["removed"]
        again = (await it.http.delete(f"/api/blocks/{told['id']}")).json()
        assert (again["removed"], again["taken_from"]) == (False, [])


async def test_who_is_blocked_is_listed_for_all_and_changed_by_known_callers_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "blocks.yaml").write_text("deny: [{id: one, user: alice, reason: leaked}]\n")
    async with running(tmp_path, BLOCKS) as it:
        told = await it.get("/api/blocks")
        TypeAdapter(BlocksAnswer).validate_python(told)
        (block,) = told["blocks"]
        assert (block["id"], block["kind"], block["reason"]) == ("one", "block", "leaked")
        assert "alice" not in json.dumps(told)
        for method, path in (("POST", "/api/blocks"), ("DELETE", "/api/blocks/one")):
            refused = await it.http.request(method, path, json={"user": "bob", "force": True})
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                403, "caller_not_known",
            )  # fmt: skip
        assert (await it.get("/api/blocks"))["count"] == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"application": "mobil"}, 409, "not_blocked"),
        ({"ip": "0.0.0.0/0"}, 409, "not_blocked"),
        ({}, 400, "bad_block"),
        ({"ip": "somewhere"}, 400, "bad_block"),
        ({"user": "x", "for": "soon"}, 400, "bad_body"),
        ({"user": "x", "by": "somebody else"}, 400, "bad_body"),
    ],
)
async def test_a_block_that_is_not_good_is_refused(
    body: dict[str, str], status: int, code: str, tmp_path: Path
) -> None:
    async with known(tmp_path) as it:
        told = await post(it, "/api/blocks", body, status)
        assert told["error"]["code"] == code
        assert (await it.get("/api/blocks"))["count"] == 0


async def test_says_where_blocks_could_be_kept_when_there_is_no_place(tmp_path: Path) -> None:
    async with known(tmp_path, emergency={}) as it:
        told = await post(it, "/api/blocks", {"user": "alice", "force": True}, 503)
    assert "set emergency.redis or emergency.files" in told["error"]["message"]
