"""The stand-in's server: HTTPS, Basic authentication, tenants, and the data API by release.

What it can be told to do wrong, an API Manager has done: 404 while its web applications are still
being deployed, refused connections, 5xx, empty lists after a restart, and answers that take long.

Source: wso2/product-apim, internal-api client, src/main/resources/api.yaml, at v4.0.0, v4.3.0 and
v4.6.0; wso2/carbon-apimgt, SubscriptionValidationDataUtil (look-ups that miss give a count of 0) and
RevokedjwtApiServiceImpl (an object from 4.3 on); wso2/api-manager issue 1046 (404 after a restart).
"""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import hmac
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from extauthz.demo.api_manager.tables import SUPER_TENANT, Tables
from extauthz.demo.api_manager.tokens import KeyManager

DATA: Final = "/internal/data/v1"
USER: Final = "admin"
RELEASES: Final = ("4.0", "4.2", "4.3", "4.6", "4.7")
_SINCE_4_2: Final = frozenset(
    {"subscriptionUUID", "apiUUID", "applicationUUID", "operationPolicies"}
)
_ALL: Final = "ALL"


class Fault(Enum):
    """What it does instead of answering the data API."""

    NOT_FOUND = "404"
    BROKEN = "500"
    EMPTY = "empty lists"
    GARBAGE = "no JSON"
    CUT = "half an answer"
    SLOW = "an answer after `slow_s`"


class ApiManager:
    """A running stand-in.

    Attributes:
        url: its base URL.
        ca_file: PEM of its certificate.
        fault: see `Fault`; None: it answers as it should.
        asked: paths of the data API that were asked for, in their order.
    """

    def __init__(self, folder: Path, *, password: str, release: str = "4.6", port: int = 0) -> None:
        if release not in RELEASES:
            raise ValueError(f"there is no release {release}; known are {', '.join(RELEASES)}")
        self.release = release
        self.password = password
        self.fault: Fault | None = None
        self.slow_s = 60.0
        self.asked: list[str] = []
        self.gateways: dict[str, float] = {}
        self._folder = folder
        self._port = port
        self._server: _Server | None = None
        self.ca_file = folder / "api-manager.pem"
        self._key_file = folder / "api-manager.key"
        if not self.ca_file.exists():
            _write_certificate(self.ca_file, self._key_file)
        self.start()
        self.keys = KeyManager(f"{self.url}/oauth2/token")
        self.tables = Tables(self.keys.issuer, f"{self.url}/oauth2/jwks")

    @property
    def url(self) -> str:
        """Its base URL, which stays the same after a restart."""
        return f"https://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listens, again after `stop`."""
        self._server = server = _Server(("127.0.0.1", self._port), self)
        self._port = server.server_address[1]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.ca_file, self._key_file)
        server.tls = context
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listens no more: connections are refused."""
        server, self._server = self._server, None
        if server is not None:
            server.is_stopping.set()
            server.shutdown()
            server.server_close()

    def answer(self, path: str, query: Mapping[str, str], tenant: str) -> Any:
        """The JSON of a path of the data API; None when this release has none."""
        with self.tables.lock:
            make = _LISTS.get(path)
            if make is None or self.release < _SINCE.get(path, ""):
                return None
            return make(self, query, tenant)


@contextmanager
def run_api_manager(folder: Path, *, password: str, release: str = "4.6") -> Iterator[ApiManager]:
    """Runs a stand-in during the block."""
    manager = ApiManager(folder, password=password, release=release)
    try:
        yield manager
    finally:
        manager.stop()


def _of_tenant(rows: list[dict[str, Any]], tenant: str) -> list[dict[str, Any]]:
    if tenant == _ALL:
        return rows
    return [row for row in rows if (row.get("tenantDomain") or row.get("organization")) == tenant]


def _list(
    name: str, queries: Mapping[str, str], *, has_tenant: bool = True
) -> Callable[[ApiManager, Mapping[str, str], str], Any]:
    """A list in an envelope. `queries`: from a parameter to the field that it asks for."""

    def make(manager: ApiManager, query: Mapping[str, str], tenant: str) -> Any:
        rows = getattr(manager.tables, name)
        if has_tenant:
            rows = _of_tenant(rows, tenant)
        for parameter, column in queries.items():
            if parameter in query:
                rows = [row for row in rows if str(row.get(column)) == query[parameter]]
        if manager.release < "4.2":
            rows = [
                {key: value for key, value in row.items() if key not in _SINCE_4_2} for row in rows
            ]
        if manager.fault is Fault.EMPTY:
            rows = []
        return {"count": len(rows), "list": rows}

    return make


def _revoked(manager: ApiManager, _: Mapping[str, str], __: str) -> Any:
    tables = manager.tables
    if manager.release < "4.3":
        return list(tables.revoked_tokens)
    return {
        "revokedJWTList": list(tables.revoked_tokens),
        "revokedJWTSubjectEntityList": list(tables.revoked_subjects),
        "revokedJWTConsumerKeyList": list(tables.revoked_consumer_keys),
    }


_LISTS: Final[Mapping[str, Callable[[ApiManager, Mapping[str, str], str], Any]]] = {
    "/apis": _list("apis", {"apiId": "uuid", "context": "context", "version": "version"}),
    "/applications": _list("applications", {"appId": "id"}),
    "/subscriptions": _list(
        "subscriptions",
        {
            "apiId": "apiId",
            "appId": "appId",
            "apiUUID": "apiUUID",
            "applicationUUID": "applicationUUID",
        },
        has_tenant=False,
    ),
    "/application-key-mappings": _list(
        "key_mappings",
        {"consumerKey": "consumerKey", "keymanager": "keyManager"},
        has_tenant=False,
    ),
    "/subscription-policies": _list("subscription_policies", {"policyName": "name"}),
    "/application-policies": _list("application_policies", {"policyName": "name"}),
    "/api-policies": _list("api_policies", {"policyName": "name"}),
    "/global-policies": _list("global_policies", {"policyName": "name"}),
    "/scopes": _list("scopes", {"scopeKey": "name"}, has_tenant=False),
    "/keymanagers": lambda manager, _, tenant: _of_tenant(manager.tables.key_managers, tenant),
    "/revokedjwt": _revoked,
    "/block": lambda manager, _, __: manager.tables.blocks,
    "/keyTemplates": lambda manager, _, __: manager.tables.key_templates,
    "/api-keys": lambda manager, _, __: manager.tables.api_keys,
}
_SINCE: Final = {"/api-keys": "4.7", "/notify-gateway": "4.6"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    tls: ssl.SSLContext

    def __init__(self, address: tuple[str, int], manager: ApiManager) -> None:
        super().__init__(address, _Handler)
        self.manager = manager
        self.is_stopping = threading.Event()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """TLS begins in the connection's own thread, so that a slow client holds nobody up."""
        try:
            request.settimeout(30)
            wrapped = self.tls.wrap_socket(request, server_side=True)
        except (OSError, ssl.SSLError):
            return
        with wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of connections that were cut."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: Any) -> None:
        """Logs nothing: requests hold credentials."""

    def do_GET(self) -> None:
        """Answers the data API and the key manager."""
        parts = urlsplit(self.path)
        manager = self.server.manager
        if parts.path == "/oauth2/jwks":
            self._send(200, manager.keys.write_jwks().encode())
        elif parts.path.startswith(f"{DATA}/"):
            self._answer_data(parts.path.removeprefix(DATA), parts.query)
        else:
            self._send_json(404, {"code": 404, "message": "Not Found"})

    def do_POST(self) -> None:
        """Answers introspection, and the notices of gateways."""
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        manager = self.server.manager
        if not self._is_admin():
            self._send_json(401, {"error": "Unauthenticated"})
        elif parts.path == "/oauth2/introspect":
            form = parse_qs(body.decode())
            token = form.get("token", [""])[0]
            if not token:
                self._send_json(400, {"error": "Invalid input"})
            else:
                self._send_json(200, manager.keys.introspect(token))
        elif parts.path == f"{DATA}/notify-gateway" and manager.release >= "4.6":
            self._send_json(200, self._register(json.loads(body)))
        else:
            self._send_json(404, {"code": 404, "message": "Not Found"})

    def _register(self, notice: Mapping[str, Any]) -> Mapping[str, str]:
        gateways = self.server.manager.gateways
        gateway = str(notice.get("gatewayId") or "gateway")
        if notice.get("payloadType") == "REGISTER":
            gateways[gateway] = time.time()
            return {"status": "REGISTERED", "gatewayId": gateway}
        if gateway not in gateways:
            return {"status": "UNREGISTERED", "gatewayId": gateway}
        gateways[gateway] = time.time()
        return {"status": "ACKNOWLEDGED", "gatewayId": gateway}

    def _answer_data(self, path: str, query: str) -> None:
        manager, fault = self.server.manager, self.server.manager.fault
        manager.asked.append(path)
        if fault is Fault.SLOW:
            self.server.is_stopping.wait(manager.slow_s)
        if fault is Fault.NOT_FOUND:
            self._send(404, b"<html>404</html>", "text/html")
            return
        if not self._is_admin():
            self._send_json(401, {"code": 401, "message": "Unauthenticated"})
            return
        if fault is Fault.BROKEN:
            self._send_json(500, {"code": 900967, "message": "General Error"})
            return
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        answer = manager.answer(path, asked, self.headers.get("xWSO2Tenant") or SUPER_TENANT)
        if answer is None:
            self._send_json(404, {"code": 404, "message": "Not Found"})
            return
        content = json.dumps(answer).encode()
        if fault is Fault.GARBAGE:
            content = b"<?xml version='1.0'?><am:fault/>"
        if path == "/apis" and "gzip" in self.headers.get("accept", ""):
            self._send(200, gzip.compress(content), "application/gzip", encoding="gzip")
            return
        self._send(200, content, cut=fault is Fault.CUT)

    def _is_admin(self) -> bool:
        expected = base64.b64encode(f"{USER}:{self.server.manager.password}".encode()).decode()
        return hmac.compare_digest(self.headers.get("authorization", ""), f"Basic {expected}")

    def _send_json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode())

    def _send(
        self,
        status: int,
        content: bytes,
        content_type: str = "application/json",
        *,
        encoding: str = "",
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        if encoding:
            self.send_header("content-encoding", encoding)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


def _write_certificate(cert_file: Path, key_file: Path) -> None:
    """A certificate of its own for 127.0.0.1, as a new API Manager has one for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api-manager")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
