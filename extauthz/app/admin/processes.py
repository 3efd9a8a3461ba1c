"""The processes that decide, as the API asks them: this one alone, or every worker.

A question is asked by name and answered with a value that JSON can hold, so that it makes no
difference where it is answered. What an endpoint shows is merged from all answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from extauthz.serving.workers.control import HostFailed, Questions
from extauthz.serving.workers.workers import Workers

ANSWER_S: Final = 2.0
"""Seconds that a worker may take to answer; one that takes longer counts as busy, not as dead."""


@dataclass(frozen=True, slots=True)
class ProcessCount:
    """How many processes decide, how many should, and how often one was started again."""

    serving: int
    wanted: int
    restarts: int


class Processes(Protocol):
    """The processes that decide."""

    async def ask(self, question: str, of: object = None) -> Mapping[int, Any]:
        """The answers, by a number of each process that no later one gets.

        Raises:
            HostFailed: there was none.
        """

    async def ask_one(self, question: str, of: object = None) -> Any:
        """One process's answer, where all would give the same.

        Raises:
            HostFailed: there was none.
            ExtauthzError: the question could not be answered; the text says why.
        """

    def count(self) -> ProcessCount:
        """How many there are now."""


class OwnProcess:
    """This process, which answers by itself."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def ask(self, question: str, of: object = None) -> Mapping[int, Any]:
        """See `Processes.ask`."""
        return {0: await self._questions[question](of)}

    async def ask_one(self, question: str, of: object = None) -> Any:
        """See `Processes.ask_one`."""
        return await self._questions[question](of)

    def count(self) -> ProcessCount:
        """See `Processes.count`."""
        return ProcessCount(serving=1, wanted=1, restarts=0)


class AskedWorkers:
    """The workers of a supervisor. The answers of one that has ended are gone with it."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def ask(self, question: str, of: object = None) -> Mapping[int, Any]:
        """See `Processes.ask`."""
        answers = await self._workers.ask(question, of, within_s=ANSWER_S)
        if not answers:
            raise HostFailed("no worker answers; the log says why")
        return answers

    async def ask_one(self, question: str, of: object = None) -> Any:
        """See `Processes.ask_one`."""
        return await self._workers.ask_one(question, of, within_s=ANSWER_S)

    def count(self) -> ProcessCount:
        """See `Processes.count`."""
        workers = self._workers
        return ProcessCount(len(workers.serials), workers.wanted, workers.restarts)
