"""Who the client is, behind proxies on Envoy's own host: they connect from loopback.

Two keys tell what the service took for the client's address: each is bound to one network.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import httpx2
import pytest
import yaml

from extauthz.demo.processes import run_envoy
from extauthz.envoy.configuration.bootstrap import write_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream
from tests.builders import sha256
from tests.e2e.envoys import EnvoyVersion, find_envoy_binary
from tests.e2e.running import PATIENT_MS, Deployment
from tests.free_ports import find_free_port

pytestmark = pytest.mark.e2e

CLIENT: Final = "203.0.113.9"
OUTER: Final = "192.0.2.77"
DENIED: Final = "198.51.100.1"

_KEYS: Final = {
    "of-clients": ["203.0.113.0/24", "2001:db8::/32"],
    "of-loopback": ["127.0.0.1/32", "::1/128"],
}
_CATALOG: Final[Mapping[str, Any]] = {
    "apis": [
        {
            "name": "Where",
            "version": "v1",
            "context": "/where",
            "security": ["api_key"],
            "subscription": "none",
            "resources": [
                {"methods": ["GET"], "path": "/bound"},
                {"methods": ["GET"], "path": "/open", "security": ["none"]},
            ],
        }
    ],
    "applications": [
        {
            "name": name,
            "api_keys": [{"sha256": sha256(name).hex(), "networks": networks}],
        }
        for name, networks in _KEYS.items()
    ],
    "deny": [{"ip": "198.51.100.0/24", "api": "Where"}],
}

Ports = Mapping[tuple[int, str, bool], int]
"""Where Envoys listen, by trusted hops, loopback address and use_remote_address."""


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


LOOPBACKS: Final = ("127.0.0.1", "::1") if _has_ipv6() else ("127.0.0.1",)


@pytest.fixture(scope="module")
def ports(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    """For each number of hops a service, and an Envoy with a listener of each kind."""
    folder = tmp_path_factory.mktemp("where")
    catalog = folder / "catalog.yaml"
    catalog.write_text(yaml.safe_dump(dict(_CATALOG)))
    found: dict[tuple[int, str, bool], int] = {}
    with ExitStack() as stack:
        for hops in range(4):
            service = stack.enter_context(
                deployment.run_service(
                    f"hops-{hops}", {"credentials": {"trusted_hops": hops}}, catalog=catalog
                )
            )
            kinds = {
                (hops, loopback, use): find_free_port()
                for loopback in LOOPBACKS
                for use in (True, False)
            }
            file, admin_port = folder / f"envoy-{hops}.yaml", find_free_port()
            file.write_text(
                _write_envoy(kinds, service.grpc_address, deployment.http_upstream, admin_port)
            )
            binary = find_envoy_binary(EnvoyVersion.NEWEST)
            stack.enter_context(run_envoy(file, admin_port, folder / f"envoy-{hops}.log", binary))
            found |= kinds
        yield found


def _write_envoy(kinds: Ports, extauthz: str, upstream: str, admin_port: int) -> str:
    """One Envoy: the printed bootstrap of each kind, with the listeners put together."""
    written = [
        write_bootstrap(
            EnvoyParameters(
                upstreams=(Upstream(address=upstream),),
                extauthz=extauthz,
                listen=f"[{loopback}]:{port}" if ":" in loopback else f"{loopback}:{port}",
                admin_port=admin_port,
                timeout_ms=PATIENT_MS,
                use_remote_address=use,
            )
        )
        for (_, loopback, use), port in kinds.items()
    ]
    listeners = [one["static_resources"]["listeners"][0] for one in written]
    for number, listener in enumerate(listeners):
        listener["name"] = f"ingress-{number}"
    written[0]["static_resources"]["listeners"] = listeners
    return yaml.safe_dump(written[0])


# trusted hops; X-Forwarded-For as it comes from the proxy next to Envoy; who that is.
CASES: Final = [
    (0, "", "of-loopback"),
    (0, CLIENT, "of-loopback"),
    (1, CLIENT, "of-clients"),
    (1, f"{DENIED}, {CLIENT}", "of-clients"),
    (1, "2001:db8::7", "of-clients"),
    (1, "127.0.0.1", "of-loopback"),
    (1, OUTER, "other"),
    (1, f"{CLIENT}, {OUTER}", "other"),
    (1, "", "unknown"),
    (1, "unknown", "unknown"),
    (2, f"{CLIENT}, {OUTER}", "of-clients"),
    (2, f"{DENIED}, {CLIENT}, {OUTER}", "of-clients"),
    (2, f"{CLIENT}, {OUTER}, {OUTER}", "other"),
    (2, CLIENT, "unknown"),
    (2, "", "unknown"),
    (2, f"2001:db8::7, {OUTER}", "of-clients"),
    # Entries that are loopback addresses themselves, as those of a proxy on this host are.
    (2, f"{CLIENT}, 127.0.0.1", "of-clients"),
    (2, f"{CLIENT}, ::1", "of-clients"),
    (2, f"::1, {OUTER}", "of-loopback"),
    (3, f"{CLIENT}, ::1, 127.0.0.1", "of-clients"),
    (3, f"2001:db8::7, {OUTER}, ::1", "of-clients"),
    (3, f"{DENIED}, {CLIENT}, {OUTER}, {OUTER}", "of-clients"),
    (3, f"{CLIENT}, ::1", "unknown"),
    (1, DENIED, "denied"),
    (2, f"{DENIED}, {OUTER}", "denied"),
    (3, f"{DENIED}, ::1, ::1", "denied"),
]


@pytest.mark.parametrize("use", [True, False], ids=["added", "not added"])
@pytest.mark.parametrize("loopback", LOOPBACKS)
@pytest.mark.parametrize(("hops", "forwarded", "who"), CASES)
def test_a_client_behind_a_proxy_on_loopback_is_told_apart(
    ports: Ports, *, hops: int, forwarded: str, who: str, loopback: str, use: bool
) -> None:
    host = f"[{loopback}]" if ":" in loopback else loopback
    url = f"http://{host}:{ports[hops, loopback, use]}/where/v1"
    headers = {"x-forwarded-for": forwarded} if forwarded else {}
    with httpx2.Client(trust_env=False, timeout=60) as client:
        answers = {
            name: client.get(f"{url}/bound", headers={**headers, "x-api-key": name})
            for name in _KEYS
        }
        public = client.get(f"{url}/open", headers=headers)
    reasons = {name: _read_reason(answer) for name, answer in answers.items()}
    match who:
        case "denied":
            assert set(reasons.values()) == {"blocked"}
            assert public.status_code == 403
        case "unknown":
            # A deny rule asks for the address, so that not even a public resource is open.
            assert set(reasons.values()) == {"malformed_request"}
            assert public.status_code == 400
            assert "address is not known" in public.json()["detail"]
        case _:
            assert public.status_code == 200
            assert reasons == {
                name: "allowed" if name == who else "credential_not_permitted" for name in _KEYS
            }


def _read_reason(answer: httpx2.Response) -> str:
    return "allowed" if answer.status_code == 200 else str(answer.json()["reason"])


def test_the_log_says_what_to_do_about_an_unknown_address(
    deployment: Deployment, ports: Ports
) -> None:
    """Runs behind the cases above, which have made it unknown."""
    port = ports[1, LOOPBACKS[0], True]
    answer = httpx2.get(f"http://127.0.0.1:{port}/where/v1/open", trust_env=False, timeout=60)
    assert answer.status_code == 400
    (log,) = [file for file in deployment.told.logs if "hops-1" in str(file)]
    assert "client_address_unknown: credentials.trusted_hops is 1" in log.read_text()
