"""Defines patterns of pages from which a credential may be used, as WSO2 API Manager writes them.

`www.example.com/path` is one page, `sub.example.com/*` every page of a host, and `*.example.com/*`
every page of a domain's hosts, which does not include the domain itself. Source: WSO2 API Manager
4.7, API keys with referer restrictions. Unlike there, a dot is a dot, a host ends where it ends, and
a page may be written and sent with or without its scheme.

The Referer header is the client's word: it keeps a key from being used in other sites' pages, and
keeps out nobody who writes requests by hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_REFERER: Final = 4096
"""Characters of a Referer header that is looked at. A longer one fits nothing."""

_PATTERN: Final = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<sub>\*\.)?(?P<host>[A-Za-z0-9._-]{1,253}(?::[0-9]{1,5})?)"
    r"(?P<path>/[^*\s]*)?(?P<rest>\*)?"
)
_REFERER: Final = re.compile(
    r"(?:(https?)://)?([A-Za-z0-9._-]+(?::[0-9]+)?)(/[^?#\\]*)?(?:[?#].*)?"
)
_PORTS: Final = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class RefererPattern:
    """Pages that may send requests.

    Attributes:
        scheme: empty for any.
        host: lower-case, with a port that is not the scheme's own.
        is_domain: the hosts below `host`, and not itself.
        path: without query.
        is_beginning: every path that begins so.
    """

    scheme: str
    host: str
    is_domain: bool
    path: str
    is_beginning: bool

    def fits(self, referer: str) -> bool:
        """Whether a page, as the Referer header names it, is one of them."""
        if len(referer) > MAX_REFERER:
            return False
        found = _REFERER.fullmatch(referer.strip())
        if found is None:
            return False
        scheme, host, path = (
            (found[1] or "").lower(),
            _read_host(found[1], found[2]),
            found[3] or "/",
        )
        if self.scheme and scheme != self.scheme:
            return False
        if not host.endswith(f".{self.host}") if self.is_domain else host != self.host:
            return False
        return path.startswith(self.path) if self.is_beginning else path == self.path


def read_referer_pattern(text: str) -> RefererPattern:
    """Reads a pattern.

    Raises:
        ValueError: it is none; the message says how to write one.
    """
    found = _PATTERN.fullmatch(text)
    if found is None or (found["rest"] and not found["path"]):
        raise ValueError(
            "is no page that may send requests; write one like www.example.com/path, "
            "sub.example.com/* or *.example.com/*"
        )
    return RefererPattern(
        scheme=(found["scheme"] or "").lower(),
        host=_read_host(found["scheme"], found["host"]),
        is_domain=found["sub"] is not None,
        path=found["path"] or "/",
        is_beginning=found["rest"] is not None,
    )


def _read_host(scheme: str | None, host: str) -> str:
    return host.lower().removesuffix(_PORTS.get((scheme or "").lower(), "-"))
