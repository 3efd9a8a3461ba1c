"""Envoy's own log, taken through a pipe and given on to this process's log.

Envoy writes to a file that is named on its command line; the name is that of the pipe. Errors
are given on as errors. Warnings are meant for those who wrote the configuration, and are given
on as debug messages.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import deque
from typing import Final

_LEVELS: Final = {"critical": logging.ERROR, "error": logging.ERROR}
_LINE: Final = re.compile(r"(critical|error|warning|info|debug|trace)\|(.*)")
_MOST_LINES: Final = 20
_log = logging.getLogger("extauthz.envoy")


class EnvoyLog:
    """The pipe, and what came through it."""

    def __init__(self) -> None:
        self._read_end, self.descriptor = os.pipe()
        self._errors: deque[str] = deque(maxlen=_MOST_LINES)
        self._reading: asyncio.Task[None] | None = None
        self._transport: asyncio.ReadTransport | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of Envoy's command line."""
        path = f"/proc/self/fd/{self.descriptor}"
        return "--log-path", path, "--log-level", "warning", "--log-format", "%l|%v"

    async def start(self) -> None:
        """Reads until Envoy has ended. To be called once it has its end of the pipe."""
        os.close(self.descriptor)
        reader = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._read_end, "rb")
        )
        self._reading = asyncio.create_task(self._read(reader))

    async def read_last_error(self) -> str:
        """The last error that Envoy wrote before it ended."""
        if self._reading is not None:
            await self._reading
        return self._errors[-1] if self._errors else "nothing"

    async def close(self) -> None:
        """Reads what is left, and closes the pipe. To be called once Envoy has ended."""
        if self._reading is not None:
            await self._reading
        if self._transport is not None:
            self._transport.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for raw in reader:
            line = _LINE.match(raw.decode(errors="replace").rstrip())
            level = logging.DEBUG if line is None else _LEVELS.get(line[1], logging.DEBUG)
            text = raw.decode(errors="replace").rstrip() if line is None else line[2]
            if level == logging.ERROR:
                self._errors.append(text)
            _log.log(level, "%s", text)
