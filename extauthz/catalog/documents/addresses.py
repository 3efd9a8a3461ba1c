"""Reads where an API is served: its hosts and its base paths.

The base path is the context as it is when the version is a whole segment of it (or ``{version}``
stands for it), else the context and the version. A default version is also served without the
version. Without a context the OpenAPI document's base path is used as it is, else the root: the
API is then found by its host alone.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from extauthz.catalog.documents.shapes import ApiDocument
from extauthz.documents.messages import show_name
from extauthz.model.routing.authority import read_host

VERSION_PLACEHOLDER: Final = "{version}"
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~!$&'()+,=:@-]+")


class Fault(Protocol):
    """Notes a problem of an API's document."""

    def __call__(self, message: str, *below: str | int) -> None:
        """Notes it, with the path of the node below the API."""


def plan_base_paths(written: ApiDocument, described: str | None, fault: Fault) -> tuple[str, ...]:
    """The base paths of an API; `described` is that of its OpenAPI document."""
    context, version = written.context, written.version
    if context is None:
        return (described or "",)
    message = None
    if not context.startswith("/"):
        message = f"must start with a slash: write {show_name('/' + context)}"
    elif context == "/":
        message = "is the root: leave context out, and the API is found by host alone"
    elif context.endswith("/"):
        message = f"must not end with a slash: write {show_name(context.rstrip('/') or '/')}"
    if message is not None:
        fault(message, "context")
        return ()
    segments = [version if it == VERSION_PLACEHOLDER else it for it in context.split("/")[1:]]
    if version not in segments:
        segments.append(version)
    for segment in segments:
        if _SEGMENT.fullmatch(segment) is None or segment in (".", ".."):
            at = "version" if segment == version else "context"
            fault(
                f"{show_name(segment)} cannot be a segment of a path; use letters, digits, "
                f"'.', '_', '-' (and {VERSION_PLACEHOLDER} for the version)",
                at,
            )
    paths = ["/" + "/".join(segments)]
    if written.default_version:
        segments.remove(version)
        paths.append("".join(f"/{segment}" for segment in segments))
    return tuple(paths)


def read_hosts(written: ApiDocument, fault: Fault) -> tuple[str, ...]:
    """The hosts of an API in their normal form."""
    hosts: dict[str, None] = {}
    for position, text in enumerate(written.hosts):
        host = _read_host(text)
        if host is None:
            fault(
                "must be a host without scheme, port and path: api.example.com, "
                "*.example.com or *; a name beyond ASCII is written as DNS has it, xn--…",
                "hosts",
                position,
            )
        elif host in hosts:
            fault("is there already; remove one", "hosts", position)
        else:
            hosts[host] = None
    return tuple(hosts)


def _read_host(written: str) -> str | None:
    """Reads a host or a wildcard of hosts in its normal form; None when it is not valid."""
    if written == "*":
        return written
    if ":" in written.rpartition("]")[2]:  # a port
        return None
    name = written.removeprefix("*.")
    host = read_host(name)
    if host is None or name == written:
        return host
    return None if host.startswith("[") else f"*.{host}"
