"""Events over a real RabbitMQ. Not part of the suite: ``make rabbitmq`` installs it and runs this."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pika
import pytest

from extauthz.catalog.wso2.events.listener import Broker, Listener
from extauthz.catalog.wso2.events.reading import Changed, Event, TokenRevoked
from tests.catalog.wso2.test_event_reading import a_message
from tests.free_ports import find_free_port

SERVER: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER, PASSWORD = "admin", "a-password"
WAIT_S: Final = 60


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a RabbitMQ whose only virtual host is the default one."""
    folder, port = tmp_path_factory.mktemp("rabbitmq"), find_free_port()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = {USER}\ndefault_pass = {PASSWORD}\n"
    )
    (folder / "plugins").write_text("[].")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_NODENAME": "extauthz@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "db"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_DIST_PORT": str(find_free_port()),
        "ERL_EPMD_PORT": str(find_free_port()),
    }
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [SERVER], env=environment, stdout=output, stderr=output, start_new_session=True
        )
    until = time.monotonic() + WAIT_S
    while True:
        assert process.poll() is None, (folder / "output.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < until
    yield port
    os.killpg(process.pid, 9)
    process.wait()


def test_its_default_virtual_host_is_found_and_events_come(port: int) -> None:
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    states: queue.SimpleQueue[tuple[bool, str]] = queue.SimpleQueue()
    broker = Broker(url=f"amqp://127.0.0.1:{port}", username=USER, password=PASSWORD)
    Listener(broker, events.put, lambda *state: states.put(state)).start()
    assert states.get(timeout=WAIT_S) == (True, "")
    parameters = pika.ConnectionParameters(
        "127.0.0.1", port, "/", pika.PlainCredentials(USER, PASSWORD)
    )
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        for topic, payload in (
            ("tokenRevocation", {"revokedToken": "a"}),
            ("notification", {"eventType": "API_UPDATE"}),
        ):
            channel.basic_publish("amq.topic", topic, a_message(**payload))
    assert events.get(timeout=WAIT_S) == TokenRevoked("a")
    assert events.get(timeout=WAIT_S) == Changed("api")
