"""Ports for programs that are about to start."""

from __future__ import annotations

import socket

from extauthz.demo.processes import find_free_port


def test_no_port_is_given_twice() -> None:
    assert len({find_free_port() for _ in range(500)}) == 500


def test_a_wanted_port_is_given_when_nobody_has_it() -> None:
    wanted = find_free_port()
    assert find_free_port(wanted) == wanted
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", wanted))
        assert find_free_port(wanted) != wanted
    assert find_free_port(wanted) == wanted
