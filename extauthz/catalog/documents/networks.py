"""Networks, as users write them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from extauthz.catalog.documents.faults import CatalogFile, Faults
from extauthz.documents.lines import NodePath
from extauthz.model.deny_rules import Network

_IPV4_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def read_network(file: CatalogFile, path: NodePath, text: str, faults: Faults) -> Network | None:
    """A network, or the one address that it is; None, with a fault, when it is neither."""
    try:
        return parse_network(text)
    except ValueError as exc:
        faults.add(file, path, str(exc))
        return None


def parse_network(text: str) -> Network:
    """A network, or the one address that it is; an IPv4-mapped IPv6 network is IPv4.

    Raises:
        ValueError: it is neither, or has bits set behind its prefix.
    """
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        message = "is neither an address nor a network; write one like 203.0.113.0/24"
        raise ValueError(message) from None
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"has bits set behind its prefix; write {network}") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        # Clients behind IPv4-mapped addresses are judged by their IPv4 address.
        mapped = network.network_address.ipv4_mapped
        return IPv4Network((int(mapped or 0), network.prefixlen - 96))
    return network
