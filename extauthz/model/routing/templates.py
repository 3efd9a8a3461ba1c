"""Checks path templates and writes them in one spelling.

A segment is text (``pets``), a pattern of names and text (``report.{format}``,
``{base}...{head}``), a name (``{id}``, or ``*``), or, as the last one, the rest (``*``, ``**``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from extauthz.model.routing.segments import decode, find_structure

MAX_SEGMENTS: Final = 128

_PCHAR_AND_TEMPLATE: Final = "-._~!$&'()*+,=:@{}%"
"""RFC 3986 pchar without ";", and what a template is made of."""
_SENT_AS_IT_IS: Final = re.compile(r"[A-Za-z0-9\-._~{}]*")
_ESCAPE: Final = re.compile("%(..?)?")
_NEVER_ESCAPED: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()+,=:@]")
"""Without ``*``, which has a meaning of its own in templates."""
NAME: Final = re.compile(r"\{([^{}]*)\}")


class TemplateError(ValueError):
    """A path template that cannot be matched. The text says what to write instead."""


class NeverMatchedError(TemplateError):
    """A path template that matches only requests that are always refused."""


def split_template(template: str) -> list[str]:
    """Splits a template into segments with as few escapes as possible; ``/`` has no segments.

    What a client has to percent-encode is encoded here: ``/straße`` has the segment
    ``stra%C3%9Fe``, and ``/%40me`` the segment ``@me``.

    Raises:
        TemplateError: the template cannot be matched.
    """
    if not template.startswith("/"):
        raise TemplateError(f"a path template starts with a slash: write /{template}")
    if template == "/":
        return []
    segments = template[1:].split("/")
    if len(segments) > MAX_SEGMENTS:
        raise TemplateError(
            f"a template of {len(segments)} segments never matches: "
            f"requests with more than {MAX_SEGMENTS} are refused"
        )
    names: set[str] = set()
    sent: list[str] = []
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "" and not last:
            raise TemplateError(f"{template} has an empty segment; requests never match it")
        if any(mark in segment for mark in "?#"):
            raise TemplateError(
                f"segment {segment!r} of {template} can never match: "
                "a query or fragment is no part of the path"
            )
        escaped = segment
        if not _SENT_AS_IT_IS.fullmatch(
            segment
        ):  # quoting every segment would take ten times as long
            escaped = _ESCAPE.sub(_read_escape, quote(segment, safe=_PCHAR_AND_TEMPLATE))
            text = decode(escaped)
            if (found := "%2F" if "/" in text else find_structure(text)) is not None:
                raise _never_match(found, segment)
        if escaped in (".", ".."):
            raise TemplateError(
                f"segment {segment!r} of {template} can never match: "
                "requests with dot segments are refused"
            )
        sent.append(escaped)
        if segment == "**" and not last:
            raise TemplateError(f"** must be the last segment of {template}")
        if "*" in segment and segment not in ("*", "**"):
            raise TemplateError(f"* must be a whole segment, not part of {segment!r}")
        _check_braces(template, segment, names)
    return sent


def write_shape(segments: Sequence[str]) -> tuple[str, ...]:
    """A template without its names; equal for templates that match the same paths.

    Args:
        segments: as `split_template` gives them.
    """
    shape = ["{}" if segment == "*" else NAME.sub("{}", segment) for segment in segments or ("",)]
    if segments and segments[-1] in ("*", "**"):
        shape[-1] = "**"
    return tuple(shape)


def _read_escape(escape: re.Match[str]) -> str:
    """An escape that is needed stays; any other becomes the character that it stands for."""
    try:
        octet = int(escape[1] or "", 16) if len(escape[0]) == 3 else -1
    except ValueError:
        octet = -1
    if octet < 0:
        raise _never_match(escape[0], escape.string)
    return chr(octet) if _NEVER_ESCAPED.match(chr(octet)) else escape[0].upper()


def _never_match(escape: str, segment: str) -> NeverMatchedError:
    return NeverMatchedError(
        f"{escape} in {segment} can never match: requests with backslashes, semicolons, control "
        "characters, encoded slashes, question marks or hashes, or broken escapes are refused "
        "(a percent sign itself is written %25)"
    )


def _check_braces(template: str, segment: str, names: set[str]) -> None:
    if "{" not in segment and "}" not in segment:
        return
    if any(brace in NAME.sub("", segment) for brace in "{}"):
        raise TemplateError(
            f"segment {segment!r} of {template} has a brace without its other half; a name is "
            "written {id}, and a brace itself %7B or %7D"
        )
    for name in NAME.findall(segment):
        if not name:
            raise TemplateError(f"{{}} in {template} needs a name, like {{id}}")
        if name in names:
            raise TemplateError(f"{template} names {{{name}}} twice")
        names.add(name)
