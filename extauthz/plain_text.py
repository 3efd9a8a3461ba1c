r"""Makes text from outside safe for a terminal or a log: it cannot move a cursor or end a line.

Text of others (an error of Redis or of an identity provider, a file's name, a migrated object,
Envoy's own output) is shown as it is, except for characters that are not printable: an escape is
written ``\x1b``, a line break ``\n``, and marks of writing direction in the same way.
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
    """The text with its line breaks; further lines are indented, to show that they belong to it."""
    return "\n    ".join(write_plain(line) for line in text.split("\n"))
