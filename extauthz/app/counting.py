"""Makes the counter store from the settings: in memory, or in Redis with a fallback."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Final

from extauthz.clock import SteadyClock, SystemClock
from extauthz.counters.leases.store import LeaseRules, LeasingCounterStore
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.fallback import FallbackCounterStore
from extauthz.counters.outage.local import LocalTime
from extauthz.counters.outage.mode import FallbackRules
from extauthz.counters.redis.measures import RedisMeasures
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.documents.document import read_file
from extauthz.errors import ConfigError, CounterStoreError, Problem
from extauthz.inspection.limits_in_use import CounterReading
from extauthz.model.limits import US_PER_S, Charge
from extauthz.ports import CounterStore, Deadline
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState
from extauthz.serving.tls import TlsFiles, read_tls_files
from extauthz.settings.reading import read_secret_file
from extauthz.settings.stores import CounterSettings, RedisAccessSettings
from extauthz.telemetry.measures.dependencies import Dependencies

if TYPE_CHECKING:
    from extauthz.counters.redis.store import RedisCounterStore
    from extauthz.telemetry.tracing import CallTracer

_log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
"""Longest wait for a look at the shared store; Kubernetes waits 1 s for readiness."""


@dataclass(frozen=True, slots=True)
class Counting:
    """A counter store and its parts. Those are None when each process counts by itself.

    Attributes:
        memory: `store` itself when each process counts by itself, else the store for outages.
        leases: takes blocks of hot counters from the shared store in advance, where it is used.
    """

    store: CounterStore
    memory: MemoryCounterStore
    shared: FallbackCounterStore | None = None
    redis: RedisCounterStore | None = None
    leases: LeasingCounterStore | None = None

    @property
    def losses(self) -> int:
        """How often the shared store was found to have lost its counters."""
        return 0 if self.redis is None else self.redis.losses

    @property
    def is_up(self) -> bool:
        """Whether the shared store answered when it was last asked; True when there is none."""
        return self.shared is None or not self.shared.state.degraded

    async def look(self) -> None:
        """Asks the shared store, so that its state is known without traffic, too."""
        if self.shared is not None:
            await self.shared.look(LOOK_S)

    async def read(self, charges: Sequence[Charge]) -> list[CounterReading]:
        """Reads counters, and takes nothing.

        Raises:
            CounterStoreError: the shared store did not answer.
        """
        asked = [replace(charge, cost=0) for charge in charges]
        if self.shared is not None and not self.shared.is_away:
            deadline = Deadline(time.monotonic() + LOOK_S)
            taking = await self.shared.take(asked, deadline=deadline)
            if not isinstance(taking.at_us, LocalTime):
                held = self.leases
                return [
                    CounterReading(
                        charge.limit,
                        reading,
                        leased=0 if held is None else held.count_held(charge.key),
                    )
                    for charge, reading in zip(asked, taking.readings, strict=True)
                ]
        if self.shared is not None:
            return [
                CounterReading(limit, reading, is_of_outage=True)
                for limit, reading in await self.shared.read_here(asked)
            ]
        taking = await self.store.take(asked)
        return [
            CounterReading(charge.limit, reading)
            for charge, reading in zip(asked, taking.readings, strict=True)
        ]

    def check(self) -> ReadyCheck:
        """For readiness. A replica without its counter store is degraded, and still decides."""
        occupancy = self.memory.occupancy
        room = {
            "in_memory": sum(occupancy.held.values()),
            "full_for": ", ".join(occupancy.full) or None,
        }
        if self.shared is None:
            return ReadyCheck(
                name="counters",
                state=ReadyState.DEGRADED if occupancy.full else ReadyState.READY,
                facts={"store": "memory", **room},
            )
        state = self.shared.state
        return ReadyCheck(
            name="counters",
            state=ReadyState.DEGRADED if state.degraded or occupancy.full else ReadyState.READY,
            facts={
                "store": "redis",
                **room,
                "circuit": state.breaker.value,
                "since": state.since_us // US_PER_S,
                "last_error": state.last_error or None,
                "admitted_locally": state.admitted_locally,
                "owed_counters": state.debts,
            },
        )


def open_counting(
    settings: CounterSettings, dependencies: Dependencies, tracer: CallTracer | None = None
) -> Counting:
    """The store that the settings name. Redis is connected to with the first request.

    dependencies: shows the calls of Redis.
    tracer: shows what a call waits for in Redis.

    Raises:
        ConfigError: the Redis settings contradict each other, or a file cannot be used.
    """
    check_counting(settings)
    clock = SystemClock()
    local = MemoryCounterStore(clock, max_keys=settings.max_keys, steady=SteadyClock())
    if settings.url is None:
        return Counting(local, local)
    from extauthz.counters.redis.store import RedisCounterStore  # brings Redis's client

    rules_of_redis = replace(read_redis_settings(settings), timeout_s=settings.timeout / US_PER_S)
    measures = RedisMeasures(
        dependencies.add("redis", "count"), dependencies.add("redis", "connect")
    )
    redis = RedisCounterStore(rules_of_redis, measures=measures)
    primary: CounterStore = redis if tracer is None else tracer.watch_counters(redis)
    leasing: LeasingCounterStore | None = None
    if settings.leases is not None:
        leases = settings.leases
        rules = LeaseRules(size=leases.size, hot_per_s=leases.hot_per_second)
        primary = leasing = LeasingCounterStore(primary, rules=rules)
    shared = FallbackCounterStore(
        primary,
        local,
        clock,
        share=Fraction(1, settings.replicas),
        rules=FallbackRules(
            timeout_s=rules_of_redis.timeout_s, ids_remembered_us=rules_of_redis.dedup_ttl_us
        ),
    )
    return Counting(shared, local, shared, redis, leasing)


async def probe_counting(counting: Counting) -> None:
    """Asks the shared store once, so that a wrong address or password is reported at the start.

    Nothing is charged. A store that does not answer is logged, and does not prevent the start.
    """
    if counting.shared is None:
        return
    await counting.shared.look()
    if not counting.is_up:
        _log.warning(
            "%s: %s; limits follow their outage modes until it answers",
            CounterStoreError.code,
            counting.shared.state.last_error,
        )


def check_counting(settings: CounterSettings) -> None:
    """Checks what would otherwise appear as an outage when Redis is first asked.

    Raises:
        ConfigError: the Redis settings contradict each other, or a file cannot be used.
    """
    if settings.url is not None:
        check_redis(settings, "counters")


def check_redis(settings: RedisAccessSettings, path: str) -> None:
    """As `check_counting`; `path` is the section's."""
    try:
        read_redis_settings(settings)
    except ValueError as exc:
        raise ConfigError([Problem(path=path, message=str(exc))]) from exc
    tls = settings.tls
    checks: list[Callable[[], object]] = [
        partial(read_secret_file, file)
        for file in (settings.password_file, settings.sentinel_password_file)
        if file is not None
    ]
    if tls is not None and tls.cert is not None and tls.key is not None:
        files = TlsFiles(cert=tls.cert, key=tls.key, client_ca=tls.ca)
        checks.append(partial(read_tls_files, files))
    elif tls is not None and tls.ca is not None:
        checks.append(partial(read_file, tls.ca))
    problems: list[Problem] = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def read_redis_settings(settings: RedisAccessSettings) -> RedisSettings:
    """How Redis is reached.

    Raises:
        ValueError: the settings contradict each other; the text repeats no secret.
    """
    assert settings.url is not None
    tls = settings.tls
    return RedisSettings(
        address=read_redis_url(settings.url.get_secret_value()),
        username=settings.username,
        password_file=settings.password_file,
        sentinel_username=settings.sentinel_username,
        sentinel_password_file=settings.sentinel_password_file,
        ca_file=tls.ca if tls else None,
        cert_file=tls.cert if tls else None,
        key_file=tls.key if tls else None,
        prefix=settings.prefix,
    )
