"""The life of a service: start, reload on SIGHUP, stop on SIGTERM or SIGINT.

This is the only place that chooses a host. With ``grpcio`` the doors are opened in this process;
with ``envoy`` in the Envoy that this process starts and controls. With several workers this process
only starts, controls and watches them, and holds their ports.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

from extauthz.app.doors.http import list_http_listeners
from extauthz.app.envoy_door import APP
from extauthz.app.log import open_log_sending
from extauthz.app.parameters import DoorParameters, write_parameters
from extauthz.app.service import open_service, read_host_limits, read_listeners
from extauthz.app.watching_workers import watching_workers
from extauthz.app.worker import MODULE
from extauthz.errors import ConfigError, Problem
from extauthz.model.limits import US_PER_S
from extauthz.serving.door import Host
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.workers.process_host import ProcessHost
from extauthz.serving.workers.shared_ports import hold_ports
from extauthz.serving.workers.workers import Worker, Workers
from extauthz.settings.tree import ServerSettings, Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Steered:
    """A host, and a function that sends a word to the service behind its doors."""

    host: Host
    tell: Callable[[str], None]


async def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT; SIGHUP reads the catalog again.

    At the first signal health becomes NOT_SERVING, and calls are still answered for `drain_delay`,
    which a second signal ends. Then the listeners close, and calls in flight have `grace`.

    Raises:
        ConfigError, CatalogError, ListenError, HostFailed: it cannot start or continue; the text
            says why.
    """
    with open_log_sending(settings):
        async with _open_host(settings) as steered:
            await _live(steered, settings.server)
        _log.info("stopped")


def _open_host(settings: Settings) -> AbstractAsyncContextManager[_Steered]:
    if settings.server.workers > 1:
        return _open_workers(settings)
    return _open_envoy(settings) if settings.server.host == "envoy" else _open_grpcio(settings)


@asynccontextmanager
async def _open_grpcio(settings: Settings) -> AsyncIterator[_Steered]:
    async with open_service(settings) as service:
        host = GrpcioHost(
            service.doors,
            read_listeners(settings),
            limits=read_host_limits(settings.server),
        )
        yield _Steered(host, lambda word: service.words[word]())


@asynccontextmanager
async def _open_envoy(settings: Settings) -> AsyncIterator[_Steered]:
    host = _make_envoy(DoorParameters(settings=settings, listeners=read_listeners(settings)))
    yield _Steered(host, host.tell)


@asynccontextmanager
async def _open_workers(settings: Settings) -> AsyncIterator[_Steered]:
    with (
        hold_ports(read_listeners(settings)) as listeners,
        hold_ports(list_http_listeners(settings)) as asked_over_http,
    ):
        # The workers open this door themselves, on the port that is held here.
        http = str(asked_over_http[0].addresses[0]) if asked_over_http else None

        def make(number: int) -> Worker:
            parameters = DoorParameters(
                settings=settings.for_worker(http), listeners=listeners, worker=number
            )
            if settings.server.host == "envoy":
                return _make_envoy(parameters)
            return ProcessHost(MODULE, listeners, parameters=write_parameters(parameters))

        workers = Workers(make, settings.server.workers)
        async with watching_workers(settings, workers):
            yield _Steered(workers, workers.tell)


def _make_envoy(parameters: DoorParameters) -> Worker:
    try:
        from extauthz.serving.inside_envoy.host import EnvoyHost
    except ModuleNotFoundError as exc:
        message = (
            f"envoy needs pyvoy ({exc.name} is missing): install extauthz[envoy], or write grpcio"
        )
        raise ConfigError([Problem(path="server.host", message=message)]) from exc
    limits = read_host_limits(parameters.settings.server, is_shared=parameters.worker > 0)
    return EnvoyHost(
        APP, parameters.listeners, parameters=write_parameters(parameters), limits=limits
    )


async def _live(steered: _Steered, server: ServerSettings) -> None:
    stop = _Stop()
    loop = asyncio.get_running_loop()
    host = steered.host
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    loop.add_signal_handler(signal.SIGHUP, steered.tell, "reload")
    asked = asyncio.create_task(stop.asked.wait())
    tasks: list[asyncio.Task[object]] = [asked]
    try:
        tasks.append(starting := asyncio.create_task(host.start()))
        if await _is_first(asked, starting):
            return
        steered.tell("serve")
        _log.info("serving on %s", ", ".join(map(str, host.addresses)))
        tasks.append(ended := asyncio.create_task(host.wait_ended()))
        if not await _is_first(asked, ended):
            return
        _log.info("stopping")
        steered.tell("refuse")
        await stop.wait_for_hurry(server.drain_delay / US_PER_S)
        await host.stop(server.grace / US_PER_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await host.stop(0)


async def _is_first(one: asyncio.Task[bool], other: asyncio.Task[None]) -> bool:
    """Waits for the first of two tasks; True when it was `one`. Raises the error of the other."""
    await asyncio.wait((one, other), return_when=asyncio.FIRST_COMPLETED)
    if other.done():
        other.result()
        return False
    return True


class _Stop:
    """The signals so far: the first requests a stop, the second ends the drain delay."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._hurry = asyncio.Event()

    def ask(self) -> None:
        if self.asked.is_set():
            self._hurry.set()
        self.asked.set()

    async def wait_for_hurry(self, at_most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._hurry.wait()
