"""Checks the running configuration for unsafe values, with the rules of ``validate --envoy``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from extauthz.documents.lines import write_path
from extauthz.envoy.configuration.check import check_config
from extauthz.envoy.configuration.trees import Tree, find_value, list_mappings
from extauthz.envoy.diagnosis.asking import list_askers, read_counts
from extauthz.envoy.diagnosis.findings import Finding, Weight
from extauthz.envoy.diagnosis.state import EnvoyState, Manager

_ERRORS: Final = frozenset({"http_service", "transport_api_version", "disallow_all"})
_ASKED_FOR_ELSEWHERE: Final = frozenset({"disabled", "filter_enabled", "filter_enabled_metadata"})
"""Settings that `extauthz.envoy.diagnosis.asking` checks, together with their statistics."""
_NOTES: Final = ("encode_raw_headers", "validate_mutations", "use_remote_address")
_NEEDED_HEADERS: Final = (
    "authorization",
    "x-api-key",
    "apikey",
    "cookie",
    "x-forwarded-for",
    "content-type",
    "accept",
    "origin",
)
"""The header fields that extauthz reads by default: docs/how-to/own-envoy.md."""


def find_unsafe(state: EnvoyState, managers: Sequence[Manager]) -> Iterator[Finding]:
    """Finds unsafe values in the configuration of each manager that has an ext_authz filter."""
    for manager in managers:
        if not list_askers(manager):
            continue
        # Envoy hides the values of context extensions in its dump, so they cannot be checked.
        faults, _ = check_config(_without(manager.config, "context_extensions"))
        for fault in faults:
            key = str(fault.path[-1]) if fault.path else fault.message.partition(" ")[0]
            if key in _ASKED_FOR_ELSEWHERE:
                continue
            why, _, todo = fault.message.rpartition("; ")
            seen = f"listener {manager.listener!r}"
            seen += f": {write_path(fault.path)}" if fault.path else ""
            weight = Weight.ERROR if key in _ERRORS else Weight.WARNING
            if fault.message.startswith(_NOTES):
                weight = Weight.NOTE
            code = re.match("[a-z_]+", key)
            more, weight = _add_figures(state, manager, key, weight)
            yield Finding(
                weight=weight,
                code=code[0] if code else "unsafe",
                seen=seen + more,
                why=why or fault.message,
                todo=todo if why else "remove it",
            )


def _without(tree: Any, key: str) -> Any:
    if isinstance(tree, dict):
        return {name: _without(value, key) for name, value in tree.items() if name != key}
    return [_without(one, key) for one in tree] if isinstance(tree, list) else tree


def _add_figures(
    state: EnvoyState, manager: Manager, key: str, weight: Weight
) -> tuple[str, Weight]:
    """Statistics that belong to a setting, as text, and the finding's weight with them."""
    if key == "failure_mode_allow":
        passed = max(
            read_counts(state, manager, one).failure_mode_allowed or 0
            for one in list_askers(manager)
        )
        if passed:
            return f" is true, and {passed} requests passed without a decision", Weight.ERROR
        return " is true; no request has passed without a decision yet", weight
    if key in ("allowed_headers", "disallowed_headers"):
        hidden = [
            name
            for one in list_askers(manager)
            for name in _NEEDED_HEADERS
            if key in one.config and _fits(one.config[key], name) is (key == "disallowed_headers")
        ]
        if not hidden:
            return " lets through what extauthz reads by default", Weight.NOTE
        is_credential = not set(hidden).isdisjoint(_NEEDED_HEADERS[:4])
        return (
            f" hides from extauthz: {', '.join(dict.fromkeys(hidden))}",
            Weight.ERROR if is_credential else weight,
        )
    if key == "retry_policy":
        retried = sum(
            state.stats.get(f"cluster.{name}.upstream_rq_retry", 0)
            for one in list_askers(manager)
            for name in [find_value(one.config, "grpc_service", "envoy_grpc", "cluster_name")]
        )
        return f" is set; {retried} checks were sent again so far", weight
    return "", weight


def _fits(matcher: Tree, name: str) -> bool:
    """Whether an envoy.type.matcher.v3.ListStringMatcher matches a name in lower case."""
    for pattern in list_mappings(find_value(matcher, "patterns")):
        lower = pattern.get("ignore_case") is True
        for kind, value in pattern.items():
            text = str(value).lower() if lower else str(value)
            if (
                (kind == "exact" and name == text)
                or (kind == "prefix" and name.startswith(text))
                or (kind == "suffix" and name.endswith(text))
                or (kind == "contains" and text in name)
                or (kind == "safe_regex" and _fits_regex(value, name))
            ):
                return True
    return False


def _fits_regex(value: Any, name: str) -> bool:
    """Whether a regular expression matches; RE2 and Python agree on nearly all for header names."""
    try:
        return re.fullmatch(str(find_value(value, "regex") or ""), name) is not None
    except re.error:
        return False
