"""The contract service as an application for hosts that open their door in another process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from extauthz.errors import ConfigError, Problem
from extauthz.serving.asgi_life import OpenedDoor, make_app
from extauthz.serving.limits import HostLimits
from tests.contracts.rpc_service import a_door


@asynccontextmanager
async def open_door(parameters: Mapping[str, Any]) -> AsyncIterator[OpenedDoor]:
    """Opens the door with the bounds that the parameters name, or fails as they want it."""
    match parameters.get("fail"):
        case "config":
            raise ConfigError([Problem(file="a.yaml", line=3, message="is not good")])
        case "bug":
            raise ValueError("what a bug says")
    limits = HostLimits(**parameters.get("limits", {}))
    yield OpenedDoor(door=a_door(**parameters.get("bounds", {})), limits=limits)


app = make_app(open_door)
