"""A sink that adds decisions to a stream of Redis, of a bounded length.

Each entry of the stream has the field ``record``, the record as JSON. When Redis does not answer,
decisions wait and are tried again, so that a short outage loses none. An entry whose answer was
lost may be there twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

from extauthz.errors import BackendError
from extauthz.telemetry.decision_log.sinks import AT_ONCE, Entry, SinkAway

ADD: Final = """
-- KEYS[1]: the stream. ARGV[1]: entries that it keeps, at least. Others: records as JSON.
for number = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'record', ARGV[number])
end
return #ARGV - 1
"""


class DecisionStreamError(BackendError):
    """Redis did not take decisions for its stream."""

    code = "decision_stream_failed"


class RedisScripts(Protocol):
    """Runs scripts on a Redis. One event loop uses it."""

    async def call(self, script: str, *args: str | bytes | int) -> Any:
        """What a script returns.

        Raises:
            DecisionStreamError: there was no answer, or a refusal.
        """

    async def close(self) -> None:
        """Closes the connection."""


class RedisStream:
    """A `Sink` that adds to a stream. It has an event loop of its own, in its thread."""

    at_once: Final = AT_ONCE

    def __init__(self, redis: RedisScripts, *, max_length: int) -> None:
        self._redis = redis
        self._max_length = max_length
        self._runner = asyncio.Runner()

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Sink.write`."""
        lines = [entry.line for entry in entries]
        try:
            self._runner.run(self._redis.call(ADD, self._max_length, *lines))
        except DecisionStreamError as error:
            raise SinkAway(str(error)) from error

    def close(self) -> None:
        """See `Sink.close`."""
        try:
            self._runner.run(self._redis.close())
        finally:
            self._runner.close()
