"""What Spring Authorization Server's tokens are, and what is decided by the recipes for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import jwt
import pytest

from extauthz.demo.ports import find_free_port
from tests.keys import base64url
from tests.providers.recipes import CLIENT, SECRET, decide, deciding, read_recipe
from tests.providers.running import DOWNLOADS, need, run_until_answered

HEADING: Final = "Spring Authorization Server"
ALLOWED: Final = "allowed: web-shop"
UNSIGNED: Final = f"{base64url({'alg': 'none'})}.{base64url({'iss': 'nobody'})}."
_PROJECT: Final = Path(__file__).with_name("spring")


class SpringServer:
    """A running server."""

    def __init__(self, http: httpx2.Client) -> None:
        self.url = str(http.base_url).rstrip("/")
        self.http = http

    def token(self) -> str:
        """An access token by client credentials."""
        form = {"grant_type": "client_credentials", "scope": "read write"}
        answer = self.http.post("/oauth2/token", data=form, auth=(CLIENT, "clients-secret"))
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["access_token"]
        return found

    def recipe(self, number: int) -> str:
        """The recipe, for this server."""
        return read_recipe(HEADING, number).replace("https://auth.example", self.url)


def _register(name: str, secret: str, *scopes: str) -> Mapping[str, Any]:
    registration = {
        "client-id": name,
        "client-secret": f"{{noop}}{secret}",
        "client-authentication-methods": "client_secret_basic",
        "authorization-grant-types": "client_credentials",
        "scopes": ",".join(scopes),
    }
    return {"registration": registration}


@pytest.fixture(scope="module")
def spring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpringServer]:
    need("java", "mvn")
    project = DOWNLOADS / "spring"
    shutil.copytree(_PROJECT, project, dirs_exist_ok=True)
    class_path = project / "class-path"
    build = ("mvn", "-q", "-B", "compile", "dependency:build-classpath")
    subprocess.run((*build, f"-Dmdep.outputFile={class_path}"), cwd=project, check=True)
    clients = {
        "gateway": _register("gateway", SECRET),
        "shop": _register(CLIENT, "clients-secret", "read", "write"),
    }
    settings = {"spring.security.oauth2.authorizationserver": {"client": clients}}
    port = find_free_port()
    path = f"{project / 'target' / 'classes'}:{class_path.read_text()}"
    listen = (f"--server.port={port}", "--server.address=127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    with (
        run_until_answered(
            ("java", "-Xmx300m", "-cp", path, "example.Server", *listen),
            f"{url}/.well-known/openid-configuration",
            tmp_path_factory.mktemp("spring") / "server.log",
            environment={"SPRING_APPLICATION_JSON": json.dumps(settings)},
        ),
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        yield SpringServer(http)


def test_the_client_stands_in_the_subject_alone(spring: SpringServer) -> None:
    token = spring.token()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["aud"], claims["scope"]) == (CLIENT, CLIENT, ["read", "write"])
    assert claims.keys().isdisjoint({"client_id", "azp"})
    assert jwt.get_unverified_header(token).keys() == {"kid", "alg"}


async def test_the_recipe_with_keys(spring: SpringServer, tmp_path: Path) -> None:
    async with deciding(tmp_path / "c", spring.recipe(0), "jwt") as core:
        assert await decide(core, spring.token()) == ALLOWED
        for other in (UNSIGNED, spring.token()[:-8] + "AAAAAAAA", "opaque"):
            assert await decide(core, other) == "invalid_credentials"


async def test_without_the_recipes_claims_the_log_says_what_was_looked_for(
    spring: SpringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = "".join(
        line for line in spring.recipe(0).splitlines(keepends=True) if "claims:" not in line
    )
    caplog.set_level("INFO", "extauthz")
    async with deciding(tmp_path / "c", recipe, "jwt") as core:
        assert await decide(core, spring.token()) == "subscription_not_found"
    assert "looked for 'azp', 'client_id', 'consumerKey', and it has 'aud', 'exp'" in caplog.text


async def test_the_recipe_with_introspection(spring: SpringServer, tmp_path: Path) -> None:
    async with deciding(tmp_path / "c", spring.recipe(1), "opaque") as core:
        assert await decide(core, spring.token()) == ALLOWED
        assert await decide(core, UNSIGNED) == "invalid_credentials"
        for other in ("garbage", "../../etc/passwd", spring.token()[:-8] + "AAAAAAAA"):
            assert await decide(core, other) == "token_inactive"
