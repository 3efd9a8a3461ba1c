"""Listens to one broker of an API Manager's event hub, in a thread of its own.

Brokers are Andes (WSO2's own, a descendant of Apache Qpid), Qpid Broker-J and RabbitMQ. Nothing but AMQP 0-9-1
itself is asked of them.

- The queue is the broker's own, and goes with the connection. So every new connection may have
  missed something: it is told, for a full reading.
- A message is acknowledged whatever is in it.
- The heartbeat is asked for, because the broker's own default is none, and a silent connection then
  stays open for ever behind a load balancer.

Source: wso2/product-apim, default.json (ports, heartbeat); wso2/product-microgateway v1.2.0, pkg/messaging
(exchange, queue, topics); AMQP 0-9-1.
"""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pika
import pika.exceptions

from extauthz.catalog.wso2.events.reading import TOPICS, Event, read_event

HEARTBEAT_S: Final = 30
MAX_RETRY_S: Final = 30.0
_CONNECT_S: Final = 10.0
_PREFETCH: Final = 50
_VIRTUAL_HOSTS: Final = ("carbon", "/")
"""API Manager's own, and the default, which other brokers have."""
_EXCHANGE: Final = "amq.topic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """How a broker is reached.

    Attributes:
        url: ``amqp://host:5672`` or ``amqps://host:8672``; a path names the virtual host.
        ca: PEM of the authorities that may sign its certificate; empty for the system's.
    """

    url: str
    username: str
    password: str
    ca: str = ""

    @property
    def name(self) -> str:
        """Host and port, for the log."""
        return urlsplit(self.url).netloc


class Listener:
    """Listens until the process ends, or `wait` says that it is enough.

    Args:
        on_event: is called for each event, in the listener's thread.
        on_state: is called with True after each connection, and with False after a loss, with why.
        wait: waits for so many seconds before the next connection; True ends the listener.
    """

    def __init__(
        self,
        broker: Broker,
        on_event: Callable[[Event], None],
        on_state: Callable[[bool, str], None],
        *,
        wait: Callable[[float], bool] | None = None,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        self._broker = broker
        self._on_event = on_event
        self._on_state = on_state
        self._wait = wait or threading.Event().wait
        self._random_share = random_share
        self._host = ""

    def start(self) -> None:
        """Begins to listen, in a thread that ends with the process."""
        threading.Thread(target=self.run, name=self._broker.name, daemon=True).start()

    def run(self) -> None:
        """Listens until `wait` ends it."""
        retry_s = 1.0
        while True:
            try:
                self._listen()
            except (pika.exceptions.AMQPError, OSError, ValueError) as exc:
                self._on_state(False, say_failure(exc))
            if self._host:
                retry_s, self._host = 1.0, ""
            if self._wait(retry_s * (1 - self._random_share() / 2)):
                return
            retry_s = min(2 * retry_s, MAX_RETRY_S)

    def _listen(self) -> None:
        """Listens on one connection, until it is lost."""
        connection, host = self._connect()
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=_PREFETCH)
            channel.exchange_declare(_EXCHANGE, exchange_type="topic", passive=True)
            queue = channel.queue_declare("", durable=False, auto_delete=True).method.queue
            for topic in TOPICS:
                channel.queue_bind(queue, _EXCHANGE, topic)
            channel.basic_consume(queue, self._take)
            self._host = host
            self._on_state(True, "")
            channel.start_consuming()
        finally:
            if connection.is_open:
                connection.close()

    def _connect(self) -> tuple[pika.BlockingConnection, str]:
        named = unquote(urlsplit(self._broker.url).path.removeprefix("/"))
        hosts = (named,) if named else _VIRTUAL_HOSTS
        for host in hosts[:-1]:
            try:
                return pika.BlockingConnection(self._write_parameters(host)), host
            except (
                pika.exceptions.ConnectionClosedByBroker,
                pika.exceptions.ProbableAccessDeniedError,
                pika.exceptions.StreamLostError,
            ):
                continue  # it has no such virtual host
        return pika.BlockingConnection(self._write_parameters(hosts[-1])), hosts[-1]

    def _write_parameters(self, host: str) -> pika.ConnectionParameters:
        parts = urlsplit(self._broker.url)
        options = None
        if parts.scheme == "amqps":
            context = ssl.create_default_context(cadata=self._broker.ca or None)
            if self._broker.ca:
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            options = pika.SSLOptions(context, parts.hostname)
        return pika.ConnectionParameters(
            host=parts.hostname or "",
            port=parts.port or (5672 if options is None else 5671),
            virtual_host=host,
            credentials=pika.PlainCredentials(self._broker.username, self._broker.password),
            heartbeat=HEARTBEAT_S,
            blocked_connection_timeout=HEARTBEAT_S,
            socket_timeout=_CONNECT_S,
            stack_timeout=_CONNECT_S,
            connection_attempts=1,
            ssl_options=options,
            client_properties={"product": "extauthz"},
        )

    def _take(self, channel: Any, method: Any, _: Any, body: bytes) -> None:
        try:
            self._on_event(read_event(method.routing_key, body))
        finally:
            channel.basic_ack(method.delivery_tag)


def say_failure(error: BaseException) -> str:
    """Why there is no connection, and what to do, without anything that was sent."""
    cause: BaseException | None = error
    seen = 0
    while cause is not None and seen < 10:
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"its certificate was not accepted: {cause.verify_message}; name the "
                    "authority that signed it in ca"
                )
            case ssl.SSLError():
                return (
                    "TLS failed; API Manager's broker speaks TLS 1.0 alone until "
                    "broker.transport.amqp.ssl_connection.ssl_enabled_protocols is set"
                )
            case pika.exceptions.ProbableAuthenticationError():
                return "it refused the user; check username and password_file"
            case socket.gaierror():
                return "its host's name cannot be resolved"
            case ConnectionRefusedError():
                return "connection refused"
        cause = cause.__cause__ or cause.__context__ or _find_inner(cause)
        seen += 1
    return f"the connection was lost ({type(error).__name__})"


def _find_inner(error: BaseException) -> BaseException | None:
    """The error that pika has put into another one."""
    inner = next((it for it in error.args if isinstance(it, BaseException)), None)
    return inner if inner is not None else getattr(error, "exception", None)
