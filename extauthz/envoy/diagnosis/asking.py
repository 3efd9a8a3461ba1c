"""Finds out whether Envoy asks about requests at all, from its filter chains and routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from extauthz.envoy.configuration.trees import Tree, find_value, list_mappings, read_type
from extauthz.envoy.diagnosis.findings import Finding, Weight
from extauthz.envoy.diagnosis.state import (
    EXT_AUTHZ,
    EnvoyState,
    Filter,
    Manager,
    Rejected,
    clean_stat,
)

PER_ROUTE: Final = f"{EXT_AUTHZ}PerRoute"
_ROUTE_FILTER: Final = "envoy.config.route.v3.FilterConfig"
_RATE_LIMITS: Final = {
    "envoy.extensions.filters.http.ratelimit.v3.RateLimit": "rate limit service",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit": "local rate limit",
}
_SHOWN: Final = 3
"""The most routes that a finding names; further ones are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The counters of an ext_authz filter; None for those that Envoy does not have."""

    ok: int | None
    denied: int | None
    error: int | None
    disabled: int | None
    failure_mode_allowed: int | None

    @property
    def asked(self) -> int | None:
        """The number of requests that it asked about; None when that is not known."""
        if self.ok is None or self.denied is None or self.error is None:
            return None
        return self.ok + self.denied + self.error


def list_askers(manager: Manager) -> tuple[Filter, ...]:
    """The ext_authz filters of a connection manager."""
    return tuple(one for one in manager.filters if one.type_name == EXT_AUTHZ)


def read_counts(state: EnvoyState, manager: Manager, asker: Filter) -> Counts:
    """Reads the counters of a filter. Managers with the same stat_prefix share them."""
    own = clean_stat(str(asker.config.get("stat_prefix", "")))
    prefix = f"http.{manager.stat_prefix}.ext_authz.{f'{own}.' if own else ''}"
    return Counts(
        ok=state.stats.get(f"{prefix}ok"),
        denied=state.stats.get(f"{prefix}denied"),
        error=state.stats.get(f"{prefix}error"),
        disabled=state.stats.get(f"{prefix}disabled"),
        failure_mode_allowed=state.stats.get(f"{prefix}failure_mode_allowed"),
    )


def count_requests(state: EnvoyState, manager: Manager) -> int | None:
    """The number of requests that the manager received; None when Envoy does not count them."""
    return state.stats.get(f"http.{manager.stat_prefix}.downstream_rq_total")


def find_unasked(state: EnvoyState, managers: Sequence[Manager]) -> Iterator[Finding]:
    """Finds reasons why Envoy does not ask about requests of these managers.

    Args:
        state: the state of the whole Envoy: a listener without a filter is less serious when
            others have one.
        managers: the connection managers to look at.
    """
    if not managers and not state.rejected:
        yield Finding(
            weight=Weight.ERROR,
            code="no_http_listener",
            seen=f"none of Envoy's listeners has an HTTP connection manager ({_say_state(state)})",
            why=(
                "ext_authz is an HTTP filter; connections that are proxied as TCP are not checked"
            ),
            todo="look at the listeners' network filters, and at what the control plane sends",
        )
    is_asked_anywhere = any(map(list_askers, state.managers))
    for manager in managers:
        if not list_askers(manager):
            yield _not_in_chain(state, manager, is_asked_anywhere=is_asked_anywhere)
            continue
        yield from _find_order(manager)
        on_routes = list(_find_routes(manager))
        yield from on_routes
        for asker in list_askers(manager):
            causes = list(_find_switched_off(state, manager, asker))
            yield from causes
            if not causes and not on_routes:
                yield from _find_never_called(state, manager, asker)


def _say_state(state: EnvoyState) -> str:
    return f"it says {state.state}" if state.state else "it does not say its state"


def find_rejected(rejected: Sequence[Rejected]) -> Iterator[Finding]:
    """Finds the configuration that Envoy received from a control plane and rejected."""
    for one in rejected:
        # The text of an error quotes the configuration, which may hold secrets.
        if "terminal" in one.details:
            why = (
                "the terminal filter (the router) is not the last one of its chain: "
                "filters behind it would never be called, so Envoy keeps the "
                "configuration that it had"
            )
            todo = "put ext_authz before the router, and the router last"
        else:
            why = "Envoy keeps the configuration that it had, or goes on without this one"
            todo = "Envoy's log and `error_state` in its config_dump say what is wrong with it"
        yield Finding(
            weight=Weight.ERROR,
            code="update_rejected",
            seen=f"Envoy rejected its newest configuration of the {one.kind} {one.name!r}",
            why=why,
            todo=todo,
        )


def _not_in_chain(state: EnvoyState, manager: Manager, *, is_asked_anywhere: bool) -> Finding:
    came = count_requests(state, manager)
    chain = ", ".join(one.short_name for one in manager.filters) or "none"
    figures = "" if came is None else f"; it received {came} requests"
    return Finding(
        weight=Weight.NOTE if is_asked_anywhere else Weight.ERROR,
        code="not_in_chain",
        seen=f"listener {manager.listener!r} has no ext_authz filter (its filters: "
        f"{chain}){figures}",
        why="its requests reach their upstreams unchecked",
        todo="put the filter that `extauthz envoy-config --filter` prints before the router; where "
        "a control plane writes the listener, look at what attaches its policy (selector, "
        "namespace, provider)",
    )


def _find_order(manager: Manager) -> Iterator[Finding]:
    first = next(place for place, one in enumerate(manager.filters) if one.type_name == EXT_AUTHZ)
    for one in manager.filters[:first]:
        kind = _RATE_LIMITS.get(one.type_name)
        if kind is not None and not one.is_disabled:
            yield Finding(
                weight=Weight.WARNING,
                code="rate_limit_first",
                seen=f"listener {manager.listener!r}: the filter {one.name!r} ({kind}) stands "
                "before ext_authz",
                why="it counts requests that are denied afterwards, and requests that it "
                "refuses are never checked: callers with bad keys use up the limit of "
                "callers with good ones",
                todo=("move it behind ext_authz, unless it is meant to protect extauthz from load"),
            )


def _find_switched_off(state: EnvoyState, manager: Manager, asker: Filter) -> Iterator[Finding]:
    where = f"listener {manager.listener!r}, filter {asker.name!r}"
    counts = read_counts(state, manager, asker)
    figures = f"; {counts.disabled} requests were not checked" if counts.disabled else ""
    if asker.is_disabled:
        on = _find_switched_on(manager, asker.name)
        is_all = any(level == "all" for level, _ in on)
        places = _count([place for _, place in on]) if on else "none"
        yield Finding(
            weight=Weight.NOTE if is_all else Weight.WARNING if on else Weight.ERROR,
            code="filter_disabled",
            seen=f"{where}: is `disabled: true`; enabled again by a typed_per_filter_config: "
            f"{places}",
            why="all other requests reach their upstreams unchecked",
            todo="remove `disabled` from the entry in http_filters",
        )
    share = asker.config.get("filter_enabled")
    if isinstance(share, dict):
        percent = _read_percent(share.get("default_value"))
        yield Finding(
            weight=Weight.ERROR if not percent else Weight.WARNING,
            code="filter_enabled",
            seen=f"{where}: filter_enabled selects {percent:g} % of requests, or what the "
            f"runtime key {str(share.get('runtime_key', ''))!r} says{figures}",
            why="requests that are not selected pass unchecked, unless deny_at_disable says "
            "otherwise",
            todo="remove filter_enabled",
        )
    if "filter_enabled_metadata" in asker.config:
        yield Finding(
            weight=Weight.WARNING,
            code="filter_enabled_metadata",
            seen=(
                f"{where}: asks only if dynamic metadata matches (filter_enabled_metadata){figures}"
            ),
            why="requests whose metadata does not match pass unchecked; in Istio an "
            "AuthorizationPolicy with action CUSTOM sets it, and its rules select the "
            "requests",
            todo="make sure that the policy's rules match all requests that must be checked, "
            "or remove it",
        )
    if asker.config.get("shadow_mode") is True:
        yield Finding(
            weight=Weight.ERROR,
            code="shadow_mode",
            seen=f"{where}: is in shadow_mode",
            why="extauthz is asked, but its denials are only recorded: every request passes",
            todo="remove shadow_mode once the decisions are as expected",
        )


def _read_percent(fraction: Any) -> float:
    """An envoy.type.v3.FractionalPercent in percent; absent fields mean 0 of 100."""
    if not isinstance(fraction, dict):
        return 0.0
    scale = {"TEN_THOUSAND": 100.0, "MILLION": 10_000.0}.get(str(fraction.get("denominator")), 1.0)
    numerator = fraction.get("numerator", 0)
    return numerator / scale if isinstance(numerator, int | float) else 0.0


def _find_never_called(state: EnvoyState, manager: Manager, asker: Filter) -> Iterator[Finding]:
    came, counts = count_requests(state, manager), read_counts(state, manager, asker)
    if not came or counts.asked != 0 or counts.disabled:
        return
    before = [one.short_name for one in manager.filters[: manager.filters.index(asker)]]
    yield Finding(
        weight=Weight.WARNING,
        code="never_called",
        seen=f"listener {manager.listener!r}: it received {came} requests, and the filter "
        "asked about none of them",
        why="something before it answers the requests (a filter, a redirect to HTTPS, Envoy "
        "itself when it refuses one), or their routes disable it"
        + (f"; before it: {', '.join(before)}" if before else ""),
        todo="send one request, and look at response flags and details in the access log",
    )


# Routes


def _find_routes(manager: Manager) -> Iterator[Finding]:
    names = {one.name for one in list_askers(manager)}
    off: dict[str, list[str]] = {}
    unused: list[str] = []
    for level, place, configs in _list_places(manager.config.get("route_config")):
        for name, config in configs.items():
            typed, is_disabled = _open(config)
            if name in names and is_disabled:
                off.setdefault(level, []).append(place)
            elif name not in names and read_type(typed) == PER_ROUTE:
                unused.append(f"{place} ({name!r})")
    for level, places in off.items():
        yield Finding(
            weight=Weight.WARNING if level == "route" else Weight.ERROR,
            code="disabled_on_route",
            seen=f"listener {manager.listener!r}: ext_authz is disabled on {_count(places)}",
            why="requests of these routes reach their upstreams unchecked",
            todo="remove `disabled` from their typed_per_filter_config; for what needs no "
            "credential, write `security: [none]` in the catalog",
        )
    if unused:
        yield Finding(
            weight=Weight.WARNING,
            code="route_config_unused",
            seen=f"listener {manager.listener!r}: there is a configuration for ext_authz, but for "
            f"a filter that is not in the chain, on {_count(unused)}; the filter's name is "
            f"{' or '.join(map(repr, sorted(names)))}",
            why="a typed_per_filter_config is found by the name that the filter has in "
            "http_filters: under another name, its context extensions are not sent and "
            "its `disabled` has no effect",
            todo="write the filter's own name as the key",
        )


def _find_switched_on(manager: Manager, name: str) -> list[tuple[str, str]]:
    """The level and name of each place that configures the filter without disabling it."""
    return [
        (level, place)
        for level, place, configs in _list_places(manager.config.get("route_config"))
        if name in configs and not _open(configs[name])[1]
    ]


def _count(places: Sequence[str]) -> str:
    named = ", ".join(places[:_SHOWN])
    rest = len(places) - _SHOWN
    return f"{named} and {rest} more" if rest > 0 else named


def _open(config: Any) -> tuple[Any, bool]:
    """The configuration in a filter's entry of a route, and whether it disables the filter."""
    if read_type(config) == _ROUTE_FILTER:
        below, is_disabled = _open(find_value(config, "config"))
        return below, is_disabled or find_value(config, "disabled") is True
    is_ours = read_type(config) == PER_ROUTE
    return config, is_ours and find_value(config, "disabled") is True


def list_route_settings(manager: Manager) -> Iterator[Tree]:
    """All ExtAuthzPerRoute configurations of a manager's routes."""
    for _, _, configs in _list_places(manager.config.get("route_config")):
        for config in configs.values():
            typed, _ = _open(config)
            if read_type(typed) == PER_ROUTE:
                yield typed


def _list_places(routes: Any) -> Iterator[tuple[str, str, Tree]]:
    """The level, name and typed_per_filter_config of each place that has one."""
    if not isinstance(routes, dict):
        return
    found: list[tuple[str, str, Any]] = [
        ("all", f"the route configuration {routes.get('name', '')!r}", routes)
    ]
    for host in list_mappings(routes.get("virtual_hosts")):
        place = f"the virtual host {host.get('name', '')!r}"
        found.append(("host", place, host))
        for route in list_mappings(host.get("routes")):
            named = f"the route {_name_route(route)!r} of {host.get('name', '')!r}"
            found.append(("route", named, route))
            weighted = find_value(route, "route", "weighted_clusters", "clusters")
            found += [("route", named, one) for one in list_mappings(weighted)]
    for level, place, tree in found:
        configs = tree.get("typed_per_filter_config")
        if isinstance(configs, dict):
            yield level, place, configs


def _name_route(route: Tree) -> str:
    match = route.get("match")
    paths = ("prefix", "path", "path_separated_prefix")
    by_path = next((match[key] for key in paths if key in match), "") if match else ""
    return str(route.get("name") or by_path)
