"""Every query of the dashboards and alerts shows data of a real service in a real Prometheus."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509

from extauthz.demo.api_manager.server import USER, run_api_manager
from tests.certificates import LOCAL, Authority
from tests.dashboards.reading import ALERTS, find_alerts, find_queries
from tests.e2e.backends import hold_dead_port
from tests.e2e.doors.both_doors import BothDoors, run_both_doors
from tests.e2e.doors.both_doors_table import SCENARIOS, WSO2, write_extra
from tests.e2e.running import Deployment
from tests.e2e.world import World
from tests.free_ports import find_free_port
from tests.prometheus_server import JOB, Prometheus, run_prometheus
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("host", ["grpcio"], indirect=True)]

PATIENT: Final = {"timeout": "20s"}
PASSWORD: Final = "a-password"
CHOSEN: Final = {"$__rate_interval": "1m", "$job": JOB, "$instance": ".+"}
METRIC: Final = re.compile(r"\b(?:extauthz|process)_[a-z_]+\b")


@pytest.fixture(scope="module")
def scraped(
    deployment: Deployment, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Has scraped a service that answered every scenario at both doors."""
    folder = tmp_path_factory.mktemp("dashboards")
    admin = f"127.0.0.1:{find_free_port()}"
    with ExitStack() as stack:
        dead_port = stack.enter_context(hold_dead_port())
        server = start_encrypted_redis(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(server.kill)
        manager = stack.enter_context(run_api_manager(folder, password=PASSWORD))
        (folder / "password").write_text(PASSWORD)
        # The world has tiers of these names, and an issuer of opaque tokens, itself.
        manager.tables.subscription_policies.clear()
        manager.tables.key_managers.clear()
        doors = stack.enter_context(
            run_both_doors(
                deployment,
                "dashboards",
                world.catalog,
                write_extra(folder),
                listen={"admin": admin},
                catalog={
                    "wso2": {
                        "url": manager.url,
                        "username": USER,
                        "password_file": str(folder / "password"),
                        "ca": str(manager.ca_file),
                    }
                },
                server={"workers": 2},
                responses={"profile": "wso2", "error_response": True},
                counters={
                    "store": "redis",
                    "url": f"rediss://127.0.0.1:{server.port}",
                    "tls": {"ca": str(server.folder / "ca.crt")},
                    **PATIENT,
                },
                log={"decisions": str(folder / "decisions.jsonl")},
                usage={"file": {"path": str(folder / "usage.jsonl")}},
                telemetry={"otlp": {"endpoint": f"http://127.0.0.1:{dead_port}"}},
            )
        )
        prometheus = stack.enter_context(run_prometheus(folder, admin, ALERTS))
        # A rate is seen between two scrapes: one in which the series are there, and a later one.
        for _ in range(2):
            ask_everything(doors, world)
            wait_until_scraped(prometheus)
        yield prometheus


def start_encrypted_redis(folder: Path) -> RedisServer:
    """A Redis with TLS; its authority is the file ca.crt in its folder."""
    authority = Authority("redis")
    leaf = authority.issue(LOCAL, x509.IPAddress(IPv4Address("127.0.0.1")))
    files = {"ca-cert": authority.pem, "cert": leaf.cert, "key": leaf.key}
    for name, content in files.items():
        (folder / f"{name.removesuffix('-cert')}.crt").write_bytes(content)
    options = [
        *("--tls-auth-clients", "no", "--tls-ca-cert-file", str(folder / "ca.crt")),
        *("--tls-cert-file", str(folder / "cert.crt"), "--tls-key-file", str(folder / "key.crt")),
    ]
    return RedisServer(folder, *options, is_encrypted=True).start()


def ask_everything(doors: BothDoors, world: World) -> None:
    """Each scenario at both doors, as often as its limit needs."""
    for scenario in SCENARIOS:
        if WSO2 in scenario.services:
            asked = scenario.ask(world)
            for _ in range(scenario.calls):
                doors.ask_envoy(asked)
            doors.ask_mixer(asked)


def wait_until_scraped(prometheus: Prometheus) -> None:
    """Returns once a scrape has begun after the call."""
    now_s = time.time()
    prometheus.wait_until(lambda: prometheus.read("min(timestamp(up))") > now_s, "a scrape")


def show(query: str) -> str:
    """A query as Grafana sends it, for all replicas."""
    for variable, value in CHOSEN.items():
        query = query.replace(variable, value)
    return query


def test_every_query_of_every_dashboard_shows_data(scraped: Prometheus) -> None:
    empty = {}
    for where, query in find_queries():
        values = [float(series["value"][1]) for series in scraped.query(show(query))]
        if all(map(math.isnan, values)):
            empty[where] = query
    assert not empty


def test_every_alert_reads_metrics_that_are_there(scraped: Prometheus) -> None:
    rules = scraped.rules()
    assert {rule["name"] for rule in rules} == set(find_alerts())
    scraped.wait_until(
        lambda: all(rule["health"] != "unknown" for rule in scraped.rules()), "all are evaluated"
    )
    assert {rule["name"]: rule.get("lastError", "") for rule in scraped.rules()} == dict.fromkeys(
        find_alerts(), ""
    )
    read = {name for rule in rules for name in METRIC.findall(rule["query"])}
    missing = {name for name in read if not scraped.query(f"count({name})")}
    assert not missing


def test_the_variables_choose_among_replicas(scraped: Prometheus) -> None:
    (replica,) = scraped.query("extauthz_build_info")
    assert replica["metric"]["job"] == JOB
    assert replica["metric"]["instance"]
