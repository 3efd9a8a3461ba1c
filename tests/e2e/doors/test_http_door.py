"""The door for checks over HTTP gives the answers of Envoy's door, in each proxy's form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from extauthz.http_check.answer import Asker
from tests.e2e.doors.both_doors import BothDoors, run_both_doors
from tests.e2e.doors.both_doors_table import (
    SCENARIOS,
    STANDARD,
    WSO2,
    Scenario,
    write_extra,
)
from tests.e2e.doors.http_door import ask_http, read_reply
from tests.e2e.running import Deployment, merge
from tests.e2e.world import World
from tests.free_ports import find_free_port

pytestmark = pytest.mark.e2e

SERVICES: Final[dict[str, dict[str, Any]]] = {
    STANDARD: {},
    WSO2: {"responses": {"profile": "wso2", "error_response": True}},
}
ASKERS: Final = list(Asker)


@dataclass(frozen=True, slots=True)
class Doors:
    """A service with its gRPC doors, and the address of the third."""

    both: BothDoors
    http: str


@contextmanager
def run_doors(
    deployment: Deployment, name: str, *catalog: Path, **settings: Any
) -> Iterator[Doors]:
    http = f"127.0.0.1:{find_free_port()}"
    own = {
        "listen": {"http": http},
        "credentials": {"trusted_hops": 0, "use_remote_address": True},
    }
    with run_both_doors(deployment, f"http-{name}", *catalog, **merge(own, settings)) as both:
        yield Doors(both, http)


@pytest.fixture(scope="module")
def services(
    deployment: Deployment, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Doors]]:
    extra = write_extra(tmp_path_factory.mktemp("extra"))
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(run_doors(deployment, name, world.catalog, extra, **settings))
            for name, settings in SERVICES.items()
        }


NO_HTTP: Final = frozenset({"a method in lower case", "a path of nobody's"})
"""What HTTP/1.1 cannot say, at least not everywhere. It is refused before it is read."""
TOLD_OVER_HTTP: Final = [
    one
    for one in SCENARIOS
    # A proxy that asks over HTTP tells no certificate, and its route names no API. White space at
    # the end of a field is none of its value.
    if not one.principal and not one.api and one.host == one.host.strip()
]


@pytest.mark.parametrize("asker", ASKERS, ids=lambda asker: asker.value)
@pytest.mark.parametrize(
    ("service", "scenario"),
    [
        pytest.param(service, one, id=f"{service}: {one.title}")
        for one in TOLD_OVER_HTTP
        for service in one.services
    ],
)
def test_a_question_over_http_gets_the_answer_of_envoys_door(
    services: dict[str, Doors], world: World, service: str, scenario: Scenario, asker: Asker
) -> None:
    doors = services[service]
    asked = scenario.ask(world)
    for _ in range(scenario.calls - 1):
        doors.both.ask_envoy(asked)
    envoy = doors.both.ask_envoy(asked)
    assert envoy.reason == scenario.outcome
    reply = ask_http(doors.http, asked, asker)
    if scenario.title in NO_HTTP:
        assert reply.status in {400, 403, 404, 405}
    else:
        assert read_reply(reply, envoy, asker).told == envoy.told
