"""Ports of tests that run at the same time, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

from tests.free_ports import find_free_port

ASK_FOR = "from tests.free_ports import find_free_port; find_free_port(range({port}, {port} + 1))"


def test_no_process_is_given_a_port_of_another() -> None:
    port = find_free_port()
    command = [sys.executable, "-c", ASK_FOR.format(port=port)]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"no port between {port} and {port} is free" in asked.stderr


def test_a_process_is_given_each_port_once() -> None:
    assert len({find_free_port() for _ in range(100)}) == 100
