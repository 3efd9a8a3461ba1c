"""Who may ask at Mixer's door, by what Istio's handlers present, also with workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from tests.certificates import LOCAL, Authority, MutualFiles, a_uri
from tests.e2e.running import Deployment
from tests.free_ports import find_free_port
from tests.mixer_compat.asking import REPORTNOTHING
from tests.redis_server import RedisServer

pytestmark = pytest.mark.e2e

ISTIO: Final = "spiffe://cluster.local/ns/istio-system/sa/istio-mixer-service-account"
FOREIGN: Final = "spiffe://cluster.local/ns/default/sa/web"
TURN_S: Final = 60
OK: Final = grpc.StatusCode.OK
UNAUTHENTICATED: Final = grpc.StatusCode.UNAUTHENTICATED
REFUSED: Final = (grpc.StatusCode.UNAVAILABLE, UNAUTHENTICATED)
"""Of a handshake, and of a call."""


@dataclass(frozen=True, slots=True)
class Mixer:
    """Asks the door at an address."""

    address: str

    def ask(
        self,
        credentials: grpc.ChannelCredentials,
        *metadata: tuple[str, str],
        until_connected: bool = False,
    ) -> grpc.StatusCode:
        """How the call ends, through a connection of its own."""
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            *((f"grpc.{each}_reconnect_backoff_ms", 100) for each in ("initial", "min", "max")),
        ]
        with grpc.secure_channel(self.address, credentials, options) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(REPORTNOTHING)
            asked: Any = call.future(
                b"", timeout=TURN_S, metadata=metadata, wait_for_ready=until_connected
            )
            code: grpc.StatusCode = asked.code()
            return code


@contextmanager
def serving(
    deployment: Deployment,
    files: MutualFiles,
    callers: Mapping[str, Any],
    *,
    is_mutual: bool,
    **sections: Mapping[str, Any],
) -> Iterator[Mixer]:
    """A service whose Mixers must present what `callers` says."""
    address = f"127.0.0.1:{find_free_port()}"
    tls = {"cert": str(files.cert), "key": str(files.key)}
    if is_mutual:
        tls["client_ca"] = str(files.client_ca)
    settings = {
        "listen": {"mixer": address},
        "mixer": {"tls": tls, "callers": callers},
        **sections,
    }
    with deployment.run_service("callers", settings):
        yield Mixer(address)


@pytest.fixture
def files(tmp_path: Path) -> MutualFiles:
    return MutualFiles(tmp_path)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="callers-") as folder:
        server = RedisServer(Path(folder)).start()
        yield server
        server.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_only_a_certificate_with_the_uri_is_answered_also_after_a_renewal(
    workers: int, files: MutualFiles, redis: RedisServer, deployment: Deployment
) -> None:
    counters = {"store": "redis", "url": f"redis://127.0.0.1:{redis.port}"}
    sections: dict[str, Any] = {"server": {"workers": workers}, "counters": counters}
    with serving(deployment, files, {"uri_sans": [ISTIO]}, is_mutual=True, **sections) as mixer:
        for authority in (files.authority, Authority("second")):
            if authority != files.authority:
                files.renew(authority)
            assert mixer.ask(files.show(a_uri(ISTIO)), until_connected=True) is OK
            for stranger in (
                files.show(a_uri(FOREIGN)),
                files.show(LOCAL),
                files.show(),
                files.show_nothing(),
            ):
                assert mixer.ask(stranger) in REFUSED


def test_tokens_come_over_tls_plain_or_as_bearer(
    files: MutualFiles, tmp_path: Path, deployment: Deployment
) -> None:
    (tmp_path / "tokens").write_text("new-token\nold-token\n")
    callers = {"token_file": str(tmp_path / "tokens")}
    with serving(deployment, files, callers, is_mutual=False) as mixer:
        trusting = files.show_nothing()
        for value in ("new-token", "Bearer new-token", "old-token", "bearer old-token"):
            assert mixer.ask(trusting, ("authorization", value)) is OK
        for value in ("Bearer guessed", "guessed", "Basic new-token", "Bearer"):
            assert mixer.ask(trusting, ("authorization", value)) is UNAUTHENTICATED
        assert mixer.ask(trusting) is UNAUTHENTICATED


def test_a_token_in_a_header_of_its_own_is_asked_for_beside_the_certificate(
    files: MutualFiles, tmp_path: Path, deployment: Deployment
) -> None:
    (tmp_path / "tokens").write_text("a-token\n")
    callers = {
        "token_file": str(tmp_path / "tokens"), "token_header": "X-Mixer-Token",
        "uri_sans": [ISTIO],
    }  # fmt: skip
    with serving(deployment, files, callers, is_mutual=True) as mixer:
        token = ("x-mixer-token", "a-token")
        known = files.show(a_uri(ISTIO))
        assert mixer.ask(known, token) is OK
        assert mixer.ask(known) is UNAUTHENTICATED
        assert mixer.ask(known, ("x-mixer-token", "Bearer a-token")) is UNAUTHENTICATED
        assert mixer.ask(known, ("authorization", "a-token")) is UNAUTHENTICATED
        assert mixer.ask(files.show(a_uri(FOREIGN)), token) in REFUSED
