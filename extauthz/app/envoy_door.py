"""Opens a service's door inside Envoy: what the Envoy host loads there, and is given."""

from __future__ import annotations

import base64
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from extauthz.app.log import start_log
from extauthz.app.service import open_service
from extauthz.serving.asgi_life import OpenedDoor, make_app
from extauthz.settings import Settings

APP: Final = f"{__name__}:app"


def write_parameters(settings: Settings) -> str:
    """What `open_door` is given. Holds the settings' secrets."""
    return base64.b64encode(pickle.dumps(settings)).decode()


@asynccontextmanager
async def open_door(parameters: str) -> AsyncIterator[OpenedDoor]:
    """Opens the service that `write_parameters` told of.

    Raises:
        ConfigError, CatalogError, ListenError: it cannot start, and why.
    """
    # From the process that started this one, over a socket that only the two hold.
    settings = pickle.loads(base64.b64decode(parameters))  # noqa: S301 - not from outside
    assert isinstance(settings, Settings)
    start_log(settings.log)
    async with open_service(settings) as service:
        yield OpenedDoor(door=service.door, words=service.words)


app = make_app(open_door)
