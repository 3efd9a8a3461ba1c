"""Writes the folder of results; no file is ever written partly.

A new folder is made next to the wanted one and renamed into place. In a folder with files
(``--force``) each new file replaces its predecessor atomically, and all other files stay.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from extauthz.errors import ExtauthzError


class OutputError(ExtauthzError):
    """The folder cannot be written."""

    code = "output_failed"


def check_output(folder: Path, *, force: bool) -> str | None:
    """Checks a folder for results.

    Args:
        force: whether a folder that is not empty is accepted.

    Returns:
        The problem as a sentence; None when the folder may be written.
    """
    if not os.path.lexists(folder):
        return None
    if folder.is_symlink() or not folder.is_dir():
        return "exists and is not a folder; name another"
    try:
        is_empty = not any(folder.iterdir())
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    if is_empty or force:
        return None
    return "is not empty; name another folder, or overwrite it with --force"


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Writes files.

    Args:
        folder: the folder; it need not exist.
        files: the text of each file by its name, relative to the folder.

    Raises:
        OutputError: the folder cannot be written; no file is incomplete.
    """
    folder = folder.absolute()
    made: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for name, text in files.items():
            path = made / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if not folder.exists() or not any(folder.iterdir()):
            (made / "new").replace(folder)
            return
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (made / "new" / name).replace(folder / name)
    except OSError as exc:
        raise OutputError(f"{folder}: cannot be written: {exc.strerror}") from exc
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
