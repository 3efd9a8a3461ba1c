"""The catalog of an API Manager, together with the operator's own files.

A process of its own follows the API Manager and writes its rows as a catalog document into a folder
(`extauthz.catalog.wso2.process`). The document is read as any other file of a catalog. The folder is the
last good copy: with one that outlives the process, a replica starts from it while the API Manager
is away.

**Revocations first.** The last good copy may be older than a revocation. Until the first pull, tokens
of its issuers are therefore not decided on, unless the settings say otherwise.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from extauthz.catalog.files.child import find_interpreter
from extauthz.catalog.files.source import FileCatalogSource
from extauthz.catalog.wso2.messages import (
    DOCUMENT,
    Connected,
    Heard,
    Message,
    Parameters,
    Pulled,
    PullFailed,
    Revoked,
    Told,
    read_message,
)
from extauthz.catalog.wso2.process import MODULE, PULL, write_file
from extauthz.errors import CatalogError
from extauthz.model.catalog import Catalog
from extauthz.process.interpreter import write_import_path

START_S: Final = 60.0
"""How long the first pull is waited for, where there is no last good copy."""
RESTART_S: Final = 5.0
_STARTING: Final = "starting.json"
_MAX_LINE: Final = 1024 * 1024
_log = logging.getLogger(__name__)


class Wso2CatalogSource:
    """A `CatalogSource` of files and one API Manager. Close it at the end.

    Args:
        files: the operator's own files and folders.
        parameters: for the process; its folder must be there.
        accept_tokens_before_revocations: whether the last good copy may be used in full before the
            first pull.
        start_s: see `START_S`.
        on_revoked: is told of each token whose revocation is an event: its ``jti``, and when it would
            have expired in microseconds of Unix time, if that is known.

    Attributes:
        brokers: whether each broker is connected, by name.
        events: numbers of events by kind.
        heard_at_s: time of the last event, in seconds of Unix time; 0 before the first.
        last_pull: what the last pull that succeeded has told; None before the first.
        pulled_at_s: its time, in seconds of Unix time; 0 before the first.
        failures: number of pulls that failed.
        last_failure: why the last one failed; empty after one that did not.
    """

    def __init__(
        self,
        files: Sequence[Path | str],
        parameters: Parameters,
        *,
        has_pepper: bool = True,
        accept_tokens_before_revocations: bool = False,
        start_s: float = START_S,
        on_revoked: Callable[[str, int | None], None] = lambda _, __: None,
    ) -> None:
        self._on_revoked = on_revoked
        self.brokers: dict[str, bool] = {}
        self.events: dict[str, int] = {}
        self.heard_at_s = 0.0
        self._parameters = parameters
        self._folder = Path(parameters.folder)
        self._document = self._folder / DOCUMENT
        self._accepts_early = accept_tokens_before_revocations
        self._start_s = start_s
        self._own_files = tuple(files)
        self._has_pepper = has_pepper
        self._files: FileCatalogSource | None = None
        self._read: Path | None = None
        self._is_refused = False
        self._heard = asyncio.Event()
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.last_pull: Pulled | None = None
        self.pulled_at_s = 0.0
        self.failures = 0
        self.last_failure = ""

    @property
    def is_up(self) -> bool:
        """Whether the last reading succeeded, and all brokers are connected."""
        return self.last_pull is not None and not self.last_failure and all(self.brokers.values())

    async def load(self) -> Catalog:
        """The catalog of the files and of the last document.

        Raises:
            ConfigError: a file is missing, unreadable or wrong; every problem is named.
            CatalogError: there is no document yet, and none came in time.
        """
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
        if self.last_pull is None and self._files is None:
            await self._wait_for_first()
        self._changed.clear()
        if self.last_pull is not None:
            source = self._use(self._document)
        else:
            source = self._use(await asyncio.to_thread(self._write_starting))
        return await source.load()

    async def wait_for_change(self) -> None:
        """Returns after a pull with another document, and after a change of the files."""
        if self._files is None:
            return
        files = asyncio.ensure_future(self._files.wait_for_change())
        pulled = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((files, pulled), return_when=asyncio.FIRST_COMPLETED)
            if files.done():
                files.result()
        finally:
            for waiting in (files, pulled):
                waiting.cancel()
            await asyncio.gather(files, pulled, return_exceptions=True)

    async def close(self) -> None:
        """Ends the process."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def pull_now(self) -> None:
        """Asks for a full pull, as after any doubt."""
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.write(f"{PULL}\n".encode())

    def _use(self, document: Path) -> FileCatalogSource:
        """The reader of the files and this document."""
        if self._files is None or document != self._read:
            self._read = document
            self._files = FileCatalogSource(
                [*self._own_files, document], has_pepper=self._has_pepper
            )
        return self._files

    async def _wait_for_first(self) -> None:
        has_copy = self._document.exists()
        until_s = time.monotonic() + self._start_s
        while self.last_pull is None:
            if self.failures and has_copy:
                _log.warning(
                    "API Manager %s does not answer (%s): the last good copy of %s is used%s",
                    self._parameters.url,
                    self.last_failure,
                    time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._document.stat().st_mtime)),
                    ""
                    if self._accepts_early
                    else ", and tokens are not decided on until its revocations are known",
                )
                return
            if self._is_refused:
                # It would not be let in later, and an account may be locked by trying.
                raise CatalogError(f"API Manager {self._parameters.url}: {self.last_failure}")
            self._heard.clear()
            try:
                async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
                    await self._heard.wait()
            except TimeoutError:
                raise CatalogError(
                    f"API Manager {self._parameters.url} gave no catalog in {self._start_s:g} s, "
                    f"and there is no last good copy: {self.last_failure or 'it is still read'}"
                ) from None

    def _write_starting(self) -> Path:
        """The last good copy, with its issuers held back."""
        if self._accepts_early:
            return self._document
        tree = json.loads(self._document.read_bytes())
        for issuer in tree["issuers"]:
            issuer["suspended"] = True
        file = self._folder / _STARTING
        write_file(file, json.dumps(tree).encode())
        return file

    async def _follow(self) -> None:
        """Keeps the process running."""
        while True:
            try:
                await self._run()
            except OSError as exc:
                self._fail(f"no process could be started: {exc.strerror}")
            await asyncio.sleep(RESTART_S)

    async def _run(self) -> None:
        environment = dict(os.environ, PYTHONPATH=write_import_path())
        for name in ("PYTHONHOME", "LD_PRELOAD"):
            environment.pop(name, None)
        process = await asyncio.create_subprocess_exec(
            *(find_interpreter(), "-P", "-m", MODULE),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            limit=_MAX_LINE,
            start_new_session=True,
        )
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(self._parameters.write())
            async for line in process.stdout:
                self._hear(read_message(line))
            self._fail("the process that follows it has ended")
        finally:
            self._process = None
            with suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())

    def _hear(self, message: Message) -> None:
        match message:
            case Pulled():
                self._note_pull(message)
            case PullFailed():
                self._is_refused = message.is_refused
                self._fail(message.message)
            case Told():
                _log.log(message.level, "API Manager: %s", message.message)
            case Revoked():
                self._on_revoked(message.token_id, message.expires_ms * 1000 or None)
            case Heard():
                self.events[message.kind] = self.events.get(message.kind, 0) + message.count
                self.heard_at_s = time.time()
            case Connected():
                self._note_broker(message)
        self._heard.set()

    def _note_pull(self, pulled: Pulled) -> None:
        before = self.last_pull
        self.last_pull, self.pulled_at_s = pulled, time.time()
        if self.last_failure:
            _log.info("API Manager %s answers again", self._parameters.url)
        self.last_failure = ""
        if before is None or pulled.is_changed:
            self._changed.set()
        if before is None:
            told = ", ".join(f"{count} {name}" for name, count in pulled.rows.items() if count)
            _log.info("API Manager: read in %.1f s: %s", pulled.took_s, told or "nothing")
        if before is None or before.left_out != pulled.left_out:
            for line in pulled.left_out:
                _log.warning("API Manager: %s", line)
            more = pulled.left_out_count - len(pulled.left_out)
            if more > 0:
                _log.warning("API Manager: %d further rows are left out", more)

    def _note_broker(self, connected: Connected) -> None:
        before = self.brokers.get(connected.broker)
        self.brokers[connected.broker] = connected.is_up
        if connected.is_up:
            _log.info("events of API Manager come from the broker %s", connected.broker)
        elif before is not False:
            _log.error("no events come from the broker %s: %s", connected.broker, connected.why)

    def _fail(self, why: str) -> None:
        self.failures += 1
        if why != self.last_failure:
            _log.error("API Manager %s: %s", self._parameters.url, why)
        self.last_failure = why
        self._heard.set()
