r"""Text from outside, made fit for a terminal or a log: nothing in it moves a cursor or ends a line.

What others wrote (an error of Redis or of an identity provider, a file's name, a migrated object,
Envoy's own output) is shown as it is, but for what is not printable: an escape is written ``\x1b``, a
line break ``\n``, and what turns the direction of writing likewise.
"""

from __future__ import annotations


def write_plain(text: str) -> str:
    """The text in one line of printable characters."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape", "backslashreplace").decode()
        for mark in text
    )


def write_plain_lines(text: str) -> str:
    """Likewise, with line breaks; each further line is indented, so that none passes for a new one."""
    return "\n    ".join(write_plain(line) for line in text.split("\n"))
