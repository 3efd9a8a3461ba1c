"""Defines deny rules, which refuse a caller before anything is counted.

A rule about addresses also refuses a caller whose address is not known, when the rest of the rule
fits: a client cannot escape a rule by making its address unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, TypeVar

Network = IPv4Network | IPv6Network

_UNPARSABLE: Final = (0, 0)
_LONGEST_ADDRESS: Final = 128
"""Characters of an address with its zone."""
_UNKNOWN: Final = 0
"""The family of text that is no address, and of an unknown address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyRule:
    """Refuses callers that fit every condition that is set; with `invert`, all other callers.

    Attributes:
        network: of the client's address.
        api, version, application, consumer_key, user: exact names.
        until_us: when the rule ends; None when it does not.
        source: where it was written: ``catalog``, a file's name, or ``redis``.
    """

    name: str
    network: Network | None = None
    api: str | None = None
    version: str | None = None
    application: str | None = None
    consumer_key: str | None = None
    user: str | None = None
    invert: bool = False
    until_us: int | None = None
    source: str = "catalog"

    @property
    def needs_identity(self) -> bool:
        """Whether the rule depends on the caller's identity."""
        return (self.application, self.consumer_key, self.user) != (None, None, None)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A caller as rules are compared with it. The address is as `read_address` gives it."""

    family: int
    number: int
    api: str
    version: str
    application: str = ""
    consumer_key: str = ""
    user: str = ""
    now_us: int = 0


_Key = tuple[str | None, str | None]
"""Name and version of an API; None where a rule applies to any."""


class _Places:
    """Rules by network and API. Of rules with equal conditions, the one that lasts longest is kept.

    The cost of a look-up does not depend on the number of rules, but on the number of kinds:
    prefix lengths, with or without an API and a version.
    """

    __slots__ = ("_networks", "_of_address", "_others")

    def __init__(self) -> None:
        self._networks: dict[
            tuple[int, int, bool, bool], dict[tuple[int, str | None, str | None], DenyRule]
        ] = {}
        """By family, prefix length, and whether the rule names an API and a version."""
        self._of_address: dict[_Key, DenyRule] = {}
        """The rules of `_networks`, for callers whose address is not known."""
        self._others: dict[_Key, DenyRule] = {}

    def add(self, rule: DenyRule) -> None:
        network, api, version = rule.network, rule.api, rule.version
        if network is None:
            _keep_longest(self._others, (api, version), rule)
            return
        kind = (network.version, network.prefixlen, api is not None, version is not None)
        rules = self._networks.setdefault(kind, {})
        _keep_longest(rules, (int(network.network_address), api, version), rule)
        _keep_longest(self._of_address, (api, version), rule)

    def find(self, asked: _Asked) -> DenyRule | None:
        for (family, prefix, has_api, has_version), rules in self._networks.items():
            if family == asked.family:
                shift = (32 if family == 4 else 128) - prefix
                api, version = (
                    asked.api if has_api else None,
                    asked.version if has_version else None,
                )
                rule = rules.get((asked.number >> shift << shift, api, version))
                if rule is not None and _is_on(rule, asked):
                    return rule
        for others in (self._others, self._of_address if asked.family == _UNKNOWN else None):
            if others:
                for key in (
                    (asked.api, asked.version),
                    (asked.api, None),
                    (None, asked.version),
                    (None, None),
                ):
                    rule = others.get(key)
                    if rule is not None and _is_on(rule, asked):
                        return rule
        return None


class DenyRules:
    """Deny rules, indexed by their conditions: a few look-ups, however many rules there are.

    Inverted rules are tried one by one; there are few, as each refuses all but what it names.
    """

    __slots__ = (
        "_caller_kinds",
        "_inverted_of_caller",
        "_inverted_of_client",
        "_of_caller",
        "_of_client",
        "is_empty",
        "rules",
    )

    def __init__(self, rules: Iterable[DenyRule] = ()) -> None:
        self._of_client = _Places()
        self._of_caller: dict[tuple[str | None, str | None, str | None], _Places] = {}
        """By application, consumer key and user; None where a rule applies to any."""
        self._caller_kinds: dict[tuple[bool, bool, bool], None] = {}
        """Which of the three the rules in `_of_caller` name."""
        self._inverted_of_client: list[DenyRule] = []
        self._inverted_of_caller: list[DenyRule] = []
        self.rules = tuple(rules)
        self.is_empty = not self.rules
        for rule in self.rules:
            self._add(rule)

    def _add(self, rule: DenyRule) -> None:
        if rule.invert:
            is_of_caller = rule.needs_identity
            (self._inverted_of_caller if is_of_caller else self._inverted_of_client).append(rule)
        elif not rule.needs_identity:
            self._of_client.add(rule)
        else:
            application, key, user = rule.application, rule.consumer_key, rule.user
            self._caller_kinds[(application is not None, key is not None, user is not None)] = None
            self._of_caller.setdefault((application, key, user), _Places()).add(rule)

    def find_for_client(
        self, address: str, api: str, version: str, *, now_us: int = 0
    ) -> DenyRule | None:
        """Finds a rule that refuses a client on an API, whatever its identity."""
        family, number = read_address(address)
        asked = _Asked(family, number, api, version, now_us=now_us)
        return self._of_client.find(asked) or _find_inverted(self._inverted_of_client, asked)

    def find_for_caller(
        self,
        address: str,
        api: str,
        version: str,
        application: str,
        user: str,
        *,
        consumer_key: str = "",
        now_us: int = 0,
    ) -> DenyRule | None:
        """Finds a rule that refuses an application, consumer key or user."""
        asked: _Asked | None = None
        for has_application, has_key, has_user in self._caller_kinds:
            places = self._of_caller.get(
                (
                    application if has_application else None,
                    consumer_key if has_key else None,
                    user if has_user else None,
                )
            )
            if places is not None:
                asked = asked or _Asked(
                    *read_address(address), api, version, application, consumer_key, user, now_us
                )
                found = places.find(asked)
                if found is not None:
                    return found
        if not self._inverted_of_caller:
            return None
        asked = asked or _Asked(
            *read_address(address), api, version, application, consumer_key, user, now_us
        )
        return _find_inverted(self._inverted_of_caller, asked)


_K = TypeVar("_K")


def _keep_longest(rules: dict[_K, DenyRule], key: _K, rule: DenyRule) -> None:
    """Stores a rule, unless the one that is there lasts at least as long."""
    known = rules.get(key)
    if known is None or (
        known.until_us is not None and (rule.until_us is None or known.until_us < rule.until_us)
    ):
        rules[key] = rule


def _is_on(rule: DenyRule, asked: _Asked) -> bool:
    return rule.until_us is None or asked.now_us < rule.until_us


def _find_inverted(rules: Iterable[DenyRule], asked: _Asked) -> DenyRule | None:
    for rule in rules:
        if _is_on(rule, asked) and not _fits_for_sure(rule, asked):
            return rule
    return None


def read_address(address: str) -> tuple[int, int]:
    """Reads an address as (4 or 6, number); (0, 0) when it is none. IPv4-mapped IPv6 is IPv4."""
    if len(address) > _LONGEST_ADDRESS:
        return _UNPARSABLE  # to raise an error would cost more
    return _read_address(address)


@lru_cache(maxsize=4096)
def _read_address(address: str) -> tuple[int, int]:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return _UNPARSABLE
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.version, int(parsed)


def _fits_for_sure(rule: DenyRule, asked: _Asked) -> bool:
    """Whether a caller certainly fits a rule. One whose address is not known may not fit."""
    return (
        rule.api in (None, asked.api)
        and rule.version in (None, asked.version)
        and rule.application in (None, asked.application)
        and rule.consumer_key in (None, asked.consumer_key)
        and rule.user in (None, asked.user)
        and (rule.network is None or contains(rule.network, asked.family, asked.number))
    )


def contains(network: Network, family: int, number: int) -> bool:
    """Whether an address, as `read_address` gives it, lies in a network."""
    return network.version == family and (
        int(network.network_address) <= number <= int(network.broadcast_address)
    )
