"""Networks, as users write them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from extauthz.catalog.faults import CatalogFile, Faults
from extauthz.document_lines import NodePath
from extauthz.model.deny_rules import Network

_IPV4_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def read_network(file: CatalogFile, path: NodePath, text: str, faults: Faults) -> Network | None:
    """A network, or the one address that it is; None, with a fault, when it is neither."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        faults.add(file, path, "is neither an address nor a network; write one like 203.0.113.0/24")
        return None
    if str(network.network_address) != text.partition("/")[0].lower() and network != _host(text):
        faults.add(file, path, f"has bits set behind its prefix; write {network}")
        return None
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        # Clients behind IPv4-mapped addresses are judged by their IPv4 address.
        mapped = network.network_address.ipv4_mapped
        return IPv4Network((int(mapped or 0), network.prefixlen - 96))
    return network


def _host(text: str) -> Network | None:
    try:
        return ip_network(text, strict=True)
    except ValueError:
        return None
