"""A service: all that stands behind its door, wherever the door is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from extauthz.app.answers import read_answer_style
from extauthz.app.core import Core, open_core, read_authentication_rules
from extauthz.app.counting import check_counting, probe_counting
from extauthz.app.watching import list_ready_checks, make_metrics
from extauthz.clock import SystemClock
from extauthz.envoy.authorization import SERVICE, AuthorizationService
from extauthz.errors import ConfigError, Problem
from extauthz.serving.admin import AdminListener
from extauthz.serving.door import Door
from extauthz.serving.health import HealthState, HealthStatus
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.tls import TlsFiles, read_tls_files
from extauthz.settings import Settings
from extauthz.telemetry.metrics import CONTENT_TYPE, DecisionCounts


def list_file_problems(settings: Settings) -> list[Problem]:
    """What is wrong with the files that settings name, beside the catalog."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: read_authentication_rules(settings),
        lambda: read_answer_style(settings.responses, SystemClock()),
        lambda: check_counting(settings.counters),
        lambda: None if (tls := read_tls(settings)) is None else read_tls_files(tls),
    )
    problems: list[Problem] = []
    for check in checks:
        try:
            check()
        except ConfigError as exc:
            problems += exc.problems
    return problems


@dataclass(frozen=True, slots=True)
class Service:
    """A door with what stands behind it, and the words that steer it.

    The words are ``serve`` and ``refuse``, for what health says, and ``reload``.
    """

    door: Door
    words: Mapping[str, Callable[[], None]]


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Service]:
    """Opens all that decides, and the admin listener; health says NOT_SERVING until told.

    Raises:
        ConfigError, CatalogError, ListenError: it cannot start, and why.
    """
    server = settings.server
    decisions = DecisionCounts()
    async with open_core(settings, (decisions,)) as core:
        authorization = AuthorizationService(
            decide=core.pipeline.decide,
            style=read_answer_style(settings.responses, core.clock),
            clock=core.clock,
        )
        health = HealthState((SERVICE,))
        door = Door(
            (authorization.method(),),
            health=health,
            load=Load(max_in_flight=server.max_in_flight, max_streams=server.max_streams),
        )
        await probe_counting(core.counting)
        tasks: set[asyncio.Task[object]] = {asyncio.create_task(core.refresher.run())}

        def reload() -> None:
            task = asyncio.create_task(core.refresher.reload())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        words = {
            "serve": lambda: health.set_all(HealthStatus.SERVING),
            "refuse": lambda: health.set_all(HealthStatus.NOT_SERVING),
            "reload": reload,
        }
        try:
            async with _running_admin(settings, core, door, decisions):
                yield Service(door, words)
        finally:
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _running_admin(
    settings: Settings, core: Core, door: Door, decisions: DecisionCounts
) -> AsyncIterator[None]:
    """Serves the admin paths, where the settings want them."""
    if settings.listen.admin is None:
        yield
        return
    metrics = make_metrics(core, door.load, decisions)
    admin = AdminListener(
        read_listen_address(settings.listen.admin),
        checks=lambda: list_ready_checks(core, door.health),
        metrics=lambda: (metrics.write(), CONTENT_TYPE),
    )
    await admin.start()
    try:
        yield
    finally:
        await admin.stop()
        metrics.close()


def read_tls(settings: Settings) -> TlsFiles | None:
    """The files of the door's certificates, or None when it speaks plain text."""
    tls = settings.server.tls
    if tls is None:
        return None
    return TlsFiles(cert=tls.cert, key=tls.key, client_ca=tls.client_ca)
