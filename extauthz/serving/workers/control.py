"""How a process that opens doors is steered by the one that started it.

The two hold the ends of a socket pair and speak through it in lines of JSON. The number of the
started process's end stands in its environment (`CONTROL_FD`).

- The first line is what the doors are opened with. The answer is ``{"open": true}``, or
  ``{"failed": ...}`` with the reasons.
- A word, like ``"reload"``, is obeyed and not answered.
- A question is ``{"ask": name, "of": argument, "id": number}``. Its answer is
  ``{"id": number, "answer": ...}``, or ``"failed"`` in the place of the answer. An answer that
  is bytes stands behind its line, ``{"id": number, "bytes": length}``: to write megabytes as JSON
  would hold up decisions.

When the pair ends, whoever held the other end has died.
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
    """The other end of the pair is gone, and with it the process that held it."""


class Control:
    """The end of the process that steers; made when the loop runs."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asking = asyncio.Lock()
        self._half_read: dict[str, Any] | None = None
        self._asked = 0

    @property
    def descriptor(self) -> int:
        """The end for the process that is to be started."""
        return self._theirs.fileno()

    async def start(self) -> None:
        """Takes hold of this process's end."""
        self._reader, self._writer = await asyncio.open_connection(
            sock=self._ours, limit=MAX_LINE_BYTES
        )

    def leave_to_started(self) -> None:
        """Closes the other end here. To be called once the process runs, or will not."""
        self._theirs.close()

    async def open(self, first: object) -> None:
        """Has the doors opened.

        Raises:
            ConfigError: with the problems that were found there.
            HostFailed: the start failed, and why.
            ControlEnded: the process has ended.
        """
        self._write(first)
        _check(await self._read())

    def tell(self, word: str) -> None:
        """Says a word. Nothing happens when the other end is gone."""
        self._write(word)

    async def ask(self, question: str, of: object = None, *, within_s: float) -> Any:
        """The answer to a question.

        Raises:
            HostFailed: there was none within the time, or it says that it failed.
            ControlEnded: the process has ended.
        """
        try:
            async with asyncio.timeout(within_s), self._asking:
                self._asked = number = self._asked + 1
                self._write({"ask": question, "of": of, "id": number})
                # What was asked before, and not waited for, may be answered first.
                while (answer := await self._read()).get("id") != number:
                    pass
        except TimeoutError as exc:
            raise HostFailed(f"no answer to {question!r} within {within_s:g} s") from exc
        _check(answer)
        return answer["answer"]

    def close(self) -> None:
        """Lets go of both ends; the started process notices."""
        self._theirs.close()
        if self._writer is not None:
            self._writer.close()
        else:
            self._ours.close()

    def _write(self, message: object) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> dict[str, Any]:
        assert self._reader is not None
        # Whoever waited for bytes may have given up between the line and them.
        read, self._half_read = self._half_read or await self._read_line(), None
        if "bytes" in read:
            self._half_read = read
            try:
                read["answer"] = await self._reader.readexactly(read["bytes"])
            except (asyncio.IncompleteReadError, ConnectionError) as exc:
                raise ControlEnded("the process ended") from exc
            self._half_read = None
        return read

    async def _read_line(self) -> dict[str, Any]:
        assert self._reader is not None
        line = b""
        with suppress(ConnectionError):  # as much an end as any
            line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ControlEnded("the process ended")
        read: dict[str, Any] = json.loads(line)
        return read


def _check(answer: Mapping[str, Any]) -> None:
    failed = answer.get("failed")
    if failed is None:
        return
    if "problems" in failed:
        raise ConfigError(Problem(**problem) for problem in failed["problems"])
    raise HostFailed(failed["message"])


class Steered:
    """The end of the process that was started."""

    def __init__(
        self, control: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._control = control
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls) -> Steered:
        """Takes hold of the end that the environment names."""
        control = socket.socket(fileno=int(os.environ[CONTROL_FD]))
        return cls(control, *await asyncio.open_connection(sock=control, limit=MAX_LINE_BYTES))

    async def is_alone(self, at_most_s: float) -> bool:
        """Whether whoever started this process is gone; to be asked when nobody obeys any more.

        A killed process lets go of its end a moment after its children may have noticed its
        death, so this waits for that, unless something was said that nobody has read.
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
        """What the doors are to be opened with.

        Raises:
            ControlEnded: whoever started this process is gone.
        """
        line = await self._reader.readline()
        if not line:
            raise ControlEnded("whoever started this process is gone")
        return json.loads(line)

    def say_open(self) -> None:
        """Says that the doors are open."""
        self._say({"open": True})

    def say_failed(self, exc: Exception) -> None:
        """Says why they are not."""
        self._say({"failed": _write_failure(exc, "the start failed")})

    async def obey(self, words: Words, questions: Questions) -> None:
        """Does what is said, until whoever says it is gone."""
        with suppress(ConnectionError):
            while line := await self._reader.readline():
                message = json.loads(line)
                if isinstance(message, str):
                    _do(message, words)
                else:
                    answer = await _answer(message, questions)
                    body = answer.get("answer")
                    if isinstance(body, bytes):
                        self._say({"id": answer["id"], "bytes": len(body)})
                        self._writer.write(body)
                    else:
                        self._say(answer)

    def close(self) -> None:
        """Lets go of the pair."""
        self._writer.close()

    def _say(self, message: object) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


def _do(word: str, words: Words) -> None:
    try:
        words[word]()
    except Exception:  # noqa: BLE001 - the next word must still be heard
        _log.exception("%r could not be done", word)


async def _answer(message: Mapping[str, Any], questions: Questions) -> dict[str, Any]:
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
