"""Reads Envoy's own log from a pipe, and writes it to this process's log.

The command line tells Envoy to log to a file, which is the pipe. Errors are logged as errors, but
not during Envoy's start: then the first of them is the reason of the failure. Envoy's warnings are
for authors of its configuration, and are logged as debug messages. All other text is from its
standard error and unexpected, so it is logged unchanged as a warning.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from typing import Final

_LEVELS: Final = {"critical": logging.ERROR, "error": logging.ERROR}
_LINE: Final = re.compile(r"(critical|error|warning|info|debug|trace)\|(.*)")
_log = logging.getLogger("extauthz.envoy")


class EnvoyLog:
    """Reads the pipe, and remembers the first error."""

    def __init__(self) -> None:
        self._read_end, self.descriptor = os.pipe()
        self._first_error: list[str] = []
        self._is_in_first_error = False
        self.is_starting = True
        self._reading: asyncio.Task[None] | None = None
        self._transport: asyncio.ReadTransport | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments for Envoy's command line."""
        path = f"/proc/self/fd/{self.descriptor}"
        return "--log-path", path, "--log-level", "warning", "--log-format", "%l|%v"

    def leave_to_envoy(self) -> None:
        """Closes this process's copy of Envoy's end, after Envoy was started or has failed to."""
        os.close(self.descriptor)

    async def start(self) -> None:
        """Starts reading the pipe, until all processes have closed the other end."""
        reader = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._read_end, "rb")
        )
        self._reading = asyncio.create_task(self._read(reader))

    async def find_first_error(self) -> str | None:
        """The first error of a failed start; None without one. Envoy must have ended."""
        if self._reading is not None:
            await self._reading
        # The reason of an error of several lines, like one with a traceback, is in the last line.
        ends = dict.fromkeys((*self._first_error[:1], *self._first_error[-1:]))
        return ": ".join(ends) or None

    async def close(self) -> None:
        """Reads the rest, and closes the pipe. Envoy must have ended."""
        if self._reading is not None:
            await self._reading
        if self._transport is not None:
            self._transport.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for raw in reader:
            text = raw.decode(errors="replace").rstrip()
            level = logging.WARNING
            line = _LINE.match(text)
            if line is not None:
                level, text = _LEVELS.get(line[1], logging.DEBUG), line[2]
            if self.is_starting:
                if line is not None:
                    self._is_in_first_error = level == logging.ERROR and not self._first_error
                if self._is_in_first_error and text:
                    self._first_error.append(text)
                level = logging.DEBUG
            _log.log(level, "%s", text)
