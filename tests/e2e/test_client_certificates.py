"""Client certificates where a credential is optional: what Envoy tells of them, and what follows.

One Envoy has a listener for each way in which it can tell of a certificate. Clients may show one.
"""

from __future__ import annotations

import copy
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import yaml
from cryptography import x509

from extauthz.envoy.configuration.check import check_config
from extauthz.envoy.configuration.parameters import ServerTls
from tests.certificates import LOCAL, Authority, Leaf, a_uri
from tests.e2e.running import Deployment, next_client
from tests.e2e.world import World
from tests.free_ports import find_free_port

pytestmark = pytest.mark.e2e

DEVICE: Final = "spiffe://mesh.example/ns/field/sa/device"
OTHER: Final = "spiffe://mesh.example/ns/field/sa/other"
TRUSTED: Final = Authority("trusted")
STRANGER: Final = Authority("stranger")

CERTIFICATES: Final[Mapping[str, Leaf | None]] = {
    "no certificate": None,
    "a known URI": TRUSTED.issue(a_uri(DEVICE)),
    "a known DNS name": TRUSTED.issue(x509.DNSName("device.example")),
    "a known subject": TRUSTED.issue(common_name="device"),
    "an unknown URI": TRUSTED.issue(a_uri(OTHER)),
    "a known URI behind another": TRUSTED.issue(a_uri(OTHER), a_uri(DEVICE)),
    "a certificate without a name": TRUSTED.issue(common_name=""),
    "a known URI, expired": TRUSTED.issue(a_uri(DEVICE), is_expired=True),
    "a known URI, of a stranger": STRANGER.issue(a_uri(DEVICE)),
}

CERTIFIED: Final = "/certified/1.0.0/open"
EITHER: Final = "/either/1.0.0/open"
KEY_FIRST: Final = "/key-first/1.0.0/open"
_SECURITY: Final = {
    "Certified": ["mtls", "none"],
    "Either": ["mtls", "jwt", "api_key", "none"],
    "Key-First": ["api_key", "mtls", "none"],
}
_CATALOG: Final = {
    "apis": [
        {
            "name": name,
            "version": "1.0.0",
            "context": f"/{name.lower()}",
            "security": security,
            "resources": [{"methods": ["POST"], "path": "/open"}],
        }
        for name, security in _SECURITY.items()
    ],
    "applications": [
        {
            "name": "device",
            "certificates": [
                {"principal": DEVICE},
                {"principal": "device.example"},
                {"principal": "CN=device"},
            ],
        }
    ],
    "subscriptions": [
        {"application": application, "api": name, "version": "1.0.0"}
        for name in _SECURITY
        for application in ("device", "mobile")
    ],
}

Tree = dict[str, Any]


def _tell_name(_tls: Tree, manager: Tree) -> None:
    del manager["http_filters"][0]["typed_config"]["include_peer_certificate"]


def _tell_xfcc(details: str) -> Callable[[Tree, Tree], None]:
    def change(tls: Tree, manager: Tree) -> None:
        _tell_name(tls, manager)
        manager["forward_client_cert_details"] = details
        manager["set_current_client_cert_details"] = {"subject": True, "uri": True, "dns": True}

    return change


def _take_any_signer(tls: Tree, _manager: Tree) -> None:
    validation = tls["common_tls_context"]["validation_context"]
    validation["trust_chain_verification"] = "ACCEPT_UNTRUSTED"


def _name_no_signer(tls: Tree, _manager: Tree) -> None:
    del tls["common_tls_context"]["validation_context"]
    tls["require_client_certificate"] = True


LISTENERS: Final[Mapping[str, Callable[[Tree, Tree], None]]] = {
    "certificate": lambda _tls, _manager: None,
    "name": _tell_name,
    "xfcc": _tell_xfcc("SANITIZE_SET"),
    "xfcc appended": _tell_xfcc("APPEND_FORWARD"),
    "xfcc forwarded": _tell_xfcc("ALWAYS_FORWARD_ONLY"),
    "any signer": _take_any_signer,
    "no signer": _name_no_signer,
}
"""How each listener differs from the printed one, which sends certificates, in TLS or manager."""


class Edge:
    """A running Envoy with a listener for each row of the table."""

    def __init__(self, ports: Mapping[str, int], folder: Path) -> None:
        self._ports, self._folder = ports, folder

    def call(
        self, listener: str, certificate: str, path: str, headers: Mapping[str, str]
    ) -> httpx2.Response:
        with self._connect(certificate) as client:
            url = f"https://localhost:{self._ports[listener]}{path}"
            return client.post(url, headers={"x-forwarded-for": next_client(), **headers})

    @contextmanager
    def _connect(self, certificate: str) -> Iterator[httpx2.Client]:
        context = ssl.create_default_context(cadata=TRUSTED.pem.decode())
        leaf = CERTIFICATES[certificate]
        if leaf is not None:
            file = self._folder / "client.pem"
            file.write_bytes(leaf.cert + leaf.key)
            context.load_cert_chain(file)
        with httpx2.Client(verify=context, trust_env=False, timeout=60) as client:
            yield client


def _write_listeners(bootstrap: Tree, ports: Mapping[str, int]) -> None:
    """Gives Envoy all listeners in the place of the printed one."""
    (printed,) = bootstrap["static_resources"]["listeners"]
    listeners = []
    for name, port in ports.items():
        listener = copy.deepcopy(printed)
        listener["name"] = name
        listener["address"]["socket_address"]["port_value"] = port
        (chain,) = listener["filter_chains"]
        tls = chain["transport_socket"]["typed_config"]
        tls["require_client_certificate"] = False
        LISTENERS[name](tls, chain["filters"][0]["typed_config"])
        listeners.append(listener)
    bootstrap["static_resources"]["listeners"] = listeners


@dataclass(frozen=True, slots=True)
class Running:
    edge: Edge
    bootstrap: Tree


@pytest.fixture(scope="module")
def running(
    deployment: Deployment, world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("certificates")
    server = TRUSTED.issue(LOCAL)
    for name, content in (
        ("catalog.yaml", yaml.safe_dump(_CATALOG).encode()),
        ("server.pem", server.cert),
        ("server.key", server.key),
        ("clients.pem", TRUSTED.pem),
    ):
        (folder / name).write_bytes(content)
    settings = {
        "catalog": {"files": [str(world.catalog), str(folder / "catalog.yaml")]},
        "credentials": {"trust_xfcc": True},
    }
    ports = {name: find_free_port() for name in LISTENERS}
    written: list[Tree] = []

    def change(bootstrap: Tree) -> None:
        _write_listeners(bootstrap, ports)
        written.append(bootstrap)

    tls = ServerTls(
        certificate_file=str(folder / "server.pem"),
        key_file=str(folder / "server.key"),
        client_ca_file=str(folder / "clients.pem"),
    )
    with (
        deployment.run_service("certificates", settings) as service,
        deployment.run_gateway(
            service.grpc_address, change=change, listen_tls=tls, peer_certificate=True
        ),
    ):
        yield Running(Edge(ports, folder), written[0])


@pytest.fixture
def edge(running: Running) -> Edge:
    return running.edge


NOBODY: Final = "allowed: nobody"
DEVICE_CALLS: Final = "allowed: device"
MOBILE_CALLS: Final = "allowed: mobile"
NONE: Final[Mapping[str, str]] = {}
FORGED: Final = {"x-forwarded-client-cert": f"Hash=00;URI={DEVICE}"}
BAD_KEY: Final = {"x-api-key": "unknown"}


def say_outcome(answer: httpx2.Response) -> str:
    """Whom the upstream was told of, or the reason of the denial."""
    if answer.status_code != 200:
        return str(answer.json()["reason"])
    seen = dict(answer.json()["headers"])
    return f"allowed: {seen.get('x-extauthz-application', 'nobody')}"


@pytest.mark.parametrize(
    ("listener", "certificate", "headers", "outcome"),
    [
        ("certificate", "no certificate", NONE, NOBODY),
        ("certificate", "a known URI", NONE, DEVICE_CALLS),
        ("certificate", "a known DNS name", NONE, DEVICE_CALLS),
        ("certificate", "a known subject", NONE, DEVICE_CALLS),
        ("certificate", "an unknown URI", NONE, "invalid_credentials"),
        # ext_authz tells of the first name alone.
        ("certificate", "a known URI behind another", NONE, "invalid_credentials"),
        ("certificate", "a certificate without a name", NONE, "missing_credentials"),
        ("certificate", "no certificate", FORGED, NOBODY),
        ("certificate", "an unknown URI", FORGED, "invalid_credentials"),
        ("certificate", "a certificate without a name", FORGED, "missing_credentials"),
        ("name", "no certificate", NONE, NOBODY),
        ("name", "a known URI", NONE, DEVICE_CALLS),
        ("name", "an unknown URI", NONE, "invalid_credentials"),
        # Nothing of such a certificate is told, so that it is none.
        ("name", "a certificate without a name", NONE, NOBODY),
        ("xfcc", "no certificate", NONE, NOBODY),
        ("xfcc", "a known URI", NONE, DEVICE_CALLS),
        ("xfcc", "a known DNS name", NONE, DEVICE_CALLS),
        ("xfcc", "a known subject", NONE, DEVICE_CALLS),
        ("xfcc", "an unknown URI", NONE, "invalid_credentials"),
        ("xfcc", "a known URI behind another", NONE, DEVICE_CALLS),
        ("xfcc", "a certificate without a name", NONE, "missing_credentials"),
        ("xfcc", "no certificate", FORGED, NOBODY),
        ("xfcc", "an unknown URI", FORGED, "invalid_credentials"),
        ("xfcc appended", "no certificate", FORGED, NOBODY),
        ("xfcc appended", "a known URI", FORGED, DEVICE_CALLS),
        ("xfcc appended", "an unknown URI", FORGED, "invalid_credentials"),
        # Here anybody can name an application, so that the field must not be trusted.
        ("xfcc forwarded", "no certificate", FORGED, DEVICE_CALLS),
        # Here anybody can write a certificate with the name of an application.
        ("any signer", "a known URI, of a stranger", NONE, DEVICE_CALLS),
        # And here Envoy asks for none, although it is told to require one.
        ("no signer", "a known URI, of a stranger", NONE, NOBODY),
        ("no signer", "no certificate", NONE, NOBODY),
    ],
)
def test_beside_none_a_certificate_that_is_shown_must_be_known(
    edge: Edge, listener: str, certificate: str, headers: Mapping[str, str], outcome: str
) -> None:
    assert say_outcome(edge.call(listener, certificate, CERTIFIED, headers)) == outcome


@pytest.mark.parametrize("listener", ["certificate", "name", "xfcc"])
@pytest.mark.parametrize("certificate", ["a known URI, expired", "a known URI, of a stranger"])
def test_a_certificate_that_envoy_does_not_believe_is_not_decided_on(
    edge: Edge, listener: str, certificate: str
) -> None:
    with pytest.raises(httpx2.TransportError, match=r"(?i)alert"):
        edge.call(listener, certificate, CERTIFIED, NONE)


@pytest.mark.parametrize(
    ("path", "certificate", "credential", "outcome"),
    [
        (EITHER, "no certificate", "nothing", NOBODY),
        (EITHER, "no certificate", "key", MOBILE_CALLS),
        (EITHER, "no certificate", "token", MOBILE_CALLS),
        (EITHER, "no certificate", "bad key", "invalid_credentials"),
        (EITHER, "a known URI", "nothing", DEVICE_CALLS),
        (EITHER, "a known URI", "key", DEVICE_CALLS),
        (EITHER, "a known URI", "bad key", DEVICE_CALLS),
        # A mesh gives every workload a certificate.
        (EITHER, "an unknown URI", "key", MOBILE_CALLS),
        (EITHER, "an unknown URI", "token", MOBILE_CALLS),
        (EITHER, "an unknown URI", "bad key", "invalid_credentials"),
        (EITHER, "an unknown URI", "nothing", "invalid_credentials"),
        (EITHER, "a certificate without a name", "key", MOBILE_CALLS),
        (EITHER, "a certificate without a name", "nothing", "missing_credentials"),
        (KEY_FIRST, "a known URI", "key", MOBILE_CALLS),
        (KEY_FIRST, "a known URI", "bad key", "invalid_credentials"),
        (KEY_FIRST, "a known URI", "nothing", DEVICE_CALLS),
        (KEY_FIRST, "an unknown URI", "nothing", "invalid_credentials"),
    ],
)
def test_the_first_scheme_counts_and_a_certificate_of_the_mesh_hinders_no_other(
    edge: Edge, world: World, path: str, certificate: str, credential: str, outcome: str
) -> None:
    headers = {
        "nothing": NONE,
        "key": {"x-api-key": world.keys["mobile"]},
        "token": {"authorization": f"Bearer {world.sign()}"},
        "bad key": BAD_KEY,
    }[credential]
    assert say_outcome(edge.call("certificate", certificate, path, headers)) == outcome


def test_what_is_unsafe_in_these_listeners_is_found_in_the_configuration(running: Running) -> None:
    faults, _ = check_config(running.bootstrap)
    unsafe = [
        (list(LISTENERS)[int(fault.path[2])], fault.path[-1])
        for fault in faults
        if fault.path[:2] == ("static_resources", "listeners")
    ]
    assert unsafe == [
        ("any signer", "trust_chain_verification"),
        ("no signer", "require_client_certificate"),
    ]
