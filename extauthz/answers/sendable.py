"""Checks header fields before a door sends them.

Names are tokens (RFC 9110 5.6.2), values have no control characters, and all sizes are bounded.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from extauthz.errors import ExtauthzError
from extauthz.model.decision import Denial, Reason
from extauthz.model.field_names import FIELD_NAME

UNSENDABLE: Final = Denial(
    reason=Reason.UNAVAILABLE, detail="The caller's identity cannot be sent on."
)
"""The denial when a header of an allow cannot be written."""
MAX_VALUE_BYTES: Final = 8192
MAX_CLIENT_VALUE_BYTES: Final = 65_536
"""Characters of the client's path or cookies, when a part of them is removed."""
_OF_THE_CLIENT: Final = frozenset({":path", "cookie"})
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FRAMING: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
"""Headers about a message's end or destination, which only the proxy may set."""


class AnswerError(ExtauthzError):
    """An allow that cannot be written, as with an identity that has a line break."""

    code: ClassVar[str] = "answer_invalid"


def check_name(name: str) -> str:
    """The name of a field in lower case.

    Raises:
        AnswerError: it is no name that can be set.
    """
    if not FIELD_NAME.fullmatch(name):
        raise AnswerError(f"{name[:64]!r} is no header name that can be set")
    name = name.lower()
    if name in _FRAMING:
        raise AnswerError(f"{name!r} is the proxy's to set; leave it out")
    return name


def check_removed_name(name: str) -> str:
    """The name of a field that is taken out, in lower case.

    Raises:
        AnswerError: it is no name.
    """
    if not FIELD_NAME.fullmatch(name):
        raise AnswerError(f"{name[:64]!r} is no header name that can be removed")
    return name.lower()


def check_value(name: str, value: str) -> bytes:
    """The value of a field, as it is sent. Errors name the header, never its value.

    Raises:
        AnswerError: it is no value that can be sent.
    """
    # Upstreams strip white space at the ends, so that two values would read the same there.
    if not (value.isascii() and value.isprintable()) and _CONTROL.search(value):
        raise AnswerError(f"the value for header {name!r} has a control character")
    if value != value.strip():
        raise AnswerError(f"the value for header {name!r} begins or ends with white space")
    written = value.encode()
    if len(written) > MAX_VALUE_BYTES:
        most = MAX_CLIENT_VALUE_BYTES if name.lower() in _OF_THE_CLIENT else MAX_VALUE_BYTES
        if len(written) > most:
            raise AnswerError(f"the value for header {name!r} is over {most} bytes long")
    return written
