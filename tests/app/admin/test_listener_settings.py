"""Whether the API is there, as the settings say, and which problems of theirs are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from extauthz.app.service import list_file_problems, open_service
from extauthz.errors import ConfigError
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings
from tests.certificates import MutualFiles
from tests.free_ports import find_free_port

TOKEN = "a-token-of-enough-characters"


def read(folder: Path, admin: dict[str, Any], host: str = "127.0.0.1") -> Settings:
    (folder / "catalog.yaml").write_text("tiers: {Gold: {}}\n")
    written = {
        "listen": {"admin": f"{host}:{find_free_port()}"},
        "catalog": {"files": ["catalog.yaml"]},
        "admin": admin,
    }
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(written))
    return read_settings(folder / "extauthz.yaml", {})


@asynccontextmanager
async def asking(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    address = str(settings.listen.admin).replace("0.0.0.0", "127.0.0.1")
    async with (
        open_service(settings),
        httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http,
    ):
        yield http


async def test_a_listener_for_probes_is_not_opened_wider(tmp_path: Path) -> None:
    async with asking(read(tmp_path, {}, host="0.0.0.0")) as http:
        assert (await http.get("/healthz")).status_code == 200
        answer = await http.post("/api/status")
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "api_closed"
        assert "admin.token_file" in answer.json()["error"]["message"]


async def test_a_token_opens_the_api_where_other_machines_connect(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    async with asking(read(tmp_path, {"token_file": "tokens"}, host="0.0.0.0")) as http:
        assert (await http.get("/api/status")).status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert (await http.get("/api/status", headers=headers)).status_code == 200
        assert (await http.get("/readyz")).status_code == 503


async def test_a_token_is_demanded_on_loopback_too_where_one_is_configured(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    async with asking(read(tmp_path, {"token_file": "tokens"})) as http:
        assert (await http.get("/api/status")).status_code == 401


async def test_the_api_can_be_turned_off_or_have_further_names(tmp_path: Path) -> None:
    async with asking(read(tmp_path, {"api": False})) as http:
        assert (await http.get("/api/status")).status_code == 404
    async with asking(read(tmp_path, {"allowed_hosts": ["Admin.example", "fd00::1"]})) as http:
        for host in ("admin.example", "[fd00:0::1]:80", "localhost"):
            assert (await http.get("/api/status", headers={"host": host})).status_code == 200
        assert (await http.get("/api/status", headers={"host": "other"})).status_code == 421


@pytest.mark.parametrize(
    ("tokens", "said"), [(None, "does not exist"), ("short\n", "can be guessed"), ("", "0 tokens")]
)
async def test_tokens_that_are_no_good_are_told_before_and_at_the_start(
    tokens: str | None, said: str, tmp_path: Path
) -> None:
    if tokens is not None:
        (tmp_path / "tokens").write_text(tokens)
    settings = read(tmp_path, {"token_file": "tokens"})
    (problem,) = list_file_problems(settings)
    assert problem.file == str(tmp_path / "tokens") and said in problem.message
    with pytest.raises(ConfigError, match=said):
        async with open_service(settings):
            pass


async def test_tls_files_that_are_no_good_are_told_before_the_start(tmp_path: Path) -> None:
    files = MutualFiles(tmp_path)
    tls = {"cert": "tls.crt", "key": "tls.key", "client_ca": "ca.crt"}
    settings = read(tmp_path, {"tls": tls})
    assert list_file_problems(settings) == []
    files.key.write_text("no key")
    (problem,) = list_file_problems(settings)
    assert problem.file == str(files.key)
