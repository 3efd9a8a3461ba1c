"""Converts denier and listchecker handlers to deny rules.

A deny rule can select the client's network, the API and its version. A condition on anything else
is left out, so that all requests to the API are refused: that is safe, and the report says so. A
white list of networks becomes deny rules for all networks that are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import Final

from extauthz.model.conditions import Pattern
from mixer_compat.migrate.adapters.authorizers import tell_params
from mixer_compat.migrate.adapters.targets import apply_to_apis, find_values, name_condition
from mixer_compat.migrate.reading.conditions import Comparison, Condition, How
from mixer_compat.migrate.reading.expressions import (
    Attribute,
    ExpressionError,
    list_defaults,
    read_expression,
)
from mixer_compat.migrate.reading.objects import Part
from mixer_compat.migrate.reading.references import Action, Instance
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import ApiDraft, DenyDraft, Draft

MAX_NETWORKS: Final = 4_096
"""The most deny rules that one list may become."""

Network = IPv4Network | IPv6Network

_ADDRESSES: Final = frozenset({Attribute("source.ip"), Attribute("origin.ip")})
_V4, _V6 = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
_CACHING: Final = (Outcome.OBSOLETE, "told Mixer how long to cache the answer")
_LIST_PARAMS: Final = {
    "refreshinterval": (Outcome.OBSOLETE, "belonged to providerUrl"),
    "ttl": (Outcome.OBSOLETE, "belonged to providerUrl"),
    "cachinginterval": _CACHING,
    "cachingusecount": _CACHING,
}
_INSTEAD: Final = (
    "Write an Istio AuthorizationPolicy (action DENY) instead, and remove the deny rule from "
    "the catalog"
)


def carry_denier(action: Action, draft: Draft) -> None:
    """Converts one action of a denier: requests that match are refused."""
    params = action.handler.params
    tell_params(params, {"validduration": _CACHING, "validusecount": _CACHING})
    status = None if params is None else params.find("status")
    for key, part in () if status is None else status.entries():
        if key != "code" or part.value not in ("7", 7):
            part.tell(Outcome.LOST, "clients get 403 with extauthz's own text")
        part.read()
    for alternative in action.alternatives:
        for api, left in apply_to_apis(action, alternative, draft).items():
            networks = _read_networks(action, left, api)
            _deny(draft, [api], networks, action.rule.name)


def refuse_unknown(action: Action, draft: Draft) -> None:
    """Refuses the requests that an unknown adapter checked."""
    action.part.remark(
        Outcome.STRICTER,
        f"extauthz does not know the adapter {action.handler.adapter!a}; the requests "
        f"that it checked are refused until you decide. {_INSTEAD}",
    )
    for alternative in action.alternatives:
        draft.refuse(apply_to_apis(action, alternative, draft), action.rule.name)


def carry_list(action: Action, draft: Draft) -> None:
    """Converts one action of a listchecker."""
    params = action.handler.params
    tell_params(params, _LIST_PARAMS)
    is_black = params is not None and params.text("blacklist") == "true"
    kind = (params.text("entryType") if params is not None else "") or "STRINGS"
    overrides = params.list_parts("overrides") if params is not None else []
    entries = [part.read() for part in overrides]
    provider = None if params is None else params.find("providerUrl")
    is_whole = provider is None or not provider.value
    if provider is not None and is_whole:
        provider.mark()
    elif provider is not None:
        provider.tell(
            Outcome.STRICTER,
            "the list at this URL is not read: "
            + (
                "all requests that it may name are refused"
                if is_black
                else "only the overrides are allowed"
            )
            + "; write its entries as overrides and migrate again",
        )
    for instance in action.instances:
        if instance.template != "listentry":
            continue
        value = None if instance.params is None else instance.params.find("value")
        attribute = None if value is None else _read_attribute(value)
        for alternative in action.alternatives:
            affected = apply_to_apis(action, alternative, draft)
            for api, left in affected.items():
                for condition in left:
                    action.tell_unclear(
                        Outcome.STRICTER,
                        name_condition(condition),
                        f"the list applies to all requests to API {api.name}",
                    )
            if is_black and not is_whole:
                draft.refuse(affected, action.rule.name)
            elif attribute in _ADDRESSES and kind == "IP_ADDRESSES":
                networks = _list_networks(overrides, entries)
                _deny_by_network(action, draft, list(affected), networks, is_black=is_black)
            else:
                is_listed = _make_test(kind, entries)
                _deny_by_value(action, draft, affected, attribute, is_listed, is_black=is_black)


def _deny_by_value(
    action: Action,
    draft: Draft,
    affected: Iterable[ApiDraft],
    attribute: Attribute | None,
    is_listed: Callable[[str], bool] | None,
    *,
    is_black: bool,
) -> None:
    for api in affected:
        values = [] if attribute is None else find_values(attribute, api)
        if values and is_listed is not None:
            if any(is_listed(value) is is_black for value in values):
                draft.refuse([api], action.rule.name)
            continue
        draft.refuse([api], action.rule.name)
        action.part.remark(
            Outcome.STRICTER,
            f"the list is about {attribute or 'an unknown attribute'}, which a deny rule "
            f"cannot select: every request to API {api.name} {api.version} is refused. "
            f"{_INSTEAD}",
        )


def _deny_by_network(
    action: Action, draft: Draft, apis: list[ApiDraft], networks: list[Network], *, is_black: bool
) -> None:
    name = action.rule.name
    if is_black:
        _deny(draft, apis, networks, name)
        return
    everywhere = set(apis) == set(draft.apis)
    if everywhere and len(networks) == 1:
        draft.deny[DenyDraft(name=name, network=networks[0], invert=True)] = None
        return
    outside = _list_outside(networks)
    if outside is None or not networks:
        if outside is None:
            action.part.remark(
                Outcome.STRICTER,
                f"the white list excludes more than {MAX_NETWORKS} networks, too many for "
                f"deny rules, so every request is refused. {_INSTEAD}",
            )
        draft.refuse(apis, name)
        return
    families = {network.version for network in networks}
    if everywhere and len(families) == 1:
        # A rule without a network also refuses callers without a known address.
        whole = _V4 if 4 in families else _V6
        draft.deny[DenyDraft(name=name, network=whole, invert=True)] = None
        outside = [network for network in outside if network.version in families]
    else:
        action.part.remark(
            Outcome.CHECK,
            "callers without an IP address (Unix sockets) are not refused by this white list",
        )
    _deny(draft, apis, outside, name)


def _deny(draft: Draft, apis: list[ApiDraft], networks: list[Network] | None, name: str) -> None:
    """Refuses some networks (everybody when None) on some APIs."""
    if networks is None:
        draft.refuse(apis, name)
    elif set(apis) == set(draft.apis):
        for network in networks:
            draft.deny[DenyDraft(name=name, network=network)] = None
    else:
        for api in apis:
            for network in networks:
                draft.deny[
                    DenyDraft(name=name, network=network, api=api.name, version=api.version)
                ] = None


def _read_networks(
    action: Action, left: tuple[Condition, ...], api: ApiDraft
) -> list[Network] | None:
    """The networks that the conditions select; None for all. Other conditions are left out."""
    networks: list[Network] | None = None
    for condition in left:
        found = _read_network(condition)
        if found is not None and networks is None:
            networks = found
            continue
        action.tell_unclear(
            Outcome.STRICTER,
            name_condition(condition),
            f"more requests to API {api.name} {api.version} are refused than before. {_INSTEAD}",
        )
    return networks


def _read_network(condition: Condition) -> list[Network] | None:
    if not isinstance(condition, Comparison) or condition.subject not in _ADDRESSES:
        return None
    try:
        network = ip_network(condition.value)
    except ValueError:
        return None
    if condition.how is not How.EQUALS:
        return None
    return _list_outside([network]) if condition.negated else [network]


def _list_outside(networks: list[Network]) -> list[Network] | None:
    """All addresses outside of some networks, as networks; None when there are too many."""
    outside: list[Network] = []
    for whole in (_V4, _V6):
        left: list[Network] = [whole]
        for inside in networks:
            if inside.version != whole.version:
                continue
            kept: list[Network] = []
            for one in left:
                if inside.supernet_of(one):  # type: ignore[arg-type]  # of one version
                    continue
                if inside.subnet_of(one):  # type: ignore[arg-type]  # of one version
                    kept.extend(one.address_exclude(inside))  # type: ignore[arg-type]
                else:
                    kept.append(one)
            left = kept
            if len(left) > MAX_NETWORKS:
                return None
        outside += sorted(left)
    return outside


def _list_networks(parts: list[Part], entries: list[str]) -> list[Network]:
    networks: list[Network] = []
    for part, text in zip(parts, entries, strict=True):
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            part.tell(
                Outcome.LOST, "is not an IP address or network; Mixer did not accept it either"
            )
    by_version = [
        [network for network in networks if network.version == version] for version in (4, 6)
    ]
    return [one for same in by_version for one in collapse_addresses(same)]  # type: ignore[type-var]


def _make_test(kind: str, entries: list[str]) -> Callable[[str], bool] | None:
    """Makes the test whether a value is in the list; None when the list cannot be read."""
    match kind:
        case "STRINGS":
            return frozenset(entries).__contains__
        case "CASE_INSENSITIVE_STRINGS":
            folded = frozenset(entry.casefold() for entry in entries)
            return lambda value: value.casefold() in folded
        case "REGEX":
            try:
                patterns = [Pattern(entry) for entry in entries]
            except ValueError:
                return None
            return lambda value: any(pattern.is_in(value) for pattern in patterns)
        case _:
            return None


def _read_attribute(part: Part) -> Attribute | None:
    try:
        first = list_defaults(read_expression(part.read()))[0]
    except ExpressionError as exc:
        part.tell(Outcome.LOST, f"is not an expression that can be read: it {exc}")
        return None
    return first if isinstance(first, Attribute) else None


def is_list_instance(instance: Instance) -> bool:
    """Whether an instance has the template of listcheckers."""
    return instance.template == "listentry"
