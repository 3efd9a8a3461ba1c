"""A memory that one caller has filled, at both doors: callers from elsewhere are still limited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import httpx2
import pytest
import yaml

from tests.e2e.doors.both_doors import ALLOWED, Asked, BothDoors, run_both_doors
from tests.e2e.running import Deployment
from tests.free_ports import find_free_port

pytestmark = pytest.mark.e2e

MAX_KEYS: Final = 160
FLOOD: Final = 2 * MAX_KEYS
DECADE: Final = "3650d"
CATALOG: Final = {
    "apis": [
        {
            "name": "Open",
            "version": "1.0.0",
            "context": "/open",
            "security": ["none"],
            "resources": [{"methods": ["POST"], "path": "/*"}],
        }
    ],
    "custom_limits": [
        {"name": "by-address", "key": "$clientIp", "tier": "Three"},
        {"name": "by-meter", "key": "$header.x-meter", "tier": "Three"},
    ],
    "tiers": {
        "Three": {"limits": [{"requests": 3, "per": DECADE, "algorithm": "fixed_window"}]},
    },
}


@dataclass(frozen=True, slots=True)
class Running:
    """A service whose memory is full, and its admin address."""

    doors: BothDoors
    admin: str


@pytest.fixture(scope="module")
def full(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    catalog = tmp_path_factory.mktemp("full") / "catalog.yaml"
    catalog.write_text(yaml.safe_dump(CATALOG))
    admin = f"127.0.0.1:{find_free_port()}"
    settings = {"listen": {"admin": admin}, "counters": {"max_keys": MAX_KEYS}}
    with run_both_doors(deployment, "full", catalog, **settings) as doors:
        # One caller: the networks of a /48, and a new header's value with each request.
        ask_in_turns(
            doors,
            [ask(f"2001:db8:1:{number:x}::1", f"made up {number}") for number in range(FLOOD)],
        )
        yield Running(doors, admin)


def ask(client: str, meter: str = "") -> Asked:
    headers = (("x-meter", meter),) if meter else ()
    return Asked(path="/open/1.0.0/x", client=client, headers=headers)


def ask_in_turns(doors: BothDoors, questions: list[Asked]) -> list[str]:
    """The reasons; every second question goes to Mixer's door."""
    return [
        (doors.ask_mixer if number % 2 else doors.ask_envoy)(asked).reason
        for number, asked in enumerate(questions)
    ]


def test_newcomers_from_elsewhere_are_never_unavailable_and_never_get_more(full: Running) -> None:
    served = 0
    for number in range(20):
        reasons = ask_in_turns(full.doors, [ask(f"10.{number}.0.1")] * 5)
        assert set(reasons) <= {ALLOWED, "rate_limited"}
        assert reasons.count(ALLOWED) <= 3
        served += reasons[0] == ALLOWED
    assert served > 0


def test_a_header_from_many_networks_gets_no_more_than_its_limit(full: Running) -> None:
    questions = [ask(f"11.{number}.0.1", "victim") for number in range(30)]
    reasons = ask_in_turns(full.doors, questions)
    assert set(reasons) <= {ALLOWED, "rate_limited"}
    assert reasons.count(ALLOWED) <= 3


def test_who_was_counted_before_goes_on_as_before(full: Running) -> None:
    known = [ask("2001:db8:1:0::1")] * 4
    assert ask_in_turns(full.doors, known) == [ALLOWED, ALLOWED, "rate_limited", "rate_limited"]


def test_readiness_metrics_and_one_line_of_the_log_tell_of_it(
    full: Running, deployment: Deployment
) -> None:
    with httpx2.Client(base_url=f"http://{full.admin}", trust_env=False, timeout=60) as client:
        readiness = client.get("/readyz")
        metrics = client.get("/metrics").text
    counters = json.loads(readiness.text)["checks"]["counters"]
    assert (readiness.status_code, counters["full_for"]) == (200, "caller")
    crowded = [
        line for line in metrics.splitlines() if line.startswith("extauthz_counters_crowded")
    ]
    assert sum(float(line.split()[1]) for line in crowded) > 0
    log = deployment.told.logs[-1].read_text()
    assert log.count("no more counters fit into memory") == 1
