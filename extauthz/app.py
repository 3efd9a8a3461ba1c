"""Puts the parts together: the only place that names implementations.

`open_core` gives what decides, for any door or command. `serve` adds the doors, the host and
the life of a service: start, reload on SIGHUP, stop on SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import httpx

from extauthz.answers.backend_jwt import BackendJwtSigner, BackendJwtStyle, read_private_key
from extauthz.answers.denial import DenialStyle
from extauthz.answers.upstream import UpstreamStyle
from extauthz.catalog.file import FileCatalogSource
from extauthz.catalog.refresh import CatalogRefresher
from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.jwks import JwksKeySource
from extauthz.clock import SystemClock
from extauthz.config import read_secret_file
from extauthz.counters.memory import MemoryCounterStore
from extauthz.envoy.authorization import SERVICE, AnswerStyle, AuthorizationService
from extauthz.errors import ConfigError, Problem
from extauthz.model.catalog import Catalog
from extauthz.model.identity import Place, PlaceKind
from extauthz.model.limits import US_PER_S
from extauthz.policy.authenticate import AuthenticationRules, Authenticator
from extauthz.policy.credentials import CredentialPlaces
from extauthz.policy.failed_attempts import FailedAttempts, FailureLimit
from extauthz.policy.pipeline import Pipeline, PipelineRules
from extauthz.policy.revocations import Revocations
from extauthz.ports import Clock, DecisionObserver
from extauthz.serving.door import Door
from extauthz.serving.grpcio_host import GrpcioHost, HostLimits
from extauthz.serving.health import HealthState, HealthStatus
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.tls import TlsFiles, read_tls_files
from extauthz.settings import PlaceSettings, ResponseSettings, Settings

_log = logging.getLogger(__name__)

MAX_FAILED_ADDRESSES: Final = 100_000
_HTTP_LIMITS: Final = httpx.Limits(max_connections=50, max_keepalive_connections=10)


@dataclass(frozen=True, slots=True)
class Core:
    """What decides, and what it was made of."""

    pipeline: Pipeline
    refresher: CatalogRefresher
    revocations: Revocations
    places: CredentialPlaces
    clock: Clock


@asynccontextmanager
async def open_core(
    settings: Settings, observers: Sequence[DecisionObserver] = ()
) -> AsyncIterator[Core]:
    """Loads the catalog and gives the pipeline; lets go of everything at the end.

    Raises:
        ConfigError, CatalogError: there is nothing valid to decide by.
    """
    clock = SystemClock()
    rules = _read_authentication_rules(settings)
    source = FileCatalogSource(settings.catalog.files, has_pepper=rules.pepper is not None)
    refresher = CatalogRefresher(source, clock)
    revocations = Revocations(clock)
    # Identity providers are asked directly: a proxy named in the environment is not ours.
    async with httpx.AsyncClient(limits=_HTTP_LIMITS, trust_env=False) as http:
        keys = JwksKeySource(http, clock)
        introspector = IntrospectionClient(http, clock)
        counters = MemoryCounterStore(clock, max_keys=settings.counters.max_keys)
        failures = MemoryCounterStore(clock, max_keys=MAX_FAILED_ADDRESSES)

        def take_over(catalog: Catalog) -> None:
            revocations.replace("catalog", catalog.revoked)
            keys.retain(catalog.issuers.values())

        refresher.subscribe(take_over)
        await refresher.start()
        authenticator = Authenticator(
            rules=rules,
            keys=keys,
            introspector=introspector,
            revocations=revocations,
            failed_attempts=FailedAttempts(_read_failure_limit(settings), failures),
            clock=clock,
        )
        pipeline = Pipeline(
            catalog=lambda: refresher.catalog,
            authenticator=authenticator,
            counters=counters,
            clock=clock,
            rules=PipelineRules(
                unnormalised=settings.paths.unnormalised,
                trusted_hops=settings.credentials.trusted_hops,
                places=rules.places,
            ),
            observers=observers,
        )
        try:
            yield Core(pipeline, refresher, revocations, rules.places, clock)
        finally:
            await keys.close()
            await introspector.close()
            await counters.close()
            await failures.close()


def _read_authentication_rules(settings: Settings) -> AuthenticationRules:
    credentials = settings.credentials
    pepper = None
    if credentials.api_key_pepper_file is not None:
        pepper = read_secret_file(credentials.api_key_pepper_file)
    return AuthenticationRules(
        places=CredentialPlaces(
            bearer=tuple(map(_read_place, credentials.bearer)),
            api_key=tuple(map(_read_place, credentials.api_key)),
        ),
        pepper=pepper,
        trust_xfcc=credentials.trust_xfcc,
        cache_size=credentials.cache_size,
    )


def _read_place(place: PlaceSettings) -> Place:
    if place.header is not None:
        return Place(PlaceKind.HEADER, place.header)
    if place.query is not None:
        return Place(PlaceKind.QUERY, place.query)
    assert place.cookie is not None
    return Place(PlaceKind.COOKIE, place.cookie)


def _read_failure_limit(settings: Settings) -> FailureLimit | None:
    failed = settings.credentials.failed_attempts
    if failed.requests == 0:
        return None
    return FailureLimit(requests=failed.requests, window_us=failed.per)


def read_answer_style(responses: ResponseSettings, clock: Clock) -> AnswerStyle:
    """How the settings want answers to look.

    Raises:
        ConfigError: the key of the backend JWT cannot be used.
    """
    return AnswerStyle(
        denial=DenialStyle(
            profile=responses.profile,
            realm=responses.realm,
            limit_headers=responses.rate_limit_headers,
        ),
        upstream=UpstreamStyle(
            identity_headers=responses.identity_headers,
            limit_headers=responses.rate_limit_headers,
            backend_jwt=_read_backend_jwt(responses, clock),
        ),
        error_response=responses.error_response,
    )


def _read_backend_jwt(responses: ResponseSettings, clock: Clock) -> BackendJwtSigner | None:
    wanted = responses.backend_jwt
    if wanted is None:
        return None
    style = BackendJwtStyle(
        header=wanted.header,
        issuer=wanted.issuer,
        dialect=wanted.dialect,
        algorithm=wanted.algorithm,
        key_id=wanted.key_id,
        ttl_us=wanted.ttl,
    )
    key = read_private_key(wanted.private_key_file, wanted.algorithm)
    return BackendJwtSigner(key=key, style=style, clock=clock)


def list_file_problems(settings: Settings) -> list[Problem]:
    """What is wrong with the files that settings name, beside the catalog."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: _read_authentication_rules(settings),
        lambda: read_answer_style(settings.responses, SystemClock()),
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
    async with open_core(settings) as core:
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
