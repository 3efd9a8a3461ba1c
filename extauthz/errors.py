"""Defines the hierarchy of errors, each with a stable code.

The code is also the metric label, the log field and the anchor in the documentation.
A denial is never an error: it is a value (`extauthz.model.decision.Deny`). An error
means "no decision was possible", "could not start" or "this input is not usable".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from extauthz.plain_text import write_plain


class ExtauthzError(Exception):
    """Base of every error that this package raises on purpose."""

    code: ClassVar[str] = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a document.

    Attributes:
        file: the file's name as the user gave it; empty when there is none.
        line: counted from 1; 0 when the place is not known.
        path: where in the document, like ``apis[2].resources[0].path``.
        message: what is wrong, and what to do.
    """

    message: str
    file: str = ""
    line: int = 0
    path: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return write_plain(": ".join(part for part in (place, self.path, self.message) if part))


class ConfigError(ExtauthzError):
    """Settings or a catalog that cannot be used; carries every problem that was found."""

    code = "config_invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class MalformedRequest(ExtauthzError):
    """A message that came to a door, or a part of its request, cannot be read."""

    code = "malformed_request"


class BackendError(ExtauthzError):
    """An external service could not be asked. `transient` says whether trying again may help."""

    code = "backend_failed"

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class CounterStoreError(BackendError):
    """The counter store did not answer in time, or its answer cannot be used.

    `charged_nothing` is True when this call certainly charged nothing; else it may have.
    """

    code = "counter_store_failed"

    def __init__(
        self, message: str, *, transient: bool = True, charged_nothing: bool = False
    ) -> None:
        super().__init__(message, transient=transient)
        self.charged_nothing = charged_nothing


class KeySourceError(BackendError):
    """An issuer's verification keys could not be fetched, and none are cached."""

    code = "key_source_failed"


class IntrospectionError(BackendError):
    """The introspection endpoint could not be asked, or its answer was not usable."""

    code = "introspection_failed"


class IntrospectionShareError(IntrospectionError):
    """The issuer was not asked: too many tokens of the same client are being introspected."""


class CatalogError(BackendError):
    """A catalog source could not be read."""

    code = "catalog_failed"


class EmergencyError(BackendError):
    """Blocks and revocations could not be read or written."""

    code = "emergency_failed"
