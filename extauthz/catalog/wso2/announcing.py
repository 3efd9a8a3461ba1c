"""Tells an API Manager of this gateway, so that its administrators see it (4.6 and later).

A gateway registers, and then sends a heartbeat. An API Manager that was restarted has forgotten it,
and answers with another status than to a heartbeat that it knows: then it registers again. Nothing
depends on it: decisions and readings go on when it fails.

Source: wso2/product-apim, internal-api client, src/main/resources/api.yaml, at v4.6.0
(``/notify-gateway``); wso2/carbon-apimgt, default.json (``apim.gateway_notification``: every 30 s, expired
after 120 s).
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from extauthz.catalog.wso2.data_api import ALL_TENANTS, PATH, DataApi, NotAllowed, NotThere
from extauthz.catalog.wso2.messages import Message, Parameters, Told
from extauthz.catalog.wso2.shapes import SUPER_TENANT
from extauthz.errors import CatalogError

NOTICES: Final = f"{PATH}/notify-gateway"
HEARTBEAT_S: Final = 30.0
FIRST_RETRY_S: Final = 10.0
MAX_RETRY_S: Final = 300.0
"""Also the pause after 401 and 403: administrators are locked out after some failures."""
ABSENT_RETRY_S: Final = 60.0
_MS: Final = 1000


class Announcer:
    """Announces this gateway until the end.

    Args:
        open_api: makes a client of the API Manager; raises `CatalogError`.
        say: takes messages for the log.
        wait: waits for so many seconds; False to end.
    """

    def __init__(
        self,
        parameters: Parameters,
        open_api: Callable[[Parameters], DataApi],
        say: Callable[[Message], None],
        wait: Callable[[float], bool],
    ) -> None:
        self._parameters = parameters
        self._open_api = open_api
        self._say = say
        self._wait = wait
        self._gateway = f"extauthz-{socket.gethostname()[:64]}-{secrets.token_hex(4)}"
        self._is_known = False
        self._told = ""

    def run(self) -> None:
        """Announces until it is told to end."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                self._announce()
            except NotThere:
                # Before 4.6 there is nothing to announce to, or it is still starting.
                self._is_known, pause_s = False, ABSENT_RETRY_S
            except CatalogError as exc:
                self._is_known = False
                pause_s = MAX_RETRY_S if isinstance(exc, NotAllowed) else retry_s
                retry_s = min(2 * retry_s, MAX_RETRY_S)
                self._tell(logging.WARNING, f"it was not told of this gateway: {exc}")
            else:
                retry_s, pause_s = FIRST_RETRY_S, HEARTBEAT_S
            if not self._wait(pause_s):
                return

    def _announce(self) -> None:
        with self._open_api(self._parameters) as api:
            if self._is_known and self._send(api, "HEARTBEAT") == "ACKNOWLEDGED":
                return
            status = self._send(api, "REGISTER")
        if status != "REGISTERED":
            raise CatalogError(f"{NOTICES}: answers with the status {status[:64]!r}")
        self._is_known = True
        self._tell(logging.INFO, f"this gateway is registered as {self._gateway}")

    def _send(self, api: DataApi, kind: str) -> str:
        tenants = [SUPER_TENANT if it == ALL_TENANTS else it for it in self._parameters.tenants]
        answer: Any = api.ask(
            "POST",
            NOTICES,
            body={
                "payloadType": kind,
                "gatewayId": self._gateway,
                "environmentLabels": list(self._parameters.labels),
                "loadingTenants": tenants,
                "gatewayProperties": {"ipAddress": find_own_address(self._parameters.url)},
                "timeStamp": round(time.time() * _MS),
            },
        )
        status = answer.get("status") if isinstance(answer, dict) else None
        return status.upper() if isinstance(status, str) else ""

    def _tell(self, level: int, text: str) -> None:
        if text != self._told:
            self._say(Told(level=level, message=text))
        self._told = text


def find_own_address(url: str) -> str:
    """The address from which a host is reached; empty when there is none. Nothing is sent."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            parts.hostname, port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return ""
