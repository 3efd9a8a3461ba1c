"""What a process that is started needs, to import what this one can."""

from __future__ import annotations

import os
import sys


def write_import_path() -> str:
    """A ``PYTHONPATH`` for it.

    An empty entry is left out: it would mean whatever folder that process happens to be in.
    """
    return os.pathsep.join(path for path in sys.path if path)
