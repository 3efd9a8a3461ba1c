"""The life of a service: start, reload on SIGHUP, stop on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from extauthz.app.answers import read_answer_style
from extauthz.app.core import Core, open_core, read_authentication_rules
from extauthz.app.counting import check_counting, probe_counting
from extauthz.app.watching import list_ready_checks, make_metrics
from extauthz.clock import SystemClock
from extauthz.envoy.authorization import SERVICE, AuthorizationService
from extauthz.errors import ConfigError, Problem
from extauthz.model.limits import US_PER_S
from extauthz.serving.admin import AdminListener
from extauthz.serving.door import Door
from extauthz.serving.grpcio_host import GrpcioHost, HostLimits
from extauthz.serving.health import HealthState, HealthStatus
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.tls import TlsFiles, read_tls_files
from extauthz.settings import Settings
from extauthz.telemetry.metrics import CONTENT_TYPE, DecisionCounts

_log = logging.getLogger(__name__)


def list_file_problems(settings: Settings) -> list[Problem]:
    """What is wrong with the files that settings name, beside the catalog."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: read_authentication_rules(settings),
        lambda: read_answer_style(settings.responses, SystemClock()),
        lambda: check_counting(settings.counters),
        lambda: None if (tls := _read_tls(settings)) is None else read_tls_files(tls),
    )
    problems: list[Problem] = []
    for check in checks:
        try:
            check()
        except ConfigError as exc:
            problems += exc.problems
    return problems


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; SIGHUP reads the catalog again.

    At the first signal health says NOT_SERVING, and calls are still answered for `drain_delay`,
    which a second signal ends. Then the listeners close, and calls in flight have `grace`.

    Raises:
        ConfigError, CatalogError, ListenError: it cannot start, and why.
    """
    server = settings.server
    stop = _Stop()
    loop = asyncio.get_running_loop()
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
        host = GrpcioHost(
            door,
            (read_listen_address(settings.listen.grpc),),
            tls=_read_tls(settings),
            limits=HostLimits(max_connection_age_s=server.max_connection_age / US_PER_S),
        )
        async with _running_admin(settings, core, door, decisions):
            await probe_counting(core.counting)
            await host.start()
            reloads: set[asyncio.Task[object]] = set()

            def reload() -> None:
                task = asyncio.create_task(core.refresher.reload())
                reloads.add(task)
                task.add_done_callback(reloads.discard)

            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.ask)
            loop.add_signal_handler(signal.SIGHUP, reload)
            watching = asyncio.create_task(core.refresher.run())
            health.set_all(HealthStatus.SERVING)
            _log.info("serving on %s", ", ".join(map(str, host.addresses)))
            try:
                await stop.asked.wait()
                _log.info("stopping")
                health.set_all(HealthStatus.NOT_SERVING)
                await stop.wait_for_hurry(server.drain_delay / US_PER_S)
            finally:
                await host.stop(server.grace / US_PER_S)
                for task in (watching, *reloads):
                    task.cancel()
                await asyncio.gather(watching, *reloads, return_exceptions=True)
    _log.info("stopped")


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


class _Stop:
    """What the signals said: the first asks for a stop, the second to hurry."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._hurry = asyncio.Event()

    def ask(self) -> None:
        if self.asked.is_set():
            self._hurry.set()
        self.asked.set()

    async def wait_for_hurry(self, at_most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._hurry.wait()


def _read_tls(settings: Settings) -> TlsFiles | None:
    tls = settings.server.tls
    if tls is None:
        return None
    return TlsFiles(cert=tls.cert, key=tls.key, client_ca=tls.client_ca)
