"""Rules that refuse a caller before anything is counted.

A rule about addresses refuses a caller whose address is not known wherever it might fit: nobody
leaves a rule by making his address unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

Network = IPv4Network | IPv6Network

_UNPARSABLE: Final = (0, 0)
_LONGEST_ADDRESS: Final = 128
"""In characters, with a zone."""
_UNKNOWN: Final = 0
"""The family of an address that is not known, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyRule:
    """Refuses what fits every condition that is set; `invert` refuses all the rest instead.

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
        """Whether the rule can only be judged when it is known who asks."""
        return (self.application, self.consumer_key, self.user) != (None, None, None)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A caller, as rules see it. The address is as `read_address` gives it."""

    family: int
    number: int
    api: str
    version: str
    application: str = ""
    consumer_key: str = ""
    user: str = ""
    now_us: int = 0


class _Places:
    """Rules by network, or by API where they name no network; those with neither are tried each."""

    __slots__ = ("_apis", "_networks", "_of_address", "_others")

    def __init__(self) -> None:
        self._networks: dict[tuple[int, int], dict[int, list[DenyRule]]] = {}
        self._apis: dict[str, list[DenyRule]] = {}
        self._others: list[DenyRule] = []
        self._of_address: dict[str | None, list[DenyRule]] = {}
        """Those in `_networks` by their API, for callers whose address is not known."""

    def add(self, rule: DenyRule) -> None:
        network = rule.network
        if rule.invert:
            self._others.append(rule)
        elif network is not None:
            of_prefix = self._networks.setdefault((network.version, network.prefixlen), {})
            of_prefix.setdefault(int(network.network_address), []).append(rule)
            self._of_address.setdefault(rule.api, []).append(rule)
        elif rule.api is not None:
            self._apis.setdefault(rule.api, []).append(rule)
        else:
            self._others.append(rule)

    def find(self, asked: _Asked) -> DenyRule | None:
        for (family, prefix), networks in self._networks.items():
            if family == asked.family:
                shift = (32 if family == 4 else 128) - prefix
                rules = networks.get(asked.number >> shift << shift)
                found = None if rules is None else _find_first(rules, asked)
                if found is not None:
                    return found
        of_address = self._of_address if asked.family == _UNKNOWN else {}
        for rules in (
            self._apis.get(asked.api),
            self._others,
            of_address.get(asked.api),
            of_address.get(None),
        ):
            found = _find_first(rules, asked) if rules else None
            if found is not None:
                return found
        return None


class DenyRules:
    """Deny rules by what they name: one look-up for each name and for each length of prefix."""

    __slots__ = (
        "_applications",
        "_consumer_keys",
        "_inverted",
        "_of_client",
        "_users",
        "is_empty",
        "rules",
    )

    def __init__(self, rules: Iterable[DenyRule] = ()) -> None:
        self._of_client = _Places()
        self._applications: dict[str, _Places] = {}
        self._consumer_keys: dict[str, _Places] = {}
        self._users: dict[str, _Places] = {}
        self._inverted: list[DenyRule] = []
        """Those that ask who calls."""
        self.rules = tuple(rules)
        self.is_empty = not self.rules
        for rule in self.rules:
            self._add(rule)

    def _add(self, rule: DenyRule) -> None:
        if not rule.needs_identity:
            self._of_client.add(rule)
        elif rule.invert:
            self._inverted.append(rule)
        elif rule.application is not None:
            self._applications.setdefault(rule.application, _Places()).add(rule)
        elif rule.consumer_key is not None:
            self._consumer_keys.setdefault(rule.consumer_key, _Places()).add(rule)
        elif rule.user is not None:
            self._users.setdefault(rule.user, _Places()).add(rule)

    def find_for_client(
        self, address: str, api: str, version: str, *, now_us: int = 0
    ) -> DenyRule | None:
        """A rule that refuses a client on an API, whoever it says it is."""
        family, number = read_address(address)
        return self._of_client.find(_Asked(family, number, api, version, now_us=now_us))

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
        """A rule that refuses an application, consumer key or user."""
        named = (
            self._applications.get(application),
            self._consumer_keys.get(consumer_key),
            self._users.get(user),
        )
        if named == (None, None, None) and not self._inverted:
            return None
        family, number = read_address(address)
        asked = _Asked(family, number, api, version, application, consumer_key, user, now_us)
        for places in named:
            found = None if places is None else places.find(asked)
            if found is not None:
                return found
        return _find_first(self._inverted, asked)


def _find_first(rules: Iterable[DenyRule], asked: _Asked) -> DenyRule | None:
    for rule in rules:
        if _refuses(rule, asked) and (rule.until_us is None or asked.now_us < rule.until_us):
            return rule
    return None


def read_address(address: str) -> tuple[int, int]:
    """An address as (4 or 6, number); an IPv4-mapped IPv6 address is IPv4. (0, 0) if it is none."""
    if len(address) > _LONGEST_ADDRESS:
        return _UNPARSABLE  # to say what is wrong with it takes Python time
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


def _refuses(rule: DenyRule, asked: _Asked) -> bool:
    fits = (
        rule.api in (None, asked.api)
        and rule.version in (None, asked.version)
        and rule.application in (None, asked.application)
        and rule.consumer_key in (None, asked.consumer_key)
        and rule.user in (None, asked.user)
    )
    if rule.network is not None and fits:
        if asked.family == _UNKNOWN:
            return True  # it may lie in the network, and it may not
        fits = contains(rule.network, asked.family, asked.number)
    return fits is not rule.invert


def contains(network: Network, family: int, number: int) -> bool:
    """Whether an address, as `read_address` gives it, lies in a network."""
    return network.version == family and (
        int(network.network_address) <= number <= int(network.broadcast_address)
    )
