"""Starting, stopping, overload, deadlines, sockets and certificates, with a real Envoy around."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import trustme
from cryptography import x509

from extauthz.envoy.configuration.parameters import ClientTls
from extauthz.serving.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.e2e.envoys import EnvoyVersion
from tests.e2e.load import steady_load
from tests.e2e.running import Deployment
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

OPEN: Final = "/world/1.0.0/open"
AUTHORIZATION: Final = "envoy.service.auth.v3.Authorization"
SERVING, NOT_SERVING = 1, 2
TURN_S: Final = 30
HTTP2_BEGINNING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""The preface and empty SETTINGS. Some servers answer nothing before (RFC 9113, section 3.4)."""


def health(channel: grpc.Channel, method: str = "Check") -> Any:
    """The callable of a method of the health service."""
    make = channel.unary_unary if method == "Check" else channel.unary_stream
    return make(
        f"/grpc.health.v1.Health/{method}",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )


def test_tells_its_health(deployment: Deployment) -> None:
    with grpc.insecure_channel(deployment.service().grpc_address) as channel:
        check = health(channel)
        for service in ("", AUTHORIZATION):
            answer = check(HealthCheckRequest(service=service), timeout=TURN_S)
            assert answer.status == SERVING, service
        with pytest.raises(grpc.RpcError) as caught:
            check(HealthCheckRequest(service="no.such.Service"), timeout=TURN_S)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_requests_in_flight_are_answered_when_it_is_told_to_stop(
    deployment: Deployment, world: World
) -> None:
    tokens = [world.make_opaque() for _ in range(10)]
    with (
        deployment.run_service("stopping", {}) as service,
        deployment.run_gateway(service.grpc_address) as gateway,
        grpc.insecure_channel(service.grpc_address) as channel,
        ThreadPoolExecutor(max_workers=len(tokens)) as threads,
    ):
        watch = health(channel, "Watch")(HealthCheckRequest(service=AUTHORIZATION), timeout=TURN_S)
        statuses = (answer.status for answer in watch)
        assert next(statuses) == SERVING
        world.introspection.hold(*tokens)
        calls = [
            threads.submit(gateway.call, "POST", OPEN, {"authorization": f"Bearer {token}"})
            for token in tokens
        ]
        world.introspection.wait_until_asked(len(tokens))
        service.process.send_signal(signal.SIGTERM)
        assert next(statuses) == NOT_SERVING
        assert service.process.poll() is None
        world.introspection.release()
        assert [call.result(TURN_S).status_code for call in calls] == [200] * len(tokens)
        assert service.process.wait(TURN_S) == 0
    log = service.log_file.read_text()
    assert "stopping" in log and "stopped" in log


async def test_stopping_under_load_gives_no_wrong_answer(
    deployment: Deployment, world: World
) -> None:
    with (
        deployment.run_service("load", {"log": {"level": "info"}}) as service,
        deployment.run_gateway(service.grpc_address) as gateway,
    ):
        async with steady_load(gateway, OPEN, {"x-api-key": world.keys["mobile"]}) as load:
            await load.wait_for_more(100)
            assert load.statuses == {200}
            service.process.send_signal(signal.SIGTERM)
            await load.wait_for_status(503)
        assert await asyncio.to_thread(service.process.wait, TURN_S) == 0
    # Served to the end; from then on nobody is there to decide, and Envoy refuses.
    assert load.statuses == {200, 503}
    first_refused = min(answer.came_s for answer in load.answers if answer.status == 503)
    served_late = [
        answer for answer in load.answers if answer.status == 200 and answer.asked_s > first_refused
    ]
    assert served_late == []


def test_what_the_grace_does_not_cover_is_refused(deployment: Deployment, world: World) -> None:
    token = world.make_opaque()
    with (
        deployment.run_service("impatient", {"server": {"grace": "1ms"}}) as service,
        deployment.run_gateway(service.grpc_address) as gateway,
        ThreadPoolExecutor(max_workers=1) as threads,
    ):
        world.introspection.hold(token)
        call = threads.submit(gateway.call, "POST", OPEN, {"authorization": f"Bearer {token}"})
        world.introspection.wait_until_asked(1)
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(TURN_S) == 0
        assert call.result(TURN_S).status_code == 503
        world.introspection.release()


def test_envoy_may_ask_over_a_unix_socket(
    deployment: Deployment, world: World, version: EnvoyVersion
) -> None:
    with tempfile.TemporaryDirectory(prefix="extauthz-") as folder:  # a socket's path is short
        path = Path(folder, "grpc.sock")
        with (
            deployment.run_service("unix", {"listen": {"grpc": f"unix:{path}"}}) as service,
            deployment.run_gateway(service.grpc_address, version) as gateway,
        ):
            assert path.stat().st_mode & 0o777 == 0o660
            good = {"x-api-key": world.keys["mobile"]}
            assert gateway.call("POST", OPEN, good).status_code == 200
            assert gateway.call("POST", OPEN).status_code == 401
        assert not path.exists()


def test_what_is_too_much_is_refused_as_unavailable(deployment: Deployment, world: World) -> None:
    held, good = world.make_opaque(), {"x-api-key": world.keys["mobile"]}
    with (
        deployment.run_service("small", {"server": {"max_in_flight": 1}}) as service,
        deployment.run_gateway(service.grpc_address) as gateway,
        ThreadPoolExecutor(max_workers=1) as threads,
    ):
        assert gateway.call("POST", OPEN, good).status_code == 200
        world.introspection.hold(held)
        call = threads.submit(gateway.call, "POST", OPEN, {"authorization": f"Bearer {held}"})
        world.introspection.wait_until_asked(1)
        refused = gateway.call("POST", OPEN, good)
        assert (refused.status_code, refused.headers.get("x-upstream")) == (503, None)
        # Health does not queue with the rest.
        with grpc.insecure_channel(service.grpc_address) as channel:
            assert health(channel)(HealthCheckRequest(), timeout=TURN_S).status == SERVING
        world.introspection.release()
        assert call.result(TURN_S).status_code == 200
        assert gateway.call("POST", OPEN, good).status_code == 200


def test_a_passed_deadline_is_never_an_allow(
    deployment: Deployment, world: World, version: EnvoyVersion
) -> None:
    gateway = deployment.gateway(version, timeout_ms=200)
    token = world.make_opaque()
    world.introspection.hold(token)
    # It is held until after the answer: only the deadline can have brought it.
    answer = gateway.call("POST", OPEN, {"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers.get("x-upstream")) == (503, None)
    world.introspection.release()
    # The token was good all the time: what was in doubt is not remembered as bad.
    patient = deployment.gateway(version)
    answer = patient.call("POST", OPEN, {"authorization": f"Bearer {token}"})
    assert answer.status_code == 200


class Certificates:
    """A server's and a client's certificate, and the authorities of each."""

    def __init__(self, folder: Path) -> None:
        self.server_ca, self.client_ca = trustme.CA(), trustme.CA()
        self.cert, self.key = folder / "server.pem", folder / "server.key"
        self.trusted, self.clients = folder / "trusted.pem", folder / "clients.pem"
        self.client_cert, self.client_key = folder / "client.pem", folder / "client.key"
        self.server_ca.cert_pem.write_to_path(str(self.trusted))
        self.client_ca.cert_pem.write_to_path(str(self.clients))
        _write_pair(self.client_ca.issue_cert("envoy.example"), self.client_cert, self.client_key)
        self.renew()

    def renew(self) -> int:
        """Puts a new certificate where the server's stood; gives its serial number."""
        issued = self.server_ca.issue_cert("localhost", "127.0.0.1")
        folder = self.cert.parent
        _write_pair(issued, folder / "new.pem", folder / "new.key")
        # One cannot replace both at once; what does not fit together is refused meanwhile.
        (folder / "new.key").replace(self.key)
        (folder / "new.pem").replace(self.cert)
        return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number

    def client_credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC client of the server."""
        return grpc.ssl_channel_credentials(
            self.trusted.read_bytes(), self.client_key.read_bytes(), self.client_cert.read_bytes()
        )

    def wait_until_shown(self, address: str, serial_number: int) -> None:
        """Connects until the certificate with this number is shown."""
        end_s = time.monotonic() + TURN_S
        while self.show(address) != serial_number:
            assert time.monotonic() < end_s, "the new certificate is not shown"

    def show(self, address: str, *, with_client: bool = True) -> int:
        """Connects, and gives the serial number of the certificate that is shown."""
        context = ssl.create_default_context(cafile=str(self.trusted))
        context.set_alpn_protocols(["h2"])
        if with_client:
            context.load_cert_chain(self.client_cert, self.client_key)
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=TURN_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(HTTP2_BEGINNING)
            # With TLS 1.3 a client learns that it was refused when it reads.
            if not connection.recv(1):
                raise ConnectionError("the server hung up")
            shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def _write_pair(issued: trustme.LeafCert, cert: Path, key: Path) -> None:
    cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())


def test_both_sides_show_certificates_and_a_renewed_one_is_shown_without_a_restart(
    deployment: Deployment, world: World, version: EnvoyVersion, tmp_path: Path
) -> None:
    files = Certificates(tmp_path)
    tls = {"cert": str(files.cert), "key": str(files.key), "client_ca": str(files.clients)}
    good = {"x-api-key": world.keys["mobile"]}
    envoys = ClientTls(
        ca_file=str(files.trusted),
        server_name="localhost",
        certificate_file=str(files.client_cert),
        key_file=str(files.client_key),
    )
    with deployment.run_service(
        "tls", {"server": {"tls": tls}}, credentials=files.client_credentials()
    ) as service:
        address = service.grpc_address
        with deployment.run_gateway(address, version, extauthz_tls=envoys) as gateway:
            assert gateway.call("POST", OPEN, good).status_code == 200
            first = files.show(address)
            renewed = files.renew()
            assert renewed != first
            files.wait_until_shown(address, renewed)
            # The connection that is open goes on.
            assert gateway.call("POST", OPEN, good).status_code == 200
        with deployment.run_gateway(address, version, extauthz_tls=envoys) as gateway:
            assert gateway.call("POST", OPEN, good).status_code == 200
            # A certificate without its key is refused; the old one stays.
            files.key.write_bytes(files.client_key.read_bytes())
            end_s = time.monotonic() + TURN_S
            while "is not the key of" not in service.log_file.read_text():
                assert time.monotonic() < end_s, "the wrong key was not noticed"
                assert files.show(address) == renewed
            assert files.show(address) == renewed
            assert gateway.call("POST", OPEN, good).status_code == 200
    log = service.log_file.read_text()
    assert "TLS files were read again" in log
    assert f"{files.key}: is not the key of the first certificate in {files.cert}" in log
    assert "PRIVATE KEY" not in log


def test_nobody_without_a_certificate_is_answered(
    deployment: Deployment, world: World, version: EnvoyVersion, tmp_path: Path
) -> None:
    files = Certificates(tmp_path)
    tls = {"cert": str(files.cert), "key": str(files.key), "client_ca": str(files.clients)}
    good = {"x-api-key": world.keys["mobile"]}
    nameless = ClientTls(ca_file=str(files.trusted), server_name="localhost")
    misled = ClientTls(
        ca_file=str(files.trusted),
        server_name="other.example",
        certificate_file=str(files.client_cert),
        key_file=str(files.client_key),
    )
    with deployment.run_service(
        "tls", {"server": {"tls": tls}}, credentials=files.client_credentials()
    ) as service:
        for wrong in (nameless, misled, None):
            with deployment.run_gateway(
                service.grpc_address, version, extauthz_tls=wrong
            ) as gateway:
                answer = gateway.call("POST", OPEN, good)
                assert (answer.status_code, answer.headers.get("x-upstream")) == (503, None)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            files.show(service.grpc_address, with_client=False)
