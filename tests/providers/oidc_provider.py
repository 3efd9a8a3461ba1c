"""What oidc-provider's tokens and answers are, and what is decided by the recipes for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from extauthz.demo.ports import find_free_port
from tests.keys import base64url
from tests.providers.recipes import CLIENT, SECRET, decide, deciding, read_recipe
from tests.providers.running import DOWNLOADS, need, run_until_answered

VERSION: Final = "9.13.3"
HEADING: Final = "oidc-provider (Node.js)"
ALLOWED: Final = "allowed: web-shop"
UNSIGNED: Final = f"{base64url({'alg': 'none'})}.{base64url({'iss': 'nobody'})}."
_SCRIPT: Final = Path(__file__).with_suffix(".mjs")


class OidcProvider:
    """A running oidc-provider."""

    def __init__(self, http: httpx2.Client) -> None:
        self.url = str(http.base_url).rstrip("/")
        self.http = http

    def token(self, resource: str = "urn:shop-api") -> str:
        """An access token, opaque or a JWT, by the resource."""
        form = {"grant_type": "client_credentials", "scope": "read", "resource": resource}
        answer = self.http.post("/token", data=form, auth=(CLIENT, "clients-secret"))
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["access_token"]
        return found

    def refresh_token(self) -> str:
        """A live one."""
        return self.http.get("/refresh-token").text

    def introspect(self, token: str, secret: str = SECRET) -> httpx2.Response:
        """The answer as it is."""
        form = {"token": token, "token_type_hint": "access_token"}
        return self.http.post("/token/introspection", data=form, auth=("gateway", secret))

    def recipe(self, number: int) -> str:
        """The recipe, for this server."""
        return read_recipe(HEADING, number).replace("https://oidc.example", self.url)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    need("node", "npm")
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    if not (DOWNLOADS / "node_modules" / "oidc-provider").exists():
        install = ("npm", "install", "--silent", "--prefix", str(DOWNLOADS))
        subprocess.run((*install, f"oidc-provider@{VERSION}"), check=True)
    script = DOWNLOADS / _SCRIPT.name
    shutil.copy(_SCRIPT, script)
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        run_until_answered(
            ("node", str(script), str(port), SECRET),
            f"{url}/.well-known/openid-configuration",
            tmp_path_factory.mktemp("oidc") / "provider.log",
            environment={},
        ),
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        yield OidcProvider(http)


def test_answers_are_as_the_documentation_says(provider: OidcProvider) -> None:
    good = provider.introspect(provider.token()).json()
    assert (good["active"], good["token_type"], good["aud"]) == (True, "Bearer", "urn:shop-api")
    refresh = provider.introspect(provider.refresh_token()).json()
    assert refresh["active"] is True
    assert refresh.keys().isdisjoint({"token_type", "aud"})
    for token in (UNSIGNED, provider.token("urn:shop-api:jwt")):
        refused = provider.introspect(token)
        assert (refused.status_code, refused.json()["error"]) == (400, "unsupported_token_type")
    unknown = provider.introspect("garbage", "wrong")
    assert (unknown.status_code, unknown.json()["error"]) == (401, "invalid_client")


async def test_the_recipe_with_keys(provider: OidcProvider, tmp_path: Path) -> None:
    async with deciding(tmp_path / "c", provider.recipe(0), "jwt") as core:
        good = provider.token("urn:shop-api:jwt")
        assert await decide(core, good) == ALLOWED
        for other in (provider.token(), UNSIGNED, good[:-8] + "AAAAAAAA"):
            assert await decide(core, other) == "invalid_credentials"


async def test_the_recipe_with_introspection(provider: OidcProvider, tmp_path: Path) -> None:
    async with deciding(tmp_path / "c", provider.recipe(1), "jwt", "opaque") as core:
        assert await decide(core, provider.token()) == ALLOWED
        for other in (provider.refresh_token(), UNSIGNED):
            assert await decide(core, other) == "invalid_credentials"
        for other in ("garbage", "a.b.c", "../../etc/passwd", "a" * 16_384):
            assert await decide(core, other) == "token_inactive"
        # The provider answers 400 to its own JWTs, and to whatever claims to be one.
        for other in (
            provider.token("urn:shop-api:jwt"),
            f"{base64url({'alg': 'RS256'})}.e30.AAAA",
        ):
            assert await decide(core, other) == "token_inactive"


async def test_audiences_alone_keep_refresh_tokens_out(
    provider: OidcProvider, tmp_path: Path
) -> None:
    recipe = provider.recipe(1).replace("      require_token_type: true\n", "")
    async with deciding(tmp_path / "c", recipe, "opaque") as core:
        assert await decide(core, provider.token()) == ALLOWED
        assert await decide(core, provider.refresh_token()) == "invalid_credentials"


async def test_a_wrong_client_is_our_fault_and_is_named(
    provider: OidcProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = provider.recipe(1).replace("gateway", "nobody")
    async with deciding(tmp_path / "c", recipe, "opaque") as core:
        assert await decide(core, "garbage") == "unavailable"
    assert "refused our client id and secret (401 invalid_client)" in caplog.text
    assert SECRET not in caplog.text
