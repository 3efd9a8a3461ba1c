"""Holds the catalog, settings and policies while they are being made.

An API is found by the host of the service that it runs on: in front of a sidecar the path has no
base path that would name it. A target says which requests an object of Mixer was about: those to
a service, a namespace, or the whole mesh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

ANY_VERSION: Final = "v1"
"""The version of what has none in Mixer's objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Requests to a service; to all of a namespace, or of the mesh, where names are empty.

    Attributes:
        labels: of the workloads.
        domain: of the cluster, behind ``svc``.
    """

    namespace: str = ""
    service: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    domain: str = "cluster.local"

    def covers(self, other: Target) -> bool:
        """Whether all requests to the other are requests to this; labels may not be known."""
        return self.namespace in ("", other.namespace) and self.service in ("", other.service)

    def __str__(self) -> str:
        if self.service:
            return f"service {self.service}.{self.namespace}"
        return f"namespace {self.namespace}" if self.namespace else "the whole mesh"


@dataclass(slots=True, kw_only=True)
class ResourceDraft:
    """Methods on a path template."""

    methods: tuple[str, ...]
    path: str
    scopes: tuple[str, ...] = ()
    needs_all: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class ApiDraft:
    """An API as it will be written.

    Attributes:
        is_named: whether the objects name it; else it has the name of its service.
        context: below which it is served; empty for the root of its hosts.
        security: schemes; empty for none.
        guarded_by: the adapter that asked for credentials.
        key_places: where HTTPAPISpecs say that API keys stand.
    """

    name: str
    version: str
    targets: tuple[Target, ...]
    is_named: bool = True
    context: str = ""
    resources: list[ResourceDraft] = field(default_factory=list)
    security: list[str] = field(default_factory=list)
    guarded_by: str = ""
    subscription: bool = True
    bearer_header: str = ""
    api_key_places: list[dict[str, str]] = field(default_factory=list)
    key_places: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyDraft:
    """A deny rule."""

    name: str
    network: IPv4Network | IPv6Network | None = None
    api: str | None = None
    version: str | None = None
    invert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDraft:
    """At most so many requests in a time. `algorithm` is the catalog's word."""

    requests: int
    per_us: int
    algorithm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhenDraft:
    """A condition: an address, or a pattern in a header, query parameter or claim."""

    source: str
    name: str = ""
    pattern: str = ""
    invert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TierDraft:
    """Limits that all hold, and others for the requests that fit conditions."""

    limits: tuple[LimitDraft, ...]
    groups: tuple[tuple[str, tuple[WhenDraft, ...], tuple[LimitDraft, ...]], ...] = ()


def combine_limits(limits: Iterable[LimitDraft]) -> tuple[LimitDraft, ...]:
    """Limits that all hold: of those with the same window the smallest."""
    smallest: dict[tuple[int, str], LimitDraft] = {}
    for limit in limits:
        key = (limit.per_us, limit.algorithm)
        known = smallest.setdefault(key, limit)
        if limit.requests < known.requests:
            smallest[key] = limit
    return tuple(smallest.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomLimitDraft:
    """A limit by a key, on some APIs (all when empty)."""

    name: str
    key: str
    tier: str
    apis: tuple[str, ...] = ()
    when: tuple[WhenDraft, ...] = ()


@dataclass(slots=True)
class Draft:
    """Everything that will be written."""

    apis: list[ApiDraft] = field(default_factory=list)
    tiers: dict[str, TierDraft] = field(default_factory=dict)
    custom_limits: dict[str, CustomLimitDraft] = field(default_factory=dict)
    deny: dict[DenyDraft, None] = field(default_factory=dict)
    guarded: dict[Target, None] = field(default_factory=dict)
    """What Envoy has to ask about."""
    redis_address: str = ""
    uses_redis: bool = False
    profile: str = "standard"
    needs_wso2_issuer: bool = False

    _by_service: dict[str, list[ApiDraft]] = field(default_factory=dict)
    """The APIs with a target of that service; of none, those of a namespace or the mesh."""

    def add(self, api: ApiDraft) -> None:
        """Adds an API, whose targets do not change any more."""
        self.apis.append(api)
        for service in dict.fromkeys(target.service for target in api.targets):
            self._by_service.setdefault(service, []).append(api)

    def apis_of(self, target: Target) -> list[ApiDraft]:
        """The APIs that requests to a target may be for."""
        apis = self._by_service.get(target.service, []) if target.service else self.apis
        return [api for api in apis if any(target.covers(one) for one in api.targets)]

    def apis_serving(self, target: Target) -> list[ApiDraft]:
        """The APIs that may be served by the workloads of a target with a service."""
        apis = (*self._by_service.get(target.service, ()), *self._by_service.get("", ()))
        return [api for api in apis if any(one.covers(target) for one in api.targets)]

    def ensure_api(self, target: Target) -> None:
        """Sees to it that there is an API for a target: one that lets everybody in, if none is."""
        self.guarded[target] = None
        if not self.apis_of(target):
            self.add(
                ApiDraft(
                    name=self._free_name(target),
                    version=ANY_VERSION,
                    targets=(target,),
                    is_named=False,
                    resources=[ResourceDraft(methods=("*",), path="/**")],
                )
            )

    def _free_name(self, target: Target) -> str:
        first = target.service or target.namespace or "mesh"
        return self.find_free_name(first, f"{first}.{target.namespace}" if target.service else "")

    def find_free_name(self, *wanted: str) -> str:
        """The first name that no API has; else the first with a number."""
        taken = {api.name for api in self.apis}
        names = [*wanted, *(f"{wanted[0]}-{number}" for number in range(2, len(taken) + 3))]
        return next(name for name in names if name and name not in taken)

    def refuse(self, apis: Iterable[ApiDraft], name: str) -> None:
        """Refuses all requests to some APIs."""
        for api in apis:
            self.deny[DenyDraft(name=name, api=api.name, version=api.version)] = None

    def list_hosts(self, api: ApiDraft) -> list[str]:
        """The hosts that requests to an API come with, as far as the objects know."""
        if len(self.apis) == 1 or all(other.targets == api.targets for other in self.apis):
            return ["*"]
        hosts: list[str] = []
        for target in api.targets:
            if target.service and not target.namespace:
                hosts.append(target.service)
            elif target.service:
                name = f"{target.service}.{target.namespace}"
                if self._is_unique(target):
                    hosts.append(target.service)
                hosts += [name, f"{name}.svc", f"{name}.svc.{target.domain}"]
            elif target.namespace:
                hosts += [
                    f"*.{target.namespace}",
                    f"*.{target.namespace}.svc",
                    f"*.{target.namespace}.svc.{target.domain}",
                ]
            else:
                hosts.append("*")
        return list(dict.fromkeys(hosts))

    def _is_unique(self, target: Target) -> bool:
        """Whether the service's name alone says which it is."""
        return all(
            other.namespace in ("", target.namespace)
            for api in self._by_service[target.service]
            for other in api.targets
            if other.service == target.service
        )
