"""Makes the pipeline from the settings, with its catalog, authenticator and counters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from extauthz.app.catalog import open_source
from extauthz.app.counting import Counting, open_counting
from extauthz.app.emergency import open_emergency
from extauthz.catalog.refresh import CatalogRefresher
from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp, warn_of_unused_proxy
from extauthz.clients.jwks import JwksKeySource
from extauthz.clock import SteadyClock, SystemClock
from extauthz.counters.memory import MemoryCounterStore
from extauthz.emergency.watch import EmergencyWatch
from extauthz.inspection.explanation import MakePipeline
from extauthz.model.catalog import Catalog
from extauthz.model.identity import Place, PlaceKind
from extauthz.policy.authentication.authenticate import AuthenticationRules, Authenticator
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.authentication.failed_attempts import FailedAttempts, FailureLimit
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.blocks import Blocks
from extauthz.policy.limits.most_used import MostUsed
from extauthz.policy.pipeline import Pipeline
from extauthz.policy.steps import PipelineRules
from extauthz.policy.throttled import ThrottledKeys
from extauthz.ports import CatalogSource, Clock, DecisionObserver, KeySource, TokenIntrospector
from extauthz.process import collector
from extauthz.settings.reading import read_secret_file
from extauthz.settings.tree import PlaceSettings, Settings
from extauthz.telemetry.measures.dependencies import Dependencies

if TYPE_CHECKING:
    from extauthz.telemetry.metrics import CountedCache
    from extauthz.telemetry.tracing import CallTracer

MAX_FAILED_ADDRESSES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Core:
    """The pipeline and the parts that it was made of; caches by name."""

    pipeline: Pipeline
    make_pipeline: MakePipeline
    source: CatalogSource
    refresher: CatalogRefresher
    revocations: Revocations
    emergency: EmergencyWatch
    counting: Counting
    most_used: MostUsed
    throttled: ThrottledKeys
    dependencies: Dependencies
    caches: Mapping[str, CountedCache]
    places: CredentialPlaces
    clock: Clock


@asynccontextmanager
async def open_core(
    settings: Settings,
    observers: Sequence[DecisionObserver] = (),
    tracer: CallTracer | None = None,
    *,
    is_command: bool = False,
) -> AsyncIterator[Core]:
    """Loads the catalog and makes the pipeline; closes everything at the end of the block.

    Raises:
        ConfigError, CatalogError, EmergencyError: there is no valid catalog, or a required source
            cannot be read.
    """
    clock = SystemClock()
    rules = read_authentication_rules(settings)
    revocations = Revocations(clock)
    has_pepper = rules.pepper is not None
    async with (
        open_source(
            settings, has_pepper=has_pepper, revocations=revocations, is_command=is_command
        ) as source,
        _open_core(settings, source, revocations, rules, clock, observers, tracer) as core,
    ):
        yield core


@asynccontextmanager
async def _open_core(
    settings: Settings,
    source: CatalogSource,
    revocations: Revocations,
    rules: AuthenticationRules,
    clock: Clock,
    observers: Sequence[DecisionObserver],
    tracer: CallTracer | None,
) -> AsyncIterator[Core]:
    refresher = CatalogRefresher(source, clock)
    blocks = Blocks(clock)
    proxy = settings.http.proxy
    if proxy is None:
        warn_of_unused_proxy()
    async with IssuerHttp(
        proxy="" if proxy is None else proxy.get_secret_value(), no_proxy=settings.http.no_proxy
    ) as http:
        dependencies = Dependencies()
        keys = JwksKeySource(
            http,
            clock,
            fetches=dependencies.add("jwks", "fetch"),
            discoveries=dependencies.add("discovery", "fetch"),
        )
        introspector = IntrospectionClient(
            http, clock, measure=dependencies.add("introspection", "introspect")
        )
        counting = open_counting(settings.counters, dependencies, tracer)
        failures = MemoryCounterStore(clock, max_keys=MAX_FAILED_ADDRESSES, steady=SteadyClock())

        def take_over(catalog: Catalog) -> None:
            revocations.replace("catalog", catalog.revoked)
            signers = (signer.issuer for signer in catalog.api_key_signers)
            keys.retain((*catalog.issuers.values(), *signers))
            collector.keep_for_good()

        refresher.subscribe(take_over)
        await refresher.start()
        emergency = open_emergency(
            settings,
            blocks=blocks,
            revocations=revocations,
            clock=clock,
            catalog=lambda: refresher.catalog,
            dependencies=dependencies,
        )
        try:
            await emergency.start()
        except BaseException:
            await emergency.close()
            raise
        watched_keys: KeySource = keys
        watched_introspector: TokenIntrospector = introspector
        if tracer is not None:
            watched_keys = tracer.watch_keys(keys)
            watched_introspector = tracer.watch_introspector(introspector)
        authenticator = Authenticator(
            rules=rules,
            keys=watched_keys,
            introspector=watched_introspector,
            revocations=revocations,
            failed_attempts=FailedAttempts(read_failure_limit(settings), failures),
            clock=clock,
        )

        most_used, throttled = MostUsed(), ThrottledKeys(clock)

        def make(
            observers: Sequence[DecisionObserver] = (), *, trusted_hops: int | None = None
        ) -> Pipeline:
            credentials = settings.credentials
            return Pipeline(
                catalog=lambda: refresher.catalog,
                authenticator=authenticator,
                counters=counting.store,
                clock=clock,
                rules=PipelineRules(
                    trusted_hops=credentials.trusted_hops if trusted_hops is None else trusted_hops,
                    use_remote_address=credentials.use_remote_address,
                    places=rules.places,
                    on_outage=settings.counters.on_outage,
                ),
                observers=observers,
                blocks=blocks,
                most_used=most_used,
                throttled=throttled,
            )

        caches: dict[str, CountedCache] = {
            "tokens": authenticator.tokens,
            "keys": keys,
            "introspection": introspector,
        }
        if counting.redis is not None and counting.redis.refusals is not None:
            caches["refusals"] = counting.redis.refusals
        try:
            yield Core(
                make(observers),
                make,
                source,
                refresher,
                revocations,
                emergency,
                counting,
                most_used,
                throttled,
                dependencies,
                caches,
                rules.places,
                clock,
            )
        finally:
            await keys.close()
            await introspector.close()
            await emergency.close()
            await counting.store.close()
            await failures.close()
            collector.keep_no_longer()


def read_authentication_rules(settings: Settings) -> AuthenticationRules:
    """Reads the rules of authentication.

    Raises:
        ConfigError: the file with the pepper cannot be used.
    """
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


def read_failure_limit(settings: Settings) -> FailureLimit | None:
    """How many invalid credentials an address may send; None when they are not limited."""
    failed = settings.credentials.failed_attempts
    if failed.requests == 0:
        return None
    return FailureLimit(requests=failed.requests, window_us=failed.per)
