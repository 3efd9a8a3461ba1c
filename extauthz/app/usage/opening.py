"""Opens the log of usage with its sinks, and the method that takes Envoy's access logs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from extauthz.app.core import Core
from extauthz.envoy.access_log_entries import AddressRules
from extauthz.envoy.access_logs import AccessLogs
from extauthz.errors import ConfigError, Problem
from extauthz.policy.limits.byte_charges import ByteCharger
from extauthz.ports import Clock
from extauthz.settings.tree import Settings
from extauthz.settings.usage import UsageFileSettings, UsageSettings
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.usage.file import name_worker_file, open_usage_file
from extauthz.usage.log import UsageLog
from extauthz.usage.queues import SinkQueue
from extauthz.usage.record import write_loss

_log = logging.getLogger(__name__)

_LAST_ENTRIES_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class OpenUsage:
    """The log of usage, and the access logs that it is written from.

    Attributes:
        lost: lines that the process before this one perhaps did not write.
    """

    log: UsageLog
    access_logs: AccessLogs
    lost: int


def check_usage(settings: Settings) -> None:
    """Checks that the file of usage can be written, without making it.

    Raises:
        ConfigError: it cannot be written.
    """
    usage = settings.usage
    if usage is None or usage.file is None:
        return
    folder = usage.file.path.parent
    why = ""
    if not folder.is_dir():
        why = "No such file or directory"
    elif usage.file.path.is_dir():
        why = "Is a directory"
    elif not os.access(folder, os.W_OK):
        why = "Permission denied"
    if why:
        message = f"cannot be written: {why}; name a file in a folder where files can be made"
        raise ConfigError([Problem(file=str(usage.file.path), message=message)])


@asynccontextmanager
async def open_usage(
    settings: Settings, core: Core, worker: int
) -> AsyncIterator[OpenUsage | None]:
    """Opens what the settings ask for; None when they have no section `usage`.

    At the end of the block, what was received is still written, unless that takes too long.

    Args:
        settings: the settings.
        core: has the counters of limits in bytes.
        worker: which of several workers this is; 0 for the only one.

    Raises:
        ConfigError: a sink cannot be opened.
    """
    if settings.usage is None:
        yield None
        return
    clock = core.clock
    with ExitStack() as stack:
        queues, lost = [], 0
        if settings.usage.file is not None:
            queue, lost = stack.enter_context(_open_file(settings.usage.file, clock, worker))
            queues.append(queue)
        log = UsageLog(queues, _read_masks(settings.usage))
        access_logs = AccessLogs(
            _read_address_rules(settings), log, ByteCharger(core.counting.store, core.clock)
        )
        reading = asyncio.create_task(access_logs.run())
        try:
            yield OpenUsage(log, access_logs, lost)
        finally:
            access_logs.end()
            try:
                await asyncio.wait((reading,), timeout=_LAST_ENTRIES_S)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


@contextmanager
def _open_file(
    settings: UsageFileSettings, clock: Clock, worker: int
) -> Iterator[tuple[SinkQueue, int]]:
    path = name_worker_file(settings.path, worker)
    file, marks = open_usage_file(path, clock, max_bytes=settings.max_bytes, keep=settings.keep)
    if marks.lost:
        _log.error(
            "%s: the process before this one ended without a stop; up to %d lines are missing",
            path,
            marks.lost,
        )
    queue = SinkQueue("file", file, clock, marks=marks)
    if marks.lost:
        queue.put(write_loss(marks.lost, clock.now_us()))
    try:
        yield queue, marks.lost
    finally:
        queue.close()


def _read_masks(settings: UsageSettings) -> Masks:
    return Masks(client_address=settings.client_address)


def _read_address_rules(settings: Settings) -> AddressRules:
    credentials = settings.credentials
    return AddressRules(
        trusted_hops=credentials.trusted_hops,
        use_remote_address=credentials.use_remote_address,
    )
