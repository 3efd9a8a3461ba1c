"""Finds free TCP ports for programs that are about to start.

A port is free for a moment between its choice and the start of the program that listens on it, and
several demonstrations may start at the same time: two Envoys can even listen on the same one. So a
process that gets a port claims it, by a name that only one process has (of an abstract Unix
socket, which leaves no file). The claim ends with the process.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from functools import cache
from typing import Final

from extauthz.demo.processes import DemoError

_PORTS: Final = range(24_000, 32_768)
"""Ports outside of the range from which Linux takes ephemeral ports."""


def is_free(port: int) -> bool:
    """Whether a program could listen on the TCP port, on loopback."""
    with socket.socket() as probe:
        # As servers do: recently closed connections do not prevent listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def find_free_port(wanted: int = 0) -> int:
    """Finds a free TCP port on loopback that no other demonstration is given.

    Args:
        wanted: is returned when it is free; 0 for any port that was not returned before.

    Raises:
        DemoError: no port is free.
    """
    if wanted and _claim(wanted) and is_free(wanted):
        return wanted
    for port in list_ports_in_turn(_PORTS):
        if _claim(port) and is_free(port):
            return port
    raise DemoError(f"no port between {_PORTS.start} and {_PORTS.stop - 1} is free")


@cache
def list_ports_in_turn(ports: range) -> Iterator[int]:
    """Yields each port once, from a random one on, because other processes look for ports too."""
    begin = random.randrange(len(ports))  # noqa: S311  (no secret)
    return iter((*ports[begin:], *ports[:begin]))


def _claim(port: int) -> bool:
    mine = _list_claims(os.getpid())
    if port not in mine:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0extauthz-port-{port}")
        except OSError:
            claim.close()
            return False
        mine[port] = claim.detach()
    return True


@cache
def _list_claims(_process: int) -> dict[int, int]:
    """The descriptors of the claims of a process, by port. A forked one begins without any."""
    return {}
