"""Opens the log of usage, and the method that takes Envoy's access logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from extauthz.app.core import Core
from extauthz.app.usage.sinks import open_usage_log
from extauthz.envoy.access_log_entries import AddressRules
from extauthz.envoy.access_logs import AccessLogs
from extauthz.policy.limits.byte_charges import ByteCharger
from extauthz.settings.tree import Settings
from extauthz.usage.log import UsageLog

_LAST_ENTRIES_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class OpenUsage:
    """The log of usage, and the access logs that it is written from."""

    log: UsageLog
    access_logs: AccessLogs


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
    log = open_usage_log(settings, core.clock, worker)
    try:
        access_logs = AccessLogs(
            _read_address_rules(settings), log, ByteCharger(core.counting.store, core.clock)
        )
        reading = asyncio.create_task(access_logs.run())
        try:
            yield OpenUsage(log, access_logs)
        finally:
            access_logs.end()
            try:
                await asyncio.wait((reading,), timeout=_LAST_ENTRIES_S)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    finally:
        log.close()


def _read_address_rules(settings: Settings) -> AddressRules:
    credentials = settings.credentials
    return AddressRules(
        trusted_hops=credentials.trusted_hops,
        use_remote_address=credentials.use_remote_address,
    )
