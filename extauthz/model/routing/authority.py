"""Reads the host from an authority, for every door alike.

A host is a DNS name (underscores are accepted: such hosts exist), an IPv4 address, or an IPv6
address in brackets. One dot at the end of a name stands for the root and is ignored (RFC 3986
3.2.2). Anything else that a client can write there is no host: user information, escapes, empty
labels, two ports, two hosts. Such text is never compared with an API's host, since the proxy that
routes the request may read it differently.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

MAX_HOST: Final = 253
"""Characters of a name, without the dot at the end (RFC 1034 3.1, as text)."""

_LABEL: Final = "[A-Za-z0-9_-]{1,63}"
_AUTHORITY: Final = re.compile(
    rf"(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)\.?|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]*))?"
)
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
"""A name that ends in a number: many readers take it for an IPv4 address."""
_LONGEST: Final = MAX_HOST + len(".:65535")


def read_host(authority: str) -> str | None:
    """The host of ``host[:port]`` in lower case, without port and trailing dot; None if it is none.

    An IPv6 address keeps its brackets and is written in its shortest form.
    """
    return _read_host(authority) if len(authority) <= _LONGEST else None


def find_host(authorities: Collection[str]) -> str | None:
    """The host that all of these name; None when one is no host, or when they differ.

    Empty when there are no authorities.
    """
    hosts = {read_host(authority) for authority in authorities}
    if not hosts:
        return ""
    return hosts.pop() if len(hosts) == 1 else None


@lru_cache(maxsize=1024)
def _read_host(authority: str) -> str | None:
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found["port"] or "0") > 0xFFFF:
        return None
    name, address = found["name"], found["address"]
    try:
        if name is None:
            return f"[{IPv6Address(address)}]"
        if _NUMBER.fullmatch(name):
            return str(IPv4Address(name))
    except ValueError:
        return None
    return name.lower() if len(name) <= MAX_HOST else None
