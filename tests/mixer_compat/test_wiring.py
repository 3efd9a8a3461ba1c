"""The Mixer door of a whole service, as its settings want it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.answers.denial import DenialStyle
from extauthz.app.core import open_core
from extauthz.app.doors.mixer import (
    MIXER,
    open_mixer_door,
    read_callers,
    read_handler_params,
)
from extauthz.app.service import METRICS, list_file_problems, open_service, read_listeners
from extauthz.errors import ConfigError
from extauthz.serving.door import Door
from extauthz.serving.health import HealthStatus
from extauthz.serving.load import Load
from extauthz.serving.methods import Call, UnaryMethod
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings
from mixer_compat.adapter import SERVICES
from mixer_compat.property_names import WSO2_NAMES
from mixer_compat.proto import model_pb2
from tests.builders import S
from tests.mixer_compat.asking import AUTHORIZATION, METRIC, a_metric, an_authorization, reason_of

KEY = "a-good-key"
CATALOG = """
apis:
  - {name: Pets, version: v1, context: /pets/v1, security: [api_key], resources: [{methods: ["*"], path: "/*"}]}
applications:
  - name: mobile
    api_keys: [{sha256: dba2fb0354a274d0683d1b22454b7dbee741385afce3155904f2f302d456f49b}]
subscriptions: [{application: mobile, api: Pets, version: v1, tier: Gold}]
tiers: {Gold: {limits: [{requests: 2, per: day, algorithm: calendar}]}}
"""
GOOD = {"method": "GET", "path": "/pets/v1/1", "api_key": KEY}


def read(folder: Path, **sections: Any) -> Settings:
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump({"catalog": {"files": ["catalog.yaml"]}, **sections}))
    return read_settings(file, {})


def problems_of(folder: Path, **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, **sections)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


# Settings


def test_the_door_is_closed_unless_it_has_an_address(tmp_path: Path) -> None:
    assert [each.door for each in read_listeners(read(tmp_path))] == ["grpc"]
    listeners = read_listeners(read(tmp_path, listen={"mixer": "127.0.0.1:0"}))
    assert [(each.door, each.tls) for each in listeners] == [("grpc", None), (MIXER, None)]


def test_every_key_is_read(tmp_path: Path) -> None:
    tls = {"cert": "m.crt", "key": "m.key", "client_ca": "ca.crt"}
    mixer = {
        "tls": tls,
        "callers": {
            "token_file": "tokens", "token_header": "X-Api-Key", "uri_sans": ["spiffe://a/b"],
        },
        "compat": "wso2-adapter",
        "limits_in_quota": True,
        "properties": {"host": "h"},
        "headers": {"p": "X-Tenant"},
        "query": {"q": "key"},
        "quota_tiers": {"rq": "Gold"},
        "valid_for": "30s",
        "valid_uses": 7,
        "quota_valid_for": "250ms",
    }  # fmt: skip
    settings = read(tmp_path, mixer=mixer, server={"shadow": "mixer"})
    found = settings.mixer
    assert found.tls is not None
    assert [found.tls.cert, found.tls.key, found.tls.client_ca, found.callers.token_file] == [
        tmp_path / name for name in ("m.crt", "m.key", "ca.crt", "tokens")
    ]
    assert found.callers.token_header == "x-api-key"
    assert found.quota_valid_for == S // 4
    params = read_handler_params(settings)
    assert (params.names.host, params.names.api) == ("h", WSO2_NAMES.api)
    assert (params.headers, params.query) == ({"p": "x-tenant"}, {"q": "key"})
    assert params.quota_tiers == {"rq": "Gold"}
    assert (params.valid_for_us, params.valid_uses) == (30 * S, 7)
    assert params.as_wso2_adapter and params.limits_in_quota and params.shadow


@pytest.mark.parametrize("host", ["grpcio", "envoy"])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_host_is_told_whose_certificates_pass_at_this_door_alone(
    host: str, workers: int, tmp_path: Path
) -> None:
    tls = {"cert": "a", "key": "b", "client_ca": "c"}
    settings = read(
        tmp_path,
        listen={"mixer": "127.0.0.1:0"},
        mixer={"tls": tls, "callers": {"uri_sans": ["spiffe://a/b", "spiffe://a/c"]}},
        server={"host": host, "workers": workers, "tls": tls},
        counters={"store": "redis", "url": "redis://127.0.0.1:1"},
    )
    listeners = {each.door: each.tls for each in read_listeners(settings.for_worker())}
    grpc_tls, mixer_tls = listeners["grpc"], listeners[MIXER]
    assert grpc_tls is not None and mixer_tls is not None
    assert mixer_tls.client_uri_sans == ("spiffe://a/b", "spiffe://a/c")
    assert grpc_tls.client_uri_sans == ()


def test_the_defaults_are_safe(tmp_path: Path) -> None:
    params = read_handler_params(read(tmp_path))
    assert not params.limits_in_quota and not params.shadow and not params.as_wso2_adapter
    assert (params.valid_for_us, params.valid_uses) == (S, 1000)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"mixer": {"properties": {"hots": "h"}}}, "mixer.properties: hots is no part"),
        ({"mixer": {"valid_uses": 0}}, "mixer.valid_uses: "),
        ({"mixer": {"quota_valid_for": "0s"}}, "mixer.quota_valid_for: "),
        ({"mixer": {"headers": {"p": "Host"}}}, "mixer.headers.p: host is the proxy's own"),
        ({"mixer": {"compat": "wso2"}}, "mixer.compat: "),
        ({"listen": {"mixer": "nowhere"}}, "listen.mixer: write host:port"),
        (
            {"mixer": {"callers": {"uri_sans": ["spiffe://a/b"]}}},
            "mixer.callers.uri_sans: asks for client certificates; set mixer.tls.client_ca",
        ),
    ],
)
def test_what_is_wrong_is_said(sections: dict[str, Any], expected: str, tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, **sections)
    assert problem.startswith(expected)


def test_a_file_holds_a_token_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("\n  new-token \nold-token\n\n")
    settings = read(tmp_path, mixer={"callers": {"token_file": "tokens"}})
    callers = read_callers(settings)
    assert [token.reveal() for token in callers.tokens] == ["new-token", "old-token"]
    assert "new-token" not in repr(callers)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n \n", "holds 0 tokens; write 1 to 16"),
        ("a\n" * 17, "holds 17 tokens"),
        (None, "does not exist"),
    ],
)
def test_a_file_without_a_token_stops_the_start(
    text: str | None, says: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "tokens").write_text(text)
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = read(tmp_path, mixer={"callers": {"token_file": "tokens"}})
    (problem,) = list_file_problems(settings)
    assert problem.file == str(tmp_path / "tokens")
    assert says in problem.message


# The service


async def ask(door: Door, path: str, data: bytes) -> bytes:
    method = door.table.find(path)
    assert isinstance(method, UnaryMethod)
    return await door.answer_unary(method, data, Call())


async def reason(door: Door, **changes: str) -> str:
    asked = an_authorization({**GOOD, **changes}).SerializeToString()
    return reason_of(model_pb2.CheckResult.FromString(await ask(door, AUTHORIZATION, asked)))


async def test_a_service_answers_mixer_and_counts(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = read(tmp_path, listen={"grpc": "127.0.0.1:0", "mixer": "127.0.0.1:0"})
    async with open_service(settings) as service:
        door = service.doors[MIXER]
        service.words["serve"]()
        assert {door.health.find(name) for name in SERVICES} == {HealthStatus.SERVING}
        said = [await reason(door) for _ in range(3)]
        assert said == ["allowed", "allowed", "rate_limited"]
        assert await reason(door, api_key="guessed") == "invalid_credentials"


async def test_a_path_that_is_not_in_normal_form_is_refused_and_not_counted(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = read(
        tmp_path,
        listen={"grpc": "127.0.0.1:0", "mixer": "127.0.0.1:0"},
    )
    async with open_service(settings) as service:
        door = service.doors[MIXER]
        for _ in range(3):
            assert await reason(door, path="/pets//v1/1") == "malformed_request"
        assert await reason(door) == "allowed", "what was refused was not counted"


async def test_without_an_address_there_is_no_door(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    async with open_service(read(tmp_path, listen={"grpc": "127.0.0.1:0"})) as service:
        assert MIXER not in service.doors


async def test_reports_that_were_answered_are_read_before_the_end(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = read(tmp_path, listen={"grpc": "127.0.0.1:0", "mixer": "127.0.0.1:0"})
    async with open_core(settings) as core:
        async with open_mixer_door(settings, core, DenialStyle(), Load()) as mixer:
            assert mixer is not None
            await ask(mixer.door, METRIC, a_metric([GOOD, GOOD]).SerializeToString())
            assert mixer.reports.records == 0
        assert mixer.reports.records == 2


async def test_reports_show_in_metrics(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    settings = read(tmp_path, listen={"grpc": "127.0.0.1:0", "mixer": "127.0.0.1:0"})
    async with open_service(settings) as service:
        await ask(service.doors[MIXER], METRIC, b"\xff")
        for _ in range(10):
            await asyncio.sleep(0)  # the reader's turn
        text = (await service.questions[METRICS](None)).decode()
    assert "extauthz_reports_unreadable_total 1.0" in text
    assert "extauthz_reports_records_total 0.0" in text
