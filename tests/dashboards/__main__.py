"""``python -m tests.dashboards`` writes the files of ``istio/dashboards`` anew.

With ``--check`` it only compares, and names those that are not what the code gives.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from tests.dashboards.grafana import write_dashboard
from tests.dashboards.pages import DASHBOARDS
from tests.dashboards.reading import FOLDER

REWRITE: Final = "not what the code gives; run python -m tests.dashboards"


def write_files() -> dict[Path, str]:
    """The text of each file."""
    return {
        FOLDER / f"extauthz-{dashboard.name}.json": json.dumps(
            write_dashboard(dashboard), indent=2, ensure_ascii=False
        )
        + "\n"
        for dashboard in DASHBOARDS
    }


def find_stale() -> list[Path]:
    """The files that are not what the code gives, those included that it does not give."""
    files = write_files()
    strays = set(FOLDER.glob("*.json")) - set(files)
    changed = [
        file for file, text in files.items() if not file.exists() or file.read_text() != text
    ]
    return sorted([*changed, *strays])


def main(arguments: list[str]) -> int:
    """Runs the command; gives its exit code."""
    if "--check" in arguments:
        for file in (stale := find_stale()):
            sys.stderr.write(f"{file}: {REWRITE}\n")
        return int(bool(stale))
    for file, text in write_files().items():
        file.write_text(text)
        sys.stdout.write(f"written: {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
