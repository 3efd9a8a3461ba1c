"""Lets a started process import what this process can import."""

from __future__ import annotations

import os
import sys


def write_import_path() -> str:
    """A ``PYTHONPATH`` for it.

    An empty entry is left out: it would mean the current folder of that process.
    """
    return os.pathsep.join(path for path in sys.path if path)
