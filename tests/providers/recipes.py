"""Recipes of the documentation, and the pipeline that goes by one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from extauthz.app.core import Core, open_core
from extauthz.model.decision import Allow
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings

SECRET: Final = "gateways-secret"
"""Of the client `gateway`, which asks."""
CLIENT: Final = "web-shop-client"
PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "identity-providers.md"


def read_recipe(heading: str, number: int = 0) -> str:
    """The YAML under a heading of the page."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = [one for one in section if one.startswith(f"{heading}\n")]
    found: list[str] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return found[number]


@asynccontextmanager
async def deciding(folder: Path, recipe: str, *security: str) -> AsyncIterator[Core]:
    """What decides about one API with these schemes, by the recipe."""
    async with open_core(_write_settings(folder, recipe, security)) as core:
        yield core


def _write_settings(folder: Path, recipe: str, security: tuple[str, ...]) -> Settings:
    catalog: dict[str, Any] = {
        "apis": [
            {
                "name": "Shop",
                "version": "1",
                "context": "/shop",
                "security": [*security],
                "resources": [{"methods": ["GET"], "path": "/*"}],
            }
        ],
        "subscriptions": [{"application": "web-shop", "api": "Shop", "version": "1"}],
        **yaml.safe_load(PAGE.read_text().partition("```yaml\n")[2].partition("```")[0]),
    }
    folder.mkdir()
    (folder / "client-secret").write_text(SECRET)
    (folder / "issuer.yaml").write_text(recipe)
    (folder / "rest.yaml").write_text(yaml.safe_dump(catalog))
    (folder / "extauthz.yaml").write_text("catalog: {files: [issuer.yaml, rest.yaml]}\n")
    return read_settings(folder / "extauthz.yaml", {})


async def decide(core: Core, token: str) -> str:
    """The reason, or whose token it is."""
    request = ApiRequest(
        method="GET",
        host="shop.example",
        path="/shop/1/things",
        headers=Headers([("authorization", f"Bearer {token}")]),
        source=Peer(address="192.0.2.1"),
    )
    decision = await core.pipeline.decide(request)
    if not isinstance(decision, Allow):
        return decision.reason.value
    assert decision.identity.application is not None
    return f"allowed: {decision.identity.application.name}"
