"""Opens a service: its doors and everything behind them, for any host.

To add a door: make it in `open_service`, and name its addresses in `read_listeners`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from extauthz.app.admin.inspection_questions import answer_inspection
from extauthz.app.admin.listener import check_admin_tokens, read_admin_tls, running_admin
from extauthz.app.admin.processes import OwnProcess
from extauthz.app.admin.questions import answer_admin
from extauthz.app.answers import read_answer_style
from extauthz.app.catalog import check_api_manager
from extauthz.app.core import open_core, read_authentication_rules
from extauthz.app.counting import check_counting, probe_counting
from extauthz.app.doors.http import open_http_door
from extauthz.app.doors.mixer import MIXER, open_mixer_door, read_callers
from extauthz.app.emergency import check_emergency
from extauthz.app.log import check_log, open_decision_log, read_masks
from extauthz.app.tracing import Tracing, check_tracing, open_tracing, trace_method
from extauthz.app.usage.opening import open_usage
from extauthz.app.usage.sinks import check_usage
from extauthz.app.usage.watching import count_usage
from extauthz.app.watching import (
    DecisionMeasures,
    count_log,
    count_reports,
    count_traces,
    list_ready_checks,
    make_metrics,
    watch_certificates,
)
from extauthz.clock import SystemClock
from extauthz.envoy.access_logs import ACCESS_LOG_PATH, ACCESS_LOG_SERVICE
from extauthz.envoy.authorization import SERVICE, AuthorizationService
from extauthz.envoy.check_request import read_header_fields
from extauthz.errors import ConfigError, Problem
from extauthz.model.limits import US_PER_S
from extauthz.serving.admin.readiness import ReadyCheck, write_check
from extauthz.serving.door import Door, DoorListener
from extauthz.serving.health import HealthState, HealthStatus
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.methods import Method
from extauthz.serving.tls import TlsFiles, read_tls_files
from extauthz.serving.workers.control import Questions, Words
from extauthz.settings.listening import TlsSettings
from extauthz.settings.tree import ServerSettings, Settings
from extauthz.telemetry.decision_log.log import DecisionLog
from extauthz.telemetry.metrics import CONTENT_TYPE
from extauthz.telemetry.recent.recent_decisions import RecentDecisions

GRPC: Final = "grpc"
"""The door of ext_authz."""

CHECKS: Final = "checks"
"""The question for the checks of readiness."""
METRICS: Final = "metrics"
"""The question for Prometheus's text."""


def list_file_problems(settings: Settings) -> list[Problem]:
    """The problems of files that the settings name, except the catalog's."""
    admin_tls = read_admin_tls(settings)
    checks: tuple[Callable[[], object], ...] = (
        lambda: read_authentication_rules(settings),
        lambda: read_answer_style(settings.responses, SystemClock()),
        lambda: check_counting(settings.counters),
        lambda: check_emergency(settings),
        lambda: read_callers(settings),
        lambda: check_log(settings),
        lambda: check_tracing(settings.telemetry),
        lambda: check_admin_tokens(settings),
        lambda: read_tls_files(admin_tls) if admin_tls is not None else None,
        lambda: check_usage(settings),
        lambda: check_api_manager(settings),
        *(partial(read_tls_files, each.tls) for each in read_listeners(settings) if each.tls),
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
    """Doors by name, with the parts behind them, and the words that control the service.

    The words are ``serve`` and ``refuse``, for health, and ``reload``. The questions are `CHECKS`,
    `METRICS` and those of the API, for an admin listener in another process.
    """

    doors: Mapping[str, Door]
    words: Words
    questions: Questions


@asynccontextmanager
async def open_service(settings: Settings, *, worker: int = 0) -> AsyncIterator[Service]:
    """Opens the service and the admin listener; health is NOT_SERVING until the word ``serve``.

    Args:
        settings: the settings.
        worker: which of several workers this is; 0 for the only one.

    Raises:
        ConfigError, CatalogError, EmergencyError, ListenError: it cannot start; the text says why.
    """
    with open_decision_log(settings) as log:
        async with (
            open_tracing(settings.telemetry) as tracing,
            _open_service(settings, log, tracing, worker) as service,
        ):
            yield service


@asynccontextmanager
async def _open_service(
    settings: Settings, log: DecisionLog | None, tracing: Tracing | None, worker: int
) -> AsyncIterator[Service]:
    decisions = DecisionMeasures()
    observers = decisions.list_observers()
    if log is not None:
        observers.append(log)
    recent = RecentDecisions(read_masks(settings)) if settings.is_admin_api_open else None
    if recent is not None:
        observers.append(recent)
    tracer = None if tracing is None else tracing.tracer
    if tracer is not None:
        observers.append(tracer)
    server = settings.server
    load = Load(max_in_flight=server.max_in_flight, max_streams=server.max_streams)
    style = read_answer_style(settings.responses, SystemClock())
    async with (
        open_core(settings, observers, tracer) as core,
        open_usage(settings, core, worker) as usage,
        open_mixer_door(
            settings, core, style.denial, load, tracer, [] if usage is None else [usage.log]
        ) as mixer,
    ):
        authorization = AuthorizationService(
            decide=core.pipeline.decide,
            style=style,
            clock=core.clock,
            shadow=settings.server.shadow == GRPC,
            record=core.pipeline.record,
        )
        method = trace_method(authorization.method(), tracer, read_header_fields)
        methods: list[Method] = [method]
        services = [SERVICE]
        if usage is not None:
            methods.append(usage.access_logs.method())
            services.append(ACCESS_LOG_SERVICE)
        doors = {
            GRPC: Door(methods, health=HealthState(services), load=load),
        }
        if mixer is not None:
            doors[MIXER] = mixer.door

        def set_health(status: HealthStatus) -> None:
            for door in doors.values():
                door.health.set_all(status)

        await probe_counting(core.counting)
        tasks: set[asyncio.Task[object]] = {
            asyncio.create_task(core.refresher.run()),
            asyncio.create_task(core.emergency.run()),
        }

        def reload() -> None:
            task = asyncio.create_task(core.refresher.reload())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        words: Words = {
            "serve": partial(set_health, HealthStatus.SERVING),
            "refuse": partial(set_health, HealthStatus.NOT_SERVING),
            "reload": reload,
        }
        healths = [door.health for door in doors.values()]
        metrics = make_metrics(core, load, decisions, server.host)
        watch_certificates(metrics, settings, lambda: core.refresher.catalog)
        if log is not None:
            count_log(metrics, log)
        if tracing is not None:
            count_traces(metrics, tracing)
        if usage is not None:
            count_usage(metrics, usage)
        if mixer is not None:
            count_reports(metrics, mixer.reports)

        async def list_checks() -> list[ReadyCheck]:
            await core.counting.look()
            return list_ready_checks(core, healths)

        async def write_metrics() -> tuple[bytes, str]:
            await core.counting.look()
            return await decisions.counts.write(metrics.write()), CONTENT_TYPE

        async def ask_checks(_: object) -> list[dict[str, Any]]:
            return [write_check(check) for check in await list_checks()]

        async def ask_metrics(_: object) -> bytes:
            text, _ = await write_metrics()
            return text

        questions: Questions = {
            CHECKS: ask_checks,
            METRICS: ask_metrics,
            **answer_admin(core, recent),
            **({} if recent is None else answer_inspection(core, settings, recent.masks)),
        }
        own = OwnProcess(questions)
        try:
            limits = read_host_limits(server, is_shared=worker > 0)
            async with (
                open_http_door(settings, core, style, load, limits, tracer),
                running_admin(settings, own, checks=list_checks, metrics=write_metrics),
            ):
                yield Service(doors, words, questions)
        finally:
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def read_listeners(settings: Settings) -> tuple[DoorListener, ...]:
    """Where each door listens. The names are those of `Service.doors`."""
    mixer = settings.mixer
    doors = (
        (GRPC, settings.listen.grpc, _read_tls(settings.server.tls)),
        (MIXER, settings.listen.mixer, _read_tls(mixer.tls, mixer.callers.uri_sans)),
    )
    streams = {GRPC: () if settings.usage is None else (ACCESS_LOG_PATH,)}
    return tuple(
        DoorListener(
            door=door,
            addresses=(read_listen_address(address),),
            tls=tls,
            client_streams=streams.get(door, ()),
        )
        for door, address, tls in doors
        if address is not None
    )


def _read_tls(tls: TlsSettings | None, uri_sans: tuple[str, ...] = ()) -> TlsFiles | None:
    if tls is None:
        return None
    return TlsFiles(cert=tls.cert, key=tls.key, client_ca=tls.client_ca, client_uri_sans=uri_sans)


def read_host_limits(server: ServerSettings, *, is_shared: bool = False) -> HostLimits:
    """Reads the bounds on connections, calls and messages.

    Args:
        is_shared: whether other workers listen on the same ports.
    """
    return HostLimits(
        max_connection_age_s=server.max_connection_age / US_PER_S,
        max_in_flight=server.max_in_flight,
        reuse_port=is_shared,
    )
