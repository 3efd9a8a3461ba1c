"""Defines the types of settings' values: addresses and names, with their checks."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv6Address
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from extauthz.errors import ConfigError
from extauthz.model.field_names import FIELD_NAME, MAX_NAME
from extauthz.serving.listen import read_listen_address

_HOST: Final = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_UNPRINTABLE: Final = re.compile("[\x00-\x20\x7f-\x9f&=]")

_FRAMING: Final = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers about a message's end or destination (RFC 9110 7.6.1), which only the proxy may set."""
_PROXYS_OWN: Final = ("x-envoy-", "x-forwarded-")
"""Envoy acts on what it finds in these."""


def _check_address(address: str) -> str:
    try:
        read_listen_address(address)
    except ConfigError as exc:
        # Only the message: the place is added by the reader of the settings.
        raise ValueError(exc.problems[0].message.rpartition(": ")[2]) from exc
    return address


def _check_header_name(name: str) -> str:
    if not FIELD_NAME.fullmatch(name):
        raise ValueError("must be a header name: ASCII letters, digits and hyphens")
    name = name.lower()
    if name in _FRAMING:
        raise ValueError(f"{name} is the proxy's own header; name another one")
    return name


def _check_own_header(name: str) -> str:
    if name.startswith(_PROXYS_OWN):
        raise ValueError("the proxy acts on x-envoy-* and x-forwarded-*; name another one")
    if name in ("cookie", "set-cookie", "proxy-authorization"):
        raise ValueError(f"{name} holds other things already; name another one")
    return name


def _check_parameter_name(name: str) -> str:
    if not name or len(name) > MAX_NAME or _UNPRINTABLE.search(name):
        raise ValueError("must be the name of a query parameter, without spaces, & and =")
    return name


def _check_proxy_url(url: SecretStr) -> SecretStr:
    with suppress(ValueError):
        parts = urlsplit(url.get_secret_value())
        is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and is_bare:
            return url
    raise ValueError("must be an http or https URL of a host, like http://proxy.example:3128")


def _check_collector_url(url: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(url)
        is_bare = not (parts.username or parts.password or parts.query or parts.fragment)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and is_bare:
            return url
    raise ValueError(
        "must be an http or https URL of a host, like http://127.0.0.1:4317; what the collector "
        "asks for as a credential stands in OTEL_EXPORTER_OTLP_HEADERS"
    )


def _check_direct_host(host: str) -> str:
    if ":" in host:
        with suppress(ValueError):
            return str(IPv6Address(host.strip("[]")))
    elif _HOST.fullmatch(host):
        return host.lower()
    raise ValueError("must be a host's name or address alone, like idp.example or .svc.local")


def _check_own_host(host: str) -> str:
    if host.startswith("."):
        raise ValueError("must be a whole name, like admin.example")
    return _check_direct_host(host)


def _check_cookie_name(name: str) -> str:
    if not FIELD_NAME.fullmatch(name):
        raise ValueError("must be the name of a cookie: ASCII letters, digits and hyphens")
    return name


Address = Annotated[str, AfterValidator(_check_address)]
HeaderName = Annotated[str, AfterValidator(_check_header_name)]
OwnHeaderName = Annotated[HeaderName, AfterValidator(_check_own_header)]
"""A header that only this service sets."""
ParameterName = Annotated[str, AfterValidator(_check_parameter_name)]
CookieName = Annotated[str, AfterValidator(_check_cookie_name)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_check_proxy_url)]
CollectorUrl = Annotated[str, AfterValidator(_check_collector_url)]
DirectHost = Annotated[str, AfterValidator(_check_direct_host)]
OwnHost = Annotated[str, AfterValidator(_check_own_host)]
"""A name or an address of this service."""
