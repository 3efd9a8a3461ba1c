"""The application that the Envoy host loads inside Envoy: it opens a service's doors there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from extauthz.app.log import open_log_sending, start_log
from extauthz.app.parameters import read_parameters
from extauthz.app.service import open_service
from extauthz.serving.inside_envoy.asgi_life import OpenedDoors, make_app

APP: Final = f"{__name__}:app"


@asynccontextmanager
async def open_doors(text: str) -> AsyncIterator[OpenedDoors]:
    """Opens the service with the parameters of `write_parameters`.

    Raises:
        ConfigError, CatalogError, ListenError: it cannot start; the text says why.
    """
    parameters = read_parameters(text)
    settings, worker = parameters.settings, parameters.worker
    start_log(settings.log, worker=worker)
    with open_log_sending(settings, worker=worker):
        async with open_service(settings, worker=worker) as service:
            yield OpenedDoors(doors=service.doors, words=service.words, questions=service.questions)


app = make_app(open_doors)
