"""Opens the sources of blocks and revocations that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from extauthz.app.counting import check_redis, read_redis_settings
from extauthz.emergency.files import EmergencyFile, read_blocks_file
from extauthz.emergency.reading import EmergencyStore
from extauthz.emergency.watch import EmergencyWatch
from extauthz.errors import ConfigError, Problem
from extauthz.model.catalog import Catalog
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.blocks import Blocks
from extauthz.ports import Clock
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState
from extauthz.settings.stores import RedisAccessSettings
from extauthz.settings.tree import Settings
from extauthz.telemetry.measures.dependencies import Dependencies

if TYPE_CHECKING:
    from extauthz.emergency.redis_store import RedisEmergency


def find_emergency_redis(settings: Settings) -> RedisAccessSettings | None:
    """The Redis that holds blocks and revocations: one of their own, or that of the counters."""
    own, counters = settings.emergency.redis, settings.counters
    return own or (counters if counters.store == "redis" else None)


def open_emergency_redis(
    settings: Settings, dependencies: Dependencies | None = None
) -> RedisEmergency | None:
    """Opens that Redis for reading and writing; None when there is none.

    dependencies: shows its calls.

    Raises:
        ConfigError: the settings contradict each other, or a file cannot be used.
    """
    redis = find_emergency_redis(settings)
    if redis is None:
        return None
    check_redis(redis, "counters" if settings.emergency.redis is None else "emergency.redis")
    from extauthz.emergency.redis_store import RedisEmergency  # brings Redis's client

    measure = None if dependencies is None else dependencies.add("redis", "blocks")
    return RedisEmergency(read_redis_settings(redis), measure=measure)


@asynccontextmanager
async def opened_stores(settings: Settings) -> AsyncIterator[list[EmergencyStore]]:
    """Where entries are kept: Redis first.

    Raises:
        ConfigError: there is no such place, or the settings are not good.
    """
    stores: list[EmergencyStore] = [EmergencyFile(file) for file in settings.emergency.files]
    redis = open_emergency_redis(settings)
    if redis is not None:
        stores.insert(0, redis)
    if not stores:
        message = (
            "there is no place for blocks and revocations: set emergency.redis or "
            "emergency.files, or count in Redis"
        )
        raise ConfigError([Problem(path="emergency", message=message)])
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


def open_emergency(
    settings: Settings,
    *,
    blocks: Blocks,
    revocations: Revocations,
    clock: Clock,
    catalog: Callable[[], Catalog],
    dependencies: Dependencies | None = None,
) -> EmergencyWatch:
    """Makes the watch that puts blocks and revocations in force.

    Raises:
        ConfigError: as for `open_emergency_redis`.
    """
    sources: list[EmergencyStore] = [EmergencyFile(file) for file in settings.emergency.files]
    redis = open_emergency_redis(settings, dependencies)
    if redis is not None:
        sources.append(redis)
    return EmergencyWatch(
        sources,
        blocks=blocks,
        revocations=revocations,
        clock=clock,
        catalog=catalog,
        is_required=settings.emergency.required,
    )


def check_emergency(settings: Settings) -> None:
    """Checks everything that can be checked without Redis.

    Raises:
        ConfigError: with every problem of every file.
    """
    problems: list[Problem] = []
    for file in settings.emergency.files:
        try:
            problems += read_blocks_file(file)[0].problems
        except ConfigError as exc:
            problems += exc.problems
    redis = settings.emergency.redis
    if redis is not None:
        try:
            check_redis(redis, "emergency.redis")
        except ConfigError as exc:
            problems += exc.problems
    if problems:
        raise ConfigError(problems)


def check_ready(watch: EmergencyWatch) -> ReadyCheck:
    """The readiness of blocks and revocations. A failed source's last content stays in force."""
    problems, errors = watch.problems, watch.errors
    first = [str(problem) for problem in problems[:1]] + list(errors.values())
    return ReadyCheck(
        name="emergency",
        state=ReadyState.READY if watch.is_good else ReadyState.DEGRADED,
        facts={
            "in_force": watch.count(),
            "problems": len(problems),
            "unread_sources": len(errors),
            "last_error": first[0] if first else None,
        },
    )
