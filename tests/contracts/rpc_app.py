"""The contract service as an application for hosts that open their door in another process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from extauthz.errors import ConfigError, Problem
from extauthz.serving.inside_envoy.asgi_life import OpenedDoors, make_app
from extauthz.serving.limits import HostLimits
from tests.contracts.rpc_service import make_doors

SHED: Final = "shed"
"""The question for how many calls were refused for load."""


@asynccontextmanager
async def open_doors(parameters: Mapping[str, Any]) -> AsyncIterator[OpenedDoors]:
    """Opens both doors with the bounds that the parameters name, or fails as they want it."""
    match parameters.get("fail"):
        case "config":
            raise ConfigError([Problem(file="a.yaml", line=3, message="is not good")])
        case "bug":
            raise ValueError("what a bug says")
    limits = HostLimits(**parameters.get("limits", {}))
    doors = make_doors(**parameters.get("bounds", {}))

    async def count_shed(_: object) -> int:
        return sum({id(door.load): door.load.shed for door in doors.values()}.values())

    yield OpenedDoors(doors=doors, limits=limits, questions={SHED: count_shed})


app = make_app(open_doors)
