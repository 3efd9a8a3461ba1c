"""Holds the catalog, settings and policies while they are being made.

An API is found by the host of its service, because paths that reach a sidecar have no base path
that would identify the API. A target selects the requests that an object of Mixer was for: those to
a service, a namespace, or the whole mesh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

ANY_VERSION: Final = "v1"
"""The version of APIs that have none in Mixer's objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Selects the requests to a service, a namespace (no service) or the mesh (neither name).

    Attributes:
        labels: those of the workloads.
        domain: the cluster's domain, which follows ``svc`` in host names.
    """

    namespace: str = ""
    service: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    domain: str = "cluster.local"

    def covers(self, other: Target) -> bool:
        """Whether this selects all requests of the other. Labels are ignored, as often unknown."""
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
    """An API of the catalog.

    Attributes:
        is_named: whether the objects name it; otherwise it has the name of its service.
        context: the path below which it is served; empty for the root of its hosts.
        security: schemes; empty for none.
        guarded_by: the handler that checked credentials.
        key_places: the places of API keys, from HTTPAPISpecs.
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
    """At most `requests` requests in `per_us` microseconds. `algorithm` is the catalog's word."""

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
    """Limits that all hold, and groups of limits that replace them when their conditions hold."""

    limits: tuple[LimitDraft, ...]
    groups: tuple[tuple[str, tuple[WhenDraft, ...], tuple[LimitDraft, ...]], ...] = ()


def combine_limits(limits: Iterable[LimitDraft]) -> tuple[LimitDraft, ...]:
    """Combines limits that all hold: of limits with the same window, only the smallest is kept."""
    smallest: dict[tuple[int, str], LimitDraft] = {}
    for limit in limits:
        key = (limit.per_us, limit.algorithm)
        known = smallest.setdefault(key, limit)
        if limit.requests < known.requests:
            smallest[key] = limit
    return tuple(smallest.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomLimitDraft:
    """A custom limit: its key, and its APIs (all when empty)."""

    name: str
    key: str
    tier: str
    apis: tuple[str, ...] = ()
    when: tuple[WhenDraft, ...] = ()


@dataclass(slots=True)
class Draft:
    """The catalog, settings and policies that will be written."""

    apis: list[ApiDraft] = field(default_factory=list)
    tiers: dict[str, TierDraft] = field(default_factory=dict)
    custom_limits: dict[str, CustomLimitDraft] = field(default_factory=dict)
    deny: dict[DenyDraft, None] = field(default_factory=dict)
    guarded: dict[Target, None] = field(default_factory=dict)
    """The targets whose requests Envoy must ask about."""
    redis_address: str = ""
    uses_redis: bool = False
    profile: str = "standard"
    needs_wso2_issuer: bool = False

    _by_service: dict[str, list[ApiDraft]] = field(default_factory=dict)
    """The APIs by the service of a target; empty for targets of a namespace or the mesh."""

    def add(self, api: ApiDraft) -> None:
        """Adds an API. Its targets must not change afterwards."""
        self.apis.append(api)
        for service in dict.fromkeys(target.service for target in api.targets):
            self._by_service.setdefault(service, []).append(api)

    def apis_of(self, target: Target) -> list[ApiDraft]:
        """The APIs that may receive requests to a target."""
        apis = self._by_service.get(target.service, []) if target.service else self.apis
        return [api for api in apis if any(target.covers(one) for one in api.targets)]

    def apis_serving(self, target: Target) -> list[ApiDraft]:
        """The APIs that the workloads of a target may serve; the target has a service."""
        apis = (*self._by_service.get(target.service, ()), *self._by_service.get("", ()))
        return [api for api in apis if any(one.covers(target) for one in api.targets)]

    def ensure_api(self, target: Target) -> None:
        """Makes sure that a target has an API; a new one is open to everybody."""
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
        """The first name that no API has; if all are in use, the first one followed by a number."""
        taken = {api.name for api in self.apis}
        names = [*wanted, *(f"{wanted[0]}-{number}" for number in range(2, len(taken) + 3))]
        return next(name for name in names if name and name not in taken)

    def refuse(self, apis: Iterable[ApiDraft], name: str) -> None:
        """Refuses all requests to some APIs."""
        for api in apis:
            self.deny[DenyDraft(name=name, api=api.name, version=api.version)] = None

    def list_hosts(self, api: ApiDraft) -> list[str]:
        """The hosts of requests to an API, as far as the objects show them."""
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
        """Whether the service's name is unique without its namespace."""
        return all(
            other.namespace in ("", target.namespace)
            for api in self._by_service[target.service]
            for other in api.targets
            if other.service == target.service
        )
