"""Opens the door for checks over HTTP from the settings.

It is served by this process's own event loop whatever host serves the other doors, so that it is
there with each of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from extauthz.app.core import Core
from extauthz.envoy.authorization import AnswerStyle
from extauthz.http_check.question import DOOR, find_asker
from extauthz.http_check.service import HttpCheckService
from extauthz.model.limits import US_PER_S
from extauthz.serving.door import DoorListener
from extauthz.serving.http_messages import NOT_DECIDED, Question, Reply
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.tls import TlsFiles
from extauthz.settings.tree import Settings
from extauthz.telemetry.trace_context import FIELDS

if TYPE_CHECKING:
    from extauthz.telemetry.tracing import CallTracer


def list_http_listeners(settings: Settings) -> tuple[DoorListener, ...]:
    """The listener of this door, for reserving its port; empty where it is closed."""
    if settings.listen.http is None:
        return ()
    return (DoorListener(door=DOOR, addresses=(read_listen_address(settings.listen.http),)),)


_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
"""The methods that OpenTelemetry's conventions know; the others are ``_OTHER``."""


@asynccontextmanager
async def open_http_door(
    settings: Settings,
    core: Core,
    style: AnswerStyle,
    load: Load,
    limits: HostLimits,
    tracer: CallTracer | None = None,
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
        service.answer if tracer is None else _trace(service.answer, tracer),
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


def _trace(
    answer: Callable[[Question], Awaitable[Reply]], tracer: CallTracer
) -> Callable[[Question], Awaitable[Reply]]:
    """Makes a span of each traced question. Its fields may be a client's own."""

    async def traced(question: Question) -> Reply:
        asker = find_asker(question.target)
        span = tracer.begin(
            "/" if asker is None else f"/{asker.value}",
            {},
            partial(_read_fields, question),
            http_method=question.method if question.method in _METHODS else "_OTHER",
        )
        if span is None:
            return await answer(question)
        held, status = span.hold(), NOT_DECIDED.status
        try:
            reply = await answer(question)
            status = reply.status
        finally:
            span.end(held, str(status))
        return reply

    return traced


def _read_fields(question: Question) -> dict[str, str]:
    """Fields about traces; without those that stand twice, which nobody can say the value of."""
    found: dict[str, list[str]] = {}
    for name, value in question.fields:
        text = name.decode("latin-1").lower()
        if text in FIELDS:
            found.setdefault(text, []).append(value.decode("latin-1"))
    return {name: values[0] for name, values in found.items() if len(values) == 1}
