"""Opens the door for checks over HTTP from the settings.

It is served by this process's own event loop whatever host serves the other doors, so that it is
there with each of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from extauthz.app.core import Core
from extauthz.envoy.authorization import AnswerStyle
from extauthz.http_check.question import DOOR
from extauthz.http_check.service import HttpCheckService
from extauthz.model.limits import US_PER_S
from extauthz.serving.door import DoorListener
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.tls import TlsFiles
from extauthz.settings.tree import Settings


def list_http_listeners(settings: Settings) -> tuple[DoorListener, ...]:
    """The listener of this door, for reserving its port; empty where it is closed."""
    if settings.listen.http is None:
        return ()
    return (DoorListener(door=DOOR, addresses=(read_listen_address(settings.listen.http),)),)


@asynccontextmanager
async def open_http_door(
    settings: Settings, core: Core, style: AnswerStyle, load: Load, limits: HostLimits
) -> AsyncIterator[None]:
    """Listens for checks over HTTP while the block lasts, where the settings name an address.

    Raises:
        ConfigError: the TLS files cannot be used.
        ListenError: the address cannot be listened on.
    """
    if settings.listen.http is None:
        yield
        return
    from extauthz.serving.http_listener import HttpListener  # brings aiohttp
    from extauthz.serving.https import make_context

    service = HttpCheckService(
        decide=core.pipeline.decide,
        denial=style.denial,
        upstream=style.upstream,
        clock=core.clock,
        use_remote_address=settings.credentials.use_remote_address,
        shadow=settings.server.shadow == DOOR,
        record=core.pipeline.record,
    )
    tls = settings.server.tls
    files = None if tls is None else TlsFiles(cert=tls.cert, key=tls.key, client_ca=tls.client_ca)
    listener = HttpListener(
        read_listen_address(settings.listen.http),
        service.answer,
        load=load,
        limits=limits,
        grace_s=settings.server.grace / US_PER_S,
        tls=None if files is None else make_context(files, demands_client=True),
    )
    await listener.start()
    try:
        yield
    finally:
        await listener.stop()
