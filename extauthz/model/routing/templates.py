"""Path templates as the catalog has them, checked, and in one spelling.

A segment is text (``pets``), a pattern of names with text round them (``report.{format}``,
``{base}...{head}``), a name (``{id}``, or ``*``), or, in the last place, the rest (``*``, ``**``).
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
"""Not the ``*``: as it is, it is no text."""
NAME: Final = re.compile(r"\{([^{}]*)\}")


class TemplateError(ValueError):
    """A path template that cannot be matched. The text says what to write instead."""


class NeverMatchedError(TemplateError):
    """A path template that stands for requests that are refused, whatever else there is."""


def split_template(template: str) -> list[str]:
    """A template's segments, with as few escapes as there can be; ``/`` has none.

    What a client has to percent-encode is encoded here: ``/straße`` has the segment
    ``stra%C3%9Fe``, and ``/%40me`` the segment ``@me``. Raises TemplateError for what cannot be
    matched.
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
        if not _SENT_AS_IT_IS.fullmatch(segment):  # quoting takes ten times as long to see it
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
    """What a template matches, without the names in it: equal for templates that fit the same.

    Args:
        segments: as `split_template` gives them.
    """
    shape = ["{}" if segment == "*" else NAME.sub("{}", segment) for segment in segments or ("",)]
    if segments and segments[-1] in ("*", "**"):
        shape[-1] = "**"
    return tuple(shape)


def _read_escape(escape: re.Match[str]) -> str:
    """What an escape is where it is needed; else the character that it stands for."""
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
