"""The page on architecture is true: its picture, its packages, and the way of a request."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import grpc
import pytest
import yaml

from extauthz.app.service import open_service, read_host_limits, read_listeners
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.settings.reading import read_settings
from tests.architecture_page import (
    PAGE,
    PICTURE,
    PROGRAM,
    REWRITE,
    ROOT,
    Stop,
    draw,
    find_function,
    put_packages,
    read_floors,
    read_way,
    write_packages,
)
from tests.builders import API_KEY, sha256
from tests.envoy.wire import a_check
from tests.mixer_compat.asking import AUTHORIZATION, an_authorization

ENVOY, MIXER = "Envoy", "Mixer"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
CATALOG = {
    "apis": [
        {
            "name": "Pets",
            "version": "v1",
            "context": "/pets/v1",
            "security": ["api_key"],
            "resources": [{"methods": ["GET"], "path": "/{id}"}],
        }
    ],
    "applications": [
        {"name": "mobile", "api_keys": [{"sha256": sha256(API_KEY).hex()}]},
        {"name": "rogue"},
    ],
    "subscriptions": [{"application": "mobile", "api": "Pets", "version": "v1", "tier": "Gold"}],
    "tiers": {"Gold": {"limits": [{"requests": 10, "per": "day"}]}},
    "deny": [{"name": "rogues", "application": "rogue"}],
}
QUESTIONS = {
    ENVOY: (CHECK, a_check(path="/pets/v1/1", headers={"x-api-key": API_KEY})),
    MIXER: (
        AUTHORIZATION,
        an_authorization(
            {"method": "GET", "path": "/pets/v1/1", "api_key": API_KEY}
        ).SerializeToString(),
    ),
}


def _list_way(door: str) -> list[Stop]:
    return [
        *read_way(f"In at the door for {door}"),
        *read_way("The decision"),
        *read_way(f"Out at the door for {door}"),
    ]


def test_the_picture_shows_the_contracts_that_hold() -> None:
    assert draw() == PICTURE.read_text(), REWRITE


def test_the_picture_has_every_package_once() -> None:
    names = [box.title for floor in read_floors() for box in floor]
    parts = {path.name for path in (ROOT / "extauthz").iterdir() if (path / "__init__.py").exists()}
    assert sorted(names) == sorted(set(names))
    assert parts | {"mixer_compat", "errors", "ports", "clock"} <= set(names)


def test_the_door_for_mixer_stands_where_its_contract_lets_it() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (forbidden,) = (
        set(contract["forbidden_modules"])
        for contract in contracts["contracts"]
        if contract.get("source_modules") == ["mixer_compat"]
    )
    floors = [[box.name for box in floor] for floor in read_floors()]
    at = next(number for number, floor in enumerate(floors) if "mixer_compat" in floor)
    assert {name for floor in floors[: at + 1] for name in floor} - {"mixer_compat"} <= forbidden
    assert not {name for floor in floors[at + 1 :] for name in floor} & forbidden


def test_the_page_has_every_package_and_what_it_says_of_itself() -> None:
    assert put_packages(PAGE.read_text()) == PAGE.read_text(), REWRITE
    rows = dict(re.findall(r"^\| `(.+?)` \| (.*) \|$", write_packages(), re.MULTILINE))
    packages = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for root in PROGRAM
        for path in (ROOT / root).rglob("__init__.py")
    }
    assert packages <= rows.keys()
    silent = sorted(name for name, text in rows.items() if not text)
    assert not silent, "a package says in its __init__.py what is in it"


@pytest.mark.parametrize("door", QUESTIONS)
def test_what_stands_on_the_way_exists(door: str) -> None:
    way = _list_way(door)
    assert len(way) > 15
    assert [stop for stop in way if find_function(stop) is None] == []


def test_files_and_functions_that_are_named_in_passing_exist() -> None:
    text = PAGE.read_text()
    files = set(re.findall(r"`((?:extauthz|mixer_compat|tests)/[\w/.]+)`", text))
    assert files and [name for name in sorted(files) if not (ROOT / name).exists()] == []
    for function, file in re.findall(r"`([\w.]+)` in `([\w/.]+)`", text):
        assert find_function(Stop(file, function)) is not None, (file, function)


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The addresses of a running service's doors."""
    settings = {
        "catalog": {"files": ["catalog.yaml"]},
        "listen": {"grpc": "127.0.0.1:0", "mixer": "127.0.0.1:0"},
    }
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    (tmp_path / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    read = read_settings(tmp_path / "extauthz.yaml", {})
    async with open_service(read) as service:
        host = GrpcioHost(service.doors, read_listeners(read), limits=read_host_limits(read.server))
        await host.start()
        try:
            yield dict(zip((ENVOY, MIXER), map(str, host.addresses), strict=True))
        finally:
            await host.stop(0)


@contextmanager
def _watching() -> Iterator[list[Stop]]:
    """The functions of the program that this thread calls meanwhile, in their order."""
    called: list[Stop] = []
    folder = f"{ROOT}/"

    def notice(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folder):
            called.append(Stop(code.co_filename.removeprefix(folder), code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(notice)
    try:
        yield called
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("door", QUESTIONS)
async def test_a_request_takes_the_way_of_the_page(door: str, doors: dict[str, str]) -> None:
    method, question = QUESTIONS[door]
    async with grpc.aio.insecure_channel(doors[door]) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        with _watching() as called:
            answer = await call(question, timeout=30)
    assert answer
    rest = iter(called)
    for stop in _list_way(door):
        assert stop in rest, f"{stop} is not called, or called before the item above it"
