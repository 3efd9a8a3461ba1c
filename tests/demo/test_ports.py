"""Ports for programs that are about to start."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Final

from extauthz.demo.ports import find_free_port

_ANOTHER: Final = """
import sys
from extauthz.demo.ports import find_free_port
print(find_free_port(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_no_port_is_given_twice() -> None:
    assert len({find_free_port() for _ in range(50)}) == 50


def test_a_wanted_port_is_given_when_nobody_has_it() -> None:
    wanted = find_free_port()
    assert find_free_port(wanted) == wanted
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", wanted))
        assert find_free_port(wanted) != wanted
    assert find_free_port(wanted) == wanted


def test_a_port_that_another_process_was_given_is_free_once_that_has_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ANOTHER, "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        assert find_free_port(theirs) != theirs
    assert find_free_port(theirs) == theirs
