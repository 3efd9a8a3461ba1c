"""One limit behind both doors is one limit: in a process, and over replicas that share Redis."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.doors.both_doors import (
    ALLOWED,
    IN_QUOTA,
    PARAMS,
    Asked,
    BothDoors,
    read_check_response,
    read_check_result,
    read_granted,
    run_both_doors,
)
from tests.e2e.replicas import DECADE, PATH, key_of, write_catalog
from tests.e2e.running import Deployment, next_client
from tests.redis_server import RedisServer

pytestmark = pytest.mark.e2e

LIMIT: Final = 50
AT_ONCE: Final = 64
CASES: Final = ("in turns", "at once", "quota in turns", "quota at once")
"""Each has a consumer of its own, with a limit of its own."""
RULES: Final = {
    name: {"limits": [{"requests": LIMIT, "per": DECADE, "algorithm": "fixed_window"}]}
    for name in CASES
}
PATIENT: Final = {"replicas": 2, "timeout": "20s"}


@dataclass(frozen=True, slots=True)
class Pair:
    """The service that Envoy asks, and the one that Mixer asks. They may be the same."""

    envoy: BothDoors
    mixer: BothDoors


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("counted") / "catalog.yaml"
    write_catalog(file, RULES)
    return file


@pytest.fixture(scope="module", params=["memory", "redis"])
def pair(deployment: Deployment, catalog: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    with ExitStack() as stack:
        if request.param == "memory":
            doors = stack.enter_context(run_both_doors(deployment, "memory", catalog))
            yield Pair(doors, doors)
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="doors-")))
        server = RedisServer(folder).start()
        stack.callback(server.kill)
        counters = {"store": "redis", "url": f"redis://127.0.0.1:{server.port}", **PATIENT}
        first, second = [
            stack.enter_context(run_both_doors(deployment, "redis", catalog, counters=counters))
            for _ in range(2)
        ]
        yield Pair(first, second)


def of_consumer(name: str) -> Asked:
    return Asked(path=PATH, headers=(("x-api-key", key_of(name)),), client=next_client())


def count_allowed(envoy: Sequence[Any], mixer: Sequence[Any]) -> tuple[int, int]:
    """How many of the calls to each door were answered with yes; the others were limited."""
    told = (
        [read_check_response(call.result()).reason for call in envoy],
        [read_check_result(call.result()).reason for call in mixer],
    )
    assert {reason for reasons in told for reason in reasons} <= {ALLOWED, "rate_limited"}
    return told[0].count(ALLOWED), told[1].count(ALLOWED)


def test_doors_that_are_asked_in_turns_share_a_limit(pair: Pair) -> None:
    asked = of_consumer("in turns")
    for number in range(LIMIT):
        door = pair.mixer.ask_mixer if number % 2 else pair.envoy.ask_envoy
        assert door(asked).reason == ALLOWED, number
    assert pair.envoy.ask_envoy(asked).reason == "rate_limited"
    assert pair.mixer.ask_mixer(asked).reason == "rate_limited"
    assert pair.mixer.ask_mixer_for_quota(asked, 1) == 0


def test_doors_that_are_asked_at_once_share_a_limit(pair: Pair) -> None:
    asked = of_consumer("at once")
    envoy, mixer = [], []
    for _ in range(AT_ONCE // 2):
        envoy.append(pair.envoy.begin_envoy(asked))
        mixer.append(pair.mixer.begin_mixer(asked))
    by_envoy, by_mixer = count_allowed(envoy, mixer)
    assert by_envoy + by_mixer == LIMIT
    assert by_envoy and by_mixer


def test_a_quota_takes_its_amount_from_the_same_limit(pair: Pair) -> None:
    asked = of_consumer("quota in turns")
    assert pair.mixer.ask_mixer_for_quota(asked, 20) == 20
    assert pair.envoy.ask_envoy(asked).reason == ALLOWED
    # A check that leaves the limits to quotas takes nothing.
    assert pair.mixer.ask_mixer(asked, IN_QUOTA).reason == ALLOWED
    assert pair.mixer.ask_mixer(asked, PARAMS).reason == ALLOWED
    left = LIMIT - 22
    assert pair.mixer.ask_mixer_for_quota(asked, left + 1) == 0
    assert pair.mixer.ask_mixer_for_quota(asked, left - 1) == left - 1
    assert pair.envoy.ask_envoy(asked).reason == ALLOWED
    assert pair.mixer.ask_mixer_for_quota(asked, 5, best_effort=True) == 0
    assert pair.envoy.ask_envoy(asked).reason == "rate_limited"
    assert pair.mixer.ask_mixer(asked, IN_QUOTA).reason == ALLOWED


def test_quotas_and_checks_at_once_give_no_more_than_the_limit(pair: Pair) -> None:
    asked = of_consumer("quota at once")
    envoy, quotas = [], []
    for _ in range(AT_ONCE // 2):
        envoy.append(pair.envoy.begin_envoy(asked))
        quotas.append(pair.mixer.begin_quota(asked, 3, best_effort=True))
    by_envoy, _ = count_allowed(envoy, ())
    granted = [read_granted(call.result()) for call in quotas]
    assert set(granted) <= {0, 1, 2, 3}
    assert by_envoy + sum(granted) <= LIMIT
    # What is left, if some gave up while others were in the way, is still there.
    left = LIMIT - by_envoy - sum(granted)
    assert pair.mixer.ask_mixer_for_quota(asked, LIMIT, best_effort=True) == left
