"""Path patterns of an HTTPAPISpec as templates of a catalog.

``uriTemplate`` is Google's HTTP template: ``*`` and ``{v}`` are one segment, ``**`` is the rest,
``{v=a/*}`` has segments of its own, and a verb may stand behind a last colon. A slash at the end
of a request's path does not count. ``regex`` must match the whole path. What has no template of
its own gets a wider one, which is told.
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
    """A template of a catalog; `is_exact` is False when it fits more paths than the pattern."""

    text: str
    is_exact: bool = True

    @property
    def segments(self) -> tuple[str, ...]:
        """Without names: two templates that fit the same paths have the same segments."""
        return tuple(re.sub(r"\{[^{}]*\}", "{}", segment) for segment in split_template(self.text))


def read_uri_template(text: str) -> tuple[PathTemplate, ...]:
    """The templates that fit what a ``uriTemplate`` fitted; the first is the template itself."""
    path, verb = _cut_verb(text.partition("?")[0])
    names: set[str] = set()
    segments: list[str] = []
    is_exact = path.startswith("/")
    for segment in _split(path.removeprefix("/").rstrip("/")):
        if segments and segments[-1] == REST:
            is_exact = False  # a ** that is not the last
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
    # The matcher took the verb for a segment: /a:cancel and /a/cancel were the same to it.
    joined = [*segments[:-1], f"{segments[-1]}:{verb}"] if segments else [f":{verb}"]
    return (
        _checked(joined, is_exact=is_exact),
        _checked([*segments, verb], is_exact=is_exact),
    )


def read_regex(text: str) -> PathTemplate:
    """The template that fits at least what a ``regex`` matched."""
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
            # Also without a slash behind what stands before it, which the pattern wanted.
            is_exact = False
            segments.append(REST)
        else:
            return _widen(pattern)
    return _checked(segments, is_exact=is_exact) if segments else _widen(pattern)


def _widen(pattern: str) -> PathTemplate:
    """All that is below the part of a pattern that is plain text."""
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
    """Whether some path could fit both; may say yes when none does."""
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
    """Whether the outer fits all paths of the inner; may say no when it does."""
    first, second = inner.segments, outer.segments
    for position, wider in enumerate(second):
        if wider == REST:
            return True
        narrower = first[position] if position < len(first) else REST
        if narrower == REST or wider not in ("{}", narrower):
            return False
    return len(first) == len(second)


def _checked(segments: list[str], *, is_exact: bool) -> PathTemplate:
    """A template that the catalog takes: cut short where it would not."""
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
    """Segments; a slash within braces does not part them."""
    return [] if not path else re.split(r"/(?![^{}]*\})", path)


def _expand(segment: str) -> list[tuple[str, str]]:
    """The plain segments that a segment stands for, each with a name."""
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
