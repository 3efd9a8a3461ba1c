"""Envoy's own log, taken through a pipe and given on to this process's log.

Envoy writes to a file that is named on its command line; the name is that of the pipe. Errors
are given on as errors, but not while Envoy starts: then they are the reason of a failure, which
says the first of them. Warnings are meant for those who wrote Envoy's configuration, and are
given on as debug messages. What else comes, on its standard error, is given on as it is: a
warning, because nobody expects it.
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
    """The pipe, and what came through it."""

    def __init__(self) -> None:
        self._read_end, self.descriptor = os.pipe()
        self._first_error: list[str] = []
        self._is_in_first_error = False
        self.is_starting = True
        self._reading: asyncio.Task[None] | None = None
        self._transport: asyncio.ReadTransport | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of Envoy's command line."""
        path = f"/proc/self/fd/{self.descriptor}"
        return "--log-path", path, "--log-level", "warning", "--log-format", "%l|%v"

    def leave_to_envoy(self) -> None:
        """Closes Envoy's end here. To be called once Envoy runs, or will not."""
        os.close(self.descriptor)

    async def start(self) -> None:
        """Reads until everybody has closed the other end."""
        reader = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._read_end, "rb")
        )
        self._reading = asyncio.create_task(self._read(reader))

    async def find_first_error(self) -> str | None:
        """The first error of a start that failed. To be called once Envoy has ended."""
        if self._reading is not None:
            await self._reading
        # An error of several lines, as with a traceback, has its reason in the last.
        ends = dict.fromkeys((*self._first_error[:1], *self._first_error[-1:]))
        return ": ".join(ends) or None

    async def close(self) -> None:
        """Reads what is left, and closes the pipe. To be called once Envoy has ended."""
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
