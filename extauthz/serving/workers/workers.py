"""The supervisor of several processes that serve the same doors on the same ports, as one host.

- `start` starts the first worker alone, so that an error is reported once, then the others.
- A worker that ends is started again: at once when it ran for long, else after a pause that is
  doubled with each failure. While others serve, this is repeated without a limit.
- When no worker serves, and starts have failed `MAX_FAILED_STARTS` times in a row, the service
  gives up.
- Words are sent to every worker, and to workers that start later when they still apply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from extauthz.errors import ExtauthzError
from extauthz.serving.door import Host
from extauthz.serving.listen import ListenAddress
from extauthz.serving.workers.control import HostFailed

MAX_FAILED_STARTS: Final = 5
_LONG_LIFE_S: Final = 30.0
_MAX_PAUSE_S: Final = 10.0
_PASSING: Final = frozenset({"reload"})
"""Words that are not sent to workers that start later."""

_log = logging.getLogger(__name__)


class Worker(Host, Protocol):
    """A host whose doors are in a process of its own."""

    @property
    def process_id(self) -> int | None:
        """The process's id; None before the start."""

    def tell(self, word: str) -> None:
        """Sends a word to the process. Does nothing when it has ended."""

    async def ask(self, question: str, of: object = None, *, within_s: float) -> Any:
        """Asks the process a question and gives its answer.

        Raises:
            HostFailed: there was no answer.
        """


@dataclass(frozen=True, slots=True)
class _Serving:
    """A worker that serves. `serial` counts starts: no two workers ever have the same."""

    serial: int
    worker: Worker


class Workers:
    """The workers of a service, as one host. Can be started once.

    Args:
        make: makes a worker that is not started yet; its argument is the number, from 1.
        first_pause_s: pause before the second attempt to restart; the first is made at once.
    """

    def __init__(
        self, make: Callable[[int], Worker], count: int, *, first_pause_s: float = 0.1
    ) -> None:
        if count < 1:
            raise ValueError(f"{count} workers serve nothing; ask for at least 1")
        self.wanted = count
        self.restarts = 0
        """Number of restarts of workers."""
        self._make = make
        self._first_pause_s = first_pause_s
        self._serving: dict[int, _Serving] = {}
        self._serial = 0
        self._addresses: tuple[ListenAddress, ...] = ()
        self._keeping: list[asyncio.Task[None]] = []
        self._said: str | None = None
        self._failed_starts = 0
        self._ended = asyncio.Event()
        self._failure: HostFailed | None = None

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where each of them listens; empty before the start."""
        return self._addresses

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The ids of the processes that serve now."""
        ids = (serving.worker.process_id for serving in self._serving.values())
        return tuple(process_id for process_id in ids if process_id is not None)

    @property
    def serials(self) -> frozenset[int]:
        """The serial numbers of the workers that serve now; `ask` gives its answers by them."""
        return frozenset(serving.serial for serving in self._serving.values())

    async def start(self) -> None:
        """Starts every worker.

        Raises:
            ConfigError, ListenError, HostFailed: a worker cannot start; the text says why.
        """
        if self._serial:
            raise RuntimeError("these workers were started before")
        try:
            await self._start_one(1)
            async with asyncio.TaskGroup() as starting:
                for number in range(2, self.wanted + 1):
                    starting.create_task(self._start_one(number))
        except BaseException as exc:
            await self._stop_all(0)
            if isinstance(exc, BaseExceptionGroup):
                raise exc.exceptions[0] from None
            raise
        self._addresses = self._serving[1].worker.addresses
        self._keeping = [
            asyncio.create_task(self._keep(number)) for number in range(1, self.wanted + 1)
        ]

    def tell(self, word: str) -> None:
        """Sends a word to every worker; all but passing words also go to those that start later."""
        if word not in _PASSING:
            self._said = word
        for serving in self._serving.values():
            serving.worker.tell(word)

    async def ask(self, question: str, of: object = None, *, within_s: float) -> dict[int, Any]:
        """Asks every worker; gives the answers by serial number, without workers that gave none."""
        answers: dict[int, Any] = {}

        async def ask_one(serving: _Serving) -> None:
            with suppress(HostFailed):
                answers[serving.serial] = await serving.worker.ask(question, of, within_s=within_s)

        await asyncio.gather(*map(ask_one, tuple(self._serving.values())))
        return answers

    async def ask_one(self, question: str, of: object = None, *, within_s: float) -> Any:
        """One worker's answer; the others are only asked when those before gave none.

        Raises:
            HostFailed: none of them gives one; the text is that of the last.
        """
        failure = HostFailed("no worker serves")
        for serving in tuple(self._serving.values()):
            try:
                return await serving.worker.ask(question, of, within_s=within_s)
            except HostFailed as exc:
                failure = exc
        raise failure

    async def wait_ended(self) -> None:
        """Waits until no worker serves any more.

        Raises:
            HostFailed: no worker serves, and none can be started.
        """
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self, grace_s: float) -> None:
        """Drains every door, takes no new calls, and cancels what is left after the grace."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await self._stop_all(grace_s)
        self._ended.set()

    async def _stop_all(self, grace_s: float) -> None:
        workers = [serving.worker for serving in self._serving.values()]
        await asyncio.gather(*(worker.stop(grace_s) for worker in workers))

    async def _start_one(self, number: int) -> None:
        worker = self._make(number)
        await worker.start()
        self._serial += 1
        self._serving[number] = _Serving(self._serial, worker)
        if self._said is not None:
            worker.tell(self._said)
        _log.info("worker %d serves (process %s)", number, worker.process_id)

    async def _keep(self, number: int) -> None:
        """Restarts the worker whenever it ends."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while True:
            started_s = loop.time()
            reason = await _wait_ended(self._serving[number].worker)
            gone = self._serving.pop(number)
            await gone.worker.stop(0)  # takes away what it left
            if loop.time() - started_s >= _LONG_LIFE_S:
                pause_s = 0.0
            pause_s = await self._restart(number, reason, pause_s)

    async def _restart(self, number: int, reason: str, pause_s: float) -> float:
        """Tries until the worker serves; gives the last pause in seconds."""
        while True:
            _log.error("worker %d: %s; it is started again in %g s", number, reason, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(max(2 * pause_s, self._first_pause_s), _MAX_PAUSE_S)
            try:
                await self._start_one(number)
            except (ExtauthzError, OSError) as exc:
                reason = f"could not be started: {exc}"
            except Exception:  # noqa: BLE001  (or nobody would try again, nor give up)
                _log.exception("worker %d could not be started because of a defect", number)
                reason = "could not be started because of a defect; the log says more"
            else:
                self.restarts += 1
                self._failed_starts = 0
                return pause_s
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS and not self._serving:
                self._failure = HostFailed(f"no worker serves any more; worker {number} {reason}")
                self._ended.set()


async def _wait_ended(worker: Worker) -> str:
    """Waits until it has ended, and gives why."""
    try:
        await worker.wait_ended()
    except HostFailed as exc:
        return str(exc)
    return "it ended"
