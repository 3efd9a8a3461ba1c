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
        api, version, application, user: exact names.
    """

    name: str
    network: Network | None = None
    api: str | None = None
    version: str | None = None
    application: str | None = None
    user: str | None = None
    invert: bool = False

    @property
    def needs_identity(self) -> bool:
        """Whether the rule can only be judged when it is known who asks."""
        return self.application is not None or self.user is not None


class DenyRules:
    """All deny rules of a catalog; plain network rules cost one set look-up a prefix length."""

    __slots__ = ("_networks", "_of_caller", "_of_client", "is_empty")

    def __init__(self, rules: Iterable[DenyRule] = ()) -> None:
        self._networks: dict[tuple[int, int], dict[int, DenyRule]] = {}
        self._of_client: list[DenyRule] = []
        self._of_caller: list[DenyRule] = []
        for rule in rules:
            if _is_plain_network(rule):
                assert rule.network is not None
                kind = (rule.network.version, rule.network.prefixlen)
                self._networks.setdefault(kind, {})[int(rule.network.network_address)] = rule
            elif rule.needs_identity:
                self._of_caller.append(rule)
            else:
                self._of_client.append(rule)
        self.is_empty = not (self._networks or self._of_client or self._of_caller)

    def find_for_client(self, address: str, api: str, version: str) -> DenyRule | None:
        """The first rule that refuses a client on an API, whoever it says it is."""
        family, number = read_address(address)
        for (rule_family, prefix), networks in self._networks.items():
            if family == _UNKNOWN:
                return next(iter(networks.values()))
            if rule_family == family:
                shift = (32 if family == 4 else 128) - prefix
                rule = networks.get(number >> shift << shift)
                if rule is not None:
                    return rule
        for rule in self._of_client:
            if _refuses(rule, family, number, api, version, "", ""):
                return rule
        return None

    def find_for_caller(
        self, address: str, api: str, version: str, application: str, user: str
    ) -> DenyRule | None:
        """The first rule that refuses an application or user."""
        if not self._of_caller:
            return None
        family, number = read_address(address)
        for rule in self._of_caller:
            if _refuses(rule, family, number, api, version, application, user):
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


def _is_plain_network(rule: DenyRule) -> bool:
    others = (rule.api, rule.version, rule.application, rule.user)
    return rule.network is not None and not rule.invert and others == (None,) * 4


def _refuses(
    rule: DenyRule,
    family: int,
    number: int,
    api: str,
    version: str,
    application: str,
    user: str,
) -> bool:
    fits = (
        rule.api in (None, api)
        and rule.version in (None, version)
        and rule.application in (None, application)
        and rule.user in (None, user)
    )
    if rule.network is not None and fits:
        if family == _UNKNOWN:
            return True  # it may lie in the network, and it may not
        fits = contains(rule.network, family, number)
    return fits is not rule.invert


def contains(network: Network, family: int, number: int) -> bool:
    """Whether an address, as `read_address` gives it, lies in a network."""
    return network.version == family and (
        int(network.network_address) <= number <= int(network.broadcast_address)
    )
