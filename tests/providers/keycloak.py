"""What Keycloak's tokens and answers are, and what is decided by the recipes for it."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from extauthz.demo.ports import find_free_port
from tests.keys import base64url
from tests.providers.recipes import CLIENT, SECRET, decide, deciding, read_recipe
from tests.providers.running import DOWNLOADS, need, run_until_answered

VERSION: Final = "26.0.7"
ALLOWED: Final = "allowed: web-shop"
UNSIGNED: Final = f"{base64url({'alg': 'none'})}.{base64url({'iss': 'nobody'})}."
_LIGHTWEIGHT: Final = "client.use.lightweight.access.token.enabled"
_OPENID: Final = "/realms/shop/protocol/openid-connect"


class Keycloak:
    """A running Keycloak with a realm, a client that asks, clients that call, and a user."""

    def __init__(self, http: httpx2.Client) -> None:
        self.url = str(http.base_url).rstrip("/")
        self.http = http
        admin = {"grant_type": "password", "client_id": "admin-cli"}
        token = self._ask(
            "/realms/master/protocol/openid-connect/token",
            {**admin, "username": "admin", "password": "admin"},
        )["access_token"]
        self._admin = {"authorization": f"Bearer {token}"}
        self._create("", realm="shop", enabled=True)
        self._create_client("gateway", secret=SECRET)
        self._create_client("public", is_public=True)
        self._create_client(CLIENT)
        self._create_client("light", attributes={_LIGHTWEIGHT: "true"})
        password = {"type": "password", "value": "secret", "temporary": False}
        names = {"firstName": "Carol", "lastName": "C", "email": "carol@shop.example"}
        self._create("/shop/users", username="carol", enabled=True, credentials=[password], **names)

    def tokens_of_user(self, scope: str = "openid") -> Mapping[str, Any]:
        """Access, refresh and ID token."""
        how = {"grant_type": "password", "username": "carol", "password": "secret"}
        return self.tokens(CLIENT, scope=scope, **how)

    def tokens(self, client: str, **how: str) -> Mapping[str, Any]:
        """By client credentials, or as `how` says."""
        client_of = {"client_id": client, "client_secret": "clients-secret"}
        return self._ask(
            f"{_OPENID}/token", {"grant_type": "client_credentials", **client_of, **how}
        )

    def introspect(self, token: str, secret: str = SECRET) -> httpx2.Response:
        """The answer as it is."""
        form = {"token": token, "token_type_hint": "access_token"}
        return self.http.post(f"{_OPENID}/token/introspect", data=form, auth=("gateway", secret))

    def recipe(self, heading: str) -> str:
        """The recipe, for this server."""
        return read_recipe(heading).replace("https://keycloak.example", self.url)

    def _ask(self, path: str, form: Mapping[str, str]) -> Mapping[str, Any]:
        answer = self.http.post(path, data=form)
        assert answer.status_code == 200, answer.text
        found: Mapping[str, Any] = answer.json()
        return found

    def _create(self, path: str, **what: Any) -> None:
        answer = self.http.post(f"/admin/realms{path}", headers=self._admin, json=what)
        assert answer.status_code == 201, answer.text

    def _create_client(
        self,
        name: str,
        *,
        secret: str = "clients-secret",
        is_public: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        audience = {
            "name": "audience",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {
                "included.custom.audience": "shop-api",
                "access.token.claim": "true",
                "introspection.token.claim": "true",
            },
        }
        self._create(
            "/shop/clients",
            clientId=name,
            secret=secret,
            publicClient=is_public,
            serviceAccountsEnabled=not is_public,
            directAccessGrantsEnabled=True,
            protocolMappers=[audience],
            attributes=dict(attributes or {}),
        )


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    need("java", "mvn")
    archive = DOWNLOADS / f"keycloak-quarkus-dist-{VERSION}.zip"
    if not archive.exists():
        coordinates = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
        copy = ("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={coordinates}")
        subprocess.run((*copy, f"-DoutputDirectory={DOWNLOADS}"), check=True)
    folder = tmp_path_factory.mktemp("keycloak")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    port = find_free_port()
    listen = ("--http-host=127.0.0.1", f"--http-port={port}", "--db=dev-mem")
    program = str(folder / f"keycloak-{VERSION}" / "bin" / "kc.sh")
    environment = {
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin",
        "JAVA_OPTS_APPEND": "-Xmx600m",
    }
    url = f"http://127.0.0.1:{port}"
    with (
        run_until_answered(
            ("sh", program, "start-dev", *listen),
            f"{url}/realms/master",
            folder / "keycloak.log",
            environment=environment,
        ),
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        yield Keycloak(http)


def test_answers_are_as_the_documentation_says(keycloak: Keycloak) -> None:
    tokens = keycloak.tokens_of_user()
    for name, kind in (
        ("access_token", "Bearer"),
        ("refresh_token", "Refresh"),
        ("id_token", "ID"),
    ):
        answer = keycloak.introspect(tokens[name]).json()
        assert (answer["active"], answer["token_type"]) == (True, kind), name
        assert "shop-api" in answer["aud"], name
    refused = keycloak.introspect(UNSIGNED)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    unknown = keycloak.introspect(tokens["access_token"], "wrong")
    assert (unknown.status_code, unknown.json()["error"]) == (401, "invalid_request")
    form = {"token": tokens["access_token"], "client_id": "public"}
    public = keycloak.http.post(f"{_OPENID}/token/introspect", data=form)
    assert (public.status_code, public.json()["error"]) == (403, "invalid_request")


async def test_the_recipe_with_keys(keycloak: Keycloak, tmp_path: Path) -> None:
    tokens = keycloak.tokens_of_user()
    async with deciding(tmp_path / "c", keycloak.recipe("Keycloak"), "jwt") as core:
        assert await decide(core, keycloak.tokens(CLIENT)["access_token"]) == ALLOWED
        assert await decide(core, tokens["access_token"]) == ALLOWED
        for other in (tokens["refresh_token"], tokens["id_token"], UNSIGNED, "opaque"):
            assert await decide(core, other) == "invalid_credentials"
        # They have no aud, and so say nothing of whom they are for.
        light = keycloak.tokens("light")["access_token"]
        assert await decide(core, light) == "invalid_credentials"


async def test_the_recipe_without_keys(keycloak: Keycloak, tmp_path: Path) -> None:
    recipe = keycloak.recipe("Keycloak's lightweight access tokens")
    tokens = keycloak.tokens_of_user()
    good = keycloak.tokens(CLIENT)["access_token"]
    async with deciding(tmp_path / "c", recipe, "opaque") as core:
        assert await decide(core, good) == ALLOWED
        assert await decide(core, tokens["access_token"]) == ALLOWED
        for other in (tokens["refresh_token"], tokens["id_token"], UNSIGNED):
            assert await decide(core, other) == "invalid_credentials"
        offline = keycloak.tokens_of_user("openid offline_access")["refresh_token"]
        assert await decide(core, offline) == "invalid_credentials"
        for other in ("garbage", "a.b.c", "../../etc/passwd", "a" * 16_384, good[:-8] + "AAAAAAAA"):
            assert await decide(core, other) == "token_inactive"
        # It is good, and nobody's: its client is no application's.
        light = keycloak.tokens("light")["access_token"]
        assert await decide(core, light) == "subscription_not_found"


async def test_a_wrong_secret_is_our_fault_and_is_named(
    keycloak: Keycloak, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = keycloak.recipe("Keycloak's lightweight access tokens")
    async with deciding(tmp_path / "c", recipe.replace("gateway", "nobody"), "opaque") as core:
        assert await decide(core, "garbage") == "unavailable"
    assert "refused our client id and secret (401 invalid_request)" in caplog.text
    assert SECRET not in caplog.text
