"""The protocol between a process that opens doors and the process that started it.

The two processes hold the ends of a socket pair and exchange lines of JSON. The descriptor of the
started process's end is in its environment (`CONTROL_FD`).

- The first line has the parameters for opening the doors. The answer is ``{"open": true}``, or
  ``{"failed": ...}`` with the reasons.
- A word, like ``"reload"``, is a command without an answer.
- A question is ``{"ask": name, "of": argument, "id": number}``. Questions are answered at the same time:
  one that takes long delays none of the others. The answer is
  ``{"id": number, "answer": ...}``, or ``"failed"`` in the place of the answer. An answer that
  is bytes follows its line, ``{"id": number, "bytes": length}``: writing megabytes as JSON would
    delay decisions.

  When the pair is closed, the process at the other end has died.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, TypeAlias

from extauthz.errors import ConfigError, ExtauthzError, Problem

CONTROL_FD: Final = "EXTAUTHZ_CONTROL_FD"
MAX_LINE_BYTES: Final = 16 * 1024 * 1024
_LOOK_S: Final = 0.01

Words: TypeAlias = Mapping[str, Callable[[], None]]
Questions: TypeAlias = Mapping[str, Callable[[Any], Awaitable[Any]]]

_log = logging.getLogger(__name__)


class HostFailed(ExtauthzError):
    """A process that serves did not start, does not answer, or ended without being told to."""

    code = "host_failed"


class ControlEnded(HostFailed):
    """The other end of the pair is closed: its process has ended."""


class Control:
    """The starting process's end of the pair; made when the event loop runs."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        """For the answer to each question, by its number."""
        self._listening: asyncio.Task[None] | None = None
        self._ended: ControlEnded | None = None

    @property
    def descriptor(self) -> int:
        """The descriptor for the process that will be started."""
        return self._theirs.fileno()

    async def start(self) -> None:
        """Opens this process's end as a stream."""
        self._reader, self._writer = await asyncio.open_connection(
            sock=self._ours, limit=MAX_LINE_BYTES
        )

    def leave_to_started(self) -> None:
        """Closes the other end in this process. Called once the process runs, or has failed to."""
        self._theirs.close()

    async def open(self, first: object) -> None:
        """Tells the process to open the doors, and waits for that.

        Raises:
            ConfigError: the settings or files cannot be used; every problem is named.
            HostFailed: the start failed; the text says why.
            ControlEnded: the process has ended.
        """
        self._write(first)
        _check(await self._read())

    def tell(self, word: str) -> None:
        """Sends a word. Does nothing when the other end is closed."""
        self._write(word)

    async def ask(self, question: str, of: object = None, *, within_s: float) -> Any:
        """The answer to a question.

        Raises:
            HostFailed: there was none within the time, or it says that it failed.
            ControlEnded: the process has ended.
        """
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        if self._ended is not None:
            raise ControlEnded(str(self._ended))
        self._asked = number = self._asked + 1
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._write({"ask": question, "of": of, "id": number})
        try:
            async with asyncio.timeout(within_s):
                answer = await self._waiting[number]
        except TimeoutError as exc:
            raise HostFailed(f"no answer to {question!r} within {within_s:g} s") from exc
        finally:
            del self._waiting[number]
        _check(answer)
        return answer["answer"]

    def close(self) -> None:
        """Closes the pair, which the started process notices."""
        if self._listening is not None:
            self._listening.cancel()
        self._theirs.close()
        if self._writer is not None:
            self._writer.close()
        else:
            self._ours.close()

    def _write(self, message: object) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _listen(self) -> None:
        """Gives each answer to whoever waits for it, until the other end is closed."""
        try:
            while True:
                answer = await self._read()
                waiting = self._waiting.get(answer["id"])
                # Nobody may wait any more.
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except ControlEnded as exc:
            self._ended = exc
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ControlEnded(str(exc)))

    async def _read(self) -> dict[str, Any]:
        assert self._reader is not None
        line = b""
        with suppress(ConnectionError):  # as much an end as any
            line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ControlEnded("the process ended")
        read: dict[str, Any] = json.loads(line)
        if "bytes" in read:
            try:
                read["answer"] = await self._reader.readexactly(read["bytes"])
            except (asyncio.IncompleteReadError, ConnectionError) as exc:
                raise ControlEnded("the process ended") from exc
        return read


def _check(answer: Mapping[str, Any]) -> None:
    failed = answer.get("failed")
    if failed is None:
        return
    if "problems" in failed:
        raise ConfigError(Problem(**problem) for problem in failed["problems"])
    raise HostFailed(failed["message"])


class Steered:
    """The started process's end of the pair."""

    def __init__(
        self, control: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._control = control
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls) -> Steered:
        """Opens the end that the environment names."""
        control = socket.socket(fileno=int(os.environ[CONTROL_FD]))
        return cls(control, *await asyncio.open_connection(sock=control, limit=MAX_LINE_BYTES))

    async def is_alone(self, at_most_s: float) -> bool:
        """Whether the process that started this one has ended; called after `obey` has returned.

        A killed process closes its end a moment after its children may have noticed its death, so
        this waits for that, unless there is a line that was not read yet.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + at_most_s
        while loop.time() < until_s:
            try:
                return self._control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                await asyncio.sleep(_LOOK_S)
            except OSError:
                return True
        return False

    async def read_first(self) -> Any:
        """Reads the parameters for opening the doors.

        Raises:
            ControlEnded: the process that started this one has ended.
        """
        line = await self._reader.readline()
        if not line:
            raise ControlEnded("whoever started this process is gone")
        return json.loads(line)

    def say_open(self) -> None:
        """Reports that the doors are open."""
        self._say({"open": True})

    def say_failed(self, exc: Exception) -> None:
        """Reports why the doors could not be opened."""
        self._say({"failed": _write_failure(exc, "the start failed")})

    async def obey(self, words: Words, questions: Questions) -> None:
        """Executes words and answers questions until the other end is closed."""
        answering = set[asyncio.Task[None]]()
        try:
            with suppress(ConnectionError):
                while line := await self._reader.readline():
                    message = json.loads(line)
                    if isinstance(message, str):
                        _do(message, words)
                    else:
                        task = asyncio.create_task(self._answer(message, questions))
                        answering.add(task)
                        task.add_done_callback(answering.discard)
        finally:
            for task in answering:
                task.cancel()

    async def _answer(self, message: Mapping[str, Any], questions: Questions) -> None:
        answer = await _find_answer(message, questions)
        body = answer.get("answer")
        if isinstance(body, bytes):
            self._say({"id": answer["id"], "bytes": len(body)})
            self._writer.write(body)
        else:
            self._say(answer)

    def close(self) -> None:
        """Closes this end."""
        self._writer.close()

    def _say(self, message: object) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


def _do(word: str, words: Words) -> None:
    try:
        words[word]()
    except Exception:  # noqa: BLE001 - the next word must still be heard
        _log.exception("the order %r could not be carried out", word)


async def _find_answer(message: Mapping[str, Any], questions: Questions) -> dict[str, Any]:
    question, number = message["ask"], message["id"]
    try:
        return {"id": number, "answer": await questions[question](message["of"])}
    except Exception as exc:  # noqa: BLE001 - whatever it was, the other end must be told
        return {"id": number, "failed": _write_failure(exc, f"{question!r} could not be answered")}


def _write_failure(exc: Exception, what: str) -> dict[str, Any]:
    if isinstance(exc, ConfigError):
        return {"problems": [asdict(problem) for problem in exc.problems]}
    if isinstance(exc, ExtauthzError):
        return {"message": str(exc)}
    _log.error("%s", what, exc_info=exc)
    return {"message": f"{what}; the log says more"}
