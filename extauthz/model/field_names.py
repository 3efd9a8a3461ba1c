"""Defines the valid names of header fields, cookies and methods."""

from __future__ import annotations

import re
from typing import Final

MAX_NAME: Final = 256
"""Characters of a header's or parameter's name; longer ones cannot be removed at the proxy."""
FIELD_NAME: Final = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{MAX_NAME}}}")
"""A token of RFC 9110 5.6.2, of a bounded length."""
