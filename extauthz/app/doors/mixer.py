"""Opens the Mixer door from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from extauthz.answers.denial import DenialStyle
from extauthz.app.core import Core
from extauthz.app.tracing import trace_method
from extauthz.model.identity import Secret
from extauthz.policy.limits.tier_quotas import TierQuotas
from extauthz.ports import UsageObserver
from extauthz.serving.door import Door
from extauthz.serving.health import HealthState
from extauthz.serving.load import Load
from extauthz.settings.reading import read_token_file
from extauthz.settings.tree import Settings
from mixer_compat.adapter import SERVICES, MixerAdapter
from mixer_compat.callers import CallerRules
from mixer_compat.door import MixerDoor
from mixer_compat.params import HandlerParams, ParamsReader
from mixer_compat.property_names import WSO2_NAMES, PropertyNames
from mixer_compat.reports import Reports

if TYPE_CHECKING:
    from extauthz.telemetry.tracing import CallTracer

MIXER: Final = "mixer"
"""The name of this door."""
_LAST_REPORTS_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class OpenMixerDoor:
    """The Mixer door and its reports."""

    door: Door
    reports: Reports


@asynccontextmanager
async def open_mixer_door(
    settings: Settings,
    core: Core,
    style: DenialStyle,
    load: Load,
    tracer: CallTracer | None = None,
    observers: Iterable[UsageObserver] = (),
) -> AsyncIterator[OpenMixerDoor | None]:
    """Opens the door; None when the settings do not name its address.

    Raises:
        ConfigError: the file with the Mixers' tokens cannot be used.
    """
    if settings.listen.mixer is None:
        yield None
        return
    adapter = _make_adapter(settings, core, style, observers)
    reading = asyncio.create_task(adapter.reports.run())
    try:
        health = HealthState(SERVICES)
        methods = adapter.methods()
        methods = tuple(trace_method(method, tracer) for method in methods)
        door = Door(methods, health=health, load=load)
        yield OpenMixerDoor(door, adapter.reports)
    finally:
        # Reports that were answered are read before the stop, unless that takes too long.
        adapter.reports.end()
        try:
            await asyncio.wait((reading,), timeout=_LAST_REPORTS_S)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def _make_adapter(
    settings: Settings, core: Core, style: DenialStyle, observers: Iterable[UsageObserver]
) -> MixerAdapter:
    catalog = core.refresher
    door = MixerDoor(
        pipeline=core.pipeline,
        catalog=lambda: catalog.catalog,
        params=ParamsReader(read_handler_params(settings)),
        clock=core.clock,
        style=style,
        callers=read_callers(settings),
        quota_valid_for_us=settings.mixer.quota_valid_for,
    )
    tiers = TierQuotas(
        catalog=door.catalog,
        counters=core.counting.store,
        clock=core.clock,
        on_outage=settings.counters.on_outage,
    )
    return MixerAdapter(door, tiers, observers)


def read_handler_params(settings: Settings) -> HandlerParams:
    """The parameters of handlers that have none of their own."""
    mixer = settings.mixer
    names = PropertyNames() if mixer.compat is None else WSO2_NAMES
    return HandlerParams(
        names=replace(names, **mixer.properties),
        headers=mixer.headers,
        query=mixer.query,
        quota_tiers=mixer.quota_tiers,
        limits_in_quota=mixer.limits_in_quota,
        valid_for_us=mixer.valid_for,
        valid_uses=mixer.valid_uses,
        as_wso2_adapter=mixer.compat is not None,
        shadow=settings.server.shadow == MIXER,
    )


def read_callers(settings: Settings) -> CallerRules:
    """The tokens of callers. Their certificates are checked by the host: see `read_listeners`.

    Raises:
        ConfigError: the file with the tokens cannot be read, or holds none.
    """
    callers = settings.mixer.callers
    tokens: tuple[Secret, ...] = ()
    if callers.token_file is not None:
        tokens = read_token_file(callers.token_file)
    return CallerRules(tokens=tokens, header=callers.token_header)
