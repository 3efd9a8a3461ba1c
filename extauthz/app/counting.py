"""Where requests are counted, as the settings want it: in memory, or in Redis with a fallback."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from extauthz.counters.breaker import BreakerState
from extauthz.counters.fallback import FallbackCounterStore
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage import FallbackRules
from extauthz.counters.redis import RedisCounterStore
from extauthz.counters.redis_connect import RedisSettings, read_redis_url
from extauthz.model.limits import US_PER_S
from extauthz.ports import Clock, CounterStore
from extauthz.serving.readiness import ReadyCheck, ReadyState
from extauthz.settings import CounterSettings


@dataclass(frozen=True, slots=True)
class Counting:
    """A counter store, and how it stands. `shared` is None when each process counts alone."""

    store: CounterStore
    shared: FallbackCounterStore | None = None

    @property
    def is_up(self) -> bool:
        """Whether counts are shared now, as far as they are meant to be."""
        return self.shared is None or self.shared.state.breaker is BreakerState.CLOSED

    def check(self) -> ReadyCheck:
        """For readiness. A replica without its counter store is degraded, and still decides."""
        if self.shared is None:
            return ReadyCheck(name="counters", state=ReadyState.READY, facts={"store": "memory"})
        state = self.shared.state
        return ReadyCheck(
            name="counters",
            state=ReadyState.DEGRADED if state.degraded else ReadyState.READY,
            facts={
                "store": "redis",
                "circuit": state.breaker.value,
                "since": state.since_us // US_PER_S,
                "last_error": state.last_error or None,
                "admitted_locally": state.admitted_locally,
                "owed_counters": state.owed_counters,
            },
        )


def open_counting(settings: CounterSettings, clock: Clock) -> Counting:
    """The store that the settings name. Redis is connected to with the first request.

    Raises:
        ValueError: the Redis settings contradict each other.
    """
    local = MemoryCounterStore(clock, max_keys=settings.max_keys)
    if settings.url is None:
        return Counting(local)
    redis = read_redis_settings(settings)
    shared = FallbackCounterStore(
        RedisCounterStore(redis),
        local,
        clock,
        share=Fraction(1, settings.replicas),
        rules=FallbackRules(timeout_s=redis.timeout_s, ids_remembered_us=redis.dedup_ttl_us),
    )
    return Counting(shared, shared)


def read_redis_settings(settings: CounterSettings) -> RedisSettings:
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
        timeout_s=settings.timeout / US_PER_S,
    )
