"""The world and everything that runs in it, once a session for each host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.backends import hold_dead_port, run_echo, run_grpc_echo, run_introspection
from tests.e2e.envoys import EnvoyVersion
from tests.e2e.running import Deployment
from tests.e2e.told import USERS, Told
from tests.e2e.world import World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "filterwarnings",
        # envoy-data-plane 2.2 declares its validators in the way of an older pydantic.
        "ignore:Using `@model_validator` with mode='after':DeprecationWarning",
    )


@pytest.fixture(scope="session", params=["grpcio", "envoy"], ids=lambda host: f"on_{host}")
def host(request: pytest.FixtureRequest) -> str:
    """What carries the service's doors: every test that starts a service runs on each."""
    return str(request.param)


@pytest.fixture(scope="session")
def deployment(host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Processes are started by the first test that asks for them."""
    with ExitStack() as stack:
        introspection = stack.enter_context(run_introspection())
        dead_port = stack.enter_context(hold_dead_port())
        made = Deployment(
            host=host,
            world=World(tmp_path_factory.mktemp("world"), introspection, dead_port),
            folder=tmp_path_factory.mktemp("running"),
            http_upstream=stack.enter_context(run_echo()),
            grpc_upstream=stack.enter_context(run_grpc_echo()),
            stack=stack,
            told=Told.start(stack),
        )
        yield made
    assert not made.told.find_leaks(made.world.secrets, USERS), "what was told until the very end"


@pytest.fixture(scope="session")
def world(deployment: Deployment) -> World:
    return deployment.world


@pytest.fixture(params=list(EnvoyVersion), ids=lambda version: version.value)
def version(request: pytest.FixtureRequest) -> EnvoyVersion:
    """Runs a test through the oldest Envoy and through the newest."""
    found: EnvoyVersion = request.param
    return found
