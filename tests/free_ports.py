"""Free ports for the programs that tests start.

Several test runs may share a machine, and one run has several processes. A port is free for a
moment between its choice and the start of the program that listens on it. So whoever gets one
claims it by a lock on the byte of that number in one file, which ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from extauthz.demo.ports import is_free, list_ports_in_turn

_PORTS: Final = range(14_000, 20_000)
"""Neither those that Linux gives to clients, nor those of Redis (`tests.redis_server`), nor those
that the demonstration chooses for itself."""


def find_free_port(ports: range = _PORTS, is_fit: Callable[[int], bool] = is_free) -> int:
    """A TCP port on loopback that no other caller is given until this process ends."""
    for port in list_ports_in_turn(ports):
        if _claim(port) and is_fit(port):
            return port
    raise AssertionError(f"no port between {ports.start} and {ports.stop - 1} is free")


def _claim(port: int) -> bool:
    try:
        fcntl.lockf(_open_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _open_claims() -> int:
    """The file's descriptor; to close any descriptor of the file would end this process's locks."""
    name = Path(tempfile.gettempdir()) / f"extauthz-test-ports-{os.getuid()}"
    return os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
