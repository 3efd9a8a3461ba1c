"""Envoy's door and Mixer's give the same answers to the same requests, and count in one counter."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml

from extauthz.model.decision import Reason
from tests.e2e.deciding.test_reasons import OPEN
from tests.e2e.doors.both_doors import ALLOWED, Answer, Asked, BothDoors, run_both_doors
from tests.e2e.doors.both_doors_table import (
    SCENARIOS,
    STANDARD,
    UNDECIDED,
    WSO2,
    Scenario,
    write_extra,
)
from tests.e2e.running import Deployment, next_client
from tests.e2e.world import LIMITS, World

pytestmark = pytest.mark.e2e

SERVICES: Final[Mapping[str, Mapping[str, Any]]] = {
    STANDARD: {},
    WSO2: {"responses": {"profile": "wso2", "error_response": True}},
}


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the catalog has beside the world."""
    return write_extra(tmp_path_factory.mktemp("extra"))


@pytest.fixture(scope="module")
def services(deployment: Deployment, world: World, extra: Path) -> Iterator[dict[str, BothDoors]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                run_both_doors(deployment, name, world.catalog, extra, **settings)
            )
            for name, settings in SERVICES.items()
        }


def test_the_table_has_every_reason() -> None:
    for service in SERVICES:
        met = {one.outcome for one in SCENARIOS if service in one.services}
        # What could not be decided is a failed call there: see the differences.
        missing = {"unavailable"} if service == STANDARD else set()
        assert met == {ALLOWED, *(reason.value for reason in Reason)} - missing
    titles = [one.title for one in SCENARIOS]
    assert len(set(titles)) == len(titles)


def ask_both(doors: BothDoors, scenario: Scenario, world: World) -> tuple[Answer, Answer, float]:
    """The answers of Envoy's door and of Mixer's, and how many seconds lay between them."""
    asked = scenario.ask(world)
    for _ in range(scenario.calls - 1):
        doors.ask_envoy(asked)
    began_s = time.monotonic()
    envoy, mixer = doors.ask_envoy(asked), doors.ask_mixer(asked)
    return envoy, mixer, time.monotonic() - began_s


@pytest.mark.parametrize(
    ("service", "scenario"),
    [
        pytest.param(service, one, id=f"{service}: {one.title}")
        for one in SCENARIOS
        for service in one.services
    ],
)
def test_both_doors_give_the_same_answer(
    services: dict[str, BothDoors], world: World, service: str, scenario: Scenario
) -> None:
    envoy, mixer, took_s = ask_both(services[service], scenario, world)
    assert envoy.reason == scenario.outcome, envoy
    assert mixer.told == envoy.told
    assert len(mixer.times_s) == len(envoy.times_s)
    # They count down meanwhile.
    for envoy_s, mixer_s in zip(envoy.times_s, mixer.times_s, strict=True):
        assert abs(envoy_s - mixer_s) <= took_s + 1


def test_what_no_limit_holds_may_be_kept_and_nothing_else(
    services: dict[str, BothDoors], world: World
) -> None:
    doors = services[STANDARD]
    by_title = {one.title: one for one in SCENARIOS}
    for title, is_reusable in {
        "a token": True,
        "a key": True,
        "a key where only keys are taken, and with a tier": False,
    }.items():
        answer = doors.ask_mixer(by_title[title].ask(world))
        assert (answer.reason, answer.is_reusable) == (ALLOWED, is_reusable), title


# Less than the whole request


@pytest.mark.parametrize("client", ["", "0.0.0.0", "::"])
def test_an_address_that_nobody_told_leaves_no_deny_rule(
    services: dict[str, BothDoors], world: World, client: str
) -> None:
    """The world has one for addresses, and so nobody passes without."""
    for headers in ((), (("x-api-key", world.keys["mobile"]),)):
        asked = Asked(path="/world/1.0.0/public", headers=headers, client=client)
        envoy, mixer = services[STANDARD].ask_envoy(asked), services[STANDARD].ask_mixer(asked)
        assert (envoy.reason, envoy.status) == ("malformed_request", 400)
        assert "address is not known" in envoy.body
        assert mixer.told == envoy.told


@pytest.fixture(scope="module")
def asking_no_address(
    deployment: Deployment, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BothDoors]:
    """A service on the world without what asks for addresses, which apikey instances lack."""
    limits = {**LIMITS, "deny": [{"application": "rogue"}]}
    file = tmp_path_factory.mktemp("limits") / "limits.yaml"
    file.write_text(yaml.safe_dump(limits))
    files = [world.catalog / f"{name}.yaml" for name in ("apis", "consumers", "issuers")]
    with run_both_doors(deployment, "no-address", *files, file) as doors:
        yield doors


ROUTE: Final = ("World", "/open")
BY_KEY: Final[Mapping[str, tuple[str, str, str]]] = {
    "mobile": (*ROUTE, ALLOWED),
    "stranger": (*ROUTE, "subscription_not_found"),
    "blocked": (*ROUTE, "subscription_blocked"),
    "waiting": (*ROUTE, "subscription_inactive"),
    "outdated": (*ROUTE, "token_expired"),
    "rogue": (*ROUTE, "blocked"),
    "sandbox": ("Production", "/open", "wrong_key_type"),
    "pinned": ("World", "/nothing", "resource_not_found"),
    "referred": ("World", "/get-only", "method_not_allowed"),
}


@pytest.mark.parametrize("application", BY_KEY)
def test_an_apikey_instance_is_answered_as_its_request(
    asking_no_address: BothDoors, world: World, application: str
) -> None:
    api, path, reason = BY_KEY[application]
    doors, key = asking_no_address, world.keys[application]
    target = f"/{api.lower()}/1.0.0{path}"
    asked = Asked(path=target, headers=(("x-api-key", key),), client=next_client())
    envoy = doors.ask_envoy(asked)
    mixer = doors.ask_mixer_for_key(f"POST {target}", key, api)
    assert envoy.reason == reason
    assert mixer.told == envoy.told


def test_an_apikey_instance_tells_no_address_that_a_deny_rule_could_judge(
    services: dict[str, BothDoors], world: World
) -> None:
    answer = services[STANDARD].ask_mixer_for_key(f"POST {OPEN}", world.keys["mobile"], "World")
    assert (answer.reason, answer.status) == ("malformed_request", 400)


# Where the doors differ


@pytest.mark.parametrize("title", UNDECIDED)
def test_only_mixers_door_always_answers(
    services: dict[str, BothDoors], world: World, title: str
) -> None:
    """Envoy is left to what its operator chose; Mixer would make INTERNAL of a failed call."""
    headers = UNDECIDED[title](world)
    asked = Asked(path=OPEN, headers=headers, client=next_client())
    with pytest.raises(grpc.RpcError) as failed:
        services[STANDARD].ask_envoy(asked)
    assert isinstance(failed.value, grpc.Call)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    mixer = services[STANDARD].ask_mixer(asked)
    assert (mixer.reason, mixer.status, mixer.code) == ("unavailable", 503, 14)


def test_what_names_no_path_is_malformed_at_both_doors(
    services: dict[str, BothDoors], world: World
) -> None:
    """It never comes to a decision, and so has no id. Mixer's door adds a sentence of its own."""
    key = (("x-api-key", world.keys["mobile"]),)
    asked = Asked(path="", headers=key, client=next_client())
    envoy, mixer = services[WSO2].ask_envoy(asked), services[WSO2].ask_mixer(asked)
    assert envoy.reason == "malformed_request"
    assert mixer.told == envoy.told
