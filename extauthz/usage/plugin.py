"""A sink that somebody else has written, named in the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauthz.ports import UsageSink
from extauthz.telemetry.decision_log.sinks import AT_ONCE, Entry, SinkAway


class PluginSink:
    """A `Sink` over a `UsageSink`. Whatever it raises, the same requests come again."""

    at_once: Final = AT_ONCE

    def __init__(self, sink: UsageSink) -> None:
        self._sink = sink

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Sink.write`."""
        lines = [entry.line for entry in entries]
        try:
            self._sink.write(lines)
        except Exception as exc:
            raise SinkAway(repr(exc)) from exc

    def close(self) -> None:
        """See `Sink.close`."""
        self._sink.close()
