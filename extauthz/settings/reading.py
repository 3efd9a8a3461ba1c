"""Reads settings: one file, with single values overridden by the environment.

``EXTAUTHZ_LISTEN__GRPC`` overrides ``listen.grpc``: the keys on the way are joined by two
underscores. A value is read like a plain scalar in the file; lists and mappings are written in
YAML's flow style: ``[a, b]``. An empty variable counts as not set. Variables without two
underscores are ignored, because Kubernetes sets some for a service of that name. Everything is
checked at once, and every problem is reported; nothing else in this package reads the environment.
File names are relative to the settings file, also those from the environment.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from extauthz.documents.document import (
    Fault,
    check_model,
    decode_source,
    locate,
    read_file,
    read_mapping,
)
from extauthz.documents.lines import write_path
from extauthz.documents.values import SourceText, read_plain, read_values
from extauthz.errors import ConfigError, Problem
from extauthz.model.identity import Secret
from extauthz.settings.conflicts import find_conflicts
from extauthz.settings.files import list_files, with_files
from extauthz.settings.tree import Settings, UnnormalisedPath

_log = logging.getLogger(__name__)

DEFAULT_FILE: Final = "extauthz.yaml"
_PREFIX: Final = "EXTAUTHZ_"
_MAX_SECRET_BYTES: Final = 4096
_MAX_TOKENS_BYTES: Final = 65_536
MAX_TOKENS: Final = 16

_NOT_IN_THIS_RELEASE: Final[tuple[tuple[str, ...], ...]] = (("analytics",),)


@dataclass(frozen=True, slots=True)
class _Override:
    """A value from the environment. `made` is the first node that it added to the file's tree."""

    variable: str
    path: tuple[str, ...]
    value: Any
    made: tuple[str, ...] = ()


def read_settings(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a file, with the environment's overrides; file names made absolute.

    Raises:
        ConfigError: with every problem that was found.
    """
    source = decode_source(str(path), read_file(path))
    tree = read_mapping(source)
    variables = os.environ if environment is None else environment
    overrides = [_put(tree, override) for override in _read_overrides(variables)]
    settings = _check(tree, source, overrides)
    if settings.paths.unnormalised is UnnormalisedPath.REWRITE:
        _log.warning(
            "%s: paths.unnormalised: rewrite is no longer supported, and such paths are "
            "refused; let Envoy bring them into normal form before it routes "
            "(normalize_path and merge_slashes)",
            path,
        )
    folder = path.absolute().parent
    return with_files(settings, lambda file: folder / file)


@contextmanager
def say_where_files_are_named(
    path: Path, settings: Settings, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Adds to a ConfigError about a file the place where the settings name that file.

    Raises:
        ConfigError: what the block raised, as `name_settings` gives it.
    """
    try:
        yield
    except ConfigError as exc:
        raise ConfigError(name_settings(exc.problems, path, settings, environment)) from exc


def name_settings(
    problems: Iterable[Problem],
    path: Path,
    settings: Settings,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Problem]:
    """Problems in their order; one of a whole file that settings name stands where they name it."""
    named = {str(file): at for at, file in list_files(settings)}
    source: SourceText | None = None
    overrides: list[_Override] = []
    for problem in problems:
        at = named.get(problem.file)
        if at is None or problem.line or problem.path:
            yield problem
            continue
        if source is None:
            source = decode_source(str(path), read_file(path))
            tree = read_mapping(source)
            variables = os.environ if environment is None else environment
            overrides = [_put(tree, override) for override in _read_overrides(variables)]
        fault = Fault(path=at, message=f"{problem.file} {problem.message}")
        for located in locate(source, [fault]):
            yield _name_variables(located, overrides)


def check_conflicts(settings: Settings) -> None:
    """Checks for settings that contradict each other, after values were changed.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems = [
        Problem(path=write_path(fault.path), message=fault.message)
        for fault in find_conflicts(settings)
    ]
    if problems:
        raise ConfigError(problems)


def read_secret_file(path: Path) -> Secret:
    """The secret that a file holds, without white space around it.

    Raises:
        ConfigError: the file cannot be read, is empty, or is no text.
    """
    try:
        text = read_file(path, max_bytes=_MAX_SECRET_BYTES).decode().strip()
    except UnicodeDecodeError:
        message = "is not UTF-8 text; write the secret as text, like that of `openssl rand -hex 32`"
        # From None: the exception holds the file's bytes.
        raise ConfigError([Problem(file=str(path), message=message)]) from None
    if not text:
        raise ConfigError([Problem(file=str(path), message="is empty; write the secret into it")])
    return Secret(text)


def read_token_file(path: Path, *, at_least: int = 1) -> tuple[Secret, ...]:
    """The tokens that a file holds, one a line; several, so that a token can be replaced.

    Args:
        path: the file.
        at_least: the fewest characters of a token.

    Raises:
        ConfigError: the file cannot be read, holds none or too many, or a token is too short.
    """
    text = read_file(path, max_bytes=_MAX_TOKENS_BYTES).decode("utf-8", "replace")
    tokens = tuple(Secret(line.strip()) for line in text.splitlines() if line.strip())
    if not 1 <= len(tokens) <= MAX_TOKENS:
        message = f"holds {len(tokens)} tokens; write 1 to {MAX_TOKENS}, one a line"
        raise ConfigError([Problem(file=str(path), message=message)])
    if any(len(token.reveal()) < at_least for token in tokens):
        message = (
            f"holds a token that can be guessed: write {at_least} characters at least, like those "
            "of `openssl rand -hex 32`"
        )
        raise ConfigError([Problem(file=str(path), message=message)])
    return tokens


def _read_overrides(environment: Mapping[str, str]) -> Iterator[_Override]:
    for variable, text in sorted(environment.items()):
        path = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
        if variable.startswith(_PREFIX) and len(path) > 1 and text:
            yield _Override(variable, path, _read_value(variable, text))


def _read_value(variable: str, text: str) -> Any:
    if text.startswith(("[", "{")):
        try:
            return read_values(SourceText(file=variable, text=text))
        except ConfigError as exc:
            raise ConfigError(replace(problem, line=0) for problem in exc.problems) from exc
    return read_plain(text)


def _put(tree: dict[str, Any], override: _Override) -> _Override:
    """Writes the value into the tree."""
    node, made = tree, override.path
    for depth, key in enumerate(override.path[:-1], 1):
        below = node.get(key)
        if below is None:
            below = node[key] = {}
            made = min(made, override.path[:depth], key=len)
        if not isinstance(below, dict):
            message = f"{write_path(override.path[:depth])} has no keys below it"
            raise ConfigError([Problem(file=override.variable, message=message)])
        node = below
    node[override.path[-1]] = override.value
    return replace(override, made=made)


def _check(tree: dict[str, Any], source: SourceText, overrides: list[_Override]) -> Settings:
    later = list(_take_out_later_keys(tree))
    problems = list(locate(source, later))
    try:
        settings = check_model(Settings, tree, source)
    except ConfigError as exc:
        problems += exc.problems
    else:
        problems += locate(source, find_conflicts(settings))
        if not problems:
            return settings
    raise ConfigError(_name_variables(problem, overrides) for problem in problems)


def _take_out_later_keys(tree: dict[str, Any]) -> Iterator[Fault]:
    """Removes keys of later releases from the tree, so that each is reported once."""
    for path in _NOT_IN_THIS_RELEASE:
        section = _section(tree, path)
        if section is not None and section.pop(path[-1], None) is not None:
            yield Fault(path=path, message="is not part of this release; remove it")


def _section(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    section = tree if len(path) == 1 else tree.get(path[0])
    return section if isinstance(section, dict) else None


def _name_variables(problem: Problem, overrides: list[_Override]) -> Problem:
    """The same problem, with the variable in the place of the file when it came from there."""
    for override in overrides:
        at, made = write_path(override.path), write_path(override.made)
        if problem.path == at or problem.path.startswith((f"{at}.", f"{at}[")):
            break
        # A part of the tree that comes from the environment only.
        if problem.path and at.startswith(f"{problem.path}.") and len(problem.path) >= len(made):
            break
    else:
        return problem
    return replace(problem, file=override.variable, line=0)
