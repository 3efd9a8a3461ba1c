"""The page that Prometheus scrapes, of a service that is open."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from extauthz.app.admin.questions import DEPENDENCIES
from extauthz.app.service import GRPC, METRICS, Service, open_service
from extauthz.serving.methods import Call, UnaryMethod
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings
from extauthz.telemetry.measures.dependencies import merge_states
from tests.builders import API_KEY, sha256
from tests.certificates import MutualFiles
from tests.e2e.backends import hold_dead_port
from tests.envoy.wire import a_check

CATALOG: Final[dict[str, Any]] = {
    "apis": [
        {
            "name": "Pets",
            "version": "v1",
            "context": "/pets",
            "security": ["api_key"],
            "resources": [{"methods": ["GET"], "path": "/{pet}"}],
        }
    ],
    "applications": [
        {"name": "mobile", "owner": "alice", "api_keys": [{"sha256": sha256(API_KEY).hex()}]}
    ],
    "subscriptions": [{"application": "mobile", "api": "Pets", "version": "v1", "tier": "Gold"}],
    "tiers": {"Gold": {"limits": [{"requests": 5, "per": "1h"}]}},
}

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read(folder: Path, **sections: Any) -> Settings:
    (folder / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump({"catalog": {"files": ["catalog.yaml"]}, **sections}))
    return read_settings(file, {})


async def ask(service: Service, path: str = "/pets/v1/1", key: str = API_KEY) -> None:
    method = service.doors[GRPC].table.find("/envoy.service.auth.v3.Authorization/Check")
    assert isinstance(method, UnaryMethod)
    message = a_check(path=path, headers={"x-api-key": key})
    await service.doors[GRPC].answer_unary(method, message, Call())


async def scrape(service: Service) -> Samples:
    """Every sample by its name and labels."""
    text = (await service.questions[METRICS](None)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def find(samples: Samples, name: str, **labels: str) -> float:
    """The only sample of that name with these labels, and perhaps others."""
    (value,) = (
        value
        for (sample, told), value in samples.items()
        if sample == name and labels.items() <= dict(told).items()
    )
    return value


async def test_calls_of_redis_are_on_the_page_and_tell_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with hold_dead_port() as port:
        counters = {"store": "redis", "url": f"redis://127.0.0.1:{port}/0"}
        async with open_service(read(tmp_path, counters=counters)) as service:
            await ask(service)
            samples = await scrape(service)
            told = merge_states([await service.questions[DEPENDENCIES](None)])
    calls = "extauthz_dependency_calls_total"
    failed = find(samples, calls, dependency="redis", operation="connect", result="error")
    assert failed >= 1
    assert find(samples, calls, dependency="redis", operation="count", result="ok") == 0
    states = {state.name: state for state in told}
    assert list(states) == ["jwks", "discovery", "introspection", "redis"]
    assert states["redis"].state == "failing" and states["redis"].failures >= failed
    assert states["jwks"].state == "unused"


@pytest.mark.parametrize("disabled", ["true", "false"])
async def test_every_family_is_on_the_page_whatever_turns_opentelemetry_off(
    disabled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", disabled)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    log = {"decisions": str(tmp_path / "decisions.jsonl")}
    async with open_service(read(tmp_path, log=log)) as service:
        for _ in range(6):
            await ask(service)
        await ask(service, key="another")
        samples = await scrape(service)
    gold = {"level": "subscription", "tier": "Gold"}
    states = [
        find(samples, "extauthz_limit_checks_total", **gold, state=state)
        for state in ("within", "near", "over")
    ]
    assert states == [3, 2, 1]
    assert find(samples, "extauthz_decision_duration_seconds_count", outcome="allow") == 5
    assert find(samples, "extauthz_decisions_total", reason="rate_limited") == 1
    for kind in ("apis", "applications", "subscriptions"):
        assert find(samples, "extauthz_catalog_entries", kind=kind) == 1
    assert find(samples, "extauthz_catalog_problems") == 0
    build = {"version": version("extauthz"), "python": python_version(), "host": "grpcio"}
    assert find(samples, "extauthz_build_info", **build) == 1
    assert find(samples, "extauthz_queue_depth", queue="decision_log_file") >= 0
    assert find(samples, "extauthz_queue_capacity", queue="decision_log_file") == 10_000
    assert find(samples, "process_resident_memory_bytes") > 1_000_000
    assert find(samples, "process_cpu_seconds_total") > 0


async def test_certificates_are_shown_by_the_settings_that_name_them(tmp_path: Path) -> None:
    files = MutualFiles(tmp_path)
    tls = {"cert": str(files.cert), "key": str(files.key), "client_ca": str(files.client_ca)}
    issuer = {
        "issuer": "https://idp.example/",
        "audiences": ["pets"],
        "jwks_url": "https://127.0.0.1:1/",
        "tls": {"ca": str(files.client_ca)},
    }
    settings = read(tmp_path, server={"tls": tls})
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({**CATALOG, "issuers": [issuer]}))
    async with open_service(settings) as service:
        samples = await scrape(service)
    ends_in_s = {
        dict(labels)["certificate"]: value - time.time()
        for (name, labels), value in samples.items()
        if name == "extauthz_certificate_expiry_timestamp_seconds"
    }
    assert set(ends_in_s) == {"server.tls.cert", "server.tls.client_ca", "issuers.tls.ca"}
    assert all(3000 < left_s <= 3600 for left_s in ends_in_s.values())
