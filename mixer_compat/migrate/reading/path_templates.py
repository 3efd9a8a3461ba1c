"""Converts path patterns of an HTTPAPISpec to templates of a catalog.

``uriTemplate`` is Google's HTTP template: ``*`` and ``{v}`` are one segment, ``**`` is the rest,
``{v=a/*}`` has segments of its own, and a verb may follow a last colon. A slash at the end of a
request's path is ignored. ``regex`` must match the whole path. A pattern without an equivalent
template gets a wider one, and `is_exact` is then False.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from extauthz.model.routing.templates import TemplateError, split_template

REST: Final = "**"

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ONE_SEGMENT: Final = re.compile(r"\(?(?:\[\^/\]\+)\)?")
_SOME_SEGMENT: Final = re.compile(r"\(?(?:\\d|\\w|\[[A-Za-z0-9_.-]+\]|\[\^/\])[+*]\)?")
_ANY_REST: Final = re.compile(r"\(?\.[*+]\)?")
_LITERAL: Final = re.compile(r"(?:[A-Za-z0-9_~!@&=:,;%-]|\\[./_~-])*")
_SPECIAL: Final = re.compile(r"[\\^$.|?*+()\[\]{}]")


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A template of a catalog; `is_exact` is False when it matches more paths than the pattern."""

    text: str
    is_exact: bool = True

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments without names; templates that match the same paths have the same ones."""
        return tuple(re.sub(r"\{[^{}]*\}", "{}", segment) for segment in split_template(self.text))


def read_uri_template(text: str) -> tuple[PathTemplate, ...]:
    """Reads a ``uriTemplate``.

    Returns:
        Templates that together match at least its paths; the first is the template itself.
    """
    path, verb = _cut_verb(text.partition("?")[0])
    names: set[str] = set()
    segments: list[str] = []
    is_exact = path.startswith("/")
    for segment in _split(path.removeprefix("/").rstrip("/")):
        if segments and segments[-1] == REST:
            is_exact = False  # something follows the **
            break
        for plain, name in _expand(segment):
            segments.append(REST if plain == REST else _write(plain, name, names))
    if REST in segments and segments.index(REST) < len(segments) - 1:
        segments = segments[: segments.index(REST) + 1]
        is_exact = False
    if not verb:
        return (_checked(segments, is_exact=is_exact),)
    if segments and segments[-1] == REST:
        return (_checked(segments, is_exact=False),)
    # Envoy's matcher read the verb as a segment, so /a:cancel and /a/cancel were the same.
    joined = [*segments[:-1], f"{segments[-1]}:{verb}"] if segments else [f":{verb}"]
    return (
        _checked(joined, is_exact=is_exact),
        _checked([*segments, verb], is_exact=is_exact),
    )


def read_regex(text: str) -> PathTemplate:
    """Reads a ``regex``: a template that matches at least the same paths."""
    pattern = text.removeprefix("^").removesuffix("$")
    parts = pattern.replace("[^/]", "[^\0]").split("/")
    segments: list[str] = []
    is_exact = parts[0] == "" and "|" not in pattern
    for position, part in enumerate(parts[1:] if is_exact else ()):
        part = part.replace("\0", "/")
        if _ONE_SEGMENT.fullmatch(part):
            segments.append(f"{{p{position + 1}}}")
        elif part and _LITERAL.fullmatch(part):
            segments.append(re.sub(r"\\(.)", r"\1", part))
        elif _SOME_SEGMENT.fullmatch(part) and not part.rstrip(")").endswith("*"):
            is_exact = False
            segments.append(f"{{p{position + 1}}}")
        elif position == len(parts) - 2 and _ANY_REST.fullmatch(part):
            # The template also matches without the slash that the pattern required here.
            is_exact = False
            segments.append(REST)
        else:
            return _widen(pattern)
    return _checked(segments, is_exact=is_exact) if segments else _widen(pattern)


def _widen(pattern: str) -> PathTemplate:
    """A template for all paths below the plain text that a pattern begins with."""
    depth = 0
    for mark in re.sub(r"\\.", "", pattern):
        depth += {"(": 1, ")": -1}.get(mark, 0)
        if mark == "|" and depth == 0:
            return PathTemplate(f"/{REST}", is_exact=False)
    special = _SPECIAL.search(pattern)
    plain = pattern[: special.start()] if special else pattern
    folder = plain[: plain.rfind("/")] if "/" in plain else ""
    return _checked([*folder.split("/")[1:], REST], is_exact=False)


def overlap(one: PathTemplate, other: PathTemplate) -> bool:
    """Whether some path may match both; True is possible when none does."""
    first, second = one.segments, other.segments
    for position in range(max(len(first), len(second)) + 1):
        a = first[position] if position < len(first) else None
        b = second[position] if position < len(second) else None
        if REST in (a, b) or (a is None and b is None):
            return True
        if a is None or b is None:
            return False
        if a != b and "{" not in a and "{" not in b:
            return False
    return True


def is_within(inner: PathTemplate, outer: PathTemplate) -> bool:
    """Whether the outer matches all paths of the inner; False is possible when it does."""
    first, second = inner.segments, outer.segments
    for position, wider in enumerate(second):
        if wider == REST:
            return True
        narrower = first[position] if position < len(first) else REST
        if narrower == REST or wider not in ("{}", narrower):
            return False
    return len(first) == len(second)


def _checked(segments: list[str], *, is_exact: bool) -> PathTemplate:
    """A template that is valid in a catalog: shortened before the first invalid segment."""
    while True:
        text = "/" + "/".join(segments)
        try:
            split_template(text)
        except TemplateError:
            is_exact = False
            cut = next((at for at in range(len(segments)) if not _is_good(segments[: at + 1])), 0)
            segments = [*segments[:cut], REST]
        else:
            return PathTemplate(text, is_exact=is_exact)


def _is_good(segments: list[str]) -> bool:
    try:
        split_template("/" + "/".join(segments))
    except TemplateError:
        return False
    return True


def _cut_verb(path: str) -> tuple[str, str]:
    before, colon, verb = path.rpartition(":")
    if colon and "/" not in verb and "}" not in verb and before.count("{") == before.count("}"):
        return before, verb
    return path, ""


def _split(path: str) -> list[str]:
    """The segments of a path; slashes within braces do not separate them."""
    return [] if not path else re.split(r"/(?![^{}]*\})", path)


def _expand(segment: str) -> list[tuple[str, str]]:
    """The plain segments that a segment consists of, each with its name."""
    if segment.startswith("{") and segment.endswith("}"):
        name, _, pattern = segment[1:-1].partition("=")
        return [(part, name) for part in (pattern or "*").split("/")]
    return [(segment, "")]


def _write(plain: str, name: str, names: set[str]) -> str:
    if plain != "*":
        return plain
    if not _NAME.fullmatch(name) or name in names:
        name = next(free for number in range(1, 200) if (free := f"p{number}") not in names)
    names.add(name)
    return f"{{{name}}}"
