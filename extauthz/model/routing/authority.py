"""Reads the host out of an authority, the same for every door.

A host is a name as DNS has them (underscores included: there are such hosts), an IPv4 address or
an IPv6 address in brackets. One dot at the end of a name is the root's and changes nothing (RFC
3986 3.2.2). All else that a client can write there is no host: user information, escapes, empty
labels, two ports, two hosts. An API's host is never compared with such text, since who routes the
request may read it otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

MAX_HOST: Final = 253
"""In characters, without the dot at the end (RFC 1034 3.1, as text)."""

_LABEL: Final = "[A-Za-z0-9_-]{1,63}"
_AUTHORITY: Final = re.compile(
    rf"(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)\.?|\[(?P<address>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]*))?"
)
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
"""Ends in a number: such a name is an IPv4 address for many readers, in whatever spelling."""
_LONGEST: Final = MAX_HOST + len(".:65535")


def read_host(authority: str) -> str | None:
    """The host of ``host[:port]`` in lower case, without port and trailing dot; None if it is none.

    An IPv6 address keeps its brackets and is written in its shortest form.
    """
    return _read_host(authority) if len(authority) <= _LONGEST else None


def find_host(authorities: Collection[str]) -> str | None:
    """The one host that all of these name; None when one names no host, or another one.

    Empty when there are none: nobody said which host was asked for.
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
