"""Settings of what is kept outside of the catalog: counters, and blocks and revocations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, model_validator

from extauthz.counters.redis.settings import read_redis_url
from extauthz.documents.document import Fits, PositiveDuration, StrictModel
from extauthz.model.limits import OutageMode

_PREFIX: Final = "must have 64 characters at most, and no space or brace"


class RedisTlsSettings(StrictModel):
    """Certificates for a rediss:// connection. The server's name is always checked."""

    ca: Path | None = None
    """PEM file: who may sign Redis's certificate; the system's authorities when left out."""
    cert: Path | None = None
    """PEM file: our own certificate, when Redis asks for one."""
    key: Path | None = None
    """PEM file: its private key."""


class LeaseSettings(StrictModel):
    """Blocks that a process takes of a hot counter, and spends without Redis."""

    size: int = Field(default=100, ge=2, le=1_000_000)
    """The most that is charged in advance; what is left at a window's end is lost."""
    hot_per_second: int = Field(default=100, ge=1)
    """A counter that is charged more often than this in a second is leased."""


class RedisAccessSettings(StrictModel):
    """How a Redis is reached."""

    url: SecretStr | None = None
    """redis://, rediss://, unix://, redis+sentinel://host,host2/?service=name or
    redis+cluster://host,host2."""
    username: str = ""
    """ACL user of Redis, instead of the URL's."""
    password_file: Path | None = None
    """File with the password, instead of one in the URL."""
    sentinel_username: str = ""
    """ACL user of the Sentinels."""
    sentinel_password_file: Path | None = None
    """File with the Sentinels' password."""
    tls: RedisTlsSettings | None = None
    """Certificates for rediss://."""
    prefix: Annotated[str, Fits(r"^[^{}\s]{0,64}$", _PREFIX)] = "extauthz:"
    """Prefix of every key, so that several installations can share a Redis."""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if self.url is not None:
            read_redis_url(self.url.get_secret_value())
        return self


class CounterSettings(RedisAccessSettings):
    """Where requests are counted."""

    store: Literal["memory", "redis"] = "memory"
    """memory: in this process, for a single replica; redis: shared by all replicas."""
    timeout: PositiveDuration = 50_000
    """The longest wait for Redis; the caller's deadline may make it shorter."""
    on_outage: OutageMode = OutageMode.LOCAL
    """What limits do while Redis is away: deny, allow or local. A tier may say otherwise."""
    replicas: int = Field(default=1, ge=1, le=10_000)
    """How many pods count together: in an outage each worker of each admits its share of a
    limit."""
    leases: LeaseSettings | None = None
    """For hot counters; left out: every decision asks Redis."""
    max_keys: int = Field(default=1_000_000, ge=1)
    """Counters that are kept in memory at once; half at most by address, header, query, user or
    claim."""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if self.store == "redis" and self.url is None:
            raise ValueError("store: redis needs a url, like redis://127.0.0.1:6379/0")
        if self.store == "memory" and self.url is not None:
            raise ValueError("url is for store: redis; write that, or remove url")
        if self.url is not None:
            read_redis_url(self.url.get_secret_value())
        return self


class EmergencyRedisSettings(RedisAccessSettings):
    """Where blocks and revocations are kept for all replicas."""

    url: SecretStr
    """redis://, rediss://, unix://, redis+sentinel://host,host2/?service=name or
    redis+cluster://host,host2."""


class EmergencySettings(StrictModel):
    """Blocks and revocations, which are in force whatever is wrong in the catalog."""

    files: tuple[Path, ...] = ()
    """Files with blocks and revocations, outside of the catalog. Without a Redis, `extauthz block`
    writes to the first."""
    redis: EmergencyRedisSettings | None = None
    """Where `extauthz block` writes for all replicas. Left out: the Redis of the counters, if
    they are in one."""
    required: bool = False
    """Do not start while that Redis cannot be read: what is blocked is not known then."""
