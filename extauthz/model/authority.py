"""Reads the host out of an authority, the same for every door."""

from __future__ import annotations


def read_host(authority: str) -> str:
    """An authority in lower case and without its port; an IPv6 address keeps its brackets.

    What is no host and port is given back whole, so that it is taken for no other host.
    """
    # Beyond ASCII, lower() makes a "k" of the Kelvin sign: another host.
    host = authority.lower() if authority.isascii() else authority
    if ":" not in host:
        return host
    name, _, port = host.rpartition(":")
    is_port = port == "" or (port.isascii() and port.isdigit())
    is_name = name[:1] == "[" and name[-1:] == "]" if ":" in name else name != ""
    return name if is_port and is_name else host
