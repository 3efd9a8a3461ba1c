"""Writes the folder of results: each file whole, or not at all.

A new folder is made beside the wanted one and renamed into place. In a folder that holds things
already (``--force``) each file takes the place of its predecessor at once, and whatever else is
there stays.
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
    """What is wrong with a folder for results; None when it may be written."""
    if not os.path.lexists(folder):
        return None
    if folder.is_symlink() or not folder.is_dir():
        return "is there, and is no folder; name another"
    try:
        is_empty = not any(folder.iterdir())
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    if is_empty or force:
        return None
    return "is not empty; name another folder, or write over it with --force"


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Writes files, by their names below the folder.

    Raises:
        OutputError: it could not; no file is there by half.
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
