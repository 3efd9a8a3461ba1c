"""Runs Apache Qpid Broker-J with AMQP 0-9-1, its queues in memory, on a port of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.free_ports import find_free_port

LIBRARIES: Final = Path(__file__).resolve().parents[2] / ".make" / "broker-j"
"""Where `.ci/setup broker` puts them."""
USER: Final = "admin"
_START_S: Final = 60


class BrokerJ:
    """A broker that can be killed and started again at the same address.

    Attributes:
        url: its address, like ``amqp://127.0.0.1:5672``.
    """

    def __init__(self, folder: Path, password: str) -> None:
        self._folder = folder
        self._port = find_free_port()
        self.password = password
        self.url = f"amqp://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> BrokerJ:
        """Starts it, and waits until it takes connections."""
        assert any(LIBRARIES.glob("qpid-broker-core-*.jar")), "missing: .ci/setup broker gets it"
        configuration = self._folder / "broker.json"
        configuration.write_text(json.dumps(self._write_configuration()))
        log = self._folder / "broker.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                (
                    "java",
                    *("-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
                    f"-DQPID_WORK={self._folder / 'work'}",
                    *("-cp", f"{LIBRARIES}/*"),
                    str(Path(__file__).with_name("Broker.java")),
                    configuration.as_uri(),
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        until = time.monotonic() + _START_S
        while True:
            assert self._process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                assert time.monotonic() < until, log.read_text()
            else:
                return self

    def kill(self) -> None:
        """Ends it at once, with all that its queues hold."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _write_configuration(self) -> dict[str, object]:
        user = {"name": USER, "type": "managed", "password": self.password}
        return {
            "name": "broker",
            "modelVersion": "9.1",
            "authenticationproviders": [
                {"name": "plain", "type": "Plain", "secureOnlyMechanisms": [], "users": [user]}
            ],
            "ports": [
                {
                    "name": "AMQP",
                    "port": str(self._port),
                    "bindingAddress": "127.0.0.1",
                    "authenticationProvider": "plain",
                    "protocols": ["AMQP_0_9_1"],
                    "virtualhostaliases": [{"name": "nameAlias", "type": "nameAlias"}],
                }
            ],
            "virtualhostnodes": [
                {
                    "name": "carbon",
                    "type": "Memory",
                    "defaultVirtualHostNode": "true",
                    "virtualHostInitialConfiguration": json.dumps({"type": "Memory"}),
                }
            ],
        }
