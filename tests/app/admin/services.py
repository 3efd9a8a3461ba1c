"""A service with the admin API, in this process, and decisions made through its door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from extauthz.app.service import GRPC, Service, open_service
from extauthz.serving.methods import Call, UnaryMethod
from extauthz.settings.reading import read_settings
from tests.builders import API_KEY, sha256
from tests.envoy.wire import a_check

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
CATALOG: Final[dict[str, Any]] = {
    "apis": [
        {
            "name": "Pets",
            "version": "v1",
            "context": "/pets",
            "security": ["api_key"],
            "resources": [
                {"methods": ["GET"], "path": "/{pet}"},
                {"methods": ["GET"], "path": "/{pet}/few", "tier": "One"},
            ],
        }
    ],
    "applications": [
        {"name": "mobile", "owner": "alice", "api_keys": [{"sha256": sha256(API_KEY).hex()}]}
    ],
    "subscriptions": [{"application": "mobile", "api": "Pets", "version": "v1", "tier": "Gold"}],
    "tiers": {"Gold": {}, "One": {"limits": [{"requests": 1, "per": "1h"}]}},
}


@dataclass(frozen=True, slots=True)
class Running:
    """A service, and a client of its admin listener."""

    service: Service
    http: httpx2.AsyncClient

    async def decide(self, path: str, key: str = API_KEY, **headers: str) -> None:
        """One decision, asked for at the door for Envoy."""
        door = self.service.doors[GRPC]
        method = door.table.find(CHECK)
        assert isinstance(method, UnaryMethod)
        message = a_check(path=path, headers={"x-api-key": key, **headers})
        await door.answer_unary(method, message, Call())

    async def get(self, path: str) -> Any:
        """What a path of the API answers."""
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def running(
    folder: Path, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[Running]:
    """A service whose admin listener is a unix socket in the folder."""
    socket = folder / "admin.sock"
    written = {
        "listen": {"admin": f"unix:{socket}"},
        "catalog": {"files": ["catalog.yaml"]},
        **(settings or {}),
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(written))
    transport = httpx2.AsyncHTTPTransport(uds=str(socket))
    async with (
        open_service(read_settings(folder / "extauthz.yaml", {})) as service,
        httpx2.AsyncClient(transport=transport, base_url="http://admin", timeout=20) as http,
    ):
        service.words["serve"]()
        yield Running(service, http)
