"""The stand-in's event hub: sends what its tables tell to a real broker.

Source of the form: wso2/product-microgateway v1.2.0, pkg/messaging (JSON text below ``event`` and
``payloadData``, exchange ``amq.topic``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pika

from extauthz.demo.api_manager.tables import Tables

VIRTUAL_HOST: Final = "carbon"


class EventHub:
    """Sends events to one broker."""

    def __init__(self, url: str, username: str, password: str) -> None:
        parameters = pika.URLParameters(f"{url}/{VIRTUAL_HOST}?heartbeat=0")
        parameters.credentials = pika.PlainCredentials(username, password)
        self._parameters = parameters
        self._lock = threading.Lock()

    def send(self, topic: str, payload: dict[str, Any]) -> None:
        """Sends an event."""
        self.send_bytes(topic, json.dumps({"event": {"payloadData": payload}}).encode())

    def send_bytes(self, topic: str, body: bytes) -> None:
        """Sends any bytes, as a broken sender would."""
        # A connection for each: events are rare, and the broker may be started again meanwhile.
        with self._lock:
            connection = pika.BlockingConnection(self._parameters)
            try:
                connection.channel().basic_publish("amq.topic", topic, body)
            finally:
                connection.close()


@contextmanager
def telling(tables: Tables, hub: EventHub) -> Iterator[None]:
    """Lets the tables tell the hub of every change during the block."""
    tables.tell = hub.send
    try:
        yield
    finally:
        tables.tell = lambda _, __: None
